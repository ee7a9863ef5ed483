"""What goes wrong with photos, in five severities: blur, noise, JPEG, light, colour, hair, rotation, resolution, cover.

In the spirit of Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common corruptions and
perturbations", for photos of skin. Their strengths are pixels at 224; here every length is a share of the photo's
shorter side, so that a severity means the same at 128 px and at 1,200 px. Pure functions, uint8 (H, W, 3) RGB to the
same shape; what is random depends on seed, image, corruption and nothing else, and is the same at every severity: a
stronger corruption is more of the same, not another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from dermlab.core.errors import InputError
from dermlab.core.randomness import generator

SEVERITIES = (1, 2, 3, 4, 5)
HAIR_COLOURS = ((52, 36, 28), (84, 58, 38), (30, 24, 22))
COVER_COLOURS = ((236, 229, 220), (66, 92, 140), (198, 150, 126))  # a plaster, a glove, a finger


@dataclass(frozen=True)
class Corruption:
    """One way in which photos go wrong.

    Attributes:
        name: as written on the command line.
        title: for people.
        parameter: what the five numbers are.
        levels: of severity 1 to 5.
        apply: ``(image, level, random) -> image``.
    """

    name: str
    title: str
    parameter: str
    levels: tuple[float, float, float, float, float]
    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def corrupt(image: np.ndarray, name: str, severity: int, *, seed: int = 0, image_id: str = "") -> np.ndarray:
    """Return a corrupted copy of a photo.

    Args:
        image: (H, W, 3) uint8 RGB.
        name: a key of :data:`CORRUPTIONS`.
        severity: 0 (the photo as it is) to 5.
        seed: of what is random: noise, hairs, where the cover lies, which way it turns.
        image_id: the photo's name, so that each has its own.

    Returns:
        (H, W, 3) uint8; never the array that came in.

    Raises:
        InputError: an unknown corruption or severity, or something that is no RGB photo.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"corrupt: takes (H, W, 3) uint8, not {image.shape} {image.dtype}")
    known = corruption(name)
    if severity not in (0, *SEVERITIES):
        raise InputError(f"severity: {severity!r} is not one of 0 (as it is), 1, 2, 3, 4, 5")
    if severity == 0:
        return image.copy()
    random = generator(seed, "corruption", name, image_id)
    return known.apply(image, known.levels[severity - 1], random)


def corruption(name: str) -> Corruption:
    """Return what is known of a corruption.

    Raises:
        InputError: there is no such corruption.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"corruption: {name!r} is not one of {', '.join(CORRUPTIONS)}")
    return CORRUPTIONS[name]


def _short_side(image: np.ndarray) -> int:
    return min(image.shape[:2])


def _blur(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Blur as a lens out of focus does, as a Gaussian."""
    return cv2.GaussianBlur(image, (0, 0), sigmaX=level * _short_side(image), borderType=cv2.BORDER_REFLECT)


def _motion(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Blur along a line, as a hand that moves."""
    length = max(level * _short_side(image), 1e-3)
    angle = random.uniform(0, np.pi)
    # The line is drawn at eight times the size and averaged down: otherwise its length would jump by whole pixels.
    radius = int(np.ceil(length / 2)) + 1
    size, fine = 2 * radius + 1, 8
    canvas = np.zeros((size * fine, size * fine), np.uint8)
    middle = np.full(2, size * fine / 2)
    half = length * fine / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = (tuple(np.round((middle + sign * half) * 16).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(canvas, start, end, 255, fine, cv2.LINE_8, 4)
    kernel = cv2.resize(canvas.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def _noise(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise to each channel: grains of 1/224 of the short side, whatever the number of pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, 224 / _short_side(image))
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    grains = random.standard_normal((*shape, 3), dtype=np.float32) * np.float32(255 * level)
    if shape != (height, width):
        return _to_uint8(image + cv2.resize(grains, (width, height), interpolation=cv2.INTER_NEAREST))
    return _to_uint8(image + grains)


def _jpeg(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Write and read as JPEG of a low quality, at a short side of at most 224 as a messenger sends it.

    JPEG's blocks are 8 pixels wide; on a large photo they would be a smaller share of the lesion and hurt less.
    """
    height, width = image.shape[:2]
    scale = min(1.0, 224 / _short_side(image))
    small = image
    if scale < 1:
        small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    written = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(level)])[1]
    decoded = cv2.imdecode(written, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was written a line above
    read = decoded[..., ::-1]
    if scale == 1:
        return np.ascontiguousarray(read)
    # Only the loss comes back to the large photo: its own detail is not what is tested here.
    loss = read.astype(np.float32) - small
    return _to_uint8(image + cv2.resize(loss, (width, height), interpolation=cv2.INTER_LINEAR))


def _light(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Multiply the light that fell on the sensor (in linear sRGB) by ``level``; what exceeds the range is clipped."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4) * level
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return cv2.LUT(image, np.clip(np.round(curve * 255), 0, 255).astype(np.uint8))


def _cast(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Tint as a wrong white balance does: red up and blue down, or the reverse, by the same factor."""
    strength = 1 + level
    if random.random() < 0.5:
        strength = 1 / strength
    gains = np.array([strength, 1.0, 1 / strength]) ** 0.5
    return _to_uint8(image * gains.astype(np.float32))


def _hair(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Draw ``level`` dark bent hairs across the photo, each 1/400 to 1/150 of the short side thick."""
    from dermlab.data.synthetic.canvas import strokes

    height, width = image.shape[:2]
    most, side = int(CORRUPTIONS["hair"].levels[-1]), max(height, width)
    colour = np.array(HAIR_COLOURS[int(random.integers(len(HAIR_COLOURS)))], np.float32)
    heading = random.uniform(0, 2 * np.pi) + random.normal(0, 0.5, most)
    start = random.uniform(-0.1, 1.1, (most, 2)) * (width, height)
    length = random.uniform(0.3, 0.9, most) * _short_side(image)
    bend = random.normal(0, 0.6, most)
    thickness = random.uniform(1 / 400, 1 / 150, most) * _short_side(image)
    along = np.linspace(0, 1, 12)
    angles = heading[:, None] + bend[:, None] * along
    steps = (length / len(along))[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=2)
    lines = start[:, None, :] + np.cumsum(steps, axis=1)
    n = int(level)
    identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    opacity = strokes(list(lines[:n]), thickness[:n].tolist(), identity, side, 1.0)[:height, :width, None]
    return _to_uint8(image + np.float32(0.9) * opacity * (colour - image))


def _rotation(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Turn by ``level`` degrees, one way or the other, about the centre; what comes from outside is mirrored in."""
    angle = level if random.random() < 0.5 else -level
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _resolution(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Shrink to a short side of ``level`` pixels and enlarge again; a smaller photo stays as it is."""
    height, width = image.shape[:2]
    scale = level / _short_side(image)
    if scale >= 1:
        return image.copy()
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def _occlusion(image: np.ndarray, level: float, random: np.random.Generator) -> np.ndarray:
    """Cover a share of the photo by a rounded patch that reaches in from one side, as a finger, glove or plaster."""
    height, width = image.shape[:2]
    colour = np.array(COVER_COLOURS[int(random.integers(len(COVER_COLOURS)))], np.float32)
    heading = random.uniform(0, 2 * np.pi)
    wobble = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    across = (x - width / 2) / width * np.cos(heading) + (y - height / 2) / height * np.sin(heading)
    sideways = (y - height / 2) / height * np.cos(heading) - (x - width / 2) / width * np.sin(heading)
    depth = across + np.float32(0.06) * np.cos(6 * sideways + wobble)
    edge = np.quantile(depth, 1 - level)
    soft = np.clip((depth - edge) * (_short_side(image) / 2) + 0.5, 0, 1)[..., None]  # an edge of two pixels
    return _to_uint8(image + soft.astype(np.float32) * (colour - image))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    item.name: item
    for item in (
        Corruption("blur", "out of focus", "sigma / short side", (0.004, 0.008, 0.014, 0.022, 0.035), _blur),
        Corruption("motion", "motion blur", "length / short side", (0.02, 0.04, 0.07, 0.11, 0.16), _motion),
        Corruption("noise", "noise", "standard deviation / 255", (0.03, 0.06, 0.1, 0.16, 0.25), _noise),
        Corruption("jpeg", "JPEG", "quality at 224 px", (40, 25, 15, 9, 5), _jpeg),
        Corruption("darker", "too dark", "factor on linear light", (0.6, 0.4, 0.25, 0.15, 0.08), _light),
        Corruption("brighter", "too bright", "factor on linear light", (1.3, 1.7, 2.3, 3.2, 4.5), _light),
        Corruption("cast", "colour cast", "red / blue - 1", (0.15, 0.3, 0.5, 0.8, 1.2), _cast),
        Corruption("hair", "hair", "hairs", (8, 20, 40, 70, 110), _hair),
        Corruption("rotation", "rotation", "degrees", (8, 20, 45, 90, 160), _rotation),
        Corruption("resolution", "low resolution", "short side, pixels", (96, 64, 44, 30, 20), _resolution),
        Corruption("occlusion", "partly covered", "share covered", (0.05, 0.12, 0.22, 0.35, 0.5), _occlusion),
    )
}


def describe() -> list[dict[str, Any]]:
    """Return every corruption's name, title, parameter and levels, for records and documentation."""
    return [
        {"name": item.name, "title": item.title, "parameter": item.parameter, "levels": list(item.levels)}
        for item in CORRUPTIONS.values()
    ]
