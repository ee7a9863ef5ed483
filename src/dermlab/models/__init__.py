"""Networks: one factory of image encoders over torchvision, timm, transformers and local files.

In: a name (``resnet50``, ``timm:…``, ``hf:…``, a folder, a weights file). Out: an ``Encoder`` that turns normalised
images into pooled vectors, with the preprocessing, the fingerprint and the licence card that belong to its weights.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dermlab.models.encoders import (
        Encoder,
        EncoderIdentity,
        EncoderInfo,
        create_encoder,
        identify_encoder,
        list_encoders,
        save_encoder,
    )
    from dermlab.models.preprocess import Preprocess

__all__ = [
    "Encoder",
    "EncoderIdentity",
    "EncoderInfo",
    "Preprocess",
    "create_encoder",
    "identify_encoder",
    "list_encoders",
    "save_encoder",
]


def __getattr__(name: str) -> Any:
    """Import torch and the libraries when something of them is first asked for: names alone need neither."""
    if name in __all__:
        module = "preprocess" if name == "Preprocess" else "encoders"
        return getattr(importlib.import_module(f"dermlab.models.{module}"), name)
    raise AttributeError(f"module 'dermlab.models' has no attribute {name!r}")
