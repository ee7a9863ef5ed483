"""dermlab: from public vision models and a clinic's labelled skin photos to a classifier that may ship.

Importing is light: no torch, pandas or scikit-learn until a function needs them. The verbs of the command line are
functions here (``dermlab.probe(...)``), and ``dermlab.create_encoder(name)`` gives a model with its preprocessing.
"""

from __future__ import annotations

import importlib
from typing import Any

from dermlab.core import telemetry

__version__ = "0.1.0"

_ELSEWHERE = {
    "create_encoder": ("dermlab.models.encoders", "create_encoder"),
    "Dataset": ("dermlab.data.dataset", "Dataset"),
}
_ROOMS = (
    *("audit", "adapt", "bench", "commands", "core", "data"),
    *("evaluate", "features", "licensing", "models", "pretrain", "report"),
)

telemetry.switch_off()  # here, before any library that would ask is imported, by the command line or by Python


def __getattr__(name: str) -> Any:
    """Import rooms, encoders and the command line's verbs when they are first asked for."""
    if name in _ELSEWHERE:
        module, attribute = _ELSEWHERE[name]
        return getattr(importlib.import_module(module), attribute)
    if name in _ROOMS:
        return importlib.import_module(f"dermlab.{name}")
    verbs = importlib.import_module("dermlab.verbs")
    if name in verbs.VERBS:
        return verbs.function(name)
    raise AttributeError(f"module 'dermlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    verbs = importlib.import_module("dermlab.verbs")
    return sorted({*globals(), *_ELSEWHERE, *_ROOMS, *verbs.VERBS})
