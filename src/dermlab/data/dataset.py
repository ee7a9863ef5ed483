"""The data set folder: ``manifest.parquet``, ``card.yaml``, ``splits/<name>.parquet``, ``quarantine.csv``.

Opening one validates everything; a fault is one line that names file, row and column. The manifest's order is the order
of every array.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.core.fingerprint import hash_bytes, hash_json
from dermlab.data.card import Card, read_card, write_card
from dermlab.data.manifest import (
    CARD,
    MANIFEST,
    TEXT,
    as_numbers,
    as_text,
    is_url,
    read_parquet,
    refuse,
    to_arrow,
    typed,
    validate_manifest,
    write_parquet,
)

SPLITS, QUARANTINE = "splits", "quarantine.csv"
PARTS = ("train", "val", "test")


class Dataset:
    """A data set folder, opened and checked.

    Attributes:
        folder: the folder.
        card: what the data set is.
        manifest: one row an image, RangeIndex, typed: text columns are pandas strings, ``captured_at`` is
            ``datetime64`` (UTC), ``skin_type`` is ``Int8``, booleans are pandas ``boolean``, numbers ``float64``, a
            multilabel target holds lists of class names. Missing is null. Not to be edited.
    """

    def __init__(self, folder: Path, card: Card, manifest: pd.DataFrame) -> None:
        """Hold what :meth:`open` and :meth:`write` have checked; use those."""
        self.folder = folder
        self.card = card
        self.manifest = manifest

    def __len__(self) -> int:
        return len(self.manifest)

    def __repr__(self) -> str:
        return f"Dataset({str(self.folder)!r}, {self.card.name!r}, {len(self):,} images)"

    @classmethod
    def open(cls, folder: str | Path) -> Dataset:
        """Open a data set folder and validate card and manifest.

        Raises :class:`InputError` naming file, row and column where something is not as it should be.
        """
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; 'dermlab data import' makes a data set folder")
        for name in (CARD, MANIFEST):
            if not (folder / name).is_file():
                raise InputError(
                    f"{folder}: not a data set folder ({name} is missing); 'dermlab data import' makes one"
                )
        card = read_card(folder / CARD)
        manifest = typed(read_parquet(folder / MANIFEST), card, folder / MANIFEST)
        validate_manifest(manifest, card, folder)
        return cls(folder, card, manifest)

    @classmethod
    def write(cls, folder: str | Path, manifest: pd.DataFrame, card: Card) -> Dataset:
        """Validate a manifest and its card, write both into ``folder`` (made if need be) and return the data set.

        Whole numbers and truth values in text columns (ids, labels) become text; nothing else is guessed.
        """
        folder = Path(folder).expanduser()
        manifest = typed(manifest.reset_index(drop=True), card, folder / MANIFEST)
        validate_manifest(manifest, card, folder)
        write_parquet(folder / MANIFEST, to_arrow(manifest, card))
        write_card(folder / CARD, card)
        return cls(folder, card, manifest)

    @property
    def image_ids(self) -> np.ndarray:
        """The images' ids, str (N,)."""
        return self.manifest["image_id"].to_numpy(dtype=str)

    @functools.cached_property
    def paths(self) -> list[Path]:
        """Absolute path of every image; none leaves the folder.

        An image named by a URL is fetched first (only from hosts that ``DERMLAB_ALLOWED_HOSTS`` names) and its path is
        that of the copy in the cache folder; where that failed, the path names a file that does not exist.
        """
        root = self.folder.resolve()
        values = self.manifest["path"].tolist()
        remote = np.flatnonzero(is_url(self.manifest["path"])).tolist()
        fetched: dict[int, Path] = {}
        if remote:
            from dermlab.data.remote import fetch

            urls = [values[row] for row in remote]
            copies = fetch(urls, source=self.folder / MANIFEST, rows=[row + 2 for row in remote])
            fetched = dict(zip(remote, copies, strict=True))
        return [fetched.get(row) or root / value for row, value in enumerate(values)]

    def labels(self, target: str | None = None) -> np.ndarray:
        """Return the labels of a target.

        Args:
            target: name of the target; None is the card's default one.

        Returns:
            Class names, object (N,), None where missing; for a multilabel target 0/1 per class, float64 (N, C), a row
            of NaN where missing.
        """
        wanted = self.card.target(target)
        column = self.manifest[wanted.column]
        missing = column.isna().to_numpy()
        if wanted.kind != "multilabel":
            labels = column.to_numpy(dtype=object)
            labels[missing] = None
            return labels
        values = np.zeros((len(column), len(wanted.classes)))
        names = column.explode().dropna()
        values[names.index, pd.Index(wanted.classes).get_indexer(pd.Index(names))] = 1.0
        values[missing] = np.nan
        return values

    def group_column(self) -> str:
        """Return the column that no split may divide: the card's, else patient_id, else lesion_id, else image_id."""
        if self.card.group_by is not None:
            return self.card.group_by
        for column in ("patient_id", "lesion_id"):
            if column in self.manifest and self.manifest[column].notna().any():
                return column
        return "image_id"

    def groups(self) -> np.ndarray:
        """Return the group of every image, str (N,): an image without one is a group of its own."""
        return self.ids_of(self.group_column())

    def units(self) -> np.ndarray:
        """Return the id of the unit that is scored (image, lesion or patient) for every image, str (N,)."""
        return self.ids_of(f"{self.card.unit}_id")

    def ids_of(self, column: str) -> np.ndarray:
        """Return a text column as ids, str (N,), with the image's own id where it is null."""
        ids = self.image_ids
        values = self.manifest[column]
        missing = values.isna().to_numpy()
        filled = values.to_numpy(dtype=object)
        # An image whose own id happens to be some patient's must not join that patient.
        taken = set(filled[~missing]) if missing.any() else set()
        filled[missing] = [f"image:{name}" if name in taken else name for name in ids[missing]]
        return filled.astype(str)

    def questionnaire(self, exclude_proxies: bool = True) -> pd.DataFrame:
        """Return the card's metadata columns, typed: float64, ``boolean`` or string, null where missing.

        Args:
            exclude_proxies: leave out the columns that the card calls label proxies.
        """
        proxies = self.card.label_proxies if exclude_proxies else ()
        columns = [column.column for column in self.card.metadata if column.column not in proxies]
        return self.manifest[columns].copy()

    def split_names(self) -> list[str]:
        """Return the names of the splits, sorted."""
        return sorted(path.stem for path in (self.folder / SPLITS).glob("*.parquet"))

    def read_split(self, name: str) -> pd.DataFrame:
        """Read a split: columns ``image_id, split, fold, repeat``, one row per image, fold and repeat.

        Every (repeat, fold) is a complete assignment of all images to train, val and test. Rows come ordered by
        repeat, fold and manifest, so that each block of N rows aligns with the data set's arrays.

        Raises :class:`InputError` where there is no such split or it does not fit the manifest.
        """
        path = self._split_path(name)
        if not path.is_file():
            known = ", ".join(self.split_names()) or "none yet"
            raise InputError(f"{self.folder}: no split {name!r} (there is {known}); 'dermlab data split' makes one")
        return self._checked_split(read_parquet(path), path)

    def write_split(self, name: str, frame: pd.DataFrame) -> Path:
        """Check a split against the manifest, write it to ``splits/<name>.parquet`` and return the path."""
        import pyarrow as pa

        path = self._split_path(name)
        types = {"image_id": pa.string(), "split": pa.string(), "fold": pa.int32(), "repeat": pa.int32()}
        table = pa.Table.from_pandas(self._checked_split(frame, path), schema=pa.schema(types), preserve_index=False)
        write_parquet(path, table)
        return path

    def _split_path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise InputError(f"{name!r} cannot be a split's name: letters, digits, '_', '-', '+' and '.' only")
        return self.folder / SPLITS / f"{name}.parquet"

    def _checked_split(self, frame: pd.DataFrame, path: Path) -> pd.DataFrame:
        """Return a split ordered by repeat, fold and manifest; an incomplete assignment is an InputError."""
        for column in ("image_id", "split"):
            if column not in frame:
                raise InputError.at(path, "is missing; a split has image_id, split, fold and repeat", column=column)
        frame = frame.reset_index(drop=True)
        ids, split = as_text(frame["image_id"], path), as_text(frame["split"], path)
        refuse(~split.isin(PARTS), split, path, lambda value: f"{value!r} is not one of {', '.join(PARTS)}")
        columns = {"image_id": ids, "split": split}
        for column in ("fold", "repeat"):
            number = as_numbers(frame[column], path) if column in frame else pd.Series(0.0, index=frame.index)
            refuse(~(number >= 0) | (number % 1 != 0), number, path, lambda value: f"{value!r} is not 0, 1, 2, …")
            columns[column] = number.astype(np.int32)
        position = pd.Index(self.image_ids).get_indexer(ids.to_numpy(dtype=object))
        refuse(position < 0, ids, path, lambda value: f"{value!r} is not an image of {MANIFEST}")
        order = np.lexsort((position, columns["fold"], columns["repeat"]))
        result = pd.DataFrame(columns).iloc[order].reset_index(drop=True)
        if result.empty:
            raise InputError(f"{path}: the split is empty")
        self._refuse_incomplete(result, position[order], path)
        return result

    def _refuse_incomplete(self, frame: pd.DataFrame, position: np.ndarray, path: Path) -> None:
        """Raise InputError unless every (repeat, fold) holds every image once."""
        n = len(self)
        key = frame["repeat"].to_numpy(dtype=np.int64) << 32 | frame["fold"].to_numpy(dtype=np.int64)
        _, start, block = np.unique(key, return_index=True, return_inverse=True)
        times = np.bincount(block * n + position, minlength=n * len(start))
        wrong = np.flatnonzero(times != 1)
        if len(wrong) == 0:
            return
        first, image = divmod(int(wrong[0]), n)
        where = f"fold {frame['fold'].iloc[start[first]]} of repeat {frame['repeat'].iloc[start[first]]}"
        name = self.manifest["image_id"].iloc[image]
        if times[wrong[0]] > 1:
            raise InputError(f"{path}: image {name!r} stands {times[wrong[0]]} times in {where}")
        raise InputError(f"{path}: {len(wrong):,} images are in no part, the first is {name!r} in {where}; split anew")

    @functools.cached_property
    def fingerprint(self) -> str:
        """Fingerprint of manifest and card; the same contents give the same one, whoever wrote the files, wherever."""
        import pyarrow as pa
        from pyarrow import csv

        table = to_arrow(self.manifest, self.card)
        columns = {}
        for name in sorted(table.column_names):
            column = table.column(name)
            if pa.types.is_list(column.type):
                column = pa.array(
                    [None if row is None else "\x1f".join(row) for row in column.to_pylist()], pa.string()
                )
            columns[name] = column
        sink = pa.BufferOutputStream()
        csv.write_csv(pa.table(columns), sink)
        return hash_bytes(sink.getvalue().to_pybytes(), hash_json(self.card.model_dump(mode="json")).encode())

    @functools.cached_property
    def quarantine(self) -> pd.DataFrame:
        """What the import set aside: ``path, reason``, one row a file; empty where there was nothing."""
        path = self.folder / QUARANTINE
        if not path.is_file():
            return pd.DataFrame({"path": pd.Series(dtype=TEXT), "reason": pd.Series(dtype=TEXT)})
        return pd.read_csv(path, dtype=TEXT, keep_default_na=False)
