"""Make an encoder from photos without labels: self-supervised, watched, and with test patients left out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dermlab.pretrain.config import PretrainSettings

if TYPE_CHECKING:
    from dermlab.pretrain.run import PretrainRun


class PretrainConfig(PretrainSettings):
    """Options of ``dermlab pretrain``; most stand in a file of ``configs/pretrain``."""

    positional: ClassVar[tuple[str, ...]] = ("data",)

    data: tuple[Path, ...] = Field(min_length=1, description="data set folders; their labels are not learned from")
    out: Path = Field(description="run folder to write; the same command goes on with a run that was stopped")


@dataclass(frozen=True)
class PretrainResult:
    """A finished run."""

    found: PretrainRun

    def lines(self) -> list[str]:
        """Return what a person reads."""
        one = self.found
        lines = [f"warning: {text}" for text in one.warnings]
        if one.knn_best is not None and one.knn_start is not None:
            lines.append(
                f"kNN on val, macro-F1: {one.knn_start:.3f} at the start, {one.knn_best:.3f} in epoch {one.best_epoch}"
                f", {one.knn_last:.3f} at the end (val chose the epoch: a probe's test says what it is worth)"
            )
        lines.append(f"{one.images_per_second:,.1f} photos a second, {one.seconds:,.0f} s")
        return [*lines, f"encoder: {one.encoder}", f"run: {one.path}"]

    def to_json(self) -> Any:
        """Return the run's folder, encoder, kNN, speed, alarms and warnings."""
        return {"run": self.found.path, **asdict(self.found)}


def run(config: PretrainConfig) -> PretrainResult:
    """Run the pretraining that ``config`` describes, or go on with it."""
    from dermlab.data.dataset import Dataset
    from dermlab.pretrain.run import run_pretrain

    datasets = [Dataset.open(folder) for folder in config.data]
    return PretrainResult(run_pretrain(datasets, config, config.out))
