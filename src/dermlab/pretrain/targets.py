"""What every method shares: targets that follow by moving average, losses in full precision, what a step returns."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dermlab.core.errors import MissingExtraError


@dataclass  # not frozen: Fabric copies it on its way into the network
class Values:
    """What the schedules say of one step.

    Attributes:
        weight_decay: of matrices and filters.
        momentum: share of itself that the target keeps when it follows the student.
        teacher_temperature: of the teacher's class token; the lower, the sharper.
        patch_teacher_temperature: of its patch tokens (iBOT).
        last_layer_frozen: whether the heads' last layers stand still.
        backbone_frozen: whether the backbone stands still, while fresh heads learn on public weights.
    """

    weight_decay: float
    momentum: float = 1.0
    teacher_temperature: float = 0.04
    patch_teacher_temperature: float = 0.04
    last_layer_frozen: bool = False
    backbone_frozen: bool = False


@dataclass
class Step:
    """A step's loss and what the monitor keeps of it.

    Attributes:
        loss: scalar, float32.
        seen: detached scalars by name.
    """

    loss: torch.Tensor
    seen: dict[str, torch.Tensor] = field(default_factory=dict)


def lightly(part: str) -> Any:
    """Return one of lightly's modules (``loss``, ``models.modules.heads``).

    Raises:
        MissingExtraError: lightly is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"lightly.{part}")
    except ImportError:
        raise MissingExtraError("pretraining", "lightly", "pretrain") from None


def full_precision(tensor: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which losses are computed: bf16 rounds DINO's loss until a collapse is invisible."""
    return torch.autocast(tensor.device.type, enabled=False)


def twin(build: Any, source: nn.Module) -> nn.Module:
    """Return a target network: built anew, with the source's state, moved by nothing but :func:`update_target`.

    A copy would do for most networks, but ``deepcopy`` fails on weight-normed heads.

    Args:
        build: makes a network like ``source``.
        source: whose state is taken.
    """
    target: nn.Module = build()
    target.load_state_dict(source.state_dict())
    return target.requires_grad_(False)


@torch.no_grad()
def update_target(target: nn.Module, source: nn.Module, momentum: float) -> None:
    """Move a target's parameters towards the source's: ``target = momentum · target + (1 - momentum) · source``.

    To be called after the optimiser's step (BYOL, Grill et al. 2020, section 3.1; DINO, Caron et al. 2021, section 3).
    Buffers are left alone: a target's BatchNorm keeps statistics of its own.
    """
    own = [parameter.data for parameter in target.parameters()]
    its = [parameter.data for parameter in source.parameters()]
    torch._foreach_lerp_(own, its, 1 - momentum)


def chunked(network: nn.Module | Any, views: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return a network's outputs of several views; those of one size go through it together.

    Args:
        network: images (B, 3, S, S) → (B, D).
        views: each (B, 3, S, S), those of one size side by side.
    """
    outputs: list[torch.Tensor] = []
    start = 0
    while start < len(views):
        end = start
        while end < len(views) and views[end].shape == views[start].shape:
            end += 1
        joined = network(torch.cat(list(views[start:end])))
        outputs += joined.chunk(end - start)
        start = end
    return outputs


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the mean entropy of softmax(logits) in nats, over the last dimension."""
    log = logits.log_softmax(dim=-1)
    return -(log.exp() * log).sum(dim=-1).mean()
