"""Two processes are one with the same photos a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY

from dermlab.training.checkpoint import load_checkpoint


def trained(clinic: Path, out: Path, method: str, **changes: Any) -> dict[str, Any]:
    config = out.with_suffix(".yaml")
    fields = {**TINY, "epochs": 1, "data": [str(clinic)], "out": str(out), "method": method, **changes}
    config.write_text(json.dumps(fields))
    environment = {**os.environ, "DERMLAB_CACHE": str(out.parent / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "dermlab", "pretrain", "--config", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_checkpoint(out / "checkpoints" / "last.safetensors")[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dino", "ibot", "simclr"])
def test_two_processes_match_one(clinic: Path, tmp_path: Path, method: str) -> None:
    """SGD, whose steps are in proportion to the gradients: Adam would make much of a difference in the last bit."""
    changes: dict[str, Any] = {"optimiser": "sgd", "learning_rate": 0.1, "head_batch_norm": False}
    if method != "simclr":
        changes["out_dim"] = 24
    one = trained(clinic, tmp_path / "one", method, batch_size=32, **changes)
    two = trained(clinic, tmp_path / "two", method, batch_size=16, devices=2, **changes)
    weights = [name for name in one if name.startswith("network/")]
    assert weights
    assert max(float((one[name].float() - two[name].float()).abs().max()) for name in weights) < 1e-4
