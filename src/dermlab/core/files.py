"""Files that are whole or absent, and paths that stay in their folder."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dermlab.core.errors import DermlabError, InputError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed and renamed over ``path``, else removed.

    A reader sees the old file or the new one, never a part. A full or read-only disk is one clear line.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def cannot_write(path: str | Path, error: OSError) -> DermlabError:
    """Return the one-line error for a failed write: which file, why, what was kept."""
    return DermlabError(f"{path}: cannot be written ({error.strerror or error}); anything finished before is kept")


def write_text(path: str | Path, text: str) -> Path:
    """Write a UTF-8 text file atomically and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a binary file atomically and return its path."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON, atomically; NaN and infinity become null, as JSON has neither."""
    return write_text(path, json.dumps(json_ready(value), indent=2, ensure_ascii=False) + "\n")


def json_ready(value: Any) -> Any:
    """Return ``value`` with numpy scalars and arrays as Python's, paths as text, and non-finite numbers as None."""
    if isinstance(value, dict):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [json_ready(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return json_ready(value.tolist())
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if hasattr(value, "model_dump"):
        return json_ready(value.model_dump(mode="json"))
    return str(value)


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or broken file is an :class:`InputError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None


def inside(folder: str | Path, relative: str) -> Path:
    """Return ``folder / relative`` if it stays in ``folder``, ``..`` and links resolved, else raise InputError."""
    if "\x00" in relative:
        raise InputError(f"{relative!r}: a path cannot hold a zero byte")
    root = Path(folder).resolve()
    path = (root / relative).resolve()
    if Path(relative).is_absolute() or not path.is_relative_to(root):
        raise InputError(f"{relative}: leaves the folder {folder}; paths must be relative and stay inside it")
    return path
