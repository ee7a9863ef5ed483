"""Random views of photos: one generator draws the parameters, an executor applies them.

The parameters of a view depend on ``(seed, epoch, image, view)`` and on nothing else: not on the batch, the thread,
the order or a resume. They are drawn for a whole batch at once, as arrays, so that an executor on any device can apply
them; the one here works photo by photo with OpenCV, which lets go of Python's lock, so threads scale. The one for whole
batches on a graphics card is :mod:`dermlab.data.device_views`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field, model_validator

from dermlab.core.config import Config
from dermlab.core.randomness import generator

# OpenCV's own threads would compete with the loader's: a photo of this size is not worth dividing.
cv2.setNumThreads(1)

CROP_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop

# Each kind of parameter draws from a stream of its own, so that a new kind changes none of the others.
_GEOMETRY, _PLACEMENT, _COLOUR, _ERASING, _OPERATIONS, _CHANCES = range(6)

OPERATIONS = ("autocontrast", "equalise", "posterise", "solarise", "sharpen", "blur", "brighten", "darken")
"""What ``operations`` draws from: RandAugment's colour operations (Cubuk et al. 2020); its geometry is drawn apart."""

_GREY = np.array([0.299, 0.587, 0.114])
_TO_GREY = np.tile(_GREY, (3, 1))
# Hues are turned about the grey axis in YIQ, the way analogue television did.
_TO_YIQ = np.array([_GREY, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class Augmentation(Config):
    """What is drawn for each view; the defaults suit skin, which has no upright."""

    size_px: int = Field(ge=1, le=8192, description="side of the square view in pixels")
    crop_scale: tuple[float, float] = Field((0.35, 1.0), description="share of the photo's area a crop may have")
    crop_ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="width / height a crop may have")
    horizontal_flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image, left to right")
    vertical_flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image, top to bottom")
    rotation_degrees: float = Field(0.0, ge=0, le=180, description="rotation drawn evenly from ± this; edges reflect")

    quarter_turns: bool = Field(False, description="turn by 0, 90, 180 or 270 degrees: with both flips all 8 positions")
    shift: float = Field(0.0, ge=0, le=0.5, description="move by up to this share of the side; edges reflect")
    brightness: float = Field(0.0, ge=0, lt=1, description="multiply by 1 ± this")
    contrast: float = Field(0.0, ge=0, lt=1, description="stretch about the view's mean grey by 1 ± this")
    saturation: float = Field(0.0, ge=0, lt=1, description="stretch colours about their grey by 1 ± this")
    hue: float = Field(0.0, ge=0, le=0.5, description="turn the colour circle by ± this share")
    jitter: float = Field(1.0, ge=0, le=1, description="probability that these four are changed at all")
    greyscale: float = Field(0.0, ge=0, le=1, description="probability that all colour is taken away")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_sigma: tuple[float, float] = Field((0.1, 2.0), description="its standard deviation in pixels of the view")
    solarise: float = Field(0.0, ge=0, le=1, description="probability that values from 128 up are turned over")
    operations: int = Field(0, ge=0, le=4, description="how many of RandAugment's colour operations in turn")
    operation_strength: float = Field(0.3, ge=0, le=1, description="strength of those operations, 0 to 1")
    erasing: float = Field(0.0, ge=0, le=1, description="probability that a rectangle becomes mid-grey")
    erasing_scale: tuple[float, float] = Field((0.02, 0.2), description="share of the view that is erased")

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> Augmentation:
        ranges = {name: getattr(self, name) for name in ("crop_scale", "crop_ratio", "blur_sigma", "erasing_scale")}
        for name, (low, high) in ranges.items():
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers above 0, the smaller first")
        if self.crop_scale[1] > 1:
            raise ValueError("crop_scale cannot be more than 1, the whole photo")
        return self


Preset = Literal["none", "light", "strong"]

PRESETS: dict[str, dict[str, Any]] = {
    "none": {
        "crop_scale": (1.0, 1.0),
        "crop_ratio": (1.0, 1.0),
        "horizontal_flip": 0.0,
        "vertical_flip": 0.0,
    },
    "light": {"crop_scale": (0.6, 1.0), "brightness": 0.1, "contrast": 0.1, "saturation": 0.1},
    "strong": {
        "rotation_degrees": 30.0,
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.3,
        "hue": 0.03,
        "operations": 2,
        "erasing": 0.25,
    },
}
"""What a config's one word stands for; each field may be changed beside it."""


def preset(name: Preset, size_px: int, **changes: Any) -> Augmentation:
    """Return a preset's augmentation for views of ``size_px``, with single fields changed."""
    return Augmentation(size_px=size_px, **{**PRESETS[name], **changes})


@dataclass(frozen=True)
class Views:
    """The parameters of one view of each of B photos.

    Attributes:
        boxes: (B, 4) int64, the crop's left, top, width and height in the photo's pixels.
        flips: (B, 2) bool, mirrored left to right, top to bottom.
        degrees: (B,) float64, counter-clockwise rotation about the crop's centre.
        size_px: side of the view.
        shifts: (B, 2) float64, how far the crop is moved right and down, in the photo's pixels, beyond its edges too.
        colours: (B, 4) float64, factors of brightness, contrast and saturation, and the hue's turn as a share.
        operations: (B, k) int64 of :data:`OPERATIONS`, applied in turn.
        strengths: (B, k) float64, 0 to 1.
        erased: (B, 4) int64, left, top, width and height of the rectangle in the view's pixels; width 0: none.
        greys: (B,) bool, whether colour is taken away after ``colours``.
        blurs: (B,) float64, standard deviation of the blur in pixels of the view; 0: none.
        solarised: (B,) bool, whether values from 128 up are turned over, after the blur.
    """

    boxes: np.ndarray
    flips: np.ndarray
    degrees: np.ndarray
    size_px: int
    shifts: np.ndarray | None = None
    colours: np.ndarray | None = None
    operations: np.ndarray | None = None
    strengths: np.ndarray | None = None
    erased: np.ndarray | None = None
    greys: np.ndarray | None = None
    blurs: np.ndarray | None = None
    solarised: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def matrices(self) -> np.ndarray:
        """Return (B, 2, 3) float64: a view's (column, row, 1) → the photo's (column, row); pixel centres are whole."""
        return self._matrices

    @cached_property
    def turned(self) -> np.ndarray:
        """(B,) bool, whether the view is more than an upright crop, so that its matrix must be followed."""
        moved = False if self.shifts is None else self.shifts.any(1)
        return (self.degrees != 0) | moved

    @cached_property
    def shrinks(self) -> np.ndarray:
        """(B,) int64, how many of the photo's pixels, a side, become one; from 2 on they are averaged first."""
        width, height = self.boxes[:, 2], self.boxes[:, 3]
        turned = np.sqrt(np.abs(np.linalg.det(self._matrices[:, :, :2]))).astype(np.int64)
        return np.where(self.turned, turned, np.minimum(width, height) // self.size_px)

    @cached_property
    def tints(self) -> np.ndarray | None:
        """(B, 3, 3) float64, what saturation and hue do to RGB; None without ``colours``."""
        return None if self.colours is None else tints(self.colours)

    @cached_property
    def recoloured(self) -> np.ndarray:
        """(B,) bool, whether ``colours`` changes anything."""
        return np.zeros(len(self), bool) if self.colours is None else (self.colours != (1.0, 1.0, 1.0, 0.0)).any(1)

    @cached_property
    def _matrices(self) -> np.ndarray:
        left, top, width, height = self.boxes.T.astype(float)
        turn = np.deg2rad(self.degrees)
        sign = np.where(self.flips, -1.0, 1.0)
        x_step, y_step = sign[:, 0] * width / self.size_px, sign[:, 1] * height / self.size_px
        linear = np.empty((len(self), 2, 2))
        linear[:, 0, 0], linear[:, 0, 1] = np.cos(turn) * x_step, -np.sin(turn) * y_step
        linear[:, 1, 0], linear[:, 1, 1] = np.sin(turn) * x_step, np.cos(turn) * y_step
        centre = np.stack([left + (width - 1) / 2, top + (height - 1) / 2], 1)
        if self.shifts is not None:
            centre = centre + self.shifts
        middle = np.full(2, (self.size_px - 1) / 2)
        return np.concatenate([linear, (centre - linear @ middle)[:, :, None]], 2)


def draw(
    augmentation: Augmentation,
    sizes: np.ndarray,
    images: np.ndarray,
    *,
    seed: int,
    epoch: int,
    view: int | np.ndarray = 0,
) -> Views:
    """Draw one view of each photo.

    Args:
        augmentation: the distributions.
        sizes: (B, 2) heights and widths of the photos in pixels.
        images: (B,) the photos' numbers in the data set.
        seed: the run's seed.
        epoch: the pass over the data.
        view: which of several views of the photo; a number, or one for each photo (B,).

    The crop is torchvision's RandomResizedCrop: ten attempts at an area and a ratio, then the largest central crop of
    an allowed ratio.
    """
    sizes = np.asarray(sizes, np.int64)
    numbers = uniforms(seed, epoch, images, view, _GEOMETRY, 5 + 2 * CROP_ATTEMPTS)
    boxes = _crops(augmentation, sizes, numbers[:, 3:5], numbers[:, 5:])
    flips = numbers[:, :2] < (augmentation.horizontal_flip, augmentation.vertical_flip)
    degrees = (2 * numbers[:, 2] - 1) * augmentation.rotation_degrees
    shifts = colours = operations = strengths = erased = greys = blurs = solarised = None
    chances = uniforms(seed, epoch, images, view, _CHANCES, 5)
    if augmentation.shift or augmentation.quarter_turns:
        placement = uniforms(seed, epoch, images, view, _PLACEMENT, 3)
        if augmentation.quarter_turns:
            degrees = degrees + 90.0 * np.floor(4 * placement[:, 0])
        shifts = (2 * placement[:, 1:] - 1) * augmentation.shift * boxes[:, 2:]
    spread = np.array([augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue])
    if spread.any():
        colours = (2 * uniforms(seed, epoch, images, view, _COLOUR, 4) - 1) * spread + (1.0, 1.0, 1.0, 0.0)
        colours[chances[:, 0] >= augmentation.jitter] = (1.0, 1.0, 1.0, 0.0)
    if augmentation.greyscale:
        greys = chances[:, 1] < augmentation.greyscale
    if augmentation.blur:
        low, high = augmentation.blur_sigma
        blurs = np.where(chances[:, 2] < augmentation.blur, low + (high - low) * chances[:, 3], 0.0)
    if augmentation.solarise:
        solarised = chances[:, 4] < augmentation.solarise
    if augmentation.operations:
        k = augmentation.operations
        drawn = uniforms(seed, epoch, images, view, _OPERATIONS, 2 * k)
        operations = (drawn[:, :k] * len(OPERATIONS)).astype(np.int64)
        strengths = drawn[:, k:] * 2 * augmentation.operation_strength
    if augmentation.erasing:
        erased = _rectangles(augmentation, uniforms(seed, epoch, images, view, _ERASING, 5))
    return Views(
        boxes,
        flips,
        degrees,
        augmentation.size_px,
        shifts,
        colours,
        operations,
        strengths,
        erased,
        greys,
        blurs,
        solarised,
    )


def _rectangles(augmentation: Augmentation, numbers: np.ndarray) -> np.ndarray:
    """Return the rectangles of random erasing (Zhong et al. 2020), (B, 4) int64; width 0 where nothing is erased."""
    size = augmentation.size_px
    low, high = augmentation.erasing_scale
    side = np.sqrt(low + (high - low) * numbers[:, 1]) * size
    stretch = np.exp(np.log(0.5) + np.log(4.0) * numbers[:, 2]) ** 0.5
    width = np.clip(np.rint(side * stretch), 1, size).astype(np.int64)
    height = np.clip(np.rint(side / stretch), 1, size).astype(np.int64)
    left = (numbers[:, 3] * (size - width + 1)).astype(np.int64)
    top = (numbers[:, 4] * (size - height + 1)).astype(np.int64)
    width[numbers[:, 0] >= augmentation.erasing] = 0
    return np.stack([left, top, width, height], 1)


def _crops(augmentation: Augmentation, sizes: np.ndarray, place: np.ndarray, attempts: np.ndarray) -> np.ndarray:
    heights, widths = sizes[:, :1], sizes[:, 1:]
    low, high = augmentation.crop_scale
    area = heights * widths * (low + (high - low) * attempts[:, ::2])
    log_low, log_high = np.log(augmentation.crop_ratio)
    ratio = np.exp(log_low + (log_high - log_low) * attempts[:, 1::2])
    w, h = np.rint(np.sqrt(area * ratio)).astype(np.int64), np.rint(np.sqrt(area / ratio)).astype(np.int64)
    fits = (w > 0) & (w <= widths) & (h > 0) & (h <= heights)
    first = fits.argmax(1)[:, None]
    w, h = np.take_along_axis(w, first, 1)[:, 0], np.take_along_axis(h, first, 1)[:, 0]
    height, width = sizes.T
    left, top = (place * (np.stack([width - w, height - h], 1) + 1)).astype(np.int64).T
    whole = np.clip(width / height, *augmentation.crop_ratio)
    central_w = np.minimum(width, np.rint(height * whole)).astype(np.int64).clip(1)
    central_h = np.minimum(height, np.rint(width / whole)).astype(np.int64).clip(1)
    central = np.stack([(width - central_w) // 2, (height - central_h) // 2, central_w, central_h], 1)
    return np.where(fits.any(1)[:, None], np.stack([left, top, w, h], 1), central)


def render(image: np.ndarray, views: Views, place: int, out: np.ndarray) -> None:
    """Apply one of the views to a photo with OpenCV, bilinear.

    Args:
        image: (H, W, 3) uint8.
        views: drawn for photos of this size among others.
        place: which of the views.
        out: (S, S, 3), filled; uint8, or float32 in the same range 0 to 255 without rounding. Without blur float32 is
            the faster, with blur uint8.
    """
    if out.dtype == np.uint8:
        render_all(image, views, place, out[None])
        return
    if views.turned[place]:
        _rotate(image, views.matrices()[place], views.size_px, out)
    else:
        cv2.resize(_cropped(image, views, place).astype(np.float32), (views.size_px, views.size_px), dst=out)
    _recolour(views, place, out)


def render_all(image: np.ndarray, views: Views, first: int, out: np.ndarray) -> None:
    """Apply successive views to one photo with OpenCV in 8 bits throughout; what they share is made once.

    Each step rounds: a view lies within a grey level or two of :func:`render`'s float32.

    Args:
        image: (H, W, 3) uint8.
        views: drawn for photos of this size among others.
        first: the place of the first of them among the views.
        out: (n, S, S, 3) uint8, filled with views ``first`` to ``first + n - 1``.
    """
    size = views.size_px
    four = None
    for place, made in enumerate(out, first):
        if not views.turned[place]:
            cv2.resize(_cropped(image, views, place), (size, size), dst=made)
        elif views.shrinks[place] >= 2:
            _rotate(image, views.matrices()[place], size, made)
        else:
            four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA) if four is None else four
            _warp(four, views.matrices()[place], size, made)
        _recolour_bytes(views, place, made)


def _cropped(image: np.ndarray, views: Views, place: int) -> np.ndarray:
    """Return an upright view's part of the photo, mirrored, and averaged where it shrinks much."""
    left, top, width, height = views.boxes[place].tolist()
    across, down = views.flips[place].tolist()
    crop = image[top : top + height, left : left + width]
    if across or down:
        crop = cv2.flip(crop, -1 if across and down else int(across))
    # Bilinear looks at four pixels: where more than four become one, they are averaged first.
    shrink = int(views.shrinks[place])
    if shrink >= 2:
        crop = cv2.resize(crop, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    return crop


def _recolour(views: Views, place: int, out: np.ndarray) -> None:
    """Apply a view's operations, colours and erased rectangle to float32 pixels in place."""
    if views.operations is not None:
        out[...] = _operated(views, place, np.rint(out).clip(0, 255).astype(np.uint8))
    if views.colours is not None:
        out[...] = np.clip(cv2.transform(out, _colour_matrix_of(views, place, out)), 0, 255)
    if views.greys is not None and views.greys[place]:
        out[...] = cv2.transform(out, _TO_GREY)
    if views.blurs is not None and views.blurs[place]:
        out[...] = cv2.GaussianBlur(out, (0, 0), float(views.blurs[place]))
    if views.solarised is not None and views.solarised[place]:
        np.minimum(out, 255 - out, out=out)  # what lies above the middle is turned over
    _erase(views, place, out)


def _recolour_bytes(views: Views, place: int, out: np.ndarray) -> None:
    """Do what :func:`_recolour` does to uint8 pixels, in place and without leaving 8 bits."""
    if views.operations is not None:
        out[...] = _operated(views, place, out)
    if views.recoloured[place]:
        cv2.transform(out, _colour_matrix_of(views, place, out), dst=out)
    is_grey = views.greys is not None and bool(views.greys[place])
    # A grey view has one channel to blur and not three.
    pixels = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY) if is_grey else out
    if views.blurs is not None and views.blurs[place]:
        kernel = gaussian_kernel(float(views.blurs[place]))
        if len(kernel) > 1:
            cv2.sepFilter2D(pixels, -1, kernel, kernel, dst=pixels)
    if views.solarised is not None and views.solarised[place]:
        cv2.min(pixels, cv2.bitwise_not(pixels), dst=pixels)
    if is_grey:
        cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB, dst=out)
    _erase(views, place, out)


def _operated(views: Views, place: int, pixels: np.ndarray) -> np.ndarray:
    assert views.operations is not None
    assert views.strengths is not None
    for code, strength in zip(views.operations[place].tolist(), views.strengths[place].tolist(), strict=True):
        pixels = _operate(pixels, OPERATIONS[code], strength)
    return pixels


def _erase(views: Views, place: int, out: np.ndarray) -> None:
    if views.erased is not None and views.erased[place, 2]:
        left, top, width, height = views.erased[place].tolist()
        out[top : top + height, left : left + width] = 128


def _colour_matrix_of(views: Views, place: int, pixels: np.ndarray) -> np.ndarray:
    assert views.colours is not None
    assert views.tints is not None
    return colour_matrix(views.colours[place], float(np.dot(cv2.mean(pixels)[:3], _GREY)), views.tints[place])


def colour_matrix(factors: np.ndarray, mean_grey: float, tint: np.ndarray | None = None) -> np.ndarray:
    """Return brightness, contrast, saturation and hue, in this order, as one affine map of RGB, float64 (3, 4).

    Args:
        factors: (4,) factors of the first three and the hue's turn as a share of the circle.
        mean_grey: mean grey value of the view before.
        tint: (3, 3), the factors' :func:`tints` where they are known.
    """
    brightness, contrast = factors[:2].tolist()
    colour = tints(factors) if tint is None else tint
    linear = colour * (contrast * brightness)
    bias = colour @ np.full(3, (1 - contrast) * brightness * mean_grey)
    return np.concatenate([linear, bias[:, None]], axis=1)


def tints(factors: np.ndarray) -> np.ndarray:
    """Return what saturation and hue do to RGB, float64 (..., 3, 3); grey stays as it is.

    Args:
        factors: (..., 4) as those of :func:`colour_matrix`.
    """
    saturation = factors[..., 2, None, None]
    turn = 2 * np.pi * factors[..., 3]
    rotation = np.zeros((*factors.shape[:-1], 3, 3))
    rotation[..., 0, 0] = 1
    rotation[..., 1, 1] = rotation[..., 2, 2] = np.cos(turn)
    rotation[..., 2, 1] = np.sin(turn)
    rotation[..., 1, 2] = -rotation[..., 2, 1]
    found: np.ndarray = _FROM_YIQ @ rotation @ _TO_YIQ @ (saturation * np.eye(3) + (1 - saturation) * _TO_GREY)
    return found


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Return a Gaussian in whole 256ths that sum to 1, float64 (k,), k odd; tails that round to nothing are cut.

    OpenCV filters 8-bit pixels by kernels of such numbers. Rounded one by one they would sum to a little more or less
    than 1, and each blur would make the view lighter or darker; here the middle takes up what is missing.

    Args:
        sigma: standard deviation in pixels, above 0.
    """
    reach = int(np.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    whole = np.rint(256 * weights / weights.sum())
    whole = whole[np.flatnonzero(whole)[0] : np.flatnonzero(whole)[-1] + 1]
    whole[len(whole) // 2] += 256 - whole.sum()
    return whole / 256


def _operate(pixels: np.ndarray, operation: str, strength: float) -> np.ndarray:
    """Return uint8 pixels after one of :data:`OPERATIONS`; strength 0 changes as little as the operation can."""
    if operation == "autocontrast":
        low, high = pixels.min((0, 1)).astype(np.float32), pixels.max((0, 1)).astype(np.float32)
        scale = 255 / np.maximum(high - low, 1)
        return cv2.convertScaleAbs((pixels - low) * scale)
    if operation == "equalise":
        return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(pixels)])
    if operation == "posterise":
        return pixels & np.uint8(0xFF << min(5, round(4 * strength)) & 0xFF)
    if operation == "solarise":
        threshold = round(255 * (1 - 0.5 * strength))
        return np.where(pixels >= threshold, 255 - pixels, pixels)
    if operation in ("sharpen", "blur"):
        soft = cv2.GaussianBlur(pixels, (0, 0), 1.0)
        share = strength if operation == "blur" else -strength
        return cv2.addWeighted(soft, share, pixels, 1 - share, 0)
    factor = 1 + 0.6 * strength * (1 if operation == "brighten" else -1)
    return cv2.convertScaleAbs(pixels, alpha=factor)


def _rotate(image: np.ndarray, matrix: np.ndarray, size: int, out: np.ndarray) -> None:
    corners = np.array([[-1, -1, 1], [size, -1, 1], [-1, size, 1], [size, size, 1]]) @ matrix.T
    # The part that the view looks at, with a margin for the filter; what lies beyond the photo is reflected.
    height, width = image.shape[:2]
    low = np.clip(np.floor(corners.min(0)).astype(int) - 1, 0, (width - 1, height - 1))
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2, low + 1, (width, height))
    matrix = matrix.copy()
    outside = (corners.min(0) < 0).any() or (corners.max(0) > (width - 1, height - 1)).any()
    if not outside:
        image = image[low[1] : high[1], low[0] : high[0]]
        matrix[:, 2] -= low
    shrink = int(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrink >= 2:
        height, width = image.shape[:2]
        image = cv2.resize(image, (max(1, width // shrink), max(1, height // shrink)), interpolation=cv2.INTER_AREA)
        scale = np.array([image.shape[1] / width, image.shape[0] / height])
        matrix = matrix * scale[:, None]
        matrix[:, 2] += (scale - 1) / 2
    _warp(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA), matrix, size, out)


def _warp(image: np.ndarray, matrix: np.ndarray, size: int, out: np.ndarray) -> None:
    """Fill a view from a photo of four channels, which OpenCV turns in half the time it needs for three."""
    turned = cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    if out.dtype == np.uint8:
        cv2.cvtColor(turned, cv2.COLOR_RGBA2RGB, dst=out)
    else:
        out[...] = cv2.cvtColor(turned, cv2.COLOR_RGBA2RGB)


# -------------------------------------------------------------------- numbers


MINKOWSKI = {"grey_world": 1.0, "shades_of_grey": 6.0}
"""The exponent p of each colour constancy: 1 takes the mean as grey, 6 is what Finlayson & Trezzi found best."""


def illuminant_gains(image: np.ndarray, p: float) -> np.ndarray:
    """Return the factors, float64 (3,), that make a photo's illuminant grey, its length kept.

    Shades of grey (Finlayson & Trezzi 2004, "Shades of gray and colour constancy", equation 8): the illuminant is the
    Minkowski mean of each channel, ``mean(x ** p) ** (1 / p)``; p = 1 is grey world. Channels are taken as stored
    (sRGB), as is usual for photos of skin (Barata et al. 2015). A channel that is black throughout stays so.

    Args:
        image: (H, W, 3) uint8 RGB.
        p: of the mean, at least 1.
    """
    # A channel has 256 values: their counts give the same mean as all of its pixels.
    counts = np.stack([np.bincount(image[..., channel].ravel(), minlength=256) for channel in range(3)])
    light = (counts @ (np.arange(256) / 255.0) ** p / counts.sum(axis=1)) ** (1 / p)
    grey = np.sqrt((light**2).mean())
    return np.divide(grey, light, out=np.ones(3), where=light > 0)


def rebalance(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Return a photo (H, W, 3) uint8 with its channels multiplied by ``gains`` (3,), rounded and clipped."""
    table = np.rint(np.arange(256)[:, None] * gains).clip(0, 255).astype(np.uint8)
    made: np.ndarray = cv2.LUT(image, table[None])
    return made


def uniforms(seed: int, epoch: int, images: np.ndarray, view: int | np.ndarray, stream: int, n: int) -> np.ndarray:
    """Return (B, n) float64 numbers in [0, 1), a row for each image, that depend on the arguments and on no state."""
    images = np.asarray(images)
    blocks = -(-n // 4)
    counter = np.empty((len(images), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = images[:, None]
    counter[..., 2] = np.asarray(view)[..., None]
    counter[..., 3] = stream
    return philox(counter, _key(seed, epoch)).reshape(len(images), 4 * blocks)[:, :n] / 2.0**32


@lru_cache(maxsize=8)
def _key(seed: int, epoch: int) -> tuple[int, int]:
    low, high = generator(seed, "views", epoch).integers(0, 1 << 32, 2, dtype=np.uint32).tolist()
    return low, high


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Return Philox4x32-10 of each counter (..., 4) uint32 under a key of two 32-bit numbers, same shape.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; numpy's own generator takes one
    counter at a time, a batch of photos has hundreds.
    """
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(10):
        product0 = c0 * np.uint64(0xD2511F53)
        product1 = c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (product1 >> shift) ^ c1 ^ np.uint64(k0),
            product1 & low,
            (product0 >> shift) ^ c3 ^ np.uint64(k1),
            product0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)
