"""A toy recipe, its command, and when two runs are the same; for the tests that start processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from dermlab.core.files import read_json
from dermlab.training.checkpoint import load_checkpoint

Jobs = Callable[..., list[list[dict[str, Any]]]]

TOY: dict[str, Any] = {
    "size_px": 32,
    "frozen_epochs": 1,
    "finetune_epochs": 2,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "max_train_samples": 70,
    "checkpoint_steps": 1,
    "patience": 2,
    "precision": "fp32",
    "device": "cpu",
    "n_boot": 100,
}


def command(folder: Path, data: Path, out: Path, recipe: dict[str, Any]) -> list[str]:
    config = folder / f"{out.name}.yaml"
    config.write_text(yaml.safe_dump(recipe))
    return ["finetune", str(data), "--config", str(config), "--out", str(out)]


def checkpoints(run: Path) -> dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    place = run / "checkpoints" / "repeat0-fold0"
    return {name: load_checkpoint(place / f"{name}.safetensors") for name in ("best", "last")}


def assert_bit_equal(run: Path, other: Path) -> None:
    """Weights, average, optimiser, position, history and stopping; metrics; predictions."""
    found, expected = checkpoints(run), checkpoints(other)
    for name, (tensors, record) in expected.items():
        assert found[name][0].keys() == tensors.keys()
        assert all(torch.equal(found[name][0][key], value) for key, value in tensors.items()), name
        assert found[name][1] == record
    assert read_json(run / "metrics.json") == read_json(other / "metrics.json")
    frames = [pd.read_parquet(one / "predictions.parquet") for one in (run, other)]
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    done = [read_json(one / "done.json") for one in (run, other)]
    assert {**done[0], "seconds": 0} == {**done[1], "seconds": 0}
