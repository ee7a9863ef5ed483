"""Skin tone estimated from the photo: the individual typology angle of the skin around the lesion.

An estimate, not a record. Phone cameras balance colours as they please and lamps differ, so the angle of a photo says
less than a colorimeter's; docs/how-to/subgroups_and_shift.md tells how well it agrees with recorded skin types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pandas as pd

from dermlab.core.progress import progress
from dermlab.data.dataset import Dataset
from dermlab.data.decode import DecodeError, read_file
from dermlab.data.pixel_cache import PixelRecipe, Pixels, open_pixels
from dermlab.evaluate.levels import ITA_BAND, ITA_LEVELS, SKIN_TYPE_NAMES

RECIPE = PixelRecipe(size_px=128, fit="squash", interpolation="bilinear")
# Del Bino & Bernerd 2013, "Variations in skin colour and the biological consequences of ultraviolet radiation
# exposure", Br. J. Dermatol. 169 Suppl 3.
EDGES = (-30.0, 10.0, 28.0, 41.0, 55.0)
BANDS = ("dark", "brown", "tan", "intermediate", "light", "very light")

RING = 0.6  # the lesion is framed in the middle: skin is looked for outside this share of the photo's half sides
SURROUND = 10.0  # L* of a dermatoscope's dark surround, below any skin in a photo that shows something
GLARE, PALE, GREY = 95.0, 85.0, 6.0  # L* of glare; L* and chroma of paper, rulers and gauze
HAIR = 6.0  # how much darker than its surroundings a thin line is
NEAR_PX, HAIR_PX = 5, 9
TRIM = 2.0  # median absolute deviations
SMALLEST_SHARE = 0.05
BATCH = 256


def typology_angles(lightness: np.ndarray, yellowness: np.ndarray) -> np.ndarray:
    """Return the individual typology angle in degrees from CIE L* and b*.

    Chardon, Cretois & Hourseau 1991, "Skin colour typology and suntanning pathways": arctan((L* − 50) / b*).
    """
    return np.degrees(np.arctan2(np.asarray(lightness, np.float64) - 50.0, yellowness))


def ita_bands(degrees: np.ndarray) -> np.ndarray:
    """Return the band of each angle, object (N,), None where the angle is NaN: very light above 55° … dark to −30°."""
    degrees = np.asarray(degrees, np.float64)
    names = np.array([*BANDS, None], dtype=object)
    return names[np.where(np.isnan(degrees), len(BANDS), np.searchsorted(EDGES, degrees, side="left"))]


def estimate_ita(
    images: np.ndarray, lesions: Sequence[np.ndarray | None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the typology angle of the skin around the lesion.

    Skin is looked for in the outer ring of the photo, or outside the lesion's mask where there is one. Left out are
    dark surrounds, glare, white and grey things, hair, and colours that no skin has (blue, green). What remains is
    trimmed about its median, whose L* and b* give the angle.

    Args:
        images: (B, S, S, 3) uint8 RGB.
        lesions: for each photo a mask (S, S), true on the lesion, or None; None: no photo has one.

    Returns:
        Angles (B,) float64 in degrees, NaN where hardly any skin was found, and the share (B,) of the photo that the
        estimate rests on.
    """
    n, height, width = images.shape[:3]
    y, x = np.mgrid[:height, :width]
    off_centre = np.maximum(np.abs(2 * y / (height - 1) - 1), np.abs(2 * x / (width - 1) - 1))
    ring = off_centre >= RING
    angles, shares = np.full(n, np.nan), np.zeros(n)
    for place in range(n):
        lesion = None if lesions is None else lesions[place]
        where = ring if lesion is None else ~_near(lesion.astype(bool))
        lab = cv2.cvtColor(images[place].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        skin = where & _looks_like_skin(lab)
        light, yellow = lab[..., 0][skin], lab[..., 2][skin]
        if skin.mean() < SMALLEST_SHARE:
            continue
        middle = np.median(light)
        kept = np.abs(light - middle) <= TRIM * max(float(np.median(np.abs(light - middle))), 1.0)
        shares[place] = kept.sum() / skin.size
        angles[place] = typology_angles(np.median(light[kept]), np.median(yellow[kept]))
    return angles, shares


def _looks_like_skin(lab: np.ndarray) -> np.ndarray:
    """Return which pixels may be skin, bool (H, W), from CIE L*a*b* (H, W, 3)."""
    light, red, yellow = (np.ascontiguousarray(lab[..., channel]) for channel in range(3))
    chroma = np.hypot(red, yellow)
    line = cv2.morphologyEx(light, cv2.MORPH_BLACKHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (HAIR_PX, HAIR_PX)))
    hair = cv2.dilate((line > HAIR).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    pale = (light > GLARE) | ((light > PALE) & (chroma < GREY))
    return ~_near(light < SURROUND) & ~pale & ~hair & (yellow > 0) & (red > -2)


def _near(mask: np.ndarray) -> np.ndarray:
    return cv2.dilate(mask.astype(np.uint8), np.ones((NEAR_PX, NEAR_PX), np.uint8)) > 0


def skin_tones(dataset: Dataset, *, pixels: Pixels | None = None, use_masks: bool = True) -> pd.DataFrame:
    """Estimate the skin tone of every photo of a data set, through the pixel cache.

    Args:
        dataset: the data set.
        pixels: its photos under :data:`RECIPE`; None: opened here.
        use_masks: look outside the lesion's mask where the data set has one.

    Returns:
        ``image_id``, ``ita_degrees`` (NaN where no skin was found), ``ita_share`` (of the photo, that it rests on) and
        ``ita_band``, a row an image. All are estimates from the photo.
    """
    pixels = open_pixels(dataset.paths, RECIPE) if pixels is None else pixels
    pixels.fill("photos")
    n = len(dataset)
    angles, shares = np.full(n, np.nan), np.zeros(n)
    readable = np.array([row for row in range(n) if row not in pixels.failures], np.int64)
    masked = use_masks and "mask_path" in dataset.manifest
    paths = dataset.manifest["mask_path"].to_numpy(dtype=object) if masked else np.full(n, None, dtype=object)
    with progress("skin tones", len(readable)) as advance:
        for start in range(0, len(readable), BATCH):
            rows = readable[start : start + BATCH]
            lesions = [_read_mask(dataset, paths[row], pixels.recipe.size_px) for row in rows]
            angles[rows], shares[rows] = estimate_ita(pixels.batch(rows), lesions)
            advance(len(rows))
    return pd.DataFrame(
        {"image_id": dataset.image_ids, "ita_degrees": angles, "ita_share": shares, ITA_BAND: ita_bands(angles)}
    )


def estimated_bands(dataset: Dataset, *, pixels: Pixels | None = None) -> pd.DataFrame | None:
    """Return ``image_id`` and ``ita_band`` for subgroups: estimated where no skin type was recorded, and only there.

    Images whose skin type was recorded stand as ``skin type recorded``. None where it was recorded of all.
    """
    columns = [name for name in dataset.manifest if str(name).lower() in SKIN_TYPE_NAMES]
    recorded = dataset.manifest[columns].notna().any(axis=1).to_numpy() if columns else np.zeros(len(dataset), bool)
    if recorded.all():
        return None
    tones = skin_tones(dataset, pixels=pixels)
    tones[ITA_BAND] = np.where(recorded, ITA_LEVELS[-1], tones[ITA_BAND].to_numpy(dtype=object))
    return tones[["image_id", ITA_BAND]]


def _read_mask(dataset: Dataset, path: Any, size_px: int) -> np.ndarray | None:
    """Return a lesion's mask as the recipe fits its photo, bool (S, S), None where there is none to read."""
    if path is None or pd.isna(path):
        return None
    try:
        stored = cv2.imdecode(np.frombuffer(read_file(dataset.folder / str(path)), np.uint8), cv2.IMREAD_GRAYSCALE)
    except DecodeError:
        return None
    if stored is None or not stored.any():
        return None
    return cv2.resize(stored, (size_px, size_px), interpolation=cv2.INTER_NEAREST) > 0
