"""Random views of photos: one generator draws the parameters, an executor applies them.

The parameters of a view depend on ``(seed, epoch, image, view)`` and on nothing else: not on the batch, the thread,
the order or a resume. They are drawn for a whole batch at once, as arrays, so that an executor on any device can apply
them; the one here works photo by photo with OpenCV, which lets go of Python's lock, so threads scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from pydantic import Field, model_validator

from dermlab.core.config import Config
from dermlab.core.randomness import generator

# OpenCV's own threads would compete with the loader's: a photo of this size is not worth dividing.
cv2.setNumThreads(1)

CROP_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop

# Each kind of parameter draws from a stream of its own, so that a new kind changes none of the others.
_GEOMETRY = 0


class Augmentation(Config):
    """What is drawn for each view; the defaults suit skin, which has no upright."""

    size_px: int = Field(ge=1, le=8192, description="side of the square view in pixels")
    crop_scale: tuple[float, float] = Field((0.35, 1.0), description="share of the photo's area a crop may have")
    crop_ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="width / height a crop may have")
    horizontal_flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image, left to right")
    vertical_flip: float = Field(0.5, ge=0, le=1, description="probability of a mirror image, top to bottom")
    rotation_degrees: float = Field(0.0, ge=0, le=180, description="rotation drawn evenly from ± this; edges reflect")

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> Augmentation:
        for name, (low, high) in (("crop_scale", self.crop_scale), ("crop_ratio", self.crop_ratio)):
            if not 0 < low <= high:
                raise ValueError(f"{name} must be two numbers above 0, the smaller first")
        if self.crop_scale[1] > 1:
            raise ValueError("crop_scale cannot be more than 1, the whole photo")
        return self


@dataclass(frozen=True)
class Views:
    """The parameters of one view of each of B photos.

    Attributes:
        boxes: (B, 4) int64, the crop's left, top, width and height in the photo's pixels.
        flips: (B, 2) bool, mirrored left to right, top to bottom.
        degrees: (B,) float64, counter-clockwise rotation about the crop's centre.
        size_px: side of the view.
    """

    boxes: np.ndarray
    flips: np.ndarray
    degrees: np.ndarray
    size_px: int

    def __len__(self) -> int:
        return len(self.boxes)

    def matrices(self) -> np.ndarray:
        """Return (B, 2, 3) float64: a view's (column, row, 1) → the photo's (column, row); pixel centres are whole."""
        left, top, width, height = self.boxes.T.astype(float)
        turn = np.deg2rad(self.degrees)
        sign = np.where(self.flips, -1.0, 1.0)
        x_step, y_step = sign[:, 0] * width / self.size_px, sign[:, 1] * height / self.size_px
        linear = np.empty((len(self), 2, 2))
        linear[:, 0, 0], linear[:, 0, 1] = np.cos(turn) * x_step, -np.sin(turn) * y_step
        linear[:, 1, 0], linear[:, 1, 1] = np.sin(turn) * x_step, np.cos(turn) * y_step
        centre = np.stack([left + (width - 1) / 2, top + (height - 1) / 2], 1)
        middle = np.full(2, (self.size_px - 1) / 2)
        return np.concatenate([linear, (centre - linear @ middle)[:, :, None]], 2)


def draw(
    augmentation: Augmentation, sizes: np.ndarray, images: np.ndarray, *, seed: int, epoch: int, view: int = 0
) -> Views:
    """Draw one view of each photo.

    Args:
        augmentation: the distributions.
        sizes: (B, 2) heights and widths of the photos in pixels.
        images: (B,) the photos' numbers in the data set.
        seed: the run's seed.
        epoch: the pass over the data.
        view: which of several views of the photo.

    The crop is torchvision's RandomResizedCrop: ten attempts at an area and a ratio, then the largest central crop of
    an allowed ratio.
    """
    sizes = np.asarray(sizes, np.int64)
    numbers = uniforms(seed, epoch, images, view, _GEOMETRY, 5 + 2 * CROP_ATTEMPTS)
    boxes = _crops(augmentation, sizes, numbers[:, 3:5], numbers[:, 5:])
    flips = numbers[:, :2] < (augmentation.horizontal_flip, augmentation.vertical_flip)
    degrees = (2 * numbers[:, 2] - 1) * augmentation.rotation_degrees
    return Views(boxes, flips, degrees, augmentation.size_px)


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
        out: (S, S, 3), filled; uint8, or float32 in the same range 0 to 255 without rounding, which is also the faster.
    """
    left, top, width, height = views.boxes[place].tolist()
    across, down = views.flips[place].tolist()
    degrees = float(views.degrees[place])
    size = views.size_px
    if degrees:
        _rotate(image, views.matrices()[place], size, out)
        return
    crop = image[top : top + height, left : left + width]
    if across or down:
        crop = cv2.flip(crop, -1 if across and down else int(across))
    # Bilinear looks at four pixels: where more than four become one, they are averaged first.
    shrink = min(height, width) // size
    if shrink >= 2:
        crop = cv2.resize(crop, (width // shrink, height // shrink), interpolation=cv2.INTER_AREA)
    cv2.resize(crop if out.dtype == np.uint8 else crop.astype(np.float32), (size, size), dst=out)


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
    # OpenCV turns four channels in half the time it needs for three.
    turned = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
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


def uniforms(seed: int, epoch: int, images: np.ndarray, view: int, stream: int, n: int) -> np.ndarray:
    """Return (B, n) float64 numbers in [0, 1), a row for each image, that depend on the arguments and on no state."""
    images = np.asarray(images)
    blocks = -(-n // 4)
    counter = np.empty((len(images), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32)
    counter[..., 1] = images[:, None]
    counter[..., 2] = view
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
