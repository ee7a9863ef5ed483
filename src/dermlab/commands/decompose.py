"""Which change gave what: finished runs that differ by one factor each, the gain between them taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from dermlab.bench.config import Decomposition, Metric
from dermlab.core import words
from dermlab.core.errors import InputError


class DecomposeConfig(Decomposition):
    """Options of ``dermlab decompose``; candidates are run folders or predictions tables, or names under ``runs``."""

    positional: ClassVar[tuple[str, ...]] = ("config",)

    runs_of: dict[str, tuple[Path, ...]] = Field(
        {}, description="candidates of several trainings: name, and the run folder of each seed"
    )
    out: Path = Field(description="folder to write decomposition.json into")
    metric: Metric = Field("top1", description="what is taken apart")
    n_boot: int = Field(2000, ge=100, description="bootstrap replicates of the intervals")
    seed: int = Field(0, ge=0, description="of the bootstrap")


@dataclass(frozen=True)
class DecomposeResult:
    """What each change gave."""

    path: Path
    found: dict[str, Any]

    def lines(self) -> list[str]:
        """Return a line a step, the averages over all orders, the warnings and the file."""
        label, _, kind = words.metric_words(self.found["metric"])
        base = self.found["baseline"]
        told = [f"{label} of {base['candidate']}: {words.score(base['value'], kind)}"]
        told += [_line(f"+ {step['factor']}", step, kind) for step in self.found["steps"]]
        told.append(_line("all", self.found["total"], kind))
        if self.found["shapley"] is not None:
            told.append("mean over all orders (Shapley):")
            told += [_line(f"  {item['factor']}", item, kind) for item in self.found["shapley"]["values"]]
        return [*told, *(f"warning: {text}" for text in self.found["warnings"]), f"written: {self.path}"]

    def to_json(self) -> dict[str, Any]:
        """Return the content of decomposition.json."""
        return self.found


def _line(name: str, entry: dict[str, Any], kind: str) -> str:
    span = "no interval"
    if entry["low"] is not None:
        span = f"{words.points(entry['low'], kind)} to {words.points(entry['high'], kind)}"
    return f"{name}: {words.points(entry['difference'], kind)} ({span}, over {entry['over']}): {entry['verdict']}"


def run(config: DecomposeConfig) -> DecomposeResult:
    """Take the gain apart and write ``decomposition.json``."""
    from dermlab.bench.decomposition import decompose
    from dermlab.core.files import write_json
    from dermlab.evaluate.predictions import read_predictions

    plan = Decomposition.model_validate(config.model_dump(include=set(Decomposition.model_fields)))
    tables = {}
    for name in dict.fromkeys(plan.runs().values()):
        paths = config.runs_of.get(name, (Path(name),))
        for path in paths:
            if not path.exists():
                raise InputError(f"{path}: is no run folder or predictions table, and runs_of: has no {name!r}")
        tables[name] = [
            table.with_frame(table.frame.assign(seed=place)) if len(paths) > 1 else table
            for place, table in enumerate(read_predictions(path) for path in paths)
        ]
    found = decompose(tables, plan, metric=config.metric, n_boot=config.n_boot, seed=config.seed)
    return DecomposeResult(write_json(config.out / "decomposition.json", found), found)
