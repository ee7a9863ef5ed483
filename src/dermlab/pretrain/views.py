"""The views that a method looks at: how many, how large, and what is drawn for each; and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from dermlab.core.config import Config
from dermlab.data.augment import Augmentation

if TYPE_CHECKING:
    import torch

    from dermlab.data.pixel_cache import Pixels


class ViewGroup(Config):
    """Views of one kind."""

    name: Literal["global", "local"] = Field(description="global views come first and are what a teacher sees")
    count: int = Field(ge=1, description="views of each photo")
    augmentation: Augmentation = Field(description="what is drawn for each")


# Colour tells diagnoses apart: jitter is half of DINO's or less (.4, .4, .2, .1 there), and grey views a quarter. What
# that comes to on photos, against the distance between classes, is told in docs/explanation/pretraining.md.
COLOUR: dict[str, Any] = {
    "jitter": 0.8,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.1,
    "hue": 0.02,
    "greyscale": 0.05,
}


def default_views(
    method: str,
    size_px: int,
    *,
    local_views: int,
    local_size_px: int,
    global_scale: tuple[float, float],
    local_scale: tuple[float, float],
    changes: dict[str, Any],
) -> tuple[ViewGroup, ...]:
    """Return a method's views (anchors: DINO's, iBOT's, BYOL's papers) with the jitter that skin bears.

    Args:
        method: of the five.
        size_px: side of a global view.
        local_views: of each photo; dino and ibot.
        local_size_px: side of a local view.
        global_scale: share of the photo's area in a global view.
        local_scale: share in a local one.
        changes: fields of every view's augmentation changed.
    """

    def group(name: Literal["global", "local"], count: int, side: int, **own: Any) -> ViewGroup:
        # A blur of 2 px at 224 is one of 0.25 px at 28: the same part of the view.
        sigma = (0.1, max(0.2, 2.0 * side / 224))
        fields = {**COLOUR, "rotation_degrees": 180.0, "blur_sigma": sigma, **own, **changes}
        return ViewGroup(name=name, count=count, augmentation=Augmentation(size_px=side, **fields))

    if method == "panderm":  # crop and flips only (PanDerm, methods)
        plain = {"jitter": 0.0, "greyscale": 0.0, "rotation_degrees": 0.0, "crop_scale": global_scale}
        return (group("global", 1, size_px, **plain),)
    if method == "simclr":
        return (group("global", 2, size_px, crop_scale=global_scale, blur=0.5),)
    # Of two global views one is always blurred, the other seldom blurred but sometimes solarised.
    groups = [
        group("global", 1, size_px, crop_scale=global_scale, blur=1.0),
        group("global", 1, size_px, crop_scale=global_scale, blur=0.1, solarise=0.2),
    ]
    if method in ("dino", "ibot") and local_views:
        groups.append(group("local", local_views, local_size_px, crop_scale=local_scale, blur=0.5))
    return tuple(groups)


def view_batches(
    pixels: Pixels,
    indices: Sequence[int] | np.ndarray,
    batch_size: int,
    groups: Sequence[ViewGroup],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
    epoch: int,
    device: torch.device | str = "cpu",
    threads: int | None = None,
) -> Iterator[tuple[list[torch.Tensor], np.ndarray]]:
    """Return batches of all views of photos; each is drawn from ``(seed, epoch, image, view)`` and from nothing else.

    Args:
        pixels: the photos.
        indices: (N,) which, in this order.
        batch_size: photos in a batch.
        groups: the views, global ones first.
        mean: of the network's input.
        std: of the network's input.
        seed: of the views.
        epoch: the pass over the data.
        device: where the tensors are wanted.
        threads: making views (default: the cores of this process).

    Returns:
        One (B, 3, S, S) tensor a view and the (B,) photos they are of, batch after batch; see
        :func:`dermlab.data.view_batches.view_batches`.
    """
    from dermlab.data import view_batches as made

    augmentations = [group.augmentation for group in groups for _ in range(group.count)]
    return made.view_batches(
        pixels,
        indices,
        batch_size,
        augmentations,
        mean=mean,
        std=std,
        seed=seed,
        epoch=epoch,
        threads=threads,
        device=device,
    )


def draw_views(pixels: Pixels, rows: np.ndarray, groups: Sequence[ViewGroup], path: Any, *, seed: int) -> None:
    """Write a picture of some photos' views in the first epoch, a row a photo, and the photo's middle before them.

    Args:
        pixels: the photos.
        rows: which.
        groups: the views; local ones are drawn smaller, as they are, and above each other.
        path: of the PNG.
        seed: of the views.
    """
    import cv2
    from PIL import Image

    from dermlab.core.files import atomic_path
    from dermlab.data.augment import draw, render_all

    largest = max(group.augmentation.size_px for group in groups)
    tile, gap = max(32, min(128, largest)), 4
    lines = []
    for row, photo in zip(rows.tolist(), pixels.images(rows), strict=True):
        short = min(photo.shape[:2])
        top, left = (photo.shape[0] - short) // 2, (photo.shape[1] - short) // 2
        line = [_columns([cv2.resize(photo[top : top + short, left : left + short], (tile, tile))], tile, gap)]
        first = 0
        for group in groups:
            n, size = group.count, group.augmentation.size_px
            sizes, same = np.tile(photo.shape[:2], (n, 1)), np.full(n, row)
            views = draw(group.augmentation, sizes, same, seed=seed, epoch=1, view=np.arange(first, first + n))
            made = np.empty((n, size, size, 3), np.uint8)
            render_all(photo, views, 0, made)
            side = max(1, round(tile * size / largest))
            line.append(_columns([cv2.resize(view, (side, side)) for view in made], tile, gap))
            first += n
        lines.append(np.concatenate(line, axis=1))
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(lines)).save(temporary, format="PNG")


def _columns(squares: list[np.ndarray], height: int, gap: int) -> np.ndarray:
    """Return squares of one size in columns on white, as many above each other as go into a height."""
    side = len(squares[0])
    n = (height + gap) // (side + gap)
    sheet = np.full((height + gap, -(-len(squares) // n) * (side + gap), 3), 255, np.uint8)
    for place, square in enumerate(squares):
        column, row = divmod(place, n)
        top, left = row * (side + gap), column * (side + gap)
        sheet[top : top + side, left : left + side] = square
    return sheet
