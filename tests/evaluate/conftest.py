"""A predictions table on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from made_up import CLASSES, as_table, simulated


@pytest.fixture
def table(tmp_path: Any) -> Callable[..., Any]:
    """Write a predictions table and return it read back; keyword arguments replace columns."""
    from dermlab.evaluate import write_predictions

    def make(seed: int = 0, *, name: str = "model", meta: dict[str, Any] | None = None, **options: Any) -> Any:
        frame = as_table(*simulated(seed, **options))
        sidecar = {"model": name, "target": "diagnosis", "classes": list(CLASSES), "group_by": "patient_id"}
        return write_predictions(tmp_path / f"{name}.parquet", frame, {**sidecar, **(meta or {})})

    return make
