"""Where dermlab keeps what it can make again: pixels, features, downloaded weights."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the cache folder: ``DERMLAB_CACHE`` if set, else the platform's cache folder for dermlab."""
    chosen = os.environ.get("DERMLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("dermlab", appauthor=False))


def weights_root() -> Path:
    """Return the folder searched first for weights: ``DERMLAB_WEIGHTS``, else ``weights`` in the cache folder."""
    chosen = os.environ.get("DERMLAB_WEIGHTS")
    return Path(chosen).expanduser() if chosen else cache_root() / "weights"
