"""Self-supervised pretraining: photos without labels make an encoder that every other room takes.

In come data set folders (labels unused, test photos left out) and a method; out goes a run folder whose ``encoder/``
is an encoder like any other. Each method is a file: a step that takes anybody's networks, and what a run trains. The
room is also the verb: ``dermlab.pretrain(["clinic"], method="dino", out="run")``.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dermlab.pretrain.byol import byol_step
    from dermlab.pretrain.dino import dino_step
    from dermlab.pretrain.ibot import ibot_step
    from dermlab.pretrain.panderm import panderm_step
    from dermlab.pretrain.simclr import simclr_step
    from dermlab.pretrain.targets import update_target

__all__ = ["byol_step", "dino_step", "ibot_step", "panderm_step", "simclr_step", "update_target"]


def __getattr__(name: str) -> Any:
    """Import torch when a step is first asked for."""
    if name in __all__:
        module = "targets" if name == "update_target" else name.removesuffix("_step")
        return getattr(importlib.import_module(f"dermlab.pretrain.{module}"), name)
    raise AttributeError(f"module 'dermlab.pretrain' has no attribute {name!r}")


class _Room(types.ModuleType):
    """A module that can be called, as ``dermlab.evaluate`` is."""

    def __call__(self, *args: Any, **fields: Any) -> Any:
        """Run ``dermlab pretrain`` (see ``dermlab pretrain --help`` for the fields)."""
        # Looked up when called: the verbs stand above this room, which imports nothing from them.
        return importlib.import_module("dermlab.verbs").function("pretrain")(*args, **fields)


sys.modules[__name__].__class__ = _Room
