"""Frozen features: photos through an encoder once, kept by content, and the one nearest-neighbour search.

In: a data set (or paths, or arrays) and an encoder's name. Out: one float32 vector a photo, read from the feature store
where it is known and computed where it is not; and, for vectors, the nearest of a bank.
"""

from __future__ import annotations

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
