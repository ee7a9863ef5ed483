"""A colour histogram as an encoder: the floor that a network must beat to have learnt anything."""

from __future__ import annotations

from typing import Any

import numpy as np

from dermlab.core.fingerprint import hash_json
from dermlab.data.pixel_cache import PixelRecipe

NAME = "histogram"
N_BINS = 16
DIM = 3 * N_BINS
# Nearest-neighbour resampling mixes no colours: the histogram is that of a regular grid of the photo's own pixels.
RECIPE = PixelRecipe(size_px=128, fit="squash", interpolation="nearest")


def color_histogram(images: np.ndarray) -> np.ndarray:
    """Return the share of pixels in each of 16 bins of each channel.

    Args:
        images: (B, H, W, 3) uint8 RGB.

    Returns:
        (B, 48) float32: red's bins, green's, blue's; each channel sums to one.
    """
    n, height, width, channels = images.shape
    bins = (images >> 4).astype(np.int64).reshape(n, height * width, channels)
    offsets = np.arange(n)[:, None, None] * (channels * N_BINS) + np.arange(channels) * N_BINS
    counts = np.bincount((bins + offsets).ravel(), minlength=n * channels * N_BINS)
    return (counts.reshape(n, channels * N_BINS) / (height * width)).astype(np.float32)


def describe() -> dict[str, Any]:
    """Return what stands in an encoder's place in records: name, fingerprint, dimension, preprocessing."""
    return {
        "name": NAME,
        "library": "dermlab",
        "architecture": f"{N_BINS} bins of each of 3 channels",
        "fingerprint": hash_json([NAME, N_BINS]),
        "dim": DIM,
        "n_parameters": 0,
        "licence_card": None,
        "lineage": [],
        "preprocess": RECIPE.model_dump(),
    }
