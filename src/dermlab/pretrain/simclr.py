"""SimCLR: two views of a photo are to be nearer to each other than to any other photo's.

Chen et al. 2020, "A simple framework for contrastive learning of visual representations". Loss and head are lightly's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from dermlab.pretrain.targets import Step, Values, chunked, full_precision, lightly


def simclr_step(
    network: Callable[[torch.Tensor], torch.Tensor], views: Sequence[torch.Tensor], criterion: nn.Module
) -> Step:
    """Return SimCLR's loss of a batch: NT-Xent, symmetric in the two views, negatives of all processes.

    Args:
        network: images (B, 3, S, S) → projections (B, D); both views go through it together.
        views: two, each (B, 3, S, S).
        criterion: of :func:`nt_xent`.
    """
    first, second = chunked(network, views)
    with full_precision(first):
        first, second = first.float(), second.float()
        loss = criterion(first, second)
        alike = nn.functional.cosine_similarity(first.detach(), second.detach()).mean()
        return Step(loss, {"loss": loss.detach(), "positive_similarity": alike})


def nt_xent(temperature: float) -> Any:
    """Return lightly's ``NTXentLoss``, which gathers the other processes' views where there are any."""
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    return lightly("loss").NTXentLoss(temperature=temperature, gather_distributed=together)


class SimCLR(nn.Module):
    """Encoder and projection head, as a run trains them.

    Args:
        backbone: images → vectors.
        dim: length of its vectors.
        hidden_dim: of the head.
        out_dim: of the projections.
        temperature: of the loss.
        batch_norm: whether the head norms over the batch.
    """

    n_outputs = 0

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        hidden_dim: int = 2048,
        out_dim: int = 128,
        temperature: float = 0.1,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.student = backbone
        self.student_head = lightly("models.modules.heads").SimCLRProjectionHead(
            dim, hidden_dim, out_dim, batch_norm=batch_norm
        )
        self.criterion = nt_xent(temperature)

    def forward(self, views: Sequence[torch.Tensor], values: Values) -> Step:
        """Return the step's loss; the schedules touch nothing in it."""
        return simclr_step(lambda images: self.student_head(self.student(images)), views, self.criterion)

    def after_step(self, momentum: float) -> None:
        """Do nothing: there is no target."""

    @property
    def encoder(self) -> nn.Module:
        """What is exported and monitored."""
        return self.student
