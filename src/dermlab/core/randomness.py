"""Counter-based randomness: a draw depends on its seed and its name, on no worker, order or resume."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *name: int | str) -> np.random.Generator:
    """Return the generator that belongs to ``(seed, *name)``, for example ``generator(17, "views", epoch, image)``.

    Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") keyed by a hash of the arguments.
    """
    text = "\x1f".join([str(int(seed)), *(str(part) for part in name)])
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
