"""Content fingerprints: the same bytes, arrays or settings give the same short hexadecimal name everywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGEST_BYTES = 16


def hash_bytes(*parts: bytes) -> str:
    """Return the 128-bit BLAKE2b of the parts, each preceded by its length, as 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def hash_file(path: str | Path) -> str:
    """Return the 128-bit BLAKE2b of a file's bytes as 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def hash_json(value: Any) -> str:
    """Return the fingerprint of a JSON-able value; key order does not matter."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())
