"""Changes to a network that is built: a small stem, stochastic depth."""

from __future__ import annotations

from typing import Any

from torch import nn

from dermlab.core.errors import InputError


def shrink_stem(network: Any, name: str) -> None:
    """Put a 3×3 convolution of stride 1 in place of a ResNet's 7×7 of stride 2 and its pooling.

    Raises:
        InputError: the network has no such stem.
    """
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise InputError(f"small_stem: {name} is no ResNet with one stem convolution and a pooling")
    network.conv1 = nn.Conv2d(3, stem.out_channels, 3, 1, 1, bias=stem.bias is not None)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def set_drop_path(network: nn.Module, rate: float, name: str) -> None:
    """Give the residual blocks stochastic depth (Huang et al. 2016), rising evenly from 0 to ``rate``.

    Raises:
        InputError: none of the network's blocks has a place for it.
    """
    from timm.layers import DropPath
    from torchvision.ops import StochasticDepth

    places: list[list[tuple[nn.Module, str]]] = []
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            places.append([(module, "p")])
            continue
        slots = [slot for slot in ("drop_path", "drop_path1", "drop_path2") if hasattr(module, slot)]
        slots = [
            slot
            for slot in slots
            if getattr(module, slot) is None or isinstance(getattr(module, slot), nn.Identity | DropPath)
        ]
        if slots:
            places.append([(module, slot) for slot in slots])
    if not places:
        raise InputError(f"drop_path: {name} has no residual blocks that can be dropped; set drop_path: 0")
    for depth, slots_of_block in enumerate(places):
        own = rate * depth / max(1, len(places) - 1)
        for module, slot in slots_of_block:
            setattr(module, slot, own if slot == "p" else DropPath(own))
