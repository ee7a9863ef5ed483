"""Optimisers by name, who gets which rate and decay, the rate over the steps, and averaged weights."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from dermlab.core.errors import InputError, first_line

Schedule = Literal["cosine", "step", "constant"]

_NUMBERED = re.compile(r"^\d+$|_\d+$|^(layer|block|stage)\d+$")


def layers_of(network: Any) -> dict[str, int]:
    """Return the depth of each parameter by name: 0 for the stem, then block by block, the last norm deepest.

    timm's networks say it themselves (``group_matcher``). Of others the numbered modules in the names are the blocks
    (``layer1.0``, ``features.3``, ``encoder.layers.5``); what comes before the first is the stem.
    """
    names = [name for name, _ in network.named_parameters()]
    if hasattr(network, "group_matcher"):
        from timm.models._manipulate import group_parameters

        found: dict[str, int] = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
        last = max(found.values(), default=0)
        return {name: found.get(name, last) for name in names}
    owners = [_block_of(name) for name in names]
    blocks = {block: place + 1 for place, block in enumerate(dict.fromkeys(filter(None, owners)))}
    first = next((place for place, owner in enumerate(owners) if owner), len(names))
    outside = [0 if place < first else len(blocks) + 1 for place in range(len(names))]
    return {
        name: blocks[owner] if owner else beside for name, owner, beside in zip(names, owners, outside, strict=True)
    }


def _block_of(name: str) -> str | None:
    """Return the numbered module that a parameter belongs to, None for stem and last norm."""
    parts = name.split(".")[:-1]
    place = next((i for i, part in enumerate(parts) if _NUMBERED.search(part)), None)
    if place is None:
        return None
    if parts[place].startswith("layer") and place + 1 < len(parts) and parts[place + 1].isdigit():
        place += 1
    return ".".join(parts[: place + 1])


def parameter_groups(
    network: Any,
    rate: float,
    *,
    weight_decay: float,
    layer_decay: float = 1.0,
    prefix: str = "",
) -> list[dict[str, Any]]:
    """Return the trainable parameters of a network in groups of one rate and one decay.

    Norms, biases and every other vector get no weight decay, nor does what a timm network excludes by itself
    (``no_weight_decay``: position embeddings, class tokens).

    Args:
        network: whose parameters with ``requires_grad``.
        rate: of the deepest layer.
        weight_decay: of matrices and filters.
        layer_decay: a layer's rate is this times that of the layer above it (BEiT, Bao et al. 2022, appendix).
        prefix: opens the names that each group lists.

    Returns:
        Dictionaries ``params``, ``weight_decay``, ``base_lr``, ``names``; for torch's and timm's optimisers alike.
    """
    excluded: set[str] = set(network.no_weight_decay()) if hasattr(network, "no_weight_decay") else set()
    depth = layers_of(network) if layer_decay != 1 else {}
    deepest = max(depth.values(), default=0)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim <= 1 or name in excluded else weight_decay
        own_rate = rate * layer_decay ** (deepest - depth.get(name, deepest))
        group = groups.setdefault(
            (own_rate, decay), {"params": [], "weight_decay": decay, "base_lr": own_rate, "names": []}
        )
        group["params"].append(parameter)
        group["names"].append(prefix + name)
    return list(groups.values())


def make_optimiser(
    name: str, groups: list[dict[str, Any]], *, momentum: float = 0.9, betas: tuple[float, float] | None = None
) -> torch.optim.Optimizer:
    """Return an optimiser over :func:`parameter_groups`: adamw, sgd, rmsprop are torch's, other names timm's.

    Raises:
        InputError: neither has such an optimiser.
    """
    given = [{"lr": group["base_lr"], **group} for group in groups]
    if name == "adamw":
        return torch.optim.AdamW(given, lr=0.0, betas=betas or (0.9, 0.999))
    if name == "sgd":
        return torch.optim.SGD(given, lr=0.0, momentum=momentum, nesterov=momentum > 0)
    if name == "rmsprop":
        return torch.optim.RMSprop(given, lr=1e-3, momentum=0.0)
    import timm.optim

    try:
        extra: dict[str, Any] = {} if betas is None else {"betas": betas}
        return timm.optim.create_optimizer_v2(given, opt=name, lr=1e-3, momentum=momentum, **extra)
    except (ValueError, TypeError, AssertionError, ImportError) as error:
        known = ", ".join(["adamw", "sgd", "rmsprop", *map(str, timm.optim.list_optimizers()[:12])])
        raise InputError(f"optimiser: {name!r} is none ({first_line(error)}); there are {known} …") from None


def rate_factor(
    step: int,
    n_steps: int,
    *,
    schedule: Schedule = "cosine",
    warmup_steps: int = 0,
    floor: float = 0.0,
    step_fractions: tuple[float, ...] = (0.5, 0.75),
    step_factor: float = 0.1,
) -> float:
    """Return what the base rate is multiplied by at a step; it depends on the step's number alone.

    Args:
        step: 0 to ``n_steps - 1``.
        n_steps: of the whole phase.
        schedule: ``cosine`` (to ``floor``), ``step`` (times ``step_factor`` at ``step_fractions``), ``constant``.
        warmup_steps: linear from 1 / warmup_steps to 1; the schedule runs over the steps after it.
        floor: where cosine ends, as a share of the base rate.
        step_fractions: of the steps after the warm-up.
        step_factor: of ``step``.
    """
    warmup_steps = min(warmup_steps, max(0, n_steps - 1))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    if schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "step":
        return step_factor ** sum(share >= fraction for fraction in step_fractions)
    return 1.0


class AveragedWeights:
    """An exponential moving average of a network's weights and running statistics (Polyak & Juditsky 1992).

    The decay warms up, ``min(decay, (1 + n) / (10 + n))`` after n updates, so that the first weights are soon gone.

    Args:
        network: its present state is the start; the average keeps its own tensors.
        decay: at most this share of the old average is kept in an update.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        self.n_updates += 1
        now: Mapping[str, torch.Tensor] = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(now[name].to(average.dtype), 1 - decay)
            else:
                average.copy_(now[name])
