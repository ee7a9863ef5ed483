"""Image arrays in a NumPy ``.npz``: MedMNIST's keys (``train_images``, ``train_labels``, …), or ``images``, ``labels``.

The images are read block by block from the archive, so that a file larger than the memory imports too. Pickled objects
are never loaded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError, first_line
from dermlab.core.fingerprint import hash_bytes
from dermlab.data.card import Card, Target, TargetKind
from dermlab.data.decode import MAX_PIXELS
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import image_ids
from dermlab.data.sources.tables import class_order

PARTS = ("train", "val", "test")
BLOCK_BYTES = 64 << 20
_PER_IMAGE = {"filenames": "name", "patient_ids": "patient_id", "lesion_ids": "lesion_id"}
_LAYOUT = (
    "expected train_images, train_labels, val_images, … (MedMNIST), or images and labels "
    "(with class_names, filenames, patient_ids, lesion_ids if there are)"
)


@dataclass(frozen=True)
class NpzImages:
    """The images of an ``.npz``, several arrays one after the other."""

    path: Path
    keys: tuple[str, ...]
    fingerprint: str

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, images uint8 (B, H, W) or (B, H, W, 3))."""
        start = 0
        with zipfile.ZipFile(self.path) as archive:
            for key in self.keys:
                with archive.open(f"{key}.npy") as file:
                    shape, _, _ = _header(file)
                    n_bytes = int(np.prod(shape[1:]))
                    step = max(1, BLOCK_BYTES // n_bytes)
                    for first in range(0, shape[0], step):
                        n = min(step, shape[0] - first)
                        try:
                            data = file.read(n * n_bytes)
                        except (zipfile.BadZipFile, EOFError, OSError) as error:
                            raise InputError(f"{self.path}: {key} is damaged ({first_line(error)})") from None
                        if len(data) < n * n_bytes:
                            raise InputError(f"{self.path}: {key} ends after {first:,} of {shape[0]:,} images")
                        block = np.frombuffer(data, dtype=np.uint8).reshape(n, *shape[1:])
                        yield start, block[..., 0] if block.ndim == 4 and block.shape[3] == 1 else block
                        start += n


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an ``.npy`` and leave the file at its first value."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def read(
    path: Path,
    *,
    name: str | None = None,
    kind: TargetKind | None = None,
    classes: Sequence[str] = (),
) -> SourceData:
    """Read the images and labels of an ``.npz``.

    Labels are whole numbers (N,) or (N, 1), names (N,), or 0/1 marks (N, C) for a multilabel target.

    Args:
        path: the file.
        name: name of the data set; None takes the file's.
        kind: kind of the target, for example ``ordinal``; None is told by shape and number of classes.
        classes: names of the classes in order; None takes ``class_names`` of the file, else the numbers.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an .npz")
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive.files)
            parts, image_keys = _image_keys(keys, path)
            shapes = _image_shapes(path, image_keys)
            wanted = [f"{part}_{key}" if part else key for part in parts for key in ("labels", *_PER_IMAGE)]
            small = {key: _load(archive, key, path) for key in (*wanted, "class_names") if key in keys}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as .npz ({first_line(error)})") from None
    n_images = [shape[0] for shape in shapes]
    names = small.get("class_names")
    known = tuple(classes) or (() if names is None else tuple(str(value) for value in names.reshape(-1)))
    labels = [small.get(f"{part}_labels" if part else "labels") for part in parts]
    for part, array, n in zip(parts, labels, n_images, strict=True):
        label_key = f"{part}_labels" if part else "labels"
        if array is None and any(other is not None for other in labels):
            raise InputError(f"{path}: {label_key} is missing, the other parts have labels")
        if array is not None and len(array) != n:
            raise InputError(f"{path}: {label_key} has {len(array):,} labels for {n:,} images")
    columns = _per_image(small, parts, n_images, path)
    official = np.repeat(np.array(parts, dtype=object), n_images) if parts != [""] else None
    manifest = pd.DataFrame({"image_id": pd.Series(_ids(columns.pop("name", None), parts, n_images), dtype=TEXT)})
    for column, values in columns.items():
        manifest[column] = values
    targets: tuple[Target, ...] = ()
    present = [array for array in labels if array is not None]
    if present:
        widths = {array.shape[1:] for array in present}
        if len(widths) > 1:
            raise InputError(f"{path}: the labels of the parts have different shapes: {sorted(widths)}")
        manifest["label"], target = _target(np.concatenate(present), known, kind, path)
        targets = (target,)
    status = path.stat()
    images = NpzImages(path, image_keys, hash_bytes(f"{path.name}:{status.st_size}:{status.st_mtime_ns}".encode()))
    card = Card(name=name or path.stem, source=f"dermlab data import npz {path.name}", targets=targets)
    return SourceData(root=path.parent, manifest=manifest, card=card, official=official, arrays=images)


def _image_keys(keys: list[str], path: Path) -> tuple[list[str], tuple[str, ...]]:
    """Return the parts that the file has ('' where it has none) and the key of each one's images."""
    parts = [part for part in PARTS if f"{part}_images" in keys]
    if "images" in keys:
        if parts:
            raise InputError(f"{path}: has both images and {parts[0]}_images; one of the two layouts, please")
        parts = [""]
    if not parts:
        raise InputError(f"{path}: holds {', '.join(keys) or 'nothing'}; {_LAYOUT}")
    return parts, tuple(f"{part}_images" if part else "images" for part in parts)


def _image_shapes(path: Path, keys: Sequence[str]) -> list[tuple[int, ...]]:
    """Return the shape of each array of images, read from its header alone."""
    shapes = []
    with zipfile.ZipFile(path) as archive:
        for key in keys:
            with archive.open(f"{key}.npy") as file:
                shape, is_fortran, dtype = _header(file)
            if dtype != np.uint8:
                hint = "pickled objects are refused" if dtype.hasobject else f"got {dtype}"
                raise InputError(f"{path}: {key} must be uint8, 0 to 255; {hint}")
            if is_fortran:
                raise InputError(f"{path}: {key} is in Fortran order; save np.ascontiguousarray(images)")
            if len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3):
                raise InputError(f"{path}: {key} is {shape}; channels come last: images.transpose(0, 2, 3, 1)")
            if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape:
                raise InputError(f"{path}: {key} must be (N, H, W) or (N, H, W, 3), got {shape}")
            if shape[1] * shape[2] > MAX_PIXELS:
                raise InputError(f"{path}: {key} is {shape}; an image may have {MAX_PIXELS:,} pixels at most")
            shapes.append(shape)
    if len({shape[1:] for shape in shapes}) > 1:
        raise InputError(f"{path}: the parts' images differ in size: {', '.join(str(shape) for shape in shapes)}")
    return shapes


def _load(archive: Any, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except ValueError:
        raise InputError(
            f"{path}: {key} holds pickled objects, which are refused; save it as text or numbers"
        ) from None


def _per_image(small: dict[str, np.ndarray], parts: list[str], n_images: list[int], path: Path) -> dict[str, pd.Series]:
    columns = {}
    for key, column in _PER_IMAGE.items():
        arrays = [small.get(f"{part}_{key}" if part else key) for part in parts]
        if all(array is None for array in arrays):
            continue
        for part, array, n in zip(parts, arrays, n_images, strict=True):
            if array is None or array.shape != (n,):
                shape = "is missing" if array is None else f"has the shape {array.shape}"
                raise InputError(f"{path}: {f'{part}_' if part else ''}{key} {shape}; expected ({n},)")
        values = pd.Series(np.concatenate([array for array in arrays if array is not None])).astype(str)
        columns[column] = values.mask(values == "").astype(TEXT)
    return columns


def _ids(names: pd.Series | None, parts: list[str], n_images: list[int]) -> list[str]:
    if names is not None and names.notna().all():
        ids = image_ids(names)
        if len(set(ids)) == len(ids):
            return ids
    return [f"{part or 'image'}_{k:06d}" for part, n in zip(parts, n_images, strict=True) for k in range(n)]


def _target(
    labels: np.ndarray, known: tuple[str, ...], kind: TargetKind | None, path: Path
) -> tuple[pd.Series, Target]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    is_text = labels.dtype.kind in "US"
    if not is_text and labels.dtype.kind not in "iub":
        raise InputError(f"{path}: labels must be whole numbers or names, got {labels.dtype}")
    if labels.ndim == 2:
        if is_text or not np.isin(labels, [0, 1]).all():
            raise InputError(f"{path}: labels {labels.shape} must be 0/1 marks, one column a class")
        known = known or tuple(str(k) for k in range(labels.shape[1]))
        if len(known) != labels.shape[1]:
            raise InputError(f"{path}: {len(known)} class names for {labels.shape[1]} columns of labels")
        names = np.array(known, dtype=object)
        rows = np.empty(len(labels), dtype=object)
        rows[:] = [list(names[row]) for row in labels.astype(bool)]
        return pd.Series(rows), Target(column="label", kind="multilabel", classes=known, default=True)
    if labels.ndim != 1:
        raise InputError(f"{path}: labels must be (N,), (N, 1) or (N, C), got {labels.shape}")
    if is_text:
        values = pd.Series(labels).astype(str)
        known = known or class_order(values)
    else:
        numbers = labels.astype(np.int64)
        known = known or tuple(str(k) for k in range(int(numbers.max()) + 1))
        if numbers.min() < 0 or numbers.max() >= len(known):
            wrong = int(np.flatnonzero((numbers < 0) | (numbers >= len(known)))[0])
            raise InputError(
                f"{path}: labels[{wrong}] is {numbers[wrong]}; there are {len(known)} classes, counted from 0"
            )
        values = pd.Series(np.array(known, dtype=object)[numbers])
    unknown = values[~values.isin(known)]
    if len(unknown):
        raise InputError(f"{path}: labels[{unknown.index[0]}] is {unknown.iloc[0]!r}, not one of {', '.join(known)}")
    kind = kind or ("binary" if len(known) == 2 else "multiclass")
    return values.astype(TEXT), Target(column="label", kind=kind, classes=known, default=True)
