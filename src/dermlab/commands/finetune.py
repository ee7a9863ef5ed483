"""Train a backbone and its head on your photos: frozen first, then whole; val chooses, test reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.commands.probe import ProbeResult, refuse_divided_groups


class FinetuneConfig(FinetuneSettings):
    """Options of ``dermlab finetune``; most stand in a file of ``configs/finetune``."""

    positional: ClassVar[tuple[str, ...]] = ("data",)

    data: Path = Field(description="data set folder")
    out: Path = Field(description="run folder to write; the same command goes on with a run that was stopped")


def run(config: FinetuneConfig) -> ProbeResult:
    """Run the fine-tuning that ``config`` describes, or go on with it."""
    from dermlab.adapt.finetune.run import run_finetune
    from dermlab.core.device import is_first_process
    from dermlab.core.progress import set_quiet
    from dermlab.data.dataset import Dataset
    from dermlab.report.model_card import describe_run

    first = is_first_process()
    if not first:  # of several processes the first one speaks
        set_quiet(True)
    dataset = Dataset.open(config.data)
    refuse_divided_groups(dataset, split=config.split, target=config.target, seed=config.seed, waive=config.waive)
    done = run_finetune(dataset, config, config.out, record=config)
    if not first:
        sys.exit(0)
    describe_run(done.path, n_boot=config.n_boot, seed=config.seed)
    return ProbeResult(done)
