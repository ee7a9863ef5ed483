"""Say what may be done with models, data sets and artefacts for an intended use, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dermlab.core.config import Config
from dermlab.licensing import Verdict

if TYPE_CHECKING:
    from dermlab.licensing import LicenceCard

Use = Literal["research", "internal", "commercial", "commercial-medical"]
# What a team weighs first: dermatology's own models, the backbones they compete with, and the data to train on.
CANDIDATES = (
    "medsiglip",
    "derm-foundation",
    "panderm",
    "monet",
    "ham10000-classifier",
    "dermnet-classifier",
    "fitzpatrick17k-classifier",
    "torchvision-imagenet",
    "convnextv2-fcmae",
    "timm-efficientnetv2",
    "swinv2",
    "dinov2",
    "ham10000",
    "dermnet",
    "fitzpatrick17k",
    "isic-cc0-ccby",
)
GATES = {"none": "open", "accept": "accept terms", "request": "ask for it"}


class TriageConfig(Config):
    """Options of ``dermlab triage``."""

    positional: ClassVar[tuple[str, ...]] = ("names",)

    names: tuple[str, ...] = Field(
        (),
        description="licence cards, encoders, or paths of data sets, runs, reports and encoders; default a short list",
    )
    use: Use = Field("commercial-medical", description="what they are meant for")
    strict: bool = Field(False, description="count pretraining on ImageNet or the web like any other training data")
    all: bool = Field(False, description="every card instead of the short list")


@dataclass(frozen=True)
class TriageResult:
    """The verdicts."""

    use: str
    asked: bool
    verdicts: tuple[Verdict, ...]

    @property
    def exit_status(self) -> int:
        """1 where something that was asked about is blocked or unknown."""
        return int(self.asked and any(verdict.verdict in ("blocked", "unknown") for verdict in self.verdicts))

    def lines(self) -> list[str]:
        """Return what a person reads: a table and each gravest reason, or all reasons of what was asked about."""
        lines = [f"for {self.use} use; engineering triage, no legal advice", ""]
        if not self.asked:
            return [*lines, *_table(self.verdicts), "", "why: dermlab triage NAME; every card: dermlab triage --all"]
        width = max((len(verdict.id) for verdict in self.verdicts), default=0)
        for verdict in self.verdicts:
            lines.append(f"{verdict.verdict:<22}  {verdict.id:<{width}}  {verdict.kind}, {verdict.licence}")
            for reason in verdict.reasons:
                chain = f" ({' ← '.join(reason.chain)})" if len(reason.chain) > 1 else ""
                lines.append(f"    {reason.text}{chain}")
            lines += [f"    note: {caution}" for caution in verdict.cautions]
        return lines

    def to_json(self) -> list[dict[str, Any]]:
        """Return the same for ``--json``."""
        return [verdict.to_dict() for verdict in self.verdicts]


def run(config: TriageConfig) -> TriageResult:
    """Judge the cards behind every name."""
    from dermlab.core.errors import InputError
    from dermlab.licensing import cards, contaminated, find_cards, triage

    asked: list[str] = []
    own: dict[str, LicenceCard] = {}
    seen: dict[str, str] = {}
    silent: dict[str, str] = {}
    for name in config.names:
        if not name.strip():
            raise InputError("an empty name is no card and no path: is a variable of your script unset?")
        if name not in cards() and Path(name).expanduser().exists():
            try:
                found, brought = find_cards(Path(name).expanduser())
            except InputError as error:  # it says nothing, so nothing is known of it
                found, brought = [name], {}
                silent[name] = str(error)
            asked += found
            own |= brought
            seen |= contaminated(found, brought)
        elif name.startswith((".", "/", "~")):
            raise InputError(f"{name}: no such file or folder")
        else:
            asked.append(_long_name(name))
    ids = asked or (cards() if config.all else CANDIDATES)
    verdicts = triage(dict.fromkeys(ids), config.use, strict=config.strict, extra=own)
    if config.all and not config.names:
        verdicts = sorted(verdicts, key=lambda verdict: (verdict.kind != "model", verdict.id))
    return TriageResult(config.use, bool(config.names), tuple(_told(verdict, seen, silent) for verdict in verdicts))


def _told(verdict: Verdict, seen: Mapping[str, str], silent: Mapping[str, str]) -> Verdict:
    """Return a verdict with what its artefact adds: that a model knows the data, or that nothing was recorded."""
    if verdict.id in silent:
        return replace(verdict, reasons=(replace(verdict.reasons[0], text=silent[verdict.id]),))
    if verdict.id in seen:
        return replace(verdict, cautions=(*verdict.cautions, seen[verdict.id]))
    return verdict


def _table(verdicts: Iterable[Verdict]) -> list[str]:
    """Return the licence and availability table: verdict, licence, how it is had, what it is, what it was made from."""
    from dermlab.licensing import cards

    rows = [("", "VERDICT", "LICENCE", "TO GET IT", "WHAT IT IS", "MADE FROM")]
    notes = [""]
    for verdict in verdicts:
        card = cards()[verdict.id]
        size = f"{card.size_px} px" if card.size_px is not None else ""
        only = "CPU only" if set(card.devices) == {"cpu"} and card.kind == "model" else ""
        frozen = "frozen" if card.fine_tunable is False else ""
        what = ", ".join(part for part in (card.framework, size, only, frozen, card.modality) if part)
        made = "not published" if card.trained_on is None and card.kind == "model" else ", ".join(card.trained_on or ())
        rows.append((verdict.id, verdict.verdict, verdict.licence, GATES[card.gating], what, made))
        gravest = [reason for reason in verdict.reasons if reason.verdict == verdict.verdict]
        # Of conditions the clinical one is the one that a medical product stands or falls with.
        gravest.sort(key=lambda reason: reason.rule != "clinical_use" or verdict.verdict == "blocked")
        told = [reason.text for reason in gravest[:1]] + [f"note: {caution}" for caution in card.cautions]
        notes.append("; ".join(told))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row, note in zip(rows, notes, strict=True):
        lines.append("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            lines.append(f"    {note}")
    return lines


def _long_name(name: str) -> str:
    """Return the name by which a licence card covers an encoder; a short alias stands for its long name."""
    from dermlab.licensing import card_for
    from dermlab.models.names import ALIASES

    if name not in ALIASES:
        return name.replace("hf-hub:", "hf:", 1)
    card = card_for(ALIASES[name].target)
    return card.id if card is not None else ALIASES[name].target
