"""What a predictions table is worth: metrics, intervals, calibration, paired comparison.

Tables may come from a dermlab run, another tool, a person or an LLM: the same code reads, checks and scores them.
Arrays and tables go in, numbers come out; nothing here knows of images or networks. The room is also the verb:
``dermlab.evaluate("predictions.csv", out="eval")``.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_WHERE = {
    "Cases": "cases",
    "Columns": "columns",
    "Estimate": "intervals",
    "Predictions": "predictions",
    "bootstrap": "intervals",
    "calibrate": "calibration",
    "calibration_report": "calibration",
    "compare_predictions": "compare",
    "compare_recipes": "seeds",
    "conformal_sets": "conformal",
    "delong_interval": "influence",
    "pool_units": "predictions",
    "ranks": "compare",
    "read_predictions": "predictions",
    "referral": "selective",
    "reliability": "calibration",
    "risk_coverage": "selective",
    "score": "metrics",
    "summarise": "summary",
    "wilson": "intervals",
    "write_predictions": "predictions",
}


def __getattr__(name: str) -> Any:
    """Import the room's public names when they are first asked for (numpy and pandas with them)."""
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})


class _Room(types.ModuleType):
    """A module that can be called: ``dermlab.evaluate`` is a room and a command, and both are promised by that name."""

    def __call__(self, *args: Any, **fields: Any) -> Any:
        """Run ``dermlab evaluate`` (see ``dermlab evaluate --help`` for the fields)."""
        # Looked up when called: the verbs stand above this room, which imports nothing from them.
        return importlib.import_module("dermlab.verbs").function("evaluate")(*args, **fields)


sys.modules[__name__].__class__ = _Room
