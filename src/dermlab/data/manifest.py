"""The manifest: one row an image, reserved columns, targets and questionnaire, each in its type, every value checked.

A fault is one line that names file, row and column. Rows are counted as a person sees them in a table: row 1 is the
header, row 2 the first record.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.core.files import atomic_path, inside
from dermlab.data.card import MODALITIES, RESERVED, Card, MetadataColumn, Target

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST, CARD = "manifest.parquet", "card.yaml"
TEXT = pd.StringDtype("pyarrow", na_value=np.nan)
"""The one text type of manifests; its missing value is NaN."""

# What str() makes of a missing value. As a patient's id it would tie all unknown patients into one; nobody means it.
_STAND_INS = ("", "nan", "NaN", "<NA>", "NaT")
_STAND_INS_OF_IDS = (*_STAND_INS, "None", "null", "NULL")
_IDS = ("image_id", "patient_id", "lesion_id")


def refuse(
    wrong: Any,
    values: pd.Series,
    file: str | Path,
    message: Callable[[Any], str],
    image_ids: pd.Series | None = None,
) -> None:
    """Raise the one-line error for the first row where ``wrong`` holds, saying how many more there are.

    Args:
        wrong: bool (N,).
        values: the column, (N,); its name is the column's name in the error.
        file: where the column stands.
        message: makes the text from the offending value.
        image_ids: id of each row's image, (N,), named in the error.
    """
    rows = np.flatnonzero(np.asarray(wrong, dtype=bool))
    if len(rows) == 0:
        return
    row = int(rows[0])
    value = values.iloc[row]
    text = message(value.item() if isinstance(value, np.generic) else value)
    if image_ids is not None:
        text += f" (image {image_ids.iloc[row]!r})"
    if len(rows) > 1:
        text += f"; the same in {len(rows) - 1:,} more rows"
    raise InputError.at(file, text, row=row + 2, column=str(values.name))


# --- types ----------------------------------------------------------------------------------------------------------


def _is_not(values: pd.Series, *kinds: type) -> np.ndarray:
    """Return where a value is neither missing nor of one of the kinds, bool (N,)."""
    present = values.notna().to_numpy()
    return np.fromiter(
        (there and not isinstance(value, kinds) for value, there in zip(values, present, strict=True)),
        bool,
        len(values),
    )


def as_text(values: pd.Series, file: Path) -> pd.Series:
    """Return a column as text; whole numbers and truth values are taken as their text, a fraction is refused."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    if values.isna().all():
        return pd.Series(np.nan, index=values.index, dtype=TEXT, name=values.name)
    if values.dtype == object:
        refuse(_is_not(values, str, int, np.integer, np.bool_), values, file, _must_be("text"))
        return values.map(str, na_action="ignore").astype(TEXT)
    whole = pd.api.types.is_integer_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype)
    if not whole and not isinstance(values.dtype, pd.StringDtype):
        refuse(values.notna(), values, file, _must_be("text, without a decimal point"))
    return values.astype(TEXT)


def as_booleans(values: pd.Series, file: Path) -> pd.Series:
    """Return a column as pandas ``boolean``."""
    if not pd.api.types.is_bool_dtype(values.dtype):
        refuse(_is_not(values, bool, np.bool_), values, file, _must_be("true, false or null"))
    return values.astype("boolean")


def as_numbers(values: pd.Series, file: Path) -> pd.Series:
    """Return a column as float64, NaN where missing; infinity is refused."""
    is_numeric = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    if not is_numeric:
        refuse(_is_not(values, int, float, np.number), values, file, _must_be("a number or null"))
    numbers = pd.Series(values.to_numpy(dtype=np.float64, na_value=np.nan), index=values.index, name=values.name)
    refuse(np.isinf(numbers), numbers, file, _must_be("a finite number or null"))
    return numbers


def as_dates(values: pd.Series, file: Path) -> pd.Series:
    """Return a column as ``datetime64[us]``; a time with a zone is taken to UTC."""
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        dates = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
        refuse(dates.isna() & values.notna(), values, file, _must_be("a date like 2024-05-31 or 2024-05-31T14:30"))
        values = dates
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    return values.astype("datetime64[us]")


def as_lists(values: pd.Series, file: Path) -> pd.Series:
    """Return a multilabel column as lists of text, None where missing."""
    lists = np.empty(len(values), dtype=object)
    wrong = np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values):
        if isinstance(value, list | tuple | np.ndarray):
            lists[row] = [str(name) for name in value]
            wrong[row] = not all(isinstance(name, str) for name in value)
        else:
            wrong[row] = not pd.isna(value)
    refuse(wrong, values, file, _must_be("a list of class names or null"))
    return pd.Series(lists, index=values.index, name=values.name, dtype=object)


def _must_be(what: str) -> Callable[[Any], str]:
    return lambda value: f"must be {what}, got {value!r}"


_TYPES: dict[str, Callable[[pd.Series, Path], pd.Series]] = {
    "text": as_text,
    "categorical": as_text,
    "boolean": as_booleans,
    "numeric": as_numbers,
    "integer": as_numbers,
    "date": as_dates,
    "lists": as_lists,
}


def column_kinds(card: Card) -> dict[str, str]:
    """Return the type of every column that the contract or the card names."""
    kinds = dict(RESERVED)
    kinds |= {target.column: "lists" if target.kind == "multilabel" else "text" for target in card.targets}
    kinds |= {column.column: column.kind for column in card.metadata}
    return kinds


def typed(frame: pd.DataFrame, card: Card, file: Path) -> pd.DataFrame:
    """Return the manifest with every known column in its type; a value that does not fit is an error with its row."""
    for name in frame.columns:
        if not isinstance(name, str):
            raise InputError(f"{file}: a column's name must be text, got {name!r}")
    if not frame.columns.is_unique:
        raise InputError.at(file, "stands twice", column=frame.columns[frame.columns.duplicated()][0])
    kinds = column_kinds(card)
    columns = {name: _TYPES[kinds[name]](frame[name], file) if name in kinds else frame[name] for name in frame.columns}
    return pd.DataFrame(columns, index=frame.index)


# --- files ----------------------------------------------------------------------------------------------------------


def to_arrow(manifest: pd.DataFrame, card: Card) -> pa.Table:
    """Return a typed manifest as an Arrow table with the types of the contract."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "categorical": pa.string(),
        "boolean": pa.bool_(),
        "numeric": pa.float64(),
        "integer": pa.int8(),
        "date": pa.timestamp("us"),
        "lists": pa.list_(pa.string()),
    }
    kinds = column_kinds(card)
    columns: dict[str, pa.Array] = {}
    for name in manifest.columns:
        try:
            array = pa.array(manifest[name], type=types[kinds[name]] if name in kinds else None, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError.at(MANIFEST, f"holds values of several types ({error})", column=name) from None
        columns[name] = array.cast(pa.string()) if pa.types.is_large_string(array.type) else array
    return pa.table(columns)


def read_parquet(path: Path) -> pd.DataFrame:
    """Read a Parquet file; one that is broken or names a column twice is an :class:`InputError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    for name in table.column_names:
        if table.column_names.count(name) > 1:
            raise InputError.at(path, "stands twice", column=name)
    return table.to_pandas(ignore_metadata=True)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write an Arrow table, whole or not at all; nothing of the writing machine is recorded in it."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")


# --- validation -----------------------------------------------------------------------------------------------------


def validate_manifest(manifest: pd.DataFrame, card: Card, folder: Path) -> None:
    """Check a typed manifest against the contract and its card; links in ``folder`` are followed to where they lead.

    Raises :class:`InputError` for the first fault, naming file, row and column.
    """
    file = folder / MANIFEST
    for name in ("image_id", "path"):
        if name not in manifest:
            raise InputError.at(file, "is missing; every manifest has image_id and path", column=name)
    if len(manifest) == 0:
        raise InputError(f"{file}: holds no image")
    ids = manifest["image_id"]
    _validate_stand_ins(manifest, card, file)
    for name in ("image_id", "path"):
        refuse(manifest[name].isna(), manifest[name], file, lambda _: "is blank; every image needs one")
    refuse(
        ids.duplicated(), ids, file, lambda value: f"{value!r} stands in row {ids[ids == value].index[0] + 2} already"
    )
    _validate_reserved(manifest, file)
    for name in ("path", "mask_path"):
        if name in manifest:
            _validate_paths(manifest[name], ids, folder)
    for target in card.targets:
        _validate_target(manifest, target, file)
    for column in card.metadata:
        _validate_metadata(manifest, column, file)
    _validate_references(manifest, card, folder / CARD)


def _validate_stand_ins(manifest: pd.DataFrame, card: Card, file: Path) -> None:
    """Refuse text that stands for 'missing': it would be a class, a level or one large patient of its own."""
    labels = [target.column for target in card.targets]
    for name, kind in column_kinds(card).items():
        if name in manifest and kind in ("text", "categorical"):
            stand_ins = _STAND_INS_OF_IDS if name in _IDS or name in labels else _STAND_INS
            # A class may be called "None" where the card says so.
            allowed = card.target(name).classes if name in labels else ()
            refuse(
                manifest[name].isin([text for text in stand_ins if text not in allowed]),
                manifest[name],
                file,
                lambda value: f"{value!r} stands for a missing value; leave it null",
                manifest["image_id"],
            )


def _validate_reserved(manifest: pd.DataFrame, file: Path) -> None:
    ids = manifest["image_id"]
    if "skin_type" in manifest:
        value = manifest["skin_type"]
        wrong = value.notna() & ~value.isin([1, 2, 3, 4, 5, 6])
        refuse(wrong, value, file, lambda value: f"{value:g} is not a Fitzpatrick type, 1 to 6 or null", ids)
        manifest["skin_type"] = value.astype("Int8")
    if "modality" in manifest:
        _validate_choice(manifest["modality"], MODALITIES, ids, file)
    if "time_to_event" in manifest:
        value = manifest["time_to_event"]
        refuse(value < 0, value, file, lambda value: f"{value:g} is negative", ids)


def _validate_choice(
    values: pd.Series, allowed: Iterable[str], image_ids: pd.Series, file: Path, what: str = ""
) -> None:
    known = list(allowed)
    wrong = values.notna() & ~values.isin(known)
    refuse(wrong, values, file, lambda value: f"{what}{value!r} is not one of {', '.join(known)}", image_ids)


def _validate_paths(values: pd.Series, image_ids: pd.Series, folder: Path) -> None:
    """Check that every path stays in the folder, links included, at the cost of one listing per subfolder."""
    file = folder / MANIFEST
    local = values.notna() & ~is_url(values)
    backslash = local & values.str.contains("\\", regex=False).fillna(False).astype(bool)
    message = "{!r}: folders are separated by '/', not by a backslash".format
    refuse(backslash, values, file, message, image_ids)
    climbs = values.str.contains(r"^/|^[A-Za-z]:|(?:^|/)\.\.(?:/|$)|\x00").fillna(False).astype(bool)
    texts = values.tolist()
    rows = np.flatnonzero(local & climbs).tolist()
    by_folder: dict[str, dict[str, list[int]]] = {}
    for row in np.flatnonzero(local & ~climbs).tolist():
        parent, _, name = texts[row].rpartition("/")
        by_folder.setdefault(parent, {}).setdefault(name, []).append(row)
    for parent, names in by_folder.items():
        rows.extend(_linked_rows(folder, parent, names))
    for row in sorted(rows):
        try:
            inside(folder, texts[row])
        except InputError as error:
            raise InputError.at(file, str(error), row=row + 2, column=str(values.name)) from None


def _linked_rows(folder: Path, parent: str, names: dict[str, list[int]]) -> list[int]:
    """Return the rows whose file may lie elsewhere than its path says: links, and all below a linked subfolder."""
    path = folder / parent
    if path.resolve() != folder.resolve() / parent:
        return [row for rows in names.values() for row in rows]
    try:
        with os.scandir(path) as entries:
            links = [entry.name for entry in entries if entry.is_symlink()]
    except OSError:
        return []  # a missing folder is no leak; the audit lists missing files
    # A file system that ignores case, or how an accent is spelt, finds a link by a name that is not quite its own.
    rows_of: dict[str, list[int]] = {}
    for name, rows in names.items() if links else ():
        rows_of.setdefault(_folded(name), []).extend(rows)
    return [row for link in links for row in rows_of.get(_folded(link), [])]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def is_url(paths: pd.Series) -> pd.Series:
    """Return where a path is a URL, bool (N,)."""
    return paths.str.contains("://", regex=False).fillna(False).astype(bool)


def _validate_target(manifest: pd.DataFrame, target: Target, file: Path) -> None:
    if target.column not in manifest:
        raise InputError.at(file, f"is missing; {CARD} names it as a target", column=target.column)
    values, ids = manifest[target.column], manifest["image_id"]
    if target.kind != "multilabel":
        _validate_choice(values, target.classes, ids, file, "label ")
        return
    present = values[values.notna()]
    names = present.explode().dropna()
    _validate_choice(names, target.classes, ids.loc[names.index], file, "label ")
    refuse(
        [names is not None and len(set(names)) < len(names) for names in values],
        values,
        file,
        lambda names: f"a class is listed twice in {', '.join(names)}",
        ids,
    )


def _validate_metadata(manifest: pd.DataFrame, column: MetadataColumn, file: Path) -> None:
    if column.column not in manifest:
        raise InputError.at(file, f"is missing; {CARD} names it as metadata", column=column.column)
    if column.values is not None:
        _validate_choice(manifest[column.column], column.values, manifest["image_id"], file)


def _validate_references(manifest: pd.DataFrame, card: Card, file: Path) -> None:
    for field, names in (
        ("label_proxies", card.label_proxies),
        ("group_by", (card.group_by,) if card.group_by else ()),
    ):
        for name in names:
            if name not in manifest:
                raise InputError(f"{file}: {field}: {MANIFEST} has no column {name!r}")
    if card.group_by is not None and column_kinds(card).get(card.group_by, "text") not in ("text", "categorical"):
        raise InputError(f"{file}: group_by: the column {card.group_by!r} does not hold names")
    if card.unit != "image" and f"{card.unit}_id" not in manifest:
        raise InputError(f"{file}: unit: scoring by {card.unit} needs the column '{card.unit}_id' in {MANIFEST}")
