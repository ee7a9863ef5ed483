"""What the standard licences say, so that a card need only name one."""

from __future__ import annotations

from typing import Literal, TypedDict

Answer = Literal["yes", "no", "conditions", "unknown"]


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
    """Return the terms of an SPDX id, however it is written (``CC BY 4.0`` is ``CC-BY-4.0``); None if not standard."""
    wanted = licence.strip().replace(" ", "-").lower()
    return next((terms for spdx, terms in STANDARD_TERMS.items() if spdx.lower() == wanted), None)
