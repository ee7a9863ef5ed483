"""Hugging Face's image folders: ``train/``, ``validation/`` and ``test/`` with class folders, or a ``metadata`` table.

The layout is that of the ``imagefolder`` builder of Hugging Face datasets; its split is imported as ``official``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import Card, TargetKind
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.csv import from_table
from dermlab.data.sources.files import ImageFiles, find_images, image_ids, require_folder
from dermlab.data.sources.folder import SPLIT_FOLDERS, label_target
from dermlab.data.sources.tables import Table, read_table

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_PART_OF = {folder: part for part, folders in SPLIT_FOLDERS.items() for folder in folders}


def read(
    path: Path,
    *,
    name: str | None = None,
    label_column: Sequence[str] = (),
    metadata_columns: Sequence[str] = (),
    kind: TargetKind | None = None,
    classes: Sequence[str] = (),
    missing_values: Sequence[str] = (),
) -> SourceData:
    """Read an image folder.

    Args:
        path: the folder.
        name: name of the data set; None takes the folder's.
        label_column: columns of the metadata table with labels, the default target first.
        metadata_columns: columns of it to keep as questionnaire; default all that have few enough values.
        kind: kind of the target; None is binary for two classes, else multiclass.
        classes: the classes in order; default in natural order.
        missing_values: texts in the table that mean a missing value, besides the usual ones.
    """
    require_folder(path, "an image folder")
    root = path / "data" if (path / "data").is_dir() and not _holds_parts(path) else path
    files = find_images(root)
    if not files.paths:
        raise InputError(f"{path}: holds no image")
    name = name or path.resolve().name
    tables = sorted(table for metadata in METADATA for table in [*root.glob(metadata), *root.glob(f"*/{metadata}")])
    if tables:
        source = _with_metadata(
            tables, files, name, label_column, metadata_columns, kind, classes, missing_values, path.resolve().name
        )
    else:
        source = _with_class_folders(files, name, kind, classes, path)
    relative = [str(Path(file).relative_to(files.root)) for file in source.manifest["source_path"]]
    parts = np.array([_PART_OF.get(PurePosixPath(file).parts[0].casefold()) for file in relative], dtype=object)
    has_part = pd.notna(parts)
    if has_part.any() and not has_part.all():
        raise InputError(
            f"{path}: {int((~has_part).sum()):,} images lie outside the folders of train, validation and test, "
            f"the first is {relative[int(np.flatnonzero(~has_part)[0])]}"
        )
    return SourceData(
        root=source.root,
        manifest=source.manifest,
        card=source.card,
        official=parts if has_part.any() else None,
        quarantined=source.quarantined,
        notes=source.notes,
    )


def _holds_parts(path: Path) -> bool:
    return any(entry.is_dir() and entry.name.casefold() in _PART_OF for entry in path.iterdir())


def _with_class_folders(
    files: ImageFiles, name: str, kind: TargetKind | None, classes: Sequence[str], path: Path
) -> SourceData:
    notes: list[str] = []
    folders = [PurePosixPath(file).parts[:-1] for file in files.paths]
    inner = [parts[1:] if parts and parts[0].casefold() in _PART_OF else parts for parts in folders]
    manifest = pd.DataFrame({"image_id": pd.Series(image_ids(files.paths), dtype=TEXT)})
    manifest["source_path"] = pd.Series([files.absolute(file) for file in files.paths], dtype=TEXT)
    manifest["label"] = pd.Series([parts[0] if parts else None for parts in inner], dtype=TEXT)
    target = label_target(manifest, kind, classes, path, notes)
    card = Card(
        name=name,
        source=f"dermlab data import imagefolder {path.resolve().name}",
        targets=(target,) if target else (),
    )
    return SourceData(files.root, manifest, card, quarantined=files.set_aside, notes=tuple(notes))


def _with_metadata(
    tables: list[Path],
    files: ImageFiles,
    name: str,
    label_column: Sequence[str],
    metadata_columns: Sequence[str],
    kind: TargetKind | None,
    classes: Sequence[str],
    missing_values: Sequence[str],
    folder: str,
) -> SourceData:
    """Join the metadata tables of all parts into one whose ``file_name`` is relative to the root."""
    frames: list[pd.DataFrame] = []
    lines: list[np.ndarray] = []
    origins: list[Path] = []
    notes: list[str] = []
    for file in tables:
        table = read_table(file, missing_values=missing_values)
        if "file_name" not in table.frame:
            raise InputError.at(
                file, "is missing; an image folder's metadata names its images there", column="file_name"
            )
        table.refuse(table.frame["file_name"].isna().to_numpy(), "file_name", "is blank; every row names an image")
        inner = file.resolve().parent.relative_to(files.root).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        frames.append(table.frame.assign(file_name=prefix + table.frame["file_name"]))
        lines.append(table.lines)
        origins.extend([file] * len(table.lines))
        notes.extend(table.notes)
    joined = Table(tables[0], pd.concat(frames, ignore_index=True), np.concatenate(lines), tuple(notes), tuple(origins))
    return from_table(
        joined,
        files,
        name=name,
        source=f"dermlab data import imagefolder {folder}",
        chosen={"image": "file_name"},
        label_column=label_column,
        metadata_columns=metadata_columns,
        kind=kind,
        classes=classes,
    )
