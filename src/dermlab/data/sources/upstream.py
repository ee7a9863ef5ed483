"""What the readers of published data sets share: columns that must be there, images by id, values with their row.

Two ways with a row that cannot be right. :func:`numbers`, :func:`truths` and :func:`match_images` stop at it.
:class:`Rows` sets it aside with its line and reason, and the rest is imported: published tables are long, and of many
nobody here has seen the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.card import Card, MetadataColumn, Target, TargetKind
from dermlab.data.manifest import TEXT
from dermlab.data.sources import SourceData
from dermlab.data.sources.files import NO_SUCH_FILE, ImageFiles, Matcher, require_folder
from dermlab.data.sources.tables import Table, class_order, read_table

UNKNOWN = ("unknown", "Unknown", "UNKNOWN", "unspecified", "not specified", "None", "none")
"""Words by which published tables say 'not recorded'."""

_TRUE = frozenset(["true", "yes", "1", "1.0"])
_FALSE = frozenset(["false", "no", "0", "0.0"])
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}


def require_columns(table: Table, columns: Iterable[str]) -> None:
    """Raise InputError naming the columns that a published table should have and this one has not."""
    missing = [name for name in columns if name not in table.frame]
    if missing:
        raise InputError(f"{table.file}: not the published table, it lacks {', '.join(missing)}")


def match_images(table: Table, column: str, files: ImageFiles) -> tuple[pd.Series, list[tuple[str, str]]]:
    """Return the absolute path of each row's image, null where there is none, and the reasons for those."""
    table.refuse(table.frame[column].isna().to_numpy(), column, "is blank; every row names an image")
    table.refuse(table.frame[column].duplicated().to_numpy(), column, "{value} stands in an earlier row already")
    paths = locate(table.frame[column], Matcher(files), files)
    return paths, [(entry, NO_SUCH_FILE) for entry in table.frame[column][paths.isna()]]


def numbers(table: Table, column: str) -> pd.Series:
    """Return a column as float64, NaN where missing; anything else is an error with its row."""
    values, wrong = _as_numbers(table.frame[column])
    table.refuse(wrong, column, "{value} is not a number")
    return values


def truths(table: Table, column: str) -> pd.Series:
    """Return a column of True and False as pandas ``boolean``; anything else is an error with its row."""
    words = table.frame[column].str.casefold()
    wrong = words.notna() & ~words.isin(["true", "false"])
    table.refuse(wrong.to_numpy(), column, "{value} is neither True nor False")
    return (words == "true").astype("boolean").mask(words.isna())


def _as_numbers(values: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """Return texts as float64 and where one is no finite number, bool (N,)."""
    parsed = pd.to_numeric(values.astype(object), errors="coerce").astype(np.float64)
    return parsed, ((parsed.isna() & values.notna()) | np.isinf(parsed)).to_numpy()


# --- tables whose unusable rows are set aside -----------------------------------------------------------------------


class Rows:
    """A published table; a row with a value that cannot be right is set aside with its first fault.

    Attributes:
        table: the table.
        quarantined: (file and row, reason) of each row that was set aside.
        positions: place of each row among all rows of the file, from 0, int (N,): other tables may count by it.
        n_total: number of rows of the file, those included that were no rows of a table.
    """

    def __init__(self, file: Path, required: Iterable[str], *, missing: Sequence[str] = ()) -> None:
        """Read a table.

        Args:
            file: the table.
            required: columns without which it is not the published one.
            missing: texts that mean a missing value in every column.

        Raises:
            InputError: it is no table, or lacks a column.
        """
        ragged: list[tuple[int, str]] = []
        self.table = read_table(file, missing_values=missing, ragged=ragged)
        require_columns(self.table, required)
        self.quarantined = [(f"{file.name} row {line}", fault) for line, fault in ragged]
        lines = np.sort([*self.table.lines, *(line for line, _ in ragged)])
        self.positions = np.searchsorted(lines, self.table.lines)
        self.n_total = len(lines)
        self._is_kept = np.ones(len(self.table.frame), dtype=bool)

    def __contains__(self, column: str) -> bool:
        """Tell whether the table has a column of that name."""
        return column in self.table.frame

    def __len__(self) -> int:
        """Return the number of rows, those set aside included."""
        return len(self.table.frame)

    @property
    def is_kept(self) -> np.ndarray:
        """Which rows are usable so far, bool (N,)."""
        return self._is_kept.copy()

    def set_aside(self, wrong: pd.Series | np.ndarray, column: str, message: str) -> None:
        """Set aside the rows where ``wrong`` holds; ``{value}`` in the message becomes the column's value."""
        wrong = np.asarray(wrong, dtype=bool) & self._is_kept
        for row in np.flatnonzero(wrong):
            text = message.replace("{value}", repr(self.table.frame[column].iloc[row]))
            self.quarantined.append(
                (f"{self.table.file.name} row {self.table.lines[row]}", f"column {column!r} {text}")
            )
        self._is_kept &= ~wrong

    def texts(self, column: str, *, missing: Sequence[str] = ()) -> pd.Series:
        """Return a column as text, null where it is blank, or one of ``missing``, or not in the table at all."""
        if column not in self:
            return pd.Series(np.nan, index=self.table.frame.index, dtype=TEXT)
        values = self.table.frame[column]
        return values.mask(values.isin(list(missing)))

    def ids(self, column: str) -> pd.Series:
        """Return the column that names the rows: a row where it is blank or recurs is set aside."""
        values = self.table.frame[column]
        self.set_aside(values.isna(), column, "is blank")
        self.set_aside(values.notna() & values.duplicated(), column, "{value} stands in an earlier row already")
        return values

    def numbers(
        self, column: str, *, low: float = -np.inf, high: float = np.inf, missing: Sequence[str] = ()
    ) -> pd.Series:
        """Return a column as float64, NaN where missing; no number, or one out of [low, high], sets the row aside."""
        texts = self.texts(column, missing=missing)
        values, wrong = _as_numbers(texts)
        self.set_aside(wrong, column, "{value} is not a number")
        self.set_aside((values < low) | (values > high), column, f"{{value}} is not in {low:g} to {high:g}")
        return values

    def truths(self, column: str, *, missing: Sequence[str] = ()) -> pd.Series:
        """Return a column of true/false, yes/no or 1/0 as pandas ``boolean``; another word sets the row aside."""
        words = self.texts(column, missing=missing).str.casefold()
        self.set_aside(words.notna() & ~words.isin(_TRUE | _FALSE), column, "{value} is neither true nor false")
        return words.isin(_TRUE).astype("boolean").mask(words.isna())

    def labels(
        self, column: str, classes: Iterable[str], *, codes: Mapping[str, str] | None = None, required: bool = True
    ) -> pd.Series:
        """Return a column of labels; one that is no class, or blank where one is required, sets the row aside.

        Args:
            column: of the table.
            classes: the classes.
            codes: what upstream writes -> class, where they differ; letter case plays no part.
            required: whether a row without a label is of no use.
        """
        classes = tuple(classes)
        known = {name.casefold(): name for name in classes}
        known |= {code.casefold(): name for code, name in (codes or {}).items()}
        texts = self.texts(column)
        values = texts.map(lambda text: known.get(text.casefold()), na_action="ignore").astype(TEXT)
        upstream = codes or classes
        self.set_aside(texts.notna() & values.isna(), column, f"label {{value}} is not one of {', '.join(upstream)}")
        if required:
            self.set_aside(texts.isna(), column, "is blank; every row has a label")
        return values

    def marks(self, classes: Sequence[str], *, names: Mapping[str, str] | None = None) -> pd.Series:
        """Return the one class that is marked 1 among columns of 0 and 1; any other row is set aside.

        Args:
            classes: the columns.
            names: column -> class, where they differ.
        """
        values = np.stack([self.numbers(column).to_numpy() for column in classes], axis=1)
        wrong = ~np.isin(values, [0, 1]).all(axis=1) | (values.sum(axis=1) != 1)
        self.set_aside(wrong, classes[0], f"and {', '.join(classes[1:])} must be 0 but for one 1")
        chosen = np.array([(names or {}).get(column, column) for column in classes], dtype=object)
        marked = np.where(wrong, 0, np.nan_to_num(values).argmax(axis=1))
        return pd.Series(chosen[marked], index=self.table.frame.index, dtype=TEXT)

    def skin_types(self, column: str, *, missing: Sequence[str] = ()) -> pd.Series:
        """Return Fitzpatrick types 1 to 6 as float64 from 1, 1.0, I, FST1; anything else sets the row aside."""
        texts = self.texts(column, missing=missing)
        words = texts.str.upper().str.removeprefix("FST").str.removesuffix(".0")
        types = words.map(
            lambda word: _ROMAN.get(word, int(word) if word in set("123456") else None), na_action="ignore"
        )
        types = types.astype(np.float64)
        self.set_aside(texts.notna() & types.isna(), column, "{value} is not a Fitzpatrick type, 1 to 6")
        return types

    def questionnaire(
        self,
        columns: Sequence[MetadataColumn],
        *,
        names: Mapping[str, str] | None = None,
        missing: Sequence[str] = UNKNOWN,
    ) -> dict[str, pd.Series]:
        """Return the card's columns that the table has, each in its type.

        Args:
            columns: the card's entries.
            names: column of the manifest -> column of the table, where they differ.
            missing: texts that mean 'not recorded'.
        """
        read = {"numeric": self.numbers, "boolean": self.truths, "categorical": self.texts}
        found: dict[str, pd.Series] = {}
        for column in columns:
            upstream = (names or {}).get(column.column, column.column)
            if upstream in self:
                found[column.column] = read[column.kind](upstream, missing=missing)
        return found


# --- files ----------------------------------------------------------------------------------------------------------


def find_file(folder: Path, names: Sequence[str], what: str) -> Path:
    """Return the first file of one of these names in a folder or up to two folders below it.

    Raises:
        InputError: ``folder`` is none, or holds no such file; ``what`` is the data set's name.
    """
    require_folder(folder, f"the folder of {what} with {names[0]}")
    found = look_for(folder, *names)
    if found is not None:
        return found
    others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
    raise InputError(f"{folder}: holds no {names[0]}{others}; expected {what} as it is published")


def look_for(folder: Path, *names: str) -> Path | None:
    """Return the first file of one of these names in a folder or up to two folders below it, None if there is none."""
    for pattern in ("{}", "*/{}", "*/*/{}"):
        for name in names:
            found = sorted(folder.glob(pattern.format(name)))
            if found:
                return found[0]
    return None


def locate(entries: pd.Series, matcher: Matcher, files: ImageFiles) -> pd.Series:
    """Return the absolute path of the file that each entry means, null where there is none."""
    paths: list[str | None] = []
    for entry in entries:
        found = matcher.find(entry) if isinstance(entry, str) else []
        paths.append(files.absolute(found[0]) if found else None)
    return pd.Series(paths, index=entries.index, dtype=TEXT)


def folder_labels(
    files: ImageFiles, codes: Mapping[str, str] | None = None, *, below: str | None = None
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the photos that lie in class folders, with the innermost folder's class.

    Args:
        files: the images.
        codes: name of a folder in lower case -> class; None takes every folder's own name.
        below: only files that lie below a folder of this name, where there is one.

    Returns:
        A frame with ``file`` (relative path), ``source_path`` and ``label``; and the files that lie in no class folder.
    """
    inside = [file for file in files.paths if below and below in PurePosixPath(file).parts[:-1]]
    rows: list[tuple[str, str, str]] = []
    others: list[tuple[str, str]] = []
    for file in inside or files.paths:
        folders = PurePosixPath(file).parts[:-1]
        if codes is None:
            label = folders[-1] if folders and folders[-1] != below else None
        else:
            label = next((codes[name.casefold()] for name in reversed(folders) if name.casefold() in codes), None)
        if label is None:
            others.append((file, "lies in no class folder"))
        else:
            rows.append((file, files.absolute(file), label))
    return pd.DataFrame(rows, columns=["file", "source_path", "label"]).astype(TEXT), others


# --- from tables to a source ----------------------------------------------------------------------------------------


def collect(
    files: ImageFiles, tables: Sequence[tuple[Rows, pd.DataFrame]]
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the usable rows of the tables in one manifest, and what was set aside.

    Args:
        files: the images.
        tables: each table with its part of the manifest: ``image_id``, ``source_path`` (null where there is no such
            file) and what else there is; its index says which row of the table an image belongs to, from 0.

    Raises:
        InputError: not one row is usable.
    """
    quarantined = list(files.set_aside)
    frames = []
    for rows, manifest in tables:
        quarantined.extend(rows.quarantined)
        manifest = manifest[rows.is_kept[manifest.index.to_numpy()]]
        found = manifest["source_path"].notna()
        quarantined.extend((entry, NO_SUCH_FILE) for entry in manifest.loc[~found, "image_id"])
        frames.append(manifest[found])
    joined = pd.concat(frames, ignore_index=True)
    twice = joined["image_id"].duplicated()
    quarantined.extend((entry, "stands in two tables; the first counts") for entry in joined.loc[twice, "image_id"])
    joined = joined[~twice].reset_index(drop=True)
    require_photos(files, joined, quarantined)
    return joined, quarantined


def require_photos(files: ImageFiles, manifest: pd.DataFrame, quarantined: Sequence[tuple[str, str]]) -> None:
    """Raise InputError where no photo is left, with the first reason why."""
    if manifest.empty:
        first = next((entry for entry in quarantined if entry[1] != NO_SUCH_FILE), None) or next(
            iter(quarantined), None
        )
        why = f"; the first of {len(quarantined):,} faults: {first[0]}: {first[1]}" if first else ""
        raise InputError(f"{files.root}: holds no usable photo of the data set{why}")


def observed_target(
    manifest: pd.DataFrame,
    column: str,
    *,
    kind: TargetKind = "multiclass",
    default: bool = False,
    names: Mapping[str, str] | None = None,
    groups: str | None = None,
) -> Target | None:
    """Return a target whose classes are the labels that occur, in natural order; None where there are not two.

    Args:
        manifest: with the column.
        column: the labels.
        kind: its kind.
        default: whether it is the one used where none is named.
        names: class -> what a person reads.
        groups: another column of labels: where each class lies in one of its groups, that is the hierarchy.
    """
    classes = class_order(manifest[column].dropna())
    if len(classes) < 2:
        return None
    hierarchy: dict[str, tuple[str, ...]] | None = None
    if groups is not None:
        pairs = manifest[[groups, column]].dropna().drop_duplicates()
        if not pairs[column].duplicated().any():
            hierarchy = {str(group): class_order(part[column]) for group, part in pairs.groupby(groups)}
    readable = {name: text for name, text in (names or {}).items() if name in classes}
    return Target(column=column, kind=kind, classes=classes, default=default, names=readable, hierarchy=hierarchy)


def described(manifest: pd.DataFrame, columns: Sequence[MetadataColumn]) -> tuple[MetadataColumn, ...]:
    """Return the card's entries of the columns that the manifest has; a categorical one lists the values that occur."""
    found: list[MetadataColumn] = []
    for column in columns:
        if column.column not in manifest:
            continue
        if column.kind == "categorical" and column.values is None:
            column = column.model_copy(update={"values": class_order(manifest[column.column].dropna()) or None})
        found.append(column)
    return tuple(found)


def published(
    files: ImageFiles,
    manifest: pd.DataFrame,
    quarantined: Sequence[tuple[str, str]],
    *,
    targets: Iterable[Target | None],
    metadata: Sequence[MetadataColumn] = (),
    label_proxies: Sequence[str] = (),
    notes: Sequence[str] = (),
    **card: Any,
) -> SourceData:
    """Return the source of a published data set.

    Args:
        files: the images.
        manifest: as :class:`SourceData` has it, and ``part`` where the source has a split: train, val or test.
        quarantined: what was set aside.
        targets: what can be predicted; a None (too few classes in these photos) is left out, its column stays.
        metadata: entries of the card; those without a column are left out.
        label_proxies: of these columns those that are there.
        notes: what was decided on the way.
        card: other fields of the card.
    """
    manifest, notes = manifest.copy(), [*notes]
    parts = manifest.pop("part").to_numpy(dtype=object) if "part" in manifest else None
    if parts is not None and pd.isna(parts).any():
        notes.append(f"the official split is left out: it does not name {pd.isna(parts).sum():,} of the photos")
        parts = None
    present = [target for target in targets if target is not None]
    return SourceData(
        root=files.root,
        manifest=manifest,
        card=Card(
            targets=tuple(present),
            metadata=described(manifest, metadata),
            label_proxies=tuple(column for column in label_proxies if column in manifest),
            **card,
        ),
        official=parts if parts is not None and len(set(parts)) > 1 else None,
        quarantined=list(quarantined),
        notes=tuple(notes),
    )


def malignancy(column: str, *, default: bool = False, names: Mapping[str, str] | None = None) -> Target:
    """Return the target benign or malignant."""
    return Target(
        column=column, kind="binary", classes=("benign", "malignant"), default=default, names=dict(names or {})
    )
