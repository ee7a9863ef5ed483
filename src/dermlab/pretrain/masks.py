"""Block masks of patch grids: which patches a student does not see."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dermlab.core.randomness import generator

ATTEMPTS = 10
ASPECT = (0.3, 1 / 0.3)


def block_mask(grid: tuple[int, int], n_masked: int, random: np.random.Generator, *, min_block: int = 4) -> np.ndarray:
    """Return a mask (rows, columns) of exactly ``n_masked`` patches, made of rectangles.

    BEiT (Bao et al. 2022), algorithm 1: each rectangle holds as many patches at most as are still wanted. What
    they lack at the end is filled patch by patch at their edge or, where there is none, anywhere.

    Args:
        grid: rows and columns of patches.
        n_masked: how many are True.
        random: draws.
        min_block: patches of the smallest rectangle.
    """
    rows, columns = grid
    mask = np.zeros(grid, bool)
    count = 0
    log_low, log_high = math.log(ASPECT[0]), math.log(ASPECT[1])
    while count < n_masked:
        left = n_masked - count
        for _ in range(ATTEMPTS):
            area = random.uniform(min(min_block, left), left)
            aspect = math.exp(random.uniform(log_low, log_high))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (0 < height <= rows and 0 < width <= columns):
                continue
            top = int(random.integers(rows - height + 1))
            start = int(random.integers(columns - width + 1))
            block = mask[top : top + height, start : start + width]
            fresh = block.size - int(block.sum())
            if 0 < fresh <= left:
                block[...] = True
                count += fresh
                break
        else:
            break
    while count < n_masked:
        padded = np.pad(mask, 1)
        beside = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
        edge = np.flatnonzero(beside & ~mask)
        chosen = int(random.choice(edge if len(edge) else np.flatnonzero(~mask)))
        mask.flat[chosen] = True
        count += 1
    return mask


def block_masks(
    grid: tuple[int, int],
    images: Sequence[int] | np.ndarray,
    *,
    seed: int,
    epoch: int,
    view: int,
    ratios: Sequence[tuple[float, float]],
    min_block: int | None = None,
) -> np.ndarray:
    """Return the masks of a batch, bool (B, rows, columns); each depends on ``(seed, epoch, image, view)`` alone.

    Args:
        grid: rows and columns of patches.
        images: (B,) the photos' numbers.
        seed: of the run.
        epoch: the pass over the data.
        view: which of the photo's views.
        ratios: pairs (ratio, spread), one of which is drawn for each image; the masked share is drawn evenly from
            ratio ± spread (iBOT, Zhou et al. 2022, appendix: 0, or 0.3 ± 0.2, with equal chance).
        min_block: patches of the smallest rectangle; None: iBOT's, a third of the shorter side, squared.
    """
    smallest = min_block if min_block is not None else max(1, (min(grid) // 3) ** 2)
    n = grid[0] * grid[1]
    masks = np.zeros((len(images), *grid), bool)
    for place, image in enumerate(np.asarray(images).tolist()):
        random = generator(seed, "mask", epoch, image, view)
        ratio, spread = ratios[int(random.integers(len(ratios)))]
        share = random.uniform(ratio - spread, ratio + spread) if spread else ratio
        masks[place] = block_mask(grid, int(share * n), random, min_block=smallest)
    return masks
