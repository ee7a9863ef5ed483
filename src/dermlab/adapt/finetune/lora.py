"""LoRA through peft: small matrices beside the frozen backbone's own are trained in their place (Hu et al. 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from dermlab.core.errors import InputError, MissingExtraError, first_line

if TYPE_CHECKING:
    from dermlab.adapt.finetune.config import Lora

ADAPTER = "lora_"
"""What the names of adapters' parameters hold, and no others."""


def add_adapters(network: nn.Module, lora: Lora, name: str) -> None:
    """Put adapters into a network, which says the same as before until they are trained.

    Args:
        network: changed in place; each adapted layer stands as ``base_layer`` beside its adapters.
        lora: rank, alpha and targets.
        name: of the encoder, for errors.

    Raises:
        MissingExtraError: peft is not installed.
        InputError: the network has none of the target layers, or peft cannot adapt them.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtraError("lora", "peft", "lora") from None
    targets = list(lora.targets) or linear_layers(network)
    if not targets:
        raise InputError(f"lora: {name} has no linear layer; name its convolutions in lora.targets, as layer4.0.conv1")
    alpha: Any = lora.alpha  # peft divides by the rank: any number will do
    try:
        inject_adapter_in_model(
            LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=targets, lora_dropout=lora.dropout), network
        )
    except ValueError as error:  # no such layer, or one of another kind
        raise InputError(f"lora.targets: {name}: {first_line(error)}") from None


def linear_layers(network: nn.Module) -> list[str]:
    """Return the names of the linear layers; not those that torch's own attention reads without calling them."""
    own = [name for name, module in network.named_modules() if isinstance(module, nn.MultiheadAttention)]
    inside = {f"{name}.out_proj" for name in own}
    return [name for name, module in network.named_modules() if isinstance(module, nn.Linear) and name not in inside]
