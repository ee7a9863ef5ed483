"""DINO: a student learns to say of small crops what its slowly following teacher says of large ones.

Caron et al. 2021, "Emerging properties in self-supervised vision transformers". Loss and head are lightly's.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dermlab.pretrain.targets import Step, Values, chunked, entropy, full_precision, lightly, twin, update_target

Network = Callable[[torch.Tensor], torch.Tensor]


def dino_step(
    student: Network,
    teacher: Network,
    views: Sequence[torch.Tensor],
    criterion: Any,
    *,
    teacher_temperature: float,
    n_global: int = 2,
) -> Step:
    """Return DINO's loss of a batch: mean cross-entropy over all pairs (teacher's global view, student's other view).

    The teacher's centre moves within ``criterion``. After the optimiser's step call
    :func:`dermlab.pretrain.update_target` on teacher and student.

    Args:
        student: images (B, 3, S, S) → logits (B, K), of global and local size.
        teacher: the same, of the global size; called without gradients.
        views: the global ones first, each (B, 3, S, S).
        criterion: lightly's ``DINOLoss`` over K logits.
        teacher_temperature: of its softmax.
        n_global: how many of the views the teacher sees.
    """
    with torch.no_grad():
        taught = chunked(teacher, views[:n_global])
    learned = chunked(student, views)
    with full_precision(views[0]):
        taught, learned = [one.float() for one in taught], [one.float() for one in learned]
        centred = (torch.stack(taught) - criterion.center) / teacher_temperature
        loss = criterion(taught, learned, teacher_temp=teacher_temperature)
        return Step(loss, {"loss": loss.detach(), **teacher_words(centred)})


def teacher_words(logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the entropy of a teacher's answers and of their mean, in nats.

    The first near ln K: it says nothing. The second near 0: it says the same of everything. Both mean a collapse.

    Args:
        logits: centred and divided by the temperature, the K classes last.
    """
    with torch.no_grad():
        mean = logits.softmax(dim=-1).flatten(0, -2).mean(dim=0)
        return {"teacher_entropy": entropy(logits), "marginal_entropy": -(mean * mean.clamp_min(1e-30).log()).sum()}


def dino_head(
    in_dim: int, out_dim: int, *, hidden_dim: int, bottleneck_dim: int, norm_last_layer: bool, batch_norm: bool = False
) -> Any:
    """Return lightly's DINO projection head: three layers, unit length, a weight-normed last layer without bias."""
    heads = lightly("models.modules.heads")
    with warnings.catch_warnings():  # lightly still uses torch's older weight_norm
        warnings.simplefilter("ignore", FutureWarning)
        return heads.DINOProjectionHead(
            in_dim, hidden_dim, bottleneck_dim, out_dim, batch_norm=batch_norm, norm_last_layer=norm_last_layer
        )


class DINO(nn.Module):
    """Student and teacher with their heads and the centre, as a run trains them.

    Args:
        backbone: the student's; its copy is the teacher's.
        dim: length of its vectors.
        out_dim: K, the prototypes.
        hidden_dim: of the head.
        bottleneck_dim: of the head.
        norm_last_layer: whether the last layer's rows keep unit length.
        student_temperature: of the student's softmax.
        center_momentum: share of the old centre that a step keeps.
        n_global: views that the teacher sees.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        out_dim: int = 65536,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        norm_last_layer: bool = True,
        student_temperature: float = 0.1,
        center_momentum: float = 0.9,
        n_global: int = 2,
    ) -> None:
        super().__init__()
        self.n_global, self.n_outputs = n_global, out_dim

        def head() -> Any:
            return dino_head(
                dim, out_dim, hidden_dim=hidden_dim, bottleneck_dim=bottleneck_dim, norm_last_layer=norm_last_layer
            )

        self.student, self.student_head = backbone, head()
        self.teacher = copy.deepcopy(backbone).requires_grad_(False)
        self.teacher_head = twin(head, self.student_head)
        self.criterion = lightly("loss").DINOLoss(
            out_dim, student_temp=student_temperature, center_momentum=center_momentum
        )

    def forward(self, views: Sequence[torch.Tensor], values: Values) -> Step:
        """Return the step's loss. Also moves the centre."""
        return dino_step(
            lambda images: self.student_head(self.student(images)),
            lambda images: self.teacher_head(self.teacher(images)),
            views,
            self.criterion,
            teacher_temperature=values.teacher_temperature,
            n_global=self.n_global,
        )

    def after_step(self, momentum: float) -> None:
        """Let the teacher follow."""
        update_target(self.teacher, self.student, momentum)
        update_target(self.teacher_head, self.student_head, momentum)

    @property
    def encoder(self) -> nn.Module:
        """What is exported and monitored: the teacher (the better one, DINO section 5.2)."""
        return self.teacher
