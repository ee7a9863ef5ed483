"""What a photo is painted on: pigment and blood in the skin, its relief, and what lies on top, field by field.

Colour follows the two-chromophore model of skin (Tsumura et al. 1999, "Independent-component analysis of skin color
image"): light that comes back is attenuated by melanin and haemoglobin, so amounts of the two add and colours follow.
Channels are kept in separate (size, size) planes: OpenCV and numpy are several times faster on them than on (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from dermlab.data.synthetic.textures import Affine, Field, limit

# Absorbance of linear R, G, B: of bare dermis, of a unit of melanin, of a unit of haemoglobin. The quadratic term is
# what keeps dense melanin brown-black instead of saturated red.
DERMIS = (0.01, 0.10, 0.25)
MELANIN = (0.40, 0.61, 0.82)
MELANIN_SQUARED = 0.12
HAEMOGLOBIN = (0.12, 0.86, 0.72)
RESTING_BLOOD = 0.30
GREATEST_MELANIN = 4.5

# Individual typology angle (degrees) of Fitzpatrick's skin types: Chardon et al. 1991, with the bands of Del Bino 2013.
ITA_BANDS: dict[int, tuple[float, float]] = {
    1: (56.0, 68.0),
    2: (42.0, 54.0),
    3: (29.0, 40.0),
    4: (11.0, 27.0),
    5: (-27.0, 8.0),
    6: (-55.0, -32.0),
}


def reflectance(melanin: float, blood: float) -> NDArray[np.float64]:
    """Return the linear R, G, B that skin with these amounts gives back: float64 (3,)."""
    absorbance = [
        d + m * melanin + MELANIN_SQUARED * melanin**2 + h * blood
        for d, m, h in zip(DERMIS, MELANIN, HAEMOGLOBIN, strict=True)
    ]
    return np.exp(-np.array(absorbance))


def typology_angle(linear_rgb: NDArray[np.float64]) -> float:
    """Return the individual typology angle of a linear sRGB colour, in degrees (CIE L*a*b*, D65)."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear_rgb
    f = np.cbrt(xyz / np.array([0.9505, 1.0, 1.089]))
    return float(np.degrees(np.arctan2(116 * f[1] - 16 - 50, 200 * (f[1] - f[2]))))


@lru_cache(maxsize=1)
def _melanin_by_angle() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    melanin = np.linspace(0.0, GREATEST_MELANIN, 400)
    angles = np.array([typology_angle(reflectance(m, RESTING_BLOOD)) for m in melanin])
    return angles[::-1], melanin[::-1]  # the angle falls as melanin rises


def melanin_of(angle: float) -> float:
    """Return the melanin that gives skin of resting blood this typology angle (degrees)."""
    return float(np.interp(angle, *_melanin_by_angle()))


@lru_cache(maxsize=8)
def _counting(size: int) -> tuple[Field, Field]:
    numbers = np.arange(size, dtype=np.float32)
    return numbers[None, :], numbers[:, None]


@dataclass(frozen=True)
class View:
    """Where the camera stands.

    Attributes:
        size: side of the picture in pixels.
        px_mm: pixels a millimetre of skin.
        to_mm: (2, 3), pixel → millimetres from the lesion's centre.
        light: direction towards the light, unit length; (0, 0, 1) is straight above.
        dermoscopy: a dermatoscope on the skin (no relief, structures below the surface are seen) or a camera before it.
    """

    size: int
    px_mm: float
    to_mm: Affine
    light: tuple[float, float, float]
    dermoscopy: bool

    def coordinates(self, frame: Affine) -> tuple[Field, Field]:
        """Return the coordinates of all pixels in a frame given as an affine map from pixels: two (size, size)."""
        row, column = _counting(self.size)
        (xx, xy, x0), (yx, yy, y0) = frame.tolist()  # Python's numbers keep float32 arrays float32
        return xx * row + (xy * column + x0), yx * row + (yy * column + y0)


@dataclass
class Canvas:
    """The fields that a photo is computed from, each (size, size) float32.

    Attributes:
        melanin: amount of melanin.
        blood: amount of haemoglobin.
        height: relief in millimetres.
        gloss: how much light the surface mirrors, 0..1.
        layers: what lies on the skin, in painting order: (opacity field, linear RGB).
    """

    melanin: Field
    blood: Field
    height: Field
    gloss: Field
    layers: list[tuple[Field, tuple[float, float, float]]] = field(default_factory=list)

    def cover(self, opacity: Field, colour: tuple[float, float, float]) -> None:
        """Lay an sRGB colour (0..255) over the skin."""
        linear = ((np.array(colour) / 255) ** 2.2).tolist()
        self.layers.append((opacity, (linear[0], linear[1], linear[2])))

    def colours(self) -> list[Field]:
        """Return the unshaded linear R, G and B."""
        melanin = limit(self.melanin.copy(), 0.0, GREATEST_MELANIN)
        dense = melanin * melanin * np.float32(MELANIN_SQUARED)
        blood = np.maximum(self.blood, 0.02)
        planes = []
        for channel in range(3):
            absorbance = melanin * np.float32(-MELANIN[channel])
            absorbance -= blood * np.float32(HAEMOGLOBIN[channel])
            absorbance -= dense
            absorbance -= np.float32(DERMIS[channel])
            plane = cv2.exp(absorbance)
            for opacity, colour in self.layers:
                plane += opacity * (np.float32(colour[channel]) - plane)
            planes.append(plane)
        return planes


def strokes(
    lines: Sequence[NDArray[np.floating]], widths: Sequence[float], frame: Affine, size: int, units_px: float
) -> Field:
    """Draw soft polylines.

    Args:
        lines: each (k, 2), points in the coordinates of ``frame``.
        widths: width of each line in those coordinates.
        frame: (2, 3), pixel → coordinates.
        size: side of the picture in pixels.
        units_px: pixels a unit of the coordinates. A line thinner than a pixel is drawn fainter instead.

    Returns:
        (size, size) float32 opacity in 0..1.
    """
    inverse = cv2.invertAffineTransform(frame)
    mask = np.zeros((size, size), np.uint8)
    pixels = (np.concatenate(lines) @ inverse[:, :2].T + inverse[:, 2]) * 16
    points = np.split(pixels.astype(np.int32), np.cumsum([len(line) for line in lines])[:-1])
    for line, width in zip(points, widths, strict=True):
        width_px = width * units_px
        strength = int(min(255.0, max(40.0, 255 * width_px)))
        cv2.polylines(mask, [line], False, strength, max(1, round(width_px)), cv2.LINE_AA, 4)
    return mask.astype(np.float32) * np.float32(1 / 255)


def spots(
    centres: NDArray[np.floating],
    radii: NDArray[np.floating],
    frame: Affine,
    size: int,
    units_px: float,
    *,
    strengths: NDArray[np.floating] | None = None,
) -> Field:
    """Draw filled discs (arguments as :func:`strokes`); returns (size, size) float32 opacity in 0..1."""
    inverse = cv2.invertAffineTransform(frame)
    mask = np.zeros((size, size), np.uint8)
    pixels = np.rint((centres @ inverse[:, :2].T + inverse[:, 2]) * 16).astype(int)
    radii_px = radii * units_px
    # A disc smaller than a pixel keeps its area's worth of ink.
    shown = np.maximum(np.rint(radii_px * 16), 10).astype(int)
    level = 255 * np.minimum(1.0, (radii_px / 0.62) ** 2) * (1.0 if strengths is None else strengths)
    for (x, y), radius, strength in zip(pixels.tolist(), shown.tolist(), level.tolist(), strict=True):
        cv2.circle(mask, (x, y), radius, strength, -1, cv2.LINE_AA, 4)
    return mask.astype(np.float32) * np.float32(1 / 255)
