"""Say what may be done with models, data sets and artefacts for an intended use, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from dermlab.core.config import Config
from dermlab.licensing import Verdict

Use = Literal["research", "internal", "commercial", "commercial-medical"]


class TriageConfig(Config):
    """Options of ``dermlab triage``."""

    positional: ClassVar[tuple[str, ...]] = ("names",)

    names: tuple[str, ...] = Field(
        (), description="licence cards, encoders, or paths of data sets, runs and encoders; default every card"
    )
    use: Use = Field("commercial-medical", description="what they are meant for")
    strict: bool = Field(False, description="count pretraining on ImageNet or the web like any other training data")


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
        """Return what a person reads: a line a card, and all reasons of those asked about."""
        width = max((len(verdict.id) for verdict in self.verdicts), default=0)
        lines = [f"for {self.use} use; engineering triage, no legal advice", ""]
        for verdict in self.verdicts:
            lines.append(f"{verdict.verdict:<22}  {verdict.id:<{width}}  {verdict.kind}, {verdict.licence}")
            reasons = verdict.reasons if self.asked else verdict.reasons[:1]
            for reason in reasons:
                chain = f" ({' ← '.join(reason.chain)})" if len(reason.chain) > 1 else ""
                lines.append(f"    {reason.text}{chain}")
            if len(verdict.reasons) > len(reasons):
                lines.append(f"    … and {len(verdict.reasons) - len(reasons)} more: dermlab triage {verdict.id}")
            lines += [f"    note: {caution}" for caution in verdict.cautions]
        return lines

    def to_json(self) -> list[dict[str, Any]]:
        """Return the same for ``--json``."""
        return [verdict.to_dict() for verdict in self.verdicts]


def run(config: TriageConfig) -> TriageResult:
    """Judge the cards behind every name."""
    from dermlab.core.errors import InputError
    from dermlab.licensing import LicenceCard, cards, find_cards, triage

    ids: list[str] = []
    own: dict[str, LicenceCard] = {}
    for name in config.names:
        if name not in cards() and Path(name).expanduser().exists():
            try:
                found, brought = find_cards(Path(name).expanduser())
            except InputError:  # it says nothing, so nothing is known of it
                found, brought = [name], {}
            ids += found
            own |= brought
        else:
            ids.append(_long_name(name))
    verdicts = triage(dict.fromkeys(ids or cards()), config.use, strict=config.strict, extra=own)
    if not config.names:
        verdicts = sorted(verdicts, key=lambda verdict: (verdict.kind != "model", verdict.id))
    return TriageResult(config.use, bool(config.names), tuple(verdicts))


def _long_name(name: str) -> str:
    """Return the name by which a licence card covers an encoder; a short alias stands for its long name."""
    from dermlab.licensing import card_for
    from dermlab.models.names import ALIASES

    if name not in ALIASES:
        return name.replace("hf-hub:", "hf:", 1)
    card = card_for(ALIASES[name].target)
    return card.id if card is not None else ALIASES[name].target
