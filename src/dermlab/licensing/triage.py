"""From cards to a verdict: rules, each of which can be read, removed and tested by itself.

The rules read all cards alike. A licence that forbids a use blocks it. A model card that calls deployment out of scope
under a licence that allows it is a condition which a person must clear. Weights inherit from what they were made of:
a data set of the domain whose terms forbid commerce or derivatives blocks a commercial use of weights trained on it,
while pretraining on the web at large or on ImageNet is a listed condition (``strict`` treats both alike). What nobody
has verified counts as the cautious answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermlab.core.errors import InputError
from dermlab.licensing.card import QUESTIONS, LicenceCard, card_for, cards

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


def _commercial_use(card: LicenceCard, use: str) -> Finding | None:
    answer = card.commercial_use
    if answer == "no":
        if use in SOLD:
            return BLOCKED, f"no commercial use ({card.licence})"
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


def _hardware(card: LicenceCard, use: str) -> Finding | None:
    if card.kind == "model" and set(card.devices) == {"cpu"}:
        return CONDITIONS, "its published artefact runs on a CPU only"
    return None


def _frozen(card: LicenceCard, use: str) -> Finding | None:
    if card.kind == "model" and card.fine_tunable is False:
        return CONDITIONS, "its published artefact cannot be fine-tuned: frozen features only"
    return None


RULES: dict[str, Rule] = {
    "commercial_use": _commercial_use,
    "clinical_use": _clinical_use,
    "derivatives": _derivatives,
    "redistribution": _redistribution,
    "stated_use": _stated_use,
    "gating": _gating,
    "attribution": _attribution,
    "verification": _verification,
    "hardware": _hardware,
    "frozen": _frozen,
}
# What weights inherit from what they were made of: its terms, not how it was to be had or where it runs.
INHERITED = ("commercial_use", "clinical_use", "derivatives", "attribution", "verification")


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
    known = {**cards(), **(extra or {})}
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
    reasons += _inherited(card, use, strict, known, (card.id,))
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


def _inherited(
    card: LicenceCard, use: str, strict: bool, known: Mapping[str, LicenceCard], chain: tuple[str, ...]
) -> list[Reason]:
    """Return what follows from the data and weights a model was made of, down to the last of them."""
    if card.trained_on is None:
        if card.kind == "model" and use in SOLD:
            return [Reason("trained_on", UNKNOWN, "what it was trained on is not published", chain)]
        return []
    found: list[Reason] = []
    for name in card.trained_on:
        if name in chain:  # a card that leads back to itself says nothing new
            continue
        path = (*chain, name)
        source = known.get(name)
        if source is None:
            if use in SOLD:
                found.append(Reason("trained_on", UNKNOWN, f"there is no licence card for {name}", path))
            continue
        found += _taints(source, use, strict, path)
        found += _inherited(source, use, strict, known, path)
    return found


def _taints(source: LicenceCard, use: str, strict: bool, path: tuple[str, ...]) -> Sequence[Reason]:
    counted = _cautious(source)
    found = []
    for rule in INHERITED:
        # Weights trained on a set that forbids derivatives may themselves be one, whatever the set is.
        asked = counted.model_copy(update={"kind": "dataset"}) if rule == "derivatives" else counted
        if rule not in RULES or (finding := RULES[rule](asked, use)) is None:
            continue
        verdict, text = finding
        if source.generic and not strict:
            if use not in SOLD or rule == "verification":
                continue
            verdict, text = CONDITIONS, f"{text}; a general collection, so have that cleared"
        found.append(Reason(f"trained_on.{rule}", verdict, f"{source.name}: {text}", path))
        if source.generic and not strict:
            break  # one condition is enough to have a general collection looked at
    return found
