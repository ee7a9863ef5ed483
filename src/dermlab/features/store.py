"""The feature store: a vector by image content, in one folder for everything that could change the vector."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermlab.core.device import Runtime
from dermlab.core.fingerprint import hash_json
from dermlab.core.folders import cache_root
from dermlab.core.records import RecordStore
from dermlab.data.decode import DECODER_VERSION

FOLDER = "features"
SHARD_BYTES = 16 << 20
# To be raised when models/inference.py comes to give other values: what was computed before is then not found.
NUMERICS_VERSION = 1
LIBRARY_PACKAGES = {
    "torchvision": ("torch", "torchvision"),
    "timm": ("torch", "timm"),
    "transformers": ("torch", "transformers"),
    "dermlab": (),
    "endpoint": (),
    "savedmodel": (),
}


def feature_key(encoder: Mapping[str, Any], runtime: Runtime, *, pooling: str = "pooled") -> str:
    """Return the name of everything a feature depends on beside the photo, 32 hexadecimal digits.

    Args:
        encoder: an encoder's description (``EncoderIdentity.to_dict()``): fingerprint, preprocessing, library.
        runtime: its precision and kind of device.
        pooling: what is taken from the network.
    """
    versions = {package: importlib.metadata.version(package) for package in LIBRARY_PACKAGES[encoder["library"]]}
    return hash_json(
        {
            "encoder": encoder["fingerprint"],
            "preprocess": encoder["preprocess"],
            "decoder": DECODER_VERSION,
            "pooling": pooling,
            "precision": runtime.precision,
            "device": runtime.device.partition(":")[0],
            "numerics": NUMERICS_VERSION,
            "versions": versions,
        }
    )


def open_store(
    encoder: Mapping[str, Any], runtime: Runtime, *, pooling: str = "pooled", root: Path | None = None
) -> RecordStore:
    """Open (or make) the store of an encoder's features: float32 vectors by the content hash of their photo."""
    key = feature_key(encoder, runtime, pooling=pooling)
    readable = re.sub(r"[^A-Za-z0-9.+-]+", "_", Path(str(encoder["name"])).name)[-60:]
    store = RecordStore((root or cache_root()) / FOLDER / f"{readable}-{key}", SHARD_BYTES)
    store.describe(
        {"kind": FOLDER, "encoder": dict(encoder), "pooling": pooling, "precision": runtime.precision, "key": key}
    )
    return store
