"""iBOT: DINO's class loss across views, and the same self-distillation for masked patches within a view.

Zhou et al. 2022, "iBOT: image BERT pre-training with online tokenizer". Losses and heads are lightly's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from dermlab.pretrain.dino import dino_head, teacher_words
from dermlab.pretrain.masks import block_masks
from dermlab.pretrain.networks import masked_tokens
from dermlab.pretrain.targets import Step, Values, full_precision, lightly, twin, update_target

TokenNetwork = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]
"""(images (B, 3, S, S), hidden, asked) → class logits (B, K) and the logits (M, K) of the patches where ``asked``,
bool (B, N), is True; patches where ``hidden``, bool (B, N), is True are masked. Asked None: M is 0."""


class CountedCentre(nn.Module):
    """A centre over tokens whose number differs from process to process: sums and counts are gathered, not means."""

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.value: torch.Tensor
        self.register_buffer("value", torch.zeros(1, dim))

    @torch.no_grad()
    def update(self, logits: torch.Tensor) -> None:
        """Move towards the mean of logits (M, K) of all processes; with no token anywhere it stays."""
        total = torch.cat([logits.sum(dim=0), logits.new_full((1,), float(len(logits)))])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if total[-1] > 0:
            self.value = self.momentum * self.value + (1 - self.momentum) * (total[:-1] / total[-1])[None]


def patch_criterion(dim: int, *, student_temperature: float = 0.1, center_momentum: float = 0.9) -> Any:
    """Return lightly's ``IBOTPatchLoss`` over ``dim`` logits with a centre that several processes share exactly."""
    criterion = lightly("loss").IBOTPatchLoss(dim, student_temp=student_temperature)
    criterion.center = CountedCentre(dim, center_momentum)
    return criterion


def ibot_step(
    student: TokenNetwork,
    teacher: TokenNetwork,
    views: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor],
    class_criterion: Any,
    patches_criterion: Any,
    *,
    teacher_temperature: float,
    patch_teacher_temperature: float,
    class_weight: float = 1.0,
    patch_weight: float = 1.0,
) -> Step:
    """Return iBOT's loss of a batch: class tokens across views, masked patches within their view.

    The teacher sees whole global views; the student sees them masked, and local views whole.

    Args:
        student: see :data:`TokenNetwork`.
        teacher: likewise; called without gradients.
        views: the global ones first, each (B, 3, S, S).
        masks: one for each global view, bool (B, rows, columns).
        class_criterion: lightly's ``DINOLoss``.
        patches_criterion: of :func:`patch_criterion`, or lightly's ``IBOTPatchLoss``.
        teacher_temperature: of the class tokens.
        patch_teacher_temperature: of the patches.
        class_weight: λ1 of the paper.
        patch_weight: λ2 of the paper.
    """
    n_global = len(masks)
    n = len(views[0])
    seen, grid = torch.cat(list(views[:n_global])), torch.cat(list(masks))
    hidden = grid.flatten(1)
    with torch.no_grad():
        taught_class, taught_patches = teacher(seen, None, hidden)
    class_logits, patches = student(seen, hidden, hidden)
    learned = list(class_logits.split(n))
    if len(views) > n_global:
        learned += student(torch.cat(list(views[n_global:])), None, None)[0].split(n)
    with full_precision(seen):
        taught = [one.float() for one in taught_class.split(n)]
        centred = (torch.stack(taught) - class_criterion.center) / teacher_temperature
        class_loss = class_criterion(taught, [one.float() for one in learned], teacher_temp=teacher_temperature)
        patch_loss = patches_criterion(
            taught_patches.float(), patches.float(), grid, teacher_temp=patch_teacher_temperature
        )
        loss = class_weight * class_loss + patch_weight * patch_loss
        told = {"loss": loss, "class_loss": class_loss, "patch_loss": patch_loss}
        return Step(loss, {**{name: value.detach() for name, value in told.items()}, **teacher_words(centred)})


class _TokenNetwork(nn.Module):
    """A timm transformer with its heads as a :data:`TokenNetwork`."""

    def __init__(self, backbone: Any, head: nn.Module, patch_head: nn.Module | None, mask_token: Any) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        if patch_head is not None:
            self.patch_head = patch_head
        self.mask_token = mask_token

    def forward(
        self, images: torch.Tensor, hidden: torch.Tensor | None, asked: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = masked_tokens(self.backbone.network, images, hidden, self.mask_token)
        patch_head = getattr(self, "patch_head", self.head)
        chosen = tokens.patches[:, :0].flatten(0, 1) if asked is None else tokens.patches[asked]
        return self.head(tokens.pooled), patch_head(chosen)


class IBOT(nn.Module):
    """Student and teacher with their heads, the mask token and both centres, as a run trains them.

    Args:
        backbone: the student's, an encoder over timm's VisionTransformer; its copy is the teacher's.
        dim: length of its tokens.
        out_dim: K of the class tokens.
        patch_out_dim: K of the patches; with a shared head it must be the same.
        hidden_dim: of the heads.
        bottleneck_dim: of the heads.
        norm_last_layer: whether the last layers' rows keep unit length.
        shared_head: one head for class and patches.
        student_temperature: of the student's softmax.
        center_momentum: share of the old centres that a step keeps.
        mask_ratios: see :func:`dermlab.pretrain.masks.block_masks`.
        class_weight: λ1.
        patch_weight: λ2.
    """

    def __init__(
        self,
        backbone: Any,
        dim: int,
        *,
        out_dim: int = 8192,
        patch_out_dim: int = 8192,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = False,
        shared_head: bool = True,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        mask_ratios: Sequence[tuple[float, float]] = ((0.0, 0.0), (0.3, 0.2)),
        class_weight: float = 1.0,
        patch_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.n_outputs = out_dim
        self.mask_ratios = tuple(mask_ratios)
        self.class_weight, self.patch_weight = class_weight, patch_weight

        def head(outputs: int) -> Any:
            return dino_head(
                dim, outputs, hidden_dim=hidden_dim, bottleneck_dim=bottleneck_dim, norm_last_layer=norm_last_layer
            )

        mask_token = nn.Parameter(torch.zeros(dim))
        nn.init.trunc_normal_(mask_token, std=0.02)
        own = head(out_dim)
        patch_head = None if shared_head else head(patch_out_dim)
        self.student = _TokenNetwork(backbone, own, patch_head, mask_token)
        self.teacher = _TokenNetwork(
            copy.deepcopy(backbone).requires_grad_(False),
            twin(lambda: head(out_dim), own),
            None if patch_head is None else twin(lambda: head(patch_out_dim), patch_head),
            None,
        )
        self.class_criterion = lightly("loss").DINOLoss(
            out_dim, student_temp=student_temperature, center_momentum=center_momentum
        )
        self.patches_criterion = patch_criterion(
            out_dim if shared_head else patch_out_dim,
            student_temperature=student_temperature,
            center_momentum=center_momentum,
        )

    def draw_masks(
        self, grid: tuple[int, int], images: np.ndarray, *, seed: int, epoch: int, n_global: int
    ) -> list[torch.Tensor]:
        """Return the masks of a batch's global views, bool (B, rows, columns) each."""
        return [
            torch.from_numpy(block_masks(grid, images, seed=seed, epoch=epoch, view=view, ratios=self.mask_ratios))
            for view in range(n_global)
        ]

    def forward(self, views: Sequence[torch.Tensor], values: Values, masks: Sequence[torch.Tensor]) -> Step:
        """Return the step's loss. Also moves the centres."""
        return ibot_step(
            self.student,
            self.teacher,
            views,
            masks,
            self.class_criterion,
            self.patches_criterion,
            teacher_temperature=values.teacher_temperature,
            patch_teacher_temperature=values.patch_teacher_temperature,
            class_weight=self.class_weight,
            patch_weight=self.patch_weight,
        )

    def after_step(self, momentum: float) -> None:
        """Let the teacher follow."""
        for name in ("backbone", "head", "patch_head"):
            if hasattr(self.teacher, name):
                update_target(getattr(self.teacher, name), getattr(self.student, name), momentum)

    @property
    def encoder(self) -> Any:
        """What is exported and monitored: the teacher's backbone."""
        return self.teacher.backbone
