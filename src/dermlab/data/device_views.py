"""The executor for a whole batch of photos on their device: what OpenCV does photo by photo, as torch operations.

Photos travel as uint8 and every view is made where the network is. Parameters are those of
:func:`dermlab.data.augment.draw`; results lie within a grey level or two of :func:`dermlab.data.augment.render`, more
only along hard edges where a view shrinks its photo to less than half (averages there are of samples).
Blurs are convolutions, whose sums are not the same to the last bit each time (some 1e-6 of the range), even on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from dermlab.data.augment import Augmentation, Views

_GREY = (0.299, 0.587, 0.114)


def can_render(augmentation: Augmentation) -> bool:
    """Whether the views can be made here: RandAugment's operations look at histograms and stay with OpenCV."""
    return not augmentation.operations


def pack(images: Sequence[np.ndarray], *, pinned: bool = False) -> torch.Tensor:
    """Return photos of several shapes side by side in one uint8 tensor (B, H, W, 3), each in the upper left corner.

    Args:
        images: (h, w, 3) uint8 each.
        pinned: in memory that CUDA copies from without waiting.
    """
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    packed = torch.empty((len(images), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
    for image, place in zip(images, packed.numpy(), strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return packed


def render_batch(photos: torch.Tensor, sizes: np.ndarray, views: Views) -> torch.Tensor:
    """Make n views of each of B photos, bilinear.

    Args:
        photos: (B, H, W, 3) uint8 from :func:`pack`, on any device.
        sizes: (B, 2) int64, their heights and widths.
        views: B × n of them, those of one photo side by side.

    Returns:
        (n, B, 3, S, S) float32, 0 to 255, in channels-last memory.

    Raises:
        ValueError: the views have operations; see :func:`can_render`.
    """
    if views.operations is not None:
        raise ValueError("RandAugment's operations are made with OpenCV only")
    n, size = len(views) // len(photos), views.size_px
    source = photos.permute(0, 3, 1, 2).float()
    made = torch.empty((n, len(photos), size, size, 3), device=photos.device).permute(0, 1, 4, 2, 3)
    for number in range(n):
        places = np.arange(number, len(views), n)
        shrinks = np.maximum(views.shrinks[places], 1)
        for shrink in np.unique(shrinks).tolist():
            mine = np.flatnonzero(shrinks == shrink)
            chosen = torch.from_numpy(mine).to(photos.device)
            part = source if len(mine) == len(photos) else source[chosen]
            sampled = _sample(part, sizes[mine], views, places[mine], shrink)
            made[number, chosen] = _recolour(sampled, views, places[mine])
    return made


def _sample(source: torch.Tensor, sizes: np.ndarray, views: Views, places: np.ndarray, shrink: int) -> torch.Tensor:
    """Return the crops, (V, 3, S, S); where pixels shrink, the mean of ``shrink`` × ``shrink`` samples each."""
    device, size = source.device, views.size_px
    steps = (torch.arange(size * shrink, device=device, dtype=torch.float32) + 0.5) / shrink - 0.5
    matrices = _on(views.matrices()[places], device)
    columns, rows = steps[None, None, :], steps[None, :, None]
    x, y = (
        matrices[:, axis, 0, None, None] * columns
        + matrices[:, axis, 1, None, None] * rows
        + matrices[:, axis, 2, None, None]
        for axis in (0, 1)
    )
    # An upright crop knows nothing of what lies beside it; a turned one is reflected at the photo's edge.
    turned = torch.from_numpy(views.turned[places]).to(device)[:, None, None]
    boxes = _on(views.boxes[places], device)[:, :, None, None]
    extent = _on(sizes, device)[:, :, None, None]
    x = torch.where(turned, _reflect(x, extent[:, 1] - 1), x.clamp(boxes[:, 0], boxes[:, 0] + boxes[:, 2] - 1))
    y = torch.where(turned, _reflect(y, extent[:, 0] - 1), y.clamp(boxes[:, 1], boxes[:, 1] + boxes[:, 3] - 1))
    height, width = source.shape[-2:]
    grid = torch.stack([x * (2 / max(1, width - 1)) - 1, y * (2 / max(1, height - 1)) - 1], -1)
    # Border, so that rounding at the last pixel of a packed photo cannot mix in zeros.
    sampled = functional.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return functional.avg_pool2d(sampled, shrink) if shrink > 1 else sampled


def _reflect(positions: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Fold positions back into 0 to ``last``, the pixel at the edge not repeated (OpenCV's BORDER_REFLECT_101)."""
    period = (2 * last).clamp_min(1)
    return (last - (positions.remainder(period) - last).abs()).clamp_min(0)


def _recolour(pixels: torch.Tensor, views: Views, places: np.ndarray) -> torch.Tensor:
    device, size = pixels.device, views.size_px
    grey = torch.tensor(_GREY, device=device)
    if views.colours is not None and views.tints is not None:
        brightness, contrast = _on(views.colours[places, :2], device).T
        mean = torch.einsum("vchw,c->v", pixels, grey) / size**2
        linear = _on(views.tints[places], device) * (contrast * brightness)[:, None, None]
        # Tints leave grey as it is, so that the stretch about the mean grey is the same number for all channels.
        bias = (1 - contrast) * brightness * mean
        pixels = (torch.einsum("vdc,vchw->vdhw", linear, pixels) + bias[:, None, None, None]).clamp(0, 255)
    if views.greys is not None:
        chosen = torch.from_numpy(views.greys[places]).to(device)[:, None, None, None]
        pixels = torch.where(chosen, torch.einsum("vchw,c->vhw", pixels, grey)[:, None], pixels)
    if views.blurs is not None and views.blurs[places].any():
        blurred = np.flatnonzero(views.blurs[places])
        chosen = torch.from_numpy(blurred).to(device)
        # Out of place: what came in may be what others still look at.
        pixels = pixels.index_copy(0, chosen, _blur(pixels[chosen], _on(views.blurs[places][blurred], device)))
    if views.solarised is not None:
        chosen = torch.from_numpy(views.solarised[places]).to(device)[:, None, None, None]
        pixels = torch.where(chosen, torch.minimum(pixels, 255 - pixels), pixels)
    if views.erased is not None:
        left, top, width, height = _on(views.erased[places], device)[:, :, None, None].unbind(1)
        steps = torch.arange(size, device=device)
        columns, rows = steps[None, None, :], steps[None, :, None]
        inside = (columns >= left) & (columns < left + width) & (rows >= top) & (rows < top + height)
        pixels = torch.where(inside[:, None], 128.0, pixels)
    return pixels


def _blur(pixels: torch.Tensor, sigmas: torch.Tensor) -> torch.Tensor:
    """Blur each view (V, 3, S, S) by a Gaussian of its own, one direction after the other, edges reflected."""
    # Three standard deviations, as OpenCV takes for 8 bits; reflection cannot reach beyond the other edge.
    reach = min(int(torch.ceil(3 * sigmas.max())), pixels.shape[-1] - 1)
    steps = torch.arange(-reach, reach + 1, device=pixels.device)
    kernels = torch.exp(-0.5 * (steps / sigmas[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None, :]
    flat = pixels.reshape(1, -1, *pixels.shape[-2:])
    flat = functional.conv2d(functional.pad(flat, (reach, reach, 0, 0), mode="reflect"), kernels, groups=len(kernels))
    flat = functional.pad(flat, (0, 0, reach, reach), mode="reflect")
    return functional.conv2d(flat, kernels.transpose(-1, -2), groups=len(kernels)).view_as(pixels)


def _on(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)
