"""Networks: one factory of image encoders over torchvision, timm, transformers and local files.

In: a name (``resnet50``, ``timm:…``, ``hf:…``, a folder, a weights file). Out: an ``Encoder`` that turns normalised
images into pooled vectors, with the preprocessing, the fingerprint and the licence card that belong to its weights.
"""

from __future__ import annotations

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
