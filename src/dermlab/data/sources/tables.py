"""Reading a clinic's table: any delimiter and encoding, every value as text, what is missing as null; then its types.

Rows keep the number of the line that a person sees in an editor, so that an error can name it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dermlab.core.delimited import find_delimiter, read_rows, read_text, with_decimal_points
from dermlab.core.errors import InputError, MissingExtraError, first_line
from dermlab.data.card import MetadataColumn
from dermlab.data.manifest import TEXT, read_parquet

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "<NA>", "NULL", "null")
"""Texts that always mean a missing value. ``unknown``, ``UNK``, ``none``, ``-1`` may be answers: the user must say."""

TABLES = (".csv", ".tsv", ".tab", ".txt", ".jsonl", ".parquet", ".xlsx")
_MAX_LEVELS = 200
_CHUNK_ROWS = 20_000
_BOOLEAN_PAIRS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"1", "0"}, {"1.0", "0.0"})
# German, French, Spanish, Portuguese, with and without accents; both words must occur.
_BOOLEAN_WORDS = (
    *({"ja", "nein"}, {"j", "n"}, {"wahr", "falsch"}, {"oui", "non"}, {"vrai", "faux"}, {"sí", "no"}, {"si", "no"}),
    *({"verdadero", "falso"}, {"sim", "não"}, {"sim", "nao"}, {"verdadeiro", "falso"}),
)
_TRUE = frozenset(
    [
        "true",
        "yes",
        "y",
        "t",
        "1",
        "1.0",
        "ja",
        "j",
        "wahr",
        "oui",
        "vrai",
        "sí",
        "si",
        "verdadero",
        "sim",
        "verdadeiro",
    ]
)
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}( .*)?")
_PERSONAL = re.compile(
    r"^(patient|first|last|sur|family|given|full|maiden)?name$|e?mail$|phone|telefon|address|street|zip|postcode|postal"
    r"|birth|^dob$|^ssn$|^mrn$|insurance|passport"
)


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        file: where it came from.
        frame: every column as text, null where missing; columns of lists stay lists.
        lines: line of each row in the file, int (N,), for error messages.
        notes: what was found out while reading.
        files: the file of each row where several were joined.
    """

    file: Path
    frame: pd.DataFrame
    lines: np.ndarray
    notes: tuple[str, ...] = ()
    files: tuple[Path, ...] | None = None

    @property
    def columns(self) -> list[str]:
        """The columns' names."""
        return [str(name) for name in self.frame.columns]

    def refuse(self, wrong: np.ndarray, column: str, message: str) -> None:
        """Raise the one-line error for the first row where ``wrong`` holds, saying how many more there are."""
        rows = np.flatnonzero(wrong)
        if len(rows):
            value = self.frame[column].iloc[rows[0]]
            text = message.replace("{value}", repr(value))
            if len(rows) > 1:
                text += f"; the same in {len(rows) - 1:,} more rows"
            raise self.at(int(rows[0]), text, column)

    def at(self, row: int, message: str, column: str) -> InputError:
        """Return the error for a row (counted from 0), with its file, line and column."""
        file = self.files[row] if self.files is not None else self.file
        return InputError.at(file, message, row=int(self.lines[row]), column=column)


def read_table(
    path: Path,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    missing_values: Sequence[str] = (),
    ragged: list[tuple[int, str]] | None = None,
) -> Table:
    """Read a CSV, TSV, JSON Lines, Parquet or Excel file.

    Args:
        path: the file; its extension tells the format, anything unknown is read as delimited text.
        delimiter: of a text file; None finds it among comma, semicolon, tab and bar.
        encoding: of a text file; None is UTF-8 or UTF-16 by its mark, else UTF-8, else Windows-1252 (with a note).
        missing_values: texts that mean a missing value, besides :data:`MISSING`.
        ragged: of a text file; where given, rows that are longer or shorter than the header are left out and added here
            with their line and what is wrong, instead of an error.

    Raises:
        InputError: naming file and line where it is not a table.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file" if not path.exists() else f"{path}: is a folder; expected a table")
    extension = path.suffix.lower()
    if extension == ".parquet":
        frame = read_parquet(path)
        table = Table(path, _as_text(frame), np.arange(len(frame)) + 2)
    elif extension in (".xlsx", ".xlsm"):
        table = _read_excel(path)
    elif extension == ".jsonl":
        table = _read_json_lines(path, read_text(path, encoding)[0])
    else:
        table = _read_text(path, delimiter, encoding, ragged)
    if len(table.frame) == 0:
        raise InputError(f"{path}: the table has no row below its header")
    blank = {*MISSING, *(value.strip() for value in missing_values)}
    frame = table.frame.copy()
    for column in frame:
        if isinstance(frame[column].dtype, pd.StringDtype):
            stripped = frame[column].str.strip()
            frame[column] = stripped.mask(stripped.isin(blank))
    return Table(path, frame, table.lines, table.notes)


def _read_text(path: Path, delimiter: str | None, encoding: str | None, ragged: list[tuple[int, str]] | None) -> Table:
    text, notes = read_text(path, encoding)
    if delimiter is None:
        delimiter = find_delimiter(text)
    elif len(delimiter) != 1:
        delimiter = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";"}.get(delimiter, delimiter)
        if len(delimiter) != 1:
            raise InputError(f"delimiter: one character, or 'tab'; got {delimiter!r}")
    header: list[str] = []
    rows: list[list[str]] = []
    lines: list[int] = []
    chunks: list[pd.DataFrame] = []
    for line, row in read_rows(path, text, delimiter, ragged=ragged):
        if not header:
            header = [name.strip() for name in row]
            _refuse_repeated_names(path, header)
            continue
        rows.append(row)
        lines.append(line)
        if len(rows) == _CHUNK_ROWS:  # text in columns takes a tenth of the memory of text in rows
            chunks.append(_columns_of(rows, len(header)))
            rows = []
    if not header:
        raise InputError(f"{path}: the file is empty")
    frame = pd.concat([*chunks, _columns_of(rows, len(header))], ignore_index=True)
    unnamed = [k for k, name in enumerate(header) if not name]
    if any((frame[k].str.strip() != "").any() for k in unnamed):
        notes = (*notes, f"columns of {path.name} without a name were left out")
    return Table(path, _named(frame, header), np.array(lines, dtype=np.int64), notes)


def _columns_of(rows: list[list[str]], n_columns: int) -> pd.DataFrame:
    return pd.DataFrame({k: pd.Series([row[k] for row in rows], dtype=TEXT) for k in range(n_columns)})


def _refuse_repeated_names(path: Path, header: list[str]) -> None:
    for name in header:
        if name and header.count(name) > 1:
            raise InputError.at(path, "stands twice in the header", row=1, column=name)


def _named(frame: pd.DataFrame, header: list[str]) -> pd.DataFrame:
    """Return the columns that have a name, called by it."""
    frame = frame[[k for k, name in enumerate(header) if name]]
    frame.columns = pd.Index([name for name in header if name])
    return frame


def _read_json_lines(path: Path, text: str) -> Table:
    records, lines = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError.at(path, f"not JSON ({error})", row=number) from None
        if not isinstance(record, dict):
            raise InputError.at(path, "must be one JSON object a line", row=number)
        records.append(record)
        lines.append(number)
    return Table(path, _as_text(pd.DataFrame(records)), np.array(lines, dtype=np.int64))


def _read_excel(path: Path) -> Table:
    try:
        import openpyxl
    except ImportError:
        raise MissingExtraError(f"reading {path.name}", "openpyxl") from None
    try:
        sheet = openpyxl.load_workbook(path, read_only=True, data_only=True).worksheets[0]
        rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    except Exception as error:  # openpyxl raises whatever zipfile and its XML parser raise
        raise InputError(f"{path}: cannot be read as an Excel file ({first_line(error)})") from None
    lines = [line for line, row in enumerate(rows, start=1) if any(value is not None for value in row)]
    if not lines:
        raise InputError(f"{path}: the first sheet is empty")
    header = ["" if name is None else str(name).strip() for name in rows[lines[0] - 1]]
    _refuse_repeated_names(path, header)
    body = pd.DataFrame([rows[line - 1] for line in lines[1:]], columns=pd.Index(range(len(header))), dtype=object)
    return Table(path, _as_text(_named(body, header)), np.array(lines[1:], dtype=np.int64))


def _as_text(frame: pd.DataFrame) -> pd.DataFrame:
    """Return typed columns as text; lists stay lists, whole numbers lose the '.0' that a missing value gave them."""
    columns = {}
    for name in frame:
        values = frame[name]
        if any(isinstance(value, list | np.ndarray) for value in values):
            columns[str(name)] = values.map(
                lambda value: [str(v) for v in value] if isinstance(value, list | np.ndarray) else None
            )
        else:
            columns[str(name)] = values.map(_text_of, na_action="ignore").astype(TEXT)
    return pd.DataFrame(columns, index=frame.index)


def _text_of(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return str(value)


# --- types ----------------------------------------------------------------------------------------------------------

ColumnKind = Literal["boolean", "numeric", "categorical", "date", "text", "empty"]


def normalised(name: str) -> str:
    """Return a column's name without case, accents, spaces and signs, for comparison."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", name.casefold()))


def names_a_person(name: str) -> bool:
    """Tell whether a column's name promises something that identifies a person."""
    return _PERSONAL.search(normalised(name)) is not None


def infer_kind(values: pd.Series) -> ColumnKind:
    """Tell the type of a column of text from its values.

    ``boolean`` for true/false, yes/no, y/n, t/f, 1/0 (where both occur, or the words true, false, yes, no), or the two
    words in German, French, Spanish or Portuguese; ``numeric``
    where every value is a number without leading zeros; ``date``; ``text`` where the values are too many to be
    levels (free text, ids); else ``categorical``.
    """
    present = values.dropna()
    if present.empty:
        return "empty"
    levels = set(present.str.casefold().unique())
    for pair in (*_BOOLEAN_PAIRS, *_BOOLEAN_WORDS):
        if levels == pair or (levels < pair and pair in _BOOLEAN_PAIRS[:2]):
            return "boolean"
    if _as_numbers(present) is not None:
        return "numeric"
    if present.str.fullmatch(_DATE.pattern).all():
        return "date"
    n = len(levels)
    if n > 0.5 * len(present) and present.str.count(r"\s").mean() >= 2:  # sentences
        return "text"
    if n > _MAX_LEVELS or (n > 20 and n > 0.05 * len(present)) or (len(present) >= 10 and n > 0.5 * len(present)):
        return "text"
    return "categorical"


def _as_numbers(present: pd.Series) -> pd.Series | None:
    if present.str.match(r"^[+-]?0\d").any():  # 007 is a code
        return None
    present = with_decimal_points(present)
    numbers = pd.to_numeric(present.astype(object), errors="coerce")
    return None if not np.isfinite(numbers.to_numpy(dtype=float)).all() else numbers.astype(float)


def convert(values: pd.Series, kind: ColumnKind) -> pd.Series:
    """Return a column of text in the type of its kind: ``boolean``, float64 or text."""
    if kind == "boolean":
        truth = values.str.casefold().isin(_TRUE).astype("boolean")
        return truth.mask(values.isna())
    if kind == "numeric":
        numbers = _as_numbers(values.dropna())
        assert numbers is not None
        return numbers.reindex(values.index).astype(np.float64)
    return values


def as_ids(values: pd.Series) -> pd.Series:
    """Return ids as text; where all are whole numbers written as '12.0' (spreadsheets do so), as '12'."""
    present = values.dropna()
    if len(present) and present.str.fullmatch(r"\d+\.0").all():
        return values.str.removesuffix(".0")
    return values


def class_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return distinct labels in natural order: numbers by value, words by alphabet."""

    def key(label: str) -> tuple[int, float, str]:
        try:
            return (0, float(label), label)
        except ValueError:
            return (1, 0.0, label)

    return tuple(sorted(set(labels), key=key))


def metadata_column(name: str, values: pd.Series, kind: ColumnKind) -> MetadataColumn:
    """Return the card's entry for a column; a categorical one lists its values."""
    if kind == "categorical":
        return MetadataColumn(column=name, kind="categorical", values=class_order(values.dropna()))
    if kind in ("boolean", "numeric"):
        return MetadataColumn(column=name, kind=kind)
    raise ValueError(f"a column of kind {kind} is no metadata")
