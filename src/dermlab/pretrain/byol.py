"""BYOL: from one view a predictor guesses what a slowly following target says of the other; no negatives.

Grill et al. 2020, "Bootstrap your own latent". Loss and heads are lightly's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dermlab.pretrain.targets import Step, Values, full_precision, lightly, twin, update_target

Network = Callable[[torch.Tensor], torch.Tensor]


def byol_step(online: Network, predictor: Network, target: Network, views: Sequence[torch.Tensor]) -> Step:
    """Return BYOL's loss of a batch: the mean of both directions' negative cosine, from -1 (alike) to 1.

    The paper's loss is 2 plus twice this, per direction. The predictor belongs into the optimiser, and
    :func:`dermlab.pretrain.update_target` after its step.

    Args:
        online: images (B, 3, S, S) → projections (B, D).
        predictor: projections → predictions (B, D).
        target: images → projections; called without gradients.
        views: two, each (B, 3, S, S); each goes through by itself, as BatchNorm wants it here.
    """
    predictions = [predictor(online(view)) for view in views]
    with torch.no_grad():
        targets = [target(view) for view in views]
    with full_precision(views[0]):
        criterion = lightly("loss").NegativeCosineSimilarity()
        first, second = (one.float() for one in predictions)
        loss = 0.5 * (criterion(first, targets[1].float()) + criterion(second, targets[0].float()))
        return Step(loss, {"loss": loss.detach()})


class BYOL(nn.Module):
    """Online network, predictor and target, as a run trains them.

    Args:
        backbone: the online one; its copy is the target's.
        dim: length of its vectors.
        hidden_dim: of projector and predictor.
        out_dim: of the projections.
        batch_norm: whether projector and predictor norm over the batch, as in the paper.
    """

    n_outputs = 0

    def __init__(
        self, backbone: nn.Module, dim: int, *, hidden_dim: int = 4096, out_dim: int = 256, batch_norm: bool = True
    ) -> None:
        super().__init__()
        heads = lightly("models.modules.heads")

        def head(inputs: int, prediction: bool) -> Any:
            if not batch_norm:
                return heads.ProjectionHead([(inputs, hidden_dim, None, nn.ReLU()), (hidden_dim, out_dim, None, None)])
            kind = heads.BYOLPredictionHead if prediction else heads.BYOLProjectionHead
            return kind(inputs, hidden_dim, out_dim)

        self.student, self.student_head = backbone, head(dim, False)
        self.predictor = head(out_dim, True)
        self.target = copy.deepcopy(backbone).requires_grad_(False)
        self.target_head = twin(lambda: head(dim, False), self.student_head)

    def forward(self, views: Sequence[torch.Tensor], values: Values) -> Step:
        """Return the step's loss; the schedules touch nothing in it."""
        return byol_step(
            lambda images: self.student_head(self.student(images)),
            self.predictor,
            lambda images: self.target_head(self.target(images)),
            views,
        )

    def after_step(self, momentum: float) -> None:
        """Let the target follow, after the optimiser's step."""
        update_target(self.target, self.student, momentum)
        update_target(self.target_head, self.student_head, momentum)

    @property
    def encoder(self) -> nn.Module:
        """What is exported and monitored: the online network, as in the paper."""
        return self.student
