"""What the standard licences say, so that a card need only name one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, TypedDict

Answer = Literal["yes", "no", "conditions", "unknown"]
# From what leaves a person free to what stops them: of two answers to one question the later counts.
STRICTNESS: tuple[Answer, ...] = ("yes", "conditions", "unknown", "no")


class Terms(TypedDict):
    """The answers that a standard licence gives; a card's own fields win over them."""

    commercial_use: Answer
    clinical_use: Answer
    derivatives: Answer
    redistribution: Answer
    conditions: dict[str, str]


SHARE_ALIKE = "what is built on it may only be passed on under the same licence"


def _terms(commercial: Answer, derivatives: Answer, redistribution: Answer, **conditions: str) -> Terms:
    return Terms(
        commercial_use=commercial,
        # None of these licences speaks of patients; where commerce is forbidden, a product for patients is too.
        clinical_use=commercial,
        derivatives=derivatives,
        redistribution=redistribution,
        conditions={question.removeprefix("if_"): text for question, text in conditions.items()},
    )


STANDARD_TERMS: dict[str, Terms] = {
    "CC0-1.0": _terms("yes", "yes", "yes"),
    "MIT": _terms("yes", "yes", "yes"),
    "BSD-2-Clause": _terms("yes", "yes", "yes"),
    "BSD-3-Clause": _terms("yes", "yes", "yes"),
    "Apache-2.0": _terms("yes", "yes", "yes"),
    "CC-BY-3.0": _terms("yes", "yes", "yes"),
    "CC-BY-4.0": _terms("yes", "yes", "yes"),
    "CC-BY-SA-4.0": _terms(
        "yes", "conditions", "conditions", if_derivatives=SHARE_ALIKE, if_redistribution=SHARE_ALIKE
    ),
    "CC-BY-ND-4.0": _terms("yes", "no", "conditions", if_redistribution="unchanged only"),
    "CC-BY-NC-3.0": _terms("no", "yes", "conditions", if_redistribution="not for money"),
    "CC-BY-NC-4.0": _terms("no", "yes", "conditions", if_redistribution="not for money"),
    "CC-BY-NC-SA-3.0": _terms(
        "no", "conditions", "conditions", if_derivatives=SHARE_ALIKE, if_redistribution=SHARE_ALIKE
    ),
    "CC-BY-NC-SA-4.0": _terms(
        "no", "conditions", "conditions", if_derivatives=SHARE_ALIKE, if_redistribution=SHARE_ALIKE
    ),
    "CC-BY-NC-ND-4.0": _terms("no", "no", "conditions", if_redistribution="unchanged, and not for money"),
    "CC-BY-SA-3.0": _terms(
        "yes", "conditions", "conditions", if_derivatives=SHARE_ALIKE, if_redistribution=SHARE_ALIKE
    ),
    "CC-BY-NC-ND-3.0": _terms("no", "no", "conditions", if_redistribution="unchanged, and not for money"),
    "GPL-3.0-only": _terms(
        "yes", "conditions", "conditions", if_derivatives=SHARE_ALIKE, if_redistribution=SHARE_ALIKE
    ),
    "AGPL-3.0-only": _terms(
        "conditions",
        "conditions",
        "conditions",
        if_commercial_use="whoever uses it over a network must be offered the source of everything built on it",
        if_clinical_use="whoever uses it over a network must be offered the source of everything built on it",
        if_derivatives=SHARE_ALIKE,
        if_redistribution=SHARE_ALIKE,
    ),
}


def standard_terms(licence: str) -> Terms | None:
    """Return the terms of an SPDX id, however it is written (``CC BY 4.0`` is ``CC-BY-4.0``); None if not standard.

    A Creative Commons licence without a version is read as its version 4.0: the versions answer our questions alike.
    """
    wanted = re.sub(r"[\s_-]+", "-", licence.strip().lower())
    wanted = re.sub(r"-(international|unported|license|licence)$", "", wanted)
    if re.fullmatch(r"cc-by(-nc)?(-sa|-nd)?", wanted):
        wanted += "-4.0"
    wanted = {"cc0": "cc0-1.0", "apache-2": "apache-2.0"}.get(wanted, wanted)
    return next((terms for spdx, terms in STANDARD_TERMS.items() if spdx.lower() == wanted), None)


def named_licences(licence: str) -> tuple[str, ...]:
    """Return the licences that a text names: its parts where two of them are standard ones, else the whole text.

    ``MIT and CC BY-NC 4.0`` names two. What else the text says (``, by image``) is no licence and is left out.
    """
    parts = [part.strip() for part in re.split(r"\s+(?:and|or|with)\s+|[,;/+&]", licence, flags=re.IGNORECASE)]
    standard = tuple(dict.fromkeys(part for part in parts if standard_terms(part) is not None))
    return standard if len(standard) > 1 else (licence.strip(),)


def strictest(licences: Iterable[str]) -> Terms | None:
    """Return the strictest answer to each question over several licences; None where none of them is standard.

    A licence that is not a standard one answers ``unknown``.
    """
    named = [standard_terms(licence) for licence in licences]
    if not any(terms is not None for terms in named):
        return None
    known = [terms if terms is not None else _terms("unknown", "unknown", "unknown") for terms in named]
    conditions: dict[str, str] = {}
    for terms in known:
        for question, text in terms["conditions"].items():
            conditions[question] = text if question not in conditions else f"{conditions[question]}; {text}"
    return Terms(
        commercial_use=max((terms["commercial_use"] for terms in known), key=STRICTNESS.index),
        clinical_use=max((terms["clinical_use"] for terms in known), key=STRICTNESS.index),
        derivatives=max((terms["derivatives"] for terms in known), key=STRICTNESS.index),
        redistribution=max((terms["redistribution"] for terms in known), key=STRICTNESS.index),
        conditions=conditions,
    )


def differ(licences: Iterable[str]) -> bool:
    """Tell whether some licences answer a question differently."""
    named = [standard_terms(licence) for licence in licences]
    return any(terms != named[0] for terms in named[1:])
