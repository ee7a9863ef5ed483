"""Photos in class folders (``melanoma/IMG_1.jpg``), in a flat folder without labels, or with more levels than one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import Card, Target, TargetKind
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import ImageFiles, find_images, image_ids, require_folder
from dermlab.data.sources.tables import class_order

LEVELS = {"label": "label", "patient": "patient_id", "lesion": "lesion_id", "site": "site", "modality": "modality"}
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Folder names of Hugging Face's image folders (datasets, "split names") for each part."""


def read(
    path: Path,
    *,
    name: str | None = None,
    levels: str = "label",
    kind: TargetKind | None = None,
    classes: Sequence[str] = (),
) -> SourceData:
    """Read a folder of photos.

    Args:
        path: the folder.
        name: name of the data set; None takes the folder's.
        levels: what the levels of subfolders mean, outermost first, as in ``label``, ``label/patient`` or
            ``patient/lesion`` (of label, patient, lesion, site, modality; ``-`` for none of these).
        kind: kind of the target; None is binary for two classes, else multiclass.
        classes: the classes in order; default in natural order.
    """
    files = find_images(require_folder(path, "a folder of photos"))
    if not files.paths:
        raise InputError(f"{path}: holds no photo; {_what_else(files)}")
    meanings = _meanings(levels)
    top = {PurePosixPath(file).parts[0].casefold() for file in files.paths if "/" in file}
    parts = [part for part, folders in SPLIT_FOLDERS.items() if top & set(folders)]
    if "label" in meanings and len(parts) > 1:
        raise InputError(f"{path}: has folders for {' and '.join(parts)}; import it with the source 'imagefolder'")
    notes: list[str] = []
    if files.others:
        notes.append(f"{_what_else(files)}")
    manifest = pd.DataFrame({"image_id": pd.Series(image_ids(files.paths), dtype=TEXT)})
    manifest["source_path"] = pd.Series([files.absolute(file) for file in files.paths], dtype=TEXT)
    folders = [PurePosixPath(file).parts[:-1] for file in files.paths]
    for depth, meaning in enumerate(meanings):
        if meaning != "-":
            values = [parts[depth] if len(parts) > depth else None for parts in folders]
            manifest[LEVELS[meaning]] = pd.Series(values, dtype=TEXT)
    if "patient_id" in manifest and "lesion_id" in manifest:
        manifest["lesion_id"] = manifest["patient_id"] + "/" + manifest["lesion_id"]
    target = label_target(manifest, kind, classes, path, notes)
    card = Card(
        name=name or path.resolve().name or "photos",
        source=f"dermlab data import folder {path.resolve().name}",
        targets=(target,) if target else (),
    )
    return SourceData(root=files.root, manifest=manifest, card=card, quarantined=files.set_aside, notes=tuple(notes))


def label_target(
    manifest: pd.DataFrame, kind: TargetKind | None, classes: Sequence[str], path: Path, notes: list[str]
) -> Target | None:
    """Return the target of the column ``label``, or None (and no such column) where there are not two classes."""
    if "label" not in manifest:
        return None
    labels = manifest["label"].dropna()
    known = tuple(classes) or class_order(labels)
    unknown = class_order(labels[~labels.isin(known)])
    if unknown:
        raise InputError(f"{path}: the folder {unknown[0]!r} is not one of the classes {', '.join(known)}")
    if len(known) < 2:
        notes.append("no two class folders: the data set has no target")
        del manifest["label"]
        return None
    if len(labels) < len(manifest):
        notes.append(f"{len(manifest) - len(labels):,} photos lie in no class folder and have no label")
    return Target(
        column="label", kind=kind or ("binary" if len(known) == 2 else "multiclass"), classes=known, default=True
    )


def _meanings(levels: str) -> list[str]:
    meanings = [level.strip() for level in levels.split("/")]
    for meaning in meanings:
        if meaning not in LEVELS and meaning != "-":
            raise InputError(f"levels: {meaning!r} is not one of {', '.join(LEVELS)} and '-', as in label/patient")
        if meaning != "-" and meanings.count(meaning) > 1:
            raise InputError(f"levels: {meaning!r} stands twice")
    return meanings


def _what_else(files: ImageFiles) -> str:
    if not files.others:
        return "it is empty"
    kinds = ", ".join(f"{extension} {count:,}" for extension, count in files.others.most_common(4))
    return f"files that are no photos were passed over: {kinds}"
