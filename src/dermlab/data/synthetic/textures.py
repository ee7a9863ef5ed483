"""Textures that photos are cut from: tileable cell patterns and noise, made once, sampled through an affine map.

A random window of a large tile, turned, stretched and bent by the lesion's own noise, looks like no other window and
costs one OpenCV call, where drawing the pattern anew for each photo would cost a hundred times as much.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermlab.core.randomness import generator

Field = NDArray[Any]  # float32 (size, size); Any, because OpenCV's stubs promise no dtype
Affine = NDArray[np.float64]  # (2, 3): maps a pixel's (x, y, 1) to the coordinates of a texture or a lesion

CELLS = 64  # cells a tile's side: textures repeat every 64 units
CELL_PX = 12  # tile pixels a cell at the finest level
N_LEVELS = 4
LEAST_PX = 384  # coarser levels repeat the tile up to this, so that a window of 128 px always lies inside


def _worley() -> tuple[Field, Field, NDArray[np.int64]]:
    """Return distance to the nearest and second-nearest jittered point (in cells) and the nearest point's number."""
    rng = generator(0, "texture", "cells")
    jitter = rng.uniform(0.1, 0.9, size=(CELLS, CELLS, 2)).astype(np.float32)
    side = np.arange(CELLS * CELL_PX)
    cell = side // CELL_PX
    inner = ((side + 0.5) / CELL_PX - cell).astype(np.float32)
    first = np.full((side.size, side.size), 9.0, np.float32)
    second = first.copy()
    nearest = np.zeros((side.size, side.size), np.int64)
    for dy in (-1, 0, 1):
        rows = (cell + dy) % CELLS
        for dx in (-1, 0, 1):
            columns = (cell + dx) % CELLS
            point = jitter[rows[:, None], columns[None, :]]
            distance = np.hypot(point[..., 0] + dx - inner[None, :], point[..., 1] + dy - inner[:, None])
            closer = distance < first
            second = np.where(closer, first, np.minimum(second, distance))
            nearest = np.where(closer, (rows[:, None] * CELLS + columns[None, :]), nearest)
            first = np.where(closer, distance, first)
    return first, second, nearest


def _band_noise(name: str, shortest: float, longest: float, slope: float) -> Field:
    """Return tileable Gaussian noise of unit spread with wavelengths ``shortest … longest`` cells and 1/f^slope."""
    n = CELLS * CELL_PX
    white = generator(0, "texture", name).standard_normal((n, n), dtype=np.float32)
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :]) * CELL_PX  # cycles a cell
    with np.errstate(divide="ignore"):
        gain = frequency**-slope
    gain[(frequency < 1 / longest) | (frequency > 1 / shortest)] = 0.0
    noise = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(n, n))
    return (noise / noise.std()).astype(np.float32)


@lru_cache(maxsize=1)
def bank() -> dict[str, tuple[Field, ...]]:
    """Return every texture as a pyramid, finest level first. Built once a process, in about half a second.

    ``plateau`` (skin relief: flat cells, sunken lines, pores), ``network`` (pigmented lines), ``discs`` and ``dots``
    (in some of the cells, each of its own size), ``cobble`` (a dome a cell) lie in 0..1; ``mottle`` (patches of one to
    five cells) and ``grain`` (all scales) are noise of unit spread.
    """
    first, second, nearest = _worley()
    gap = second - first
    rng = generator(0, "texture", "sizes")
    radius = rng.uniform(0.18, 0.42, CELLS**2).astype(np.float32)
    radius[rng.random(CELLS**2) < 0.3] = -1.0
    dot = rng.uniform(0.08, 0.2, CELLS**2).astype(np.float32)
    dot[rng.random(CELLS**2) < 0.45] = -1.0
    dots = np.clip((dot[nearest] - first) / 0.06, 0, 1)
    tiles = {
        "plateau": np.clip(gap / 0.28, 0, 1) ** 0.7 * (1 - 0.9 * dots),
        "network": np.exp(-((gap / 0.2) ** 2)),
        "discs": np.clip((radius[nearest] - first) / 0.1, 0, 1),
        "dots": dots,
        "cobble": np.sqrt(np.clip(1 - (first / 0.72) ** 2, 0, 1)),
        "mottle": _band_noise("mottle", 0.5, 5.0, 0.5),
        "grain": _band_noise("grain", 0.17, 32.0, 1.0),
    }
    return {name: _pyramid(tile.astype(np.float32)) for name, tile in tiles.items()}


def _pyramid(tile: Field) -> tuple[Field, ...]:
    levels = []
    for level in range(N_LEVELS):
        n = tile.shape[0] >> level
        small = cv2.resize(tile, (n, n), interpolation=cv2.INTER_AREA) if level else tile
        repeats = -(-LEAST_PX // n)
        levels.append(np.ascontiguousarray(np.tile(small, (repeats, repeats))))
    return tuple(levels)


@lru_cache(maxsize=1)
def white() -> Field:
    """Return a large tile of white noise of unit spread; a window of it is a camera's noise."""
    return generator(0, "texture", "white").standard_normal((1280, 1280), dtype=np.float32)


def sample(name: str, affine: Affine, size: int, centre: tuple[float, float], *, bounded: bool = False) -> Field:
    """Cut a window from a texture.

    Args:
        name: a key of :func:`bank`.
        affine: (2, 3), maps a pixel to texture coordinates (one unit = one cell) around ``centre``.
        size: side of the window in pixels.
        centre: the place of the tile, each in 0..1, where coordinate (0, 0) falls.
        bounded: whether what lies beyond the tile may be 0 (a lesion is small), which is faster than wrapping round.

    Returns:
        (size, size) float32.
    """
    (xx, xy, _), (yx, yy, _) = affine.tolist()
    tile, px = _level(name, math.sqrt(abs(xx * yy - xy * yx)))
    matrix = affine * px
    matrix[0, 2] += centre[0] * tile.shape[0]
    matrix[1, 2] += centre[1] * tile.shape[0]
    return cv2.warpAffine(
        tile,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT if bounded else cv2.BORDER_WRAP,
    )


def sample_at(name: str, x: Field, y: Field, step: float, centre: tuple[float, float]) -> Field:
    """Look a texture up at bent coordinates.

    Args:
        name: a key of :func:`bank`.
        x: (size, size), in cells around ``centre``; ``y`` alike.
        y: see ``x``.
        step: how many cells a pixel spans, which chooses the pyramid's level.
        centre: the place of the tile, each in 0..1, where (0, 0) falls.

    Returns:
        (size, size) float32; 0 beyond the tile.
    """
    tile, px = _level(name, step)
    at_x, at_y = (np.float32(c * tile.shape[0]) for c in centre)
    return cv2.remap(tile, x * np.float32(px) + at_x, y * np.float32(px) + at_y, cv2.INTER_LINEAR)


def _level(name: str, step: float) -> tuple[Field, float]:
    """Return the pyramid level whose pixels are about as large as the picture's, and its pixels a cell."""
    level = min(max(round(math.log2(max(step * CELL_PX, 1e-6))), 0), N_LEVELS - 1)
    return bank()[name][level], CELL_PX / (1 << level)


def smooth_noise(rng: np.random.Generator, cells: tuple[int, ...], size: int, channels: int) -> Field:
    """Return (size, size, channels) smooth noise of about unit spread: octaves of ``cells`` lattice points a side."""
    total = _octave(rng, cells[0], size, channels)
    for octave, n in enumerate(cells[1:], start=1):
        total = cv2.scaleAdd(_octave(rng, n, size, channels), 0.5**octave, total)
    return total


def _octave(rng: np.random.Generator, n: int, size: int, channels: int) -> Field:
    lattice = rng.standard_normal((n, n, channels), dtype=np.float32)
    return cv2.resize(lattice, (size, size), interpolation=cv2.INTER_CUBIC)


def ramp(x: Field, width: float) -> Field:
    """Return 0 below ``-width/2``, 1 above ``width/2``, smooth (cubic) in between."""
    t = x * np.float32(1 / width)
    t += np.float32(0.5)
    limit(t, 0.0, 1.0)
    result = t * t
    t *= np.float32(-2)
    t += np.float32(3)
    result *= t
    return result


def limit(x: Field, low: float, high: float) -> Field:
    """Clip in place and return the array: several times faster than ``np.clip`` on a small one."""
    np.maximum(x, np.float32(low), out=x)
    return np.minimum(x, np.float32(high), out=x)


def compose(outer: Affine, inner: Affine) -> Affine:
    """Return the affine map that applies ``inner`` first, then ``outer``."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def turn_and_scale(angle: float, scale_x: float, scale_y: float | None = None) -> Affine:
    """Return the affine map that turns by ``angle`` (radians), then scales the axes."""
    c, s = math.cos(angle), math.sin(angle)
    sy = scale_x if scale_y is None else scale_y
    return np.array([[c * scale_x, s * scale_x, 0.0], [-s * sy, c * sy, 0.0]])
