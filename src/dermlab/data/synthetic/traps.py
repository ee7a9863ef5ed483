"""Faults planted on purpose, each recorded in ``traps.json``: what the audit must find, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dermlab.core.errors import InputError
from dermlab.core.files import write_json
from dermlab.core.randomness import generator
from dermlab.data.card import Card, MetadataColumn
from dermlab.data.dataset import Dataset

RECORD = "traps.json"
LEAST_PHOTOS = 60
LEAKING_COLUMN = "biopsed"
LEAKING_BLANK = "report_days"
LEAKING_SPLIT = "leaky"

TARGETS = ("diagnosis", "malignant")

Picture = NDArray[Any]  # uint8
Row = dict[str, Any]


def _same(picture: Picture) -> Picture:
    return picture


def _cropped(picture: Picture) -> Picture:
    height, width = picture.shape[:2]
    edge = max(1, round(0.03 * width))
    return cv2.resize(picture[edge:-edge, edge:-edge], (width, height), interpolation=cv2.INTER_AREA)


# What near duplicates have gone through: (what moves pixels, what changes them, JPEG quality).
CHANGES: dict[str, tuple[Callable[[Picture], Picture], Callable[[Picture], Picture], int]] = {
    "encoded again at quality 60": (_same, _same, 60),
    "mirrored left to right": (lambda picture: picture[:, ::-1], _same, 92),
    "turned by 180 degrees": (lambda picture: picture[::-1, ::-1], _same, 92),
    "cropped by 3 % a side": (_cropped, _same, 92),
    "brightened by 8 %": (_same, lambda picture: cv2.convertScaleAbs(picture, alpha=1.08), 92),
}


@dataclass(frozen=True)
class Planted:
    """How many rows of each kind the manifest ends with, after ``n_clean`` honest ones, in this order."""

    n: int
    seed: int
    n_exact: int
    n_near: int
    n_conflicts: int
    n_unreadable: int

    @classmethod
    def plan(cls, n: int, seed: int) -> Planted:
        """Decide how many faults a clinic of ``n`` photos gets."""
        if n < LEAST_PHOTOS:
            raise InputError(f"traps: {n} photos are too few to plant faults among; at least {LEAST_PHOTOS} are needed")
        share = max(3, n // 60)
        return cls(n=n, seed=seed, n_exact=share, n_near=max(share, len(CHANGES)), n_conflicts=share, n_unreadable=3)

    @property
    def n_clean(self) -> int:
        """Number of rows whose photos are their own."""
        return self.first_unreadable - self.n_exact - self.n_near - self.n_conflicts

    @property
    def first_unreadable(self) -> int:
        """Row of the first unreadable photo."""
        return self.n - self.n_unreadable


def plant(out: Path, rows: list[Row], card: Card, planted: Planted) -> Dataset:
    """Plant every fault in a freshly rendered clinic, record it, and write the data set.

    Args:
        out: the folder, with the photos of the honest and of the unreadable rows.
        rows: the manifest's rows as they would be without faults; changed in place.
        card: the honest card; the leaking columns are added to its questionnaire.
        planted: how many of each kind.

    Returns:
        The data set, with the split ``leaky``.
    """
    rng = generator(planted.seed, "traps")
    record: dict[str, Any] = {"seed": planted.seed, "n": planted.n, "n_clean": planted.n_clean}
    _copies(out, rows, planted, rng, record)
    _unreadable(out, rows, planted, record)
    card = _leaking_columns(rows, card, rng, record)
    dataset = Dataset.write(out, pd.DataFrame(rows), card)
    _leaking_split(dataset, rng, record)
    write_json(out / RECORD, record)
    return dataset


def _copies(out: Path, rows: list[Row], planted: Planted, rng: np.random.Generator, record: dict[str, Any]) -> None:
    """File photos a second time, under another patient: the row keeps its own patient and answers."""
    honest = rows[: planted.n_clean]
    n_copies = planted.n_exact + planted.n_near + planted.n_conflicts
    record.update(exact_duplicates=[], near_duplicates=[], label_conflicts=[])
    for index, number in enumerate(rng.permutation(len(honest))[:n_copies].tolist()):
        source, row = honest[number], rows[planted.n_clean + index]
        ids = {"image_id": row["image_id"], "copy_of": source["image_id"]}
        shutil.copyfile(out / source["path"], out / row["path"])
        shutil.copyfile(out / source["mask_path"], out / row["mask_path"])
        labelled_as = source
        if index < planted.n_exact:
            record["exact_duplicates"].append(ids)
        elif index < planted.n_exact + planted.n_near:
            change = list(CHANGES)[(index - planted.n_exact) % len(CHANGES)]
            _change(out / row["path"], out / row["mask_path"], change)
            record["near_duplicates"].append({**ids, "change": change})
        else:
            others = [other for other in honest if other["diagnosis"] != source["diagnosis"]]
            labelled_as = others[int(rng.integers(len(others)))]
            labels = [source["diagnosis"], labelled_as["diagnosis"]]
            record["label_conflicts"].append({**ids, "labels": labels})
        row.update({target: labelled_as[target] for target in TARGETS})


def _change(image: Path, mask: Path, name: str) -> None:
    """Change a photo's file, and its mask's where the lesion moves."""
    move, alter, quality = CHANGES[name]
    picture: Any = cv2.imdecode(np.frombuffer(image.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    lesion: Any = cv2.imdecode(np.frombuffer(mask.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    changed = np.ascontiguousarray(alter(move(picture)))
    image.write_bytes(cv2.imencode(".jpg", changed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())
    moved = (move(lesion) > 127).astype(np.uint8) * 255
    mask.write_bytes(cv2.imencode(".png", moved, [cv2.IMWRITE_PNG_BILEVEL, 1])[1].tobytes())


def _unreadable(out: Path, rows: list[Row], planted: Planted, record: dict[str, Any]) -> None:
    record["unreadable"] = []
    for row, reason in zip(rows[planted.first_unreadable :], ("truncated", "empty", "not an image"), strict=True):
        image = out / row["path"]
        whole = image.read_bytes()
        damaged = {"truncated": whole[: len(whole) // 3], "empty": b"", "not an image": b"this is no photo\n" * 20}
        image.write_bytes(damaged[reason])
        record["unreadable"].append({"image_id": row["image_id"], "reason": reason})


def _leaking_columns(rows: list[Row], card: Card, rng: np.random.Generator, record: dict[str, Any]) -> Card:
    """Add a column whose value betrays the label, and one whose blanks do though its values are noise."""
    for row in rows:
        malignant = row["malignant"] == "malignant"
        row[LEAKING_COLUMN] = malignant or bool(rng.random() < 0.08)
        known = rng.random() < (0.98 if malignant else 0.03)
        row[LEAKING_BLANK] = float(round(rng.lognormal(2.2, 0.4))) if known else None
    record["leaking_column"] = {"column": LEAKING_COLUMN, "why": "true of every malignant lesion, of few benign ones"}
    record["leaking_blank"] = {
        "column": LEAKING_BLANK,
        "why": "blank unless the lesion was malignant; values are noise",
    }
    added = (
        MetadataColumn(column=LEAKING_COLUMN, kind="boolean", description="Was a biopsy taken?"),
        MetadataColumn(column=LEAKING_BLANK, kind="numeric", unit="days", description="Days to the report"),
    )
    return card.model_copy(update={"metadata": (*card.metadata, *added)})


def _leaking_split(dataset: Dataset, rng: np.random.Generator, record: dict[str, Any]) -> None:
    """Write a split that deals out photos, not patients."""
    n = len(dataset)
    part = np.full(n, "train", dtype=object)
    order = rng.permutation(n)
    part[order[: n // 5]] = "test"
    part[order[n // 5 : 2 * (n // 5)]] = "val"
    frame = pd.DataFrame({"image_id": dataset.image_ids, "split": part, "fold": 0, "repeat": 0})
    dataset.write_split(LEAKING_SPLIT, frame)
    parts = pd.Series(part).groupby(dataset.groups()).nunique()
    record["leaking_group"] = {"split": LEAKING_SPLIT, "patients": sorted(parts.index[parts > 1])}
