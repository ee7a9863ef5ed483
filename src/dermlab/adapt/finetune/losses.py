"""Losses over soft labels: cross-entropy and focal, weighted by class, and batches mixed in pairs."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import log_softmax, one_hot


def soft_labels(codes: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Return class codes (B,) as float32 (B, C), 1 at the class."""
    return one_hot(codes, n_classes).float()


def classification_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    smoothing: float = 0.0,
    gamma: float = 0.0,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean loss, a scalar in fp32.

    Args:
        logits: (B, C), any precision; computed on in fp32.
        labels: soft labels (B, C), rows sum to 1.
        smoothing: share of each label spread evenly over the classes (Szegedy et al. 2016).
        gamma: focal loss's exponent, 0 for cross-entropy (Lin et al. 2017, equation 4).
        class_weights: (C,); as torch's cross_entropy the weighted mean is divided by the labels' weights.
    """
    with torch.autocast(logits.device.type, enabled=False):
        log_p = log_softmax(logits.float(), dim=1)
        smooth = labels * (1 - smoothing) + smoothing / labels.shape[1]
        terms = -smooth * log_p
        if gamma:
            terms = terms * (1 - log_p.exp()).clamp_min(0) ** gamma
        if class_weights is None:
            return terms.sum(dim=1).mean()
        return (terms * class_weights).sum() / (labels * class_weights).sum()


def mixed(
    images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator, *, mixup: float, cutmix: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch each of whose photos holds a part of another, and the labels in the same shares.

    MixUp (Zhang et al. 2018) adds photos; CutMix (Yun et al. 2019) puts a rectangle of one into the other, and its
    share is that of the rectangle as clipped at the border. Where both are asked for, a coin decides for each batch.

    Args:
        images: (B, 3, H, W).
        labels: soft labels (B, C).
        random: draws partners, shares and rectangles.
        mixup: alpha of the Beta distribution of shares; 0: never.
        cutmix: the same for CutMix.
    """
    if not (mixup or cutmix) or len(images) < 2:
        return images, labels
    cuts = bool(cutmix) and (not mixup or random.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(random.beta(alpha, alpha))
    partner = torch.from_numpy(random.permutation(len(images))).to(images.device)
    if not cuts:
        return images * share + images[partner] * (1 - share), labels * share + labels[partner] * (1 - share)
    height, width = images.shape[2:]
    side = np.sqrt(1 - share)
    row, column = random.integers(height), random.integers(width)
    top, bottom = np.clip([row - int(height * side) // 2, row + int(height * side) // 2], 0, height).tolist()
    left, right = np.clip([column - int(width * side) // 2, column + int(width * side) // 2], 0, width).tolist()
    images = images.clone()
    images[:, :, top:bottom, left:right] = images[partner][:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return images, labels * share + labels[partner] * (1 - share)
