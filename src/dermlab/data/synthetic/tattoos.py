"""Tattoos drawn onto photos of skin: what the audit's search for ink is measured with.

Ink lies under the skin: it takes light away (the photo is multiplied by what it lets through), its edges are soft, and
the skin's own texture stays on top.
"""

from __future__ import annotations

import string
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = ("lettering", "outline", "ornament", "filled")

INKS: dict[str, tuple[float, float, float]] = {
    "blue-black": (0.18, 0.27, 0.42),
    "aged blue": (0.38, 0.52, 0.66),
    "green": (0.25, 0.55, 0.42),
    "black": (0.20, 0.20, 0.22),
}
"""What each ink lets through of red, green and blue light where it is densest."""

_CANVAS_PX = 512
_FONTS = (cv2.FONT_HERSHEY_SCRIPT_COMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SIMPLEX)


def draw_tattoo(
    photo: NDArray[Any], rng: np.random.Generator, *, kind: str, ink: str, share: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw one tattoo somewhere on a photo.

    Args:
        photo: uint8 (H, W, 3), RGB; it stays as it is.
        rng: where, how and what is drawn.
        kind: one of :data:`KINDS`.
        ink: one of :data:`INKS`.
        share: side of the square that it is drawn in, as a share of the photo's shorter side.

    Returns:
        The photo with the tattoo, uint8 (H, W, 3), and how dense the ink is, float32 (H, W) from 0 to 1.
    """
    height, width = photo.shape[:2]
    side = max(8, round(share * min(height, width)))
    drawing = _DRAW[kind](rng)
    turn = cv2.getRotationMatrix2D((_CANVAS_PX / 2, _CANVAS_PX / 2), float(rng.uniform(-40, 40)), 0.9)
    drawing = cv2.warpAffine(drawing, turn, drawing.shape[::-1])
    small: NDArray[Any] = cv2.resize(drawing, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    small = cv2.GaussianBlur(small, (0, 0), max(0.5, side / 250))
    density: NDArray[Any] = np.zeros((height, width), dtype=np.float32)
    top, left = (int(rng.integers(0, length - side + 1)) for length in (height, width))
    density[top : top + side, left : left + side] = np.clip(small, 0, 1)
    patchy = cv2.resize(rng.uniform(0.75, 1, (12, 12)).astype(np.float32), (width, height))
    density *= patchy * float(rng.uniform(0.8, 1))
    through = 1 - density[..., None] * (1 - np.array(INKS[ink], dtype=np.float32))
    return np.clip(np.rint(photo * through), 0, 255).astype(np.uint8), density


def _blank() -> NDArray[Any]:
    return np.zeros((_CANVAS_PX, _CANVAS_PX), dtype=np.uint8)


def _lettering(rng: np.random.Generator) -> NDArray[Any]:
    canvas = _blank()
    font, n_lines = _FONTS[int(rng.integers(len(_FONTS)))], int(rng.integers(1, 4))
    for line in range(n_lines):
        word = "".join(rng.choice(list(string.ascii_letters), int(rng.integers(4, 9))))
        thick = int(rng.integers(5, 10))
        (wide, tall), _ = cv2.getTextSize(word, font, 1.0, 1)
        scale = min(0.9 * _CANVAS_PX / wide, 0.8 * _CANVAS_PX / n_lines / max(tall, 1))
        place = (round(0.05 * _CANVAS_PX), round((line + 0.8) * _CANVAS_PX / n_lines))
        cv2.putText(canvas, word, place, font, scale, 255, thick, cv2.LINE_AA)
    return canvas


def _curve(points: NDArray[Any]) -> NDArray[Any]:
    return np.rint(points).astype(np.int32).reshape(-1, 1, 2)


def _outline(rng: np.random.Generator) -> NDArray[Any]:
    """Draw a flower: a few closed curves about one middle, in lines of one width, with a stem."""
    canvas = _blank()
    angle = np.linspace(0, 2 * np.pi, 400)
    petals, thick = int(rng.integers(3, 8)), int(rng.integers(6, 14))
    for size in (0.92, 0.6, 0.3):
        radius = 0.48 * _CANVAS_PX * size * (0.7 + 0.3 * np.cos(petals * angle + rng.uniform(0, 6)))
        points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None] + _CANVAS_PX / 2
        cv2.polylines(canvas, [_curve(points)], True, 255, thick, cv2.LINE_AA)
    end = tuple(rng.integers(0, _CANVAS_PX, 2).tolist())
    cv2.line(canvas, (_CANVAS_PX // 2, _CANVAS_PX // 2), end, 255, thick, cv2.LINE_AA)
    return canvas


def _ornament(rng: np.random.Generator) -> NDArray[Any]:
    """Draw a handful of swung strokes that swell and taper."""
    canvas = _blank()
    along = np.linspace(0, 1, 80)
    for _ in range(int(rng.integers(4, 8))):
        ends = rng.uniform(0.05, 0.95, (4, 2)) * _CANVAS_PX
        weights = np.stack([(1 - along) ** 3, 3 * along * (1 - along) ** 2, 3 * along**2 * (1 - along), along**3], 1)
        widths = rng.uniform(14, 34) * np.sin(np.pi * along) + 2
        for point, wide in zip(np.rint(weights @ ends).astype(int).tolist(), widths.tolist(), strict=True):
            cv2.circle(canvas, tuple(point), max(1, round(wide / 2)), 255, -1, cv2.LINE_AA)
    return canvas


def _filled(rng: np.random.Generator) -> NDArray[Any]:
    """Draw a star or a heart filled with ink, and its outline a little away."""
    angle = np.linspace(0, 2 * np.pi, 400)
    if rng.random() < 0.5:
        n = 2 * int(rng.integers(4, 8))
        corner = np.linspace(0, 2 * np.pi, n, endpoint=False)
        shape = np.stack([np.cos(corner), np.sin(corner)], 1) * np.where(np.arange(n) % 2, 0.45, 1)[:, None]
    else:
        shape = np.stack([16 * np.sin(angle) ** 3, -13 * np.cos(angle) + 5 * np.cos(2 * angle)], 1) / 17
    canvas = _blank()
    for size, thick in ((0.46, 8), (0.36, -1)):
        points = [_curve(shape * size * _CANVAS_PX + _CANVAS_PX / 2)]
        if thick < 0:
            cv2.fillPoly(canvas, points, 255, cv2.LINE_AA)
        else:
            cv2.polylines(canvas, points, True, 255, thick, cv2.LINE_AA)
    return canvas


_DRAW = {"lettering": _lettering, "outline": _outline, "ornament": _ornament, "filled": _filled}
