"""What the readers of published data sets share: columns that must be there, images by id, numbers with their row."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.data.manifest import TEXT
from dermlab.data.sources.files import NO_SUCH_FILE, ImageFiles, Matcher
from dermlab.data.sources.tables import Table


def require_columns(table: Table, columns: Iterable[str]) -> None:
    """Raise InputError naming the columns that a published table should have and this one has not."""
    missing = [name for name in columns if name not in table.frame]
    if missing:
        raise InputError(f"{table.file}: not the published table, it lacks {', '.join(missing)}")


def match_images(table: Table, column: str, files: ImageFiles) -> tuple[pd.Series, list[tuple[str, str]]]:
    """Return the absolute path of each row's image, null where there is none, and the reasons for those."""
    table.refuse(table.frame[column].isna().to_numpy(), column, "is blank; every row names an image")
    table.refuse(table.frame[column].duplicated().to_numpy(), column, "{value} stands in an earlier row already")
    matcher = Matcher(files)
    paths: list[str | None] = []
    missing: list[tuple[str, str]] = []
    for entry in table.frame[column]:
        found = matcher.find(entry)
        paths.append(files.absolute(found[0]) if found else None)
        if not found:
            missing.append((entry, NO_SUCH_FILE))
    return pd.Series(paths, index=table.frame.index, dtype=TEXT), missing


def numbers(table: Table, column: str) -> pd.Series:
    """Return a column as float64, NaN where missing; anything else is an error with its row."""
    values = pd.to_numeric(table.frame[column].astype(object), errors="coerce").astype(np.float64)
    wrong = (values.isna() & table.frame[column].notna()) | np.isinf(values)
    table.refuse(wrong.to_numpy(), column, "{value} is not a number")
    return values


def truths(table: Table, column: str) -> pd.Series:
    """Return a column of True and False as pandas ``boolean``; anything else is an error with its row."""
    words = table.frame[column].str.casefold()
    wrong = words.notna() & ~words.isin(["true", "false"])
    table.refuse(wrong.to_numpy(), column, "{value} is neither True nor False")
    return (words == "true").astype("boolean").mask(words.isna())
