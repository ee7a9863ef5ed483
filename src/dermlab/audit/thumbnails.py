"""What the audit sees of every photo: a thumbnail from the pixel cache, and the few numbers that describe it.

One pass over the cache; nothing larger than a 64 x 64 luminance stays in memory (4 kB a photo).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.fft import dctn

from dermlab.core.progress import progress
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels
from dermlab.features.histogram import DIM, color_histogram

RECIPE = PixelRecipe(size_px=128, fit="squash", interpolation="bilinear")
"""128 px shows whether a photo is sharp at the size a model sees; squashed, a quarter turn keeps the whole picture."""

SIZE_PX = 64
_BATCH = 512
_DARK = 0.45  # of the luminance in the middle: a surround is darker, skin in shadow is not
_EDGE_PX = 7  # the ring's own edge is blurred over this many pixels of 64
_SHARP = 16  # levels from one pixel to the next, in some channel
_MARGIN_PX = 16  # frames and a dermatoscope's housing lie within this of the picture's border
_EVEN_LEVELS = 3  # an even colour varies by the encoder's noise only
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Thumbnails:
    """N photos as the audit sees them; rows of unreadable photos are zero.

    Attributes:
        luminance: uint8 (N, 64, 64); 0 marks what lies outside a dermatoscope's round field of view, and nothing else.
        contrast: standard deviation of the luminance inside the field of view, float32 (N,).
        sharpness: what is finer than a 64th of the photo's side, root mean square in grey levels, float32 (N,).
        edge: longest straight, sharp edge inside the picture, as a share of the side, float32 (N,).
        even: share of the picture whose 3 x 3 neighbourhoods are one even colour, float32 (N,).
        colours: colour histogram, float32 (N, 48).
        digest: hash of the thumbnail's pixels, "" where unreadable: (N,).
        content_hash: hash of the file's bytes, "" where it is missing: (N,).
        failures: index of every photo that could not be read, and why.
    """

    luminance: np.ndarray
    contrast: np.ndarray
    sharpness: np.ndarray
    edge: np.ndarray
    even: np.ndarray
    colours: np.ndarray
    digest: np.ndarray
    content_hash: np.ndarray
    failures: dict[int, str]

    def __len__(self) -> int:
        """Return N."""
        return len(self.luminance)

    @property
    def readable(self) -> np.ndarray:
        """Which photos could be read, bool (N,)."""
        mask = np.ones(len(self), dtype=bool)
        mask[list(self.failures)] = False
        return mask

    def rows(self, rows: slice) -> Thumbnails:
        """Return those of a contiguous run of photos."""
        start, stop, _ = rows.indices(len(self))
        failures = {row - start: reason for row, reason in self.failures.items() if start <= row < stop}
        return Thumbnails(
            self.luminance[rows],
            self.contrast[rows],
            self.sharpness[rows],
            self.edge[rows],
            self.even[rows],
            self.colours[rows],
            self.digest[rows],
            self.content_hash[rows],
            failures,
        )


def read_thumbnails(paths: Sequence[Path], *, pixels: Pixels | None = None) -> Thumbnails:
    """Read (through the pixel cache) and describe every photo; an unreadable one is recorded, never raised."""
    pixels = open_pixels(paths, RECIPE) if pixels is None else pixels
    n = len(paths)
    luminance = np.zeros((n, SIZE_PX, SIZE_PX), dtype=np.uint8)
    contrast, sharpness, edge, even = np.zeros((4, n), dtype=np.float32)
    colours = np.zeros((n, DIM), dtype=np.float32)
    digest = np.full(n, "", dtype=object)
    pixels.fill("photos")
    readable = np.array([i for i in range(n) if i not in pixels.failures], dtype=np.int64)
    with progress("thumbnails", len(readable)) as advance:
        for start in range(0, len(readable), _BATCH):
            rows = readable[start : start + _BATCH]
            batch = pixels.batch(rows)
            digest[rows] = [hashlib.blake2b(photo.tobytes(), digest_size=16).hexdigest() for photo in batch]
            large = batch.astype(np.float32) @ _LUMA
            small = large.reshape(len(rows), SIZE_PX, 2, SIZE_PX, 2).mean(axis=(2, 4))
            inside = np.stack([_field_of_view(photo) for photo in small])
            luminance[rows] = np.where(inside, np.clip(np.rint(small), 1, 255), 0)
            contrast[rows] = np.std(small, axis=(1, 2), where=inside)
            sharpness[rows] = _fine_detail(large)
            edge[rows], even[rows] = _straight_edge(batch), _even_share(batch)
            colours[rows] = color_histogram(batch)
            advance(len(rows))
    return Thumbnails(
        luminance,
        contrast,
        sharpness,
        edge,
        even,
        colours,
        digest,
        np.array([text or "" for text in pixels.content_hashes], dtype=object),
        dict(pixels.failures),
    )


def _field_of_view(luminance: np.ndarray) -> np.ndarray:
    """Return where a (64, 64) luminance shows something, bool: all of it, unless the corners are a dark surround.

    A dermatoscope's ring is the same in every photo taken through it: whatever compares photos must look inside it.
    """
    middle = np.median(luminance[SIZE_PX // 4 : -SIZE_PX // 4, SIZE_PX // 4 : -SIZE_PX // 4])
    dark = (luminance < _DARK * middle).astype(np.uint8)
    corners = dark[0, 0], dark[0, -1], dark[-1, 0], dark[-1, -1]
    if sum(map(int, corners)) < 3:
        return np.ones(luminance.shape, dtype=bool)
    _, regions = cv2.connectedComponents(dark)
    of_corners = {int(regions[row, column]) for row in (0, -1) for column in (0, -1)} - {0}
    surround = np.isin(regions, list(of_corners)).astype(np.uint8)
    return cv2.dilate(surround, np.ones((_EDGE_PX, _EDGE_PX), np.uint8)) == 0


def _fine_detail(luminance: np.ndarray) -> np.ndarray:
    """Root mean square, in grey levels, of the upper half of the frequencies of (N, 128, 128) luminances."""
    power = np.square(dctn(luminance, axes=(1, 2), norm="ortho"))
    half = power.shape[1] // 2
    power[:, :half, :half] = 0
    return np.sqrt(power.mean(axis=(1, 2)))


def _straight_edge(photos: np.ndarray) -> np.ndarray:
    """Return the share of the side along which one row or column boundary is a sharp edge, the largest, float (N,).

    Boundaries near the border do not count: many dermatoscopes and scanners leave a frame there.
    """
    levels = photos.astype(np.int16)
    inner = slice(_MARGIN_PX, -_MARGIN_PX)
    across = np.abs(np.diff(levels, axis=1)).max(axis=3)[:, inner, 2:-2] > _SHARP
    along = np.abs(np.diff(levels, axis=2)).max(axis=3)[:, 2:-2, inner] > _SHARP
    return np.maximum(across.mean(axis=2).max(axis=1), along.mean(axis=1).max(axis=1))


def _even_share(photos: np.ndarray) -> np.ndarray:
    """Return the share of pixels that differ from their 8 neighbours by the encoder's noise only, float (N,)."""
    kernel = np.ones((3, 3), np.uint8)
    shares = [
        (cv2.subtract(cv2.dilate(photo, kernel), cv2.erode(photo, kernel)).max(axis=2) <= _EVEN_LEVELS).mean()
        for photo in photos
    ]
    return np.array(shares)
