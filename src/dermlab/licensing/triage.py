"""From cards to a verdict: rules, each of which can be read, removed and tested by itself.

The rules read all cards alike. A licence that forbids a use blocks it; where none is stated nothing is known; where two
are stated the stricter counts. A card that calls deployment, or clinical use, out of scope under a licence that allows
it is a condition which a person must clear. Weights inherit from what they were made of: a data set of the domain whose
terms forbid commerce or derivatives blocks a commercial use of weights trained on it, while pretraining on the web at
large or on ImageNet is a listed condition (``strict`` treats both alike). What nobody has verified counts as the
cautious answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dermlab.core.errors import InputError
from dermlab.licensing.card import QUESTIONS, LicenceCard, card_for, known_cards
from dermlab.licensing.terms import differ

USES = ("research", "internal", "commercial", "commercial-medical")
VIABLE, CONDITIONS, UNKNOWN, BLOCKED = VERDICTS = ("viable", "viable with conditions", "unknown", "blocked")
SOLD = ("commercial", "commercial-medical")


@dataclass(frozen=True)
class Reason:
    """One finding of one rule.

    Attributes:
        rule: the rule's name.
        verdict: what follows from it alone.
        text: the sentence for a person.
        chain: card ids from the artefact asked about to the card that the sentence is about.
    """

    rule: str
    verdict: str
    text: str
    chain: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What the rules say of one model or data set for one use.

    Attributes:
        id: the card's id, or the name asked for where there is no card.
        kind: ``"model"``, ``"dataset"`` or ``"unknown"``.
        use: the intended use.
        verdict: one of :data:`VERDICTS`.
        licence: the licence's name.
        conditions: what must be done or cleared first.
        reasons: every finding, the gravest first.
        cautions: what to know beside the licence.
    """

    id: str
    kind: str
    use: str
    verdict: str
    licence: str
    conditions: tuple[str, ...]
    reasons: tuple[Reason, ...]
    cautions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a JSON-able dictionary."""
        from dataclasses import asdict

        return asdict(self)


Finding = tuple[str, str]  # verdict, text
Rule = Callable[[LicenceCard, str], Finding | None]


def _no_licence(card: LicenceCard, use: str) -> Finding | None:
    if card.states_a_licence:
        return None
    return UNKNOWN, "no licence is stated, and without one nothing is allowed: ask whoever holds the rights"


def _conflict(card: LicenceCard, use: str) -> Finding | None:
    if not differ(card.licences):
        return None
    return CONDITIONS, f"different licences are stated ({', '.join(card.licences)}): the stricter counts until cleared"


def _commercial_use(card: LicenceCard, use: str) -> Finding | None:
    answer = card.commercial_use
    if answer == "no":
        if use in SOLD:
            return BLOCKED, f"no commercial use ({card.licence})"
        if use == "internal":
            return (
                CONDITIONS,
                f"non-commercial only ({card.licence}): have it cleared that yours, in a company, is that",
            )
        return CONDITIONS, f"non-commercial only ({card.licence}): nothing made with it may be sold"
    if use not in SOLD:
        return None
    if answer == "conditions":
        return CONDITIONS, card.conditions["commercial_use"]
    return (UNKNOWN, f"nothing is known of commercial use ({card.licence})") if answer == "unknown" else None


def _clinical_use(card: LicenceCard, use: str) -> Finding | None:
    if use != "commercial-medical":
        return None
    if card.clinical_use == "no":
        return BLOCKED, f"no use in the care of patients ({card.licence})"
    if card.clinical_use == "conditions":
        return CONDITIONS, card.conditions["clinical_use"]
    if card.clinical_use == "unknown":
        return UNKNOWN, f"nothing is known of clinical use ({card.licence})"
    return None


def _derivatives(card: LicenceCard, use: str) -> Finding | None:
    if card.derivatives == "no":
        if card.kind == "dataset" and use in SOLD:
            return BLOCKED, f"no derivatives ({card.licence}), and weights trained on it may be one"
        return CONDITIONS, f"no derivatives ({card.licence}): use it as it is, share nothing trained from it"
    if use not in SOLD:
        return None
    if card.derivatives == "conditions":
        return CONDITIONS, card.conditions["derivatives"]
    return (UNKNOWN, f"nothing is known of derivatives ({card.licence})") if card.derivatives == "unknown" else None


def _redistribution(card: LicenceCard, use: str) -> Finding | None:
    # A data set stays with its owner; weights go to whoever gets the product.
    if use not in SOLD or card.kind == "dataset":
        return None
    if card.redistribution == "conditions":
        return CONDITIONS, f"when it is passed on: {card.conditions['redistribution']}"
    if card.redistribution == "yes":
        return None
    return CONDITIONS, "may not be passed on as far as is known: run it on your own machines, do not ship its weights"


def _stated_use(card: LicenceCard, use: str) -> Finding | None:
    if card.deployment == "out_of_scope" and use != "research":
        return CONDITIONS, "its own card calls any deployed use out of scope: a person must clear this"
    if card.deployment == "not_clinical" and use == "commercial-medical":
        return CONDITIONS, "its own page says it is not intended for clinical use: a person must clear this"
    return None


def _gating(card: LicenceCard, use: str) -> Finding | None:
    if card.gating == "none":
        return None
    verb = "accept its terms" if card.gating == "accept" else "request access"
    return CONDITIONS, f"{verb} at {card.source}"


def _attribution(card: LicenceCard, use: str) -> Finding | None:
    return (CONDITIONS, f"name {card.attribution}") if card.attribution else None


def _verification(card: LicenceCard, use: str) -> Finding | None:
    if not card.unverified:
        return None
    where = f" at {card.source}" if card.source else ""
    return CONDITIONS, f"nobody has verified its terms: read them{where}"


def _unpublished(card: LicenceCard, use: str) -> Finding | None:
    if card.kind == "model" and card.trained_on is None and use in SOLD:
        return UNKNOWN, "what it was trained on is not published"
    return None


def _hardware(card: LicenceCard, use: str) -> Finding | None:
    if card.kind == "model" and set(card.devices) == {"cpu"}:
        return CONDITIONS, "its published artefact runs on a CPU only"
    return None


def _frozen(card: LicenceCard, use: str) -> Finding | None:
    if card.kind == "model" and card.fine_tunable is False:
        return CONDITIONS, "its published artefact cannot be fine-tuned: frozen features only"
    return None


RULES: dict[str, Rule] = {
    "no_licence": _no_licence,
    "conflict": _conflict,
    "commercial_use": _commercial_use,
    "clinical_use": _clinical_use,
    "derivatives": _derivatives,
    "redistribution": _redistribution,
    "stated_use": _stated_use,
    "gating": _gating,
    "attribution": _attribution,
    "verification": _verification,
    "unpublished": _unpublished,
    "hardware": _hardware,
    "frozen": _frozen,
}
# What weights inherit from what they were made of: its terms, not how it was to be had or where it runs.
INHERITED: tuple[str, ...] = (
    "commercial_use",
    "clinical_use",
    "derivatives",
    "stated_use",
    "attribution",
    "verification",
    "unpublished",
)


def triage(
    ids: Iterable[str],
    use: str,
    *,
    strict: bool = False,
    extra: Mapping[str, LicenceCard] | None = None,
) -> list[Verdict]:
    """Judge models and data sets for an intended use.

    Args:
        ids: card ids, encoder names (aliases excepted: give their long names) or keys of ``extra``.
        use: ``"research"`` (published, nothing sold), ``"internal"`` (inside the organisation, nothing leaves it),
            ``"commercial"`` or ``"commercial-medical"`` (a product, or one used in the care of patients).
        strict: treat pretraining on ImageNet or the web at large like any other data.
        extra: further cards by the name they are asked for.

    Returns:
        One verdict a name, in the order of the names. A name without a card is ``"unknown"``.

    Raises:
        InputError: ``use`` is not one of :data:`USES`.
    """
    if use not in USES:
        raise InputError(f"use: {use!r} is not one of {', '.join(USES)}")
    known = known_cards(extra)
    return [_judge(name, use, strict, known) for name in ids]


def worst(verdicts: Iterable[str]) -> str:
    """Return the gravest of some verdicts; nothing said is ``"viable"``."""
    return max(verdicts, key=VERDICTS.index, default=VIABLE)


def _judge(name: str, use: str, strict: bool, known: Mapping[str, LicenceCard]) -> Verdict:
    card = known.get(name) or card_for(name)
    if card is None:
        reason = Reason("card", UNKNOWN, "there is no licence card for it: what it allows is not known", (name,))
        return Verdict(name, "unknown", use, UNKNOWN, "unknown", (), (reason,))
    reasons = [
        Reason(rule, *finding, (card.id,))
        for rule, decide in RULES.items()
        if (finding := decide(_cautious(card), use)) is not None
    ]
    reasons += _inherited(card, use, strict, known)
    reasons.sort(key=lambda reason: -VERDICTS.index(reason.verdict))
    conditions = tuple(dict.fromkeys(_told(reason) for reason in reasons if reason.verdict == CONDITIONS))
    verdict = worst(reason.verdict for reason in reasons)
    return Verdict(card.id, card.kind, use, verdict, card.licence, conditions, tuple(reasons), card.cautions)


def _told(reason: Reason) -> str:
    return reason.text if len(reason.chain) == 1 else f"{reason.text} (made from {' ← '.join(reason.chain[1:])})"


def _cautious(card: LicenceCard) -> LicenceCard:
    """Return the card as it counts: where nobody verified it, permissions are unknown and prohibitions stand."""
    if not card.unverified:
        return card
    doubtful = {q: "unknown" for q in QUESTIONS if getattr(card, q) in ("yes", "conditions")}
    return card.model_copy(update=doubtful)


def _inherited(card: LicenceCard, use: str, strict: bool, known: Mapping[str, LicenceCard]) -> list[Reason]:
    """Return what follows from the data and weights something was made of, down to the last of them.

    Nearest first, and each source once: where two ways lead to it the shorter is told, and a circle ends.
    """
    found: list[Reason] = []
    seen = {card.id}
    queue: deque[tuple[str, tuple[str, ...]]] = deque((name, (card.id,)) for name in card.trained_on or ())
    while queue:
        name, chain = queue.popleft()
        if name in seen:
            continue
        seen.add(name)
        path = (*chain, name)
        source = known.get(name)
        if source is None:
            if use in SOLD:
                found.append(Reason("trained_on", UNKNOWN, f"there is no licence card for {name}", path))
            continue
        found += _taints(source, use, strict, path)
        queue.extend((further, path) for further in source.trained_on or ())
    return found


def _taints(source: LicenceCard, use: str, strict: bool, path: tuple[str, ...]) -> list[Reason]:
    counted = _cautious(source)
    found = []
    for rule in INHERITED:
        # Weights trained on what forbids derivatives may themselves be one, whether it was a data set or other weights.
        asked = counted.model_copy(update={"kind": "dataset"}) if rule == "derivatives" else counted
        if rule not in RULES or (finding := RULES[rule](asked, use)) is None:
            continue
        verdict, text = finding
        if source.generic and not strict:
            if use not in SOLD:
                continue
            verdict, text = CONDITIONS, f"{text}; a general collection, so have that cleared"
        found.append(Reason(f"trained_on.{rule}", verdict, f"{source.name}: {text}", path))
        if source.generic and not strict:
            break  # one condition is enough to have a general collection looked at
    return found
