"""Time and memory of a training: networks compiled, activations computed twice in place of being kept."""

from __future__ import annotations

from typing import Any

from torch import nn


def checkpoint_gradients(network: nn.Module) -> bool:
    """Make a network forget its blocks' activations and compute them again on the way back (Chen et al. 2016).

    Args:
        network: of timm (``set_grad_checkpointing``) or transformers (``gradient_checkpointing_enable``).

    Returns:
        Whether the network can; where not, it is as it was.
    """
    tower: Any = network
    try:
        if hasattr(tower, "set_grad_checkpointing"):
            tower.set_grad_checkpointing(True)
        elif getattr(tower, "supports_gradient_checkpointing", False):
            # The reentrant kind gives no gradients where a block's input needs none: behind a frozen stem.
            tower.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        else:
            return False
    except (AssertionError, NotImplementedError, ValueError):  # how timm and transformers refuse
        return False
    return True


def failed_to_compile(error: BaseException) -> bool:
    """Tell whether an exception is the compiler's, and not the network's or the data's."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch"))
