"""Frozen features: photos through an encoder once, kept by content, and the one nearest-neighbour search.

In: a data set (or paths, or arrays) and an encoder's name. Out: one float32 vector a photo, read from the feature store
where it is known and computed where it is not; and, for vectors, the nearest of a bank.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dermlab.features.extract import Features, embed, embed_arrays, embed_paths, encode
    from dermlab.features.histogram import color_histogram
    from dermlab.features.neighbours import nearest
    from dermlab.features.store import feature_key, open_store

__all__ = [
    "Features",
    "color_histogram",
    "embed",
    "embed_arrays",
    "embed_paths",
    "encode",
    "feature_key",
    "nearest",
    "open_store",
]

_ELSEWHERE = {
    "color_histogram": "histogram",
    "nearest": "neighbours",
    "feature_key": "store",
    "open_store": "store",
}


def __getattr__(name: str) -> Any:
    """Import torch when something that needs it is first asked for: the colour histogram does not."""
    if name in __all__:
        return getattr(importlib.import_module(f"dermlab.features.{_ELSEWHERE.get(name, 'extract')}"), name)
    raise AttributeError(f"module 'dermlab.features' has no attribute {name!r}")
