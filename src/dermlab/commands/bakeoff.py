"""Run candidates against each other on one protocol: leaderboard, report, a run folder each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.bench.config import BakeoffConfig as Recipe
from dermlab.core import words


class BakeoffConfig(Recipe):
    """Options of ``dermlab bakeoff``: the recipe, usually from a YAML file, and where to write."""

    positional: ClassVar[tuple[str, ...]] = ("config",)

    out: Path = Field(description="folder to write; a bake-off that is there goes on")
    dry_run: bool = Field(
        False, description="measure a few steps of each fine-tuned candidate, print what all will take, and stop"
    )


@dataclass(frozen=True)
class BakeoffResult:
    """What was found and written."""

    leaderboard: Path
    report: Path
    decision: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    table: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the table, the decision and the report's path."""
        lines = [*self.table, "", f"{self.decision['word']}: {self.decision['sentence']}"]
        if self.decision["fallback"]:
            lines.append(f"fallback: {self.decision['fallback']['sentence']}")
        return [*lines, f"report: {self.report}"]

    def to_json(self) -> dict[str, Any]:
        """Return the decision, the rows of leaderboard.csv and the files written."""
        return {
            "decision": self.decision,
            "leaderboard": list(self.rows),
            "files": {"leaderboard": self.leaderboard, "report": self.report},
        }


@dataclass(frozen=True)
class CostPlan:
    """What the fine-tuned candidates will take."""

    plans: tuple[dict[str, Any], ...]
    table: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the table."""
        return list(self.table)

    def to_json(self) -> dict[str, Any]:
        """Return every candidate's phases, hours and price."""
        return {"plan": list(self.plans)}


def run(config: BakeoffConfig) -> BakeoffResult | CostPlan:
    """Run the bake-off, draw its report and return what a person or a script wants of it; or only its cost plan."""
    from dermlab.bench.bakeoff import run_bakeoff
    from dermlab.bench.record import leaderboard_row
    from dermlab.report.html import write_report

    recipe = Recipe.model_validate(config.model_dump(exclude={"out", "dry_run"}))
    if config.dry_run:
        from dermlab.bench.planning import lines, plan_costs

        plans = plan_costs(recipe)
        return CostPlan(tuple(asdict(item) for item in plans), tuple(lines(plans)))
    result = run_bakeoff(recipe, config.out)
    report = write_report(config.out, photos=config.photos)
    rows = tuple(leaderboard_row(outcome) for outcome in result.outcomes)
    leaderboard = config.out / "leaderboard.csv"
    return BakeoffResult(leaderboard, report, asdict(result.decision), rows, tuple(table(result)))


def table(result: Any) -> list[str]:
    """Return the leaderboard as aligned lines for a terminal.

    Args:
        result: a :class:`dermlab.bench.bakeoff.BakeoffResult`.
    """
    label, _, kind = words.metric_words(result.metric)
    head = ["", "val", f"test {label}", "95% interval", "rank", "licence", ""]
    rows = [head]
    for outcome in result.outcomes:
        scored = outcome.metrics.get(result.metric) or {"value": None}
        remarks = [outcome.kind] if outcome.kind != "candidate" else []
        if outcome.winner:
            remarks.insert(0, "winner")
        if outcome.status == "failed":
            remarks.append(f"failed: {outcome.error}")
        remarks += outcome.flags
        rows.append(
            [
                outcome.name,
                words.score(outcome.val_score, kind),
                words.score(scored["value"], kind),
                words.span(scored, kind) if scored["value"] is not None else "–",
                "–" if outcome.rank is None else str(outcome.rank),
                outcome.verdict,
                "; ".join(remarks),
            ]
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    numeric = {1, 2, 3, 4}
    return [
        "  ".join(
            cell.rjust(width) if place in numeric else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
