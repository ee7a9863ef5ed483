"""A recipe so small that a run takes a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dermlab

TINY: dict[str, Any] = {
    "network": "timm:test_vit",
    "size_px": 32,
    "patch_size": 8,
    "local_size_px": 16,
    "local_views": 1,
    "batch_size": 16,
    "epochs": 2,
    "warmup_epochs": 1,
    "hidden_dim": 32,
    "bottleneck_dim": 16,
    "regressor_depth": 1,
    "teacher": "timm:test_vit+random",
    "monitor_photos": 40,
    "monitor_k": 5,
    "precision": "fp32",
    "device": "cpu",
}


def pretrain(clinic: Path, out: Path, method: str, **changes: Any) -> Any:
    """Run ``dermlab.pretrain`` with the tiny recipe."""
    fields = {**TINY, **changes}
    if method in ("dino", "ibot"):
        fields.setdefault("out_dim", 24)
    return dermlab.pretrain(data=[clinic], out=out, method=method, **fields).found
