"""Delimited text as clinics and other tools write it: any delimiter, any encoding, decimal commas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dermlab.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DELIMITERS = ",;\t|"


def read_text(path: Path, encoding: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Return a text file's content and what was found out about it.

    Args:
        path: the file.
        encoding: None is UTF-8 or UTF-16 by its mark, else UTF-8, else Windows-1252 (with a note).

    Raises:
        InputError: it is no text, or not in that encoding.
    """
    data = path.read_bytes()
    if encoding is not None:
        try:
            return data.decode(encoding), ()
        except (LookupError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as {encoding} ({error})") from None
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return data.decode("utf-16"), ()
        return data.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        if b"\0" in data[:4096]:
            raise InputError(f"{path}: is not a text file; a table is CSV, TSV, JSON Lines, Parquet or Excel") from None
        return data.decode("cp1252", errors="replace"), (f"{path.name} is not UTF-8; read as Windows-1252",)


def find_delimiter(text: str) -> str:
    """Return which of comma, semicolon, tab and bar stands most often in the first line, outside quotes."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(DELIMITERS, key=re.sub(r'"[^"]*"', "", header).count)


def read_rows(
    path: Path, text: str, delimiter: str, *, ragged: list[tuple[int, str]] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line (1 is the first) and the values of each row that is not blank, the header first.

    Args:
        path: the file, for messages.
        text: its content.
        delimiter: what separates its columns.
        ragged: where given, a row with more or fewer values than the header is left out and added here with its line
            and what is wrong, instead of an error.

    Raises:
        InputError: naming file and line, where a row has more or fewer values than the header, or a quote never ends.
    """
    if "\0" in text:
        raise InputError(f"{path}: is not a text file; a table is CSV, TSV, JSON Lines, Parquet or Excel")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    width = 0
    start = 1
    try:
        for row in reader:
            line, start = start, reader.line_num + 1
            if not any(value.strip() for value in row):
                continue
            width = width or len(row)
            if len(row) > width and not any(value.strip() for value in row[width:]):
                del row[width:]
            if len(row) != width:
                fault = f"has {len(row)} values where the header has {width} columns"
                if ragged is None:
                    raise InputError.at(path, fault, row=line)
                ragged.append((line, fault))
                continue
            yield line, row
    except csv.Error as error:
        raise InputError.at(path, f"not a line of delimited text ({error})", row=reader.line_num) from None


def with_decimal_points(values: pd.Series, *, is_share: bool = False) -> pd.Series:
    """Return texts with points for decimal commas, where all are numbers written so; else as they are.

    Args:
        values: texts without nulls.
        is_share: they are scores, which have no thousands; else where three digits follow every comma it may separate
            thousands, and nobody can tell.
    """
    if not values.str.fullmatch(r"\s*[+-]?\d*(?:,\d+)?(?:[eE][+-]?\d+)?\s*").all():
        return values
    if not is_share and values.str.fullmatch(r"[+-]?\d+(?:,\d{3})?").all():
        return values
    return values.str.replace(",", ".", regex=False)
