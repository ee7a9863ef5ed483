"""Values that cannot be, words and numbers that stand for "not recorded", and columns that identify a person."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dermlab.audit.findings import Finding, examples
from dermlab.core.words import plural
from dermlab.data.card import RESERVED, MetadataColumn

# Unit -> (lowest, highest) value that occurs; a length or a weight of exactly 0 does not.
_POSSIBLE: dict[str, tuple[float, float]] = {
    "years": (0, 120),
    "year": (0, 120),
    "months": (0, 1440),
    "days": (0, 43_830),
    "mm": (0, 500),
    "cm": (0, 300),
    "kg": (0, 400),
    "%": (0, 100),
    "percent": (0, 100),
}
_ABOVE_ZERO = {"mm", "cm", "kg"}
_SKIN_TYPE = re.compile(r"(^|_)(skin_?type|fitz\w*|fits?patrick)($|_)", re.IGNORECASE)
_BIRTH_YEAR = re.compile(r"(^|_)(year_of_birth|birth_?year)($|_)", re.IGNORECASE)
_AGE = re.compile(r"(^|_)age($|_years$)", re.IGNORECASE)

EARLIEST = datetime.datetime(1990, 1, 1)
"""No digital photo is older."""

_NUMBERS_FOR_MISSING = (-1.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0)
_WORDS_FOR_MISSING = re.compile(
    r"unk|unknown|n/?a|none|null|nil|missing|unspecified|undefined|not[ _](recorded|available|known)|[?.-]+",
    re.IGNORECASE,
)

_NAMING = re.compile(
    r"(^|_)(first_?name|last_?name|surname|full_?name|patient_?name|birth_?date|date_?of_?birth|dob|e?mail|phone|"
    r"telephone|address|street|zip|postcode|ssn|mrn|insurance|passport)(_?(no|nr|number|id|\d+))?$",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w{2,}")

NEARLY_UNIQUE = 0.5
"""Text of which at least this share of the values are distinct identifies photos rather than describes them."""

MANY_VALUES = 50


def column_findings(name: str, manifest: pd.DataFrame, metadata: Sequence[MetadataColumn]) -> list[Finding]:
    """Judge the manifest's columns by themselves.

    Args:
        name: the data set's name, opening the sentences.
        manifest: as :class:`dermlab.data.dataset.Dataset` holds it.
        metadata: the card's description of the questionnaire.
    """
    described = {column.column: column for column in metadata}
    findings = _impossible(name, manifest, described)
    findings += _stand_ins(name, manifest, described)
    findings += _identifying(name, manifest, described)
    return findings


def _impossible(name: str, manifest: pd.DataFrame, described: dict[str, MetadataColumn]) -> list[Finding]:
    tables = []
    for column in manifest.columns:
        values = manifest[column]
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(days=1)
            wrong = (values > now) | (values < EARLIEST)
            expected = f"{EARLIEST:%Y-%m-%d} to today"
        elif pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
            unit = (described[column].unit or "").lower() if column in described else ""
            unit = "years" if _AGE.search(column) and not unit else unit
            possible = _possible(column, unit)
            if possible is None:
                continue
            low, high = possible
            wrong = (values < low) | (values > high)
            expected = f"{low:g} to {high:g} {unit}".strip()
            if unit in _ABOVE_ZERO:
                wrong |= values == 0
                expected = f"above {expected}"
        else:
            continue
        rows = np.flatnonzero(wrong.to_numpy(dtype=bool, na_value=False))
        if len(rows):
            text = values.iloc[rows].astype(str).to_numpy()
            tables.append(
                pd.DataFrame(
                    {"image_id": manifest["image_id"].iloc[rows], "column": column, "value": text, "possible": expected}
                )
            )
    if not tables:
        return []
    table = pd.concat(tables, ignore_index=True)
    counts = table.groupby("column", sort=False).size()
    told = ", ".join(
        f"{column} ({count:,}, for one {table.loc[table['column'] == column, 'value'].iloc[0]})"
        for column, count in counts.items()
    )
    message = f"{name}: {plural(len(table), 'value')} cannot be: {told}."
    evidence = {"n": len(table), "columns": counts.to_dict(), "examples": examples(table)}
    remedy = "Mend them at the source, or blank them there: a model takes them at their word."
    return [Finding("impossible-values", "warning", message, evidence, remedy, table)]


def _possible(column: str, unit: str) -> tuple[float, float] | None:
    """Return the lowest and the highest value a number can have, by its column's name or its unit."""
    if _SKIN_TYPE.search(column):
        return 1, 6
    if _BIRTH_YEAR.search(column):
        return 1900, datetime.datetime.now(datetime.UTC).year
    return _POSSIBLE.get(unit)


def _stand_ins(name: str, manifest: pd.DataFrame, described: dict[str, MetadataColumn]) -> list[Finding]:
    """Find numbers and words that mean 'not recorded': a model would read them as a value."""
    rows = []
    for column in manifest.columns:
        values = manifest[column].dropna()
        if column in RESERVED or values.empty:
            continue
        if pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype):
            rows += [
                (column, f"{number:g}", count) for number, count in _odd_numbers(values.to_numpy(dtype=np.float64))
            ]
        elif isinstance(values.dtype, pd.StringDtype):
            counts = values.value_counts()
            for word, count in counts.items():
                if _WORDS_FOR_MISSING.fullmatch(str(word).strip()):
                    rows.append((column, str(word), int(count)))
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=["column", "value", "photos"])
    told = ", ".join(f"{column} = {value} ({count:,})" for column, value, count in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    used = any(column in described for column, _, _ in rows)
    message = f"{name}: what looks like 'not recorded' stands as a value: {told}{more}."
    evidence = {"n": int(table["photos"].sum()), "examples": examples(table)}
    remedy = "If it means 'not recorded', leave it blank at the source: blanks are handled, made-up values are learned."
    return [Finding("stand-in-values", "warning" if used else "info", message, evidence, remedy, table)]


def _odd_numbers(values: np.ndarray) -> list[tuple[float, int]]:
    """Return the (number, count) of values like -1 or 999 that stand apart from everything else in the column."""
    found = []
    for number in _NUMBERS_FOR_MISSING:
        count = int((values == number).sum())
        others = values[~np.isin(values, _NUMBERS_FOR_MISSING)]
        if count < 2 or len(np.unique(others)) < 3:
            continue
        apart = (others >= 0).all() if number < 0 else number > 2 * others.max() > 0
        if apart:
            found.append((number, count))
    return found


def _identifying(name: str, manifest: pd.DataFrame, described: dict[str, MetadataColumn]) -> list[Finding]:
    unique, personal = [], []
    for column in manifest.columns:
        values = manifest[column].dropna()
        if column in RESERVED or values.empty or not _is_text_or_whole(values):
            continue
        is_text = isinstance(values.dtype, pd.StringDtype)
        if _NAMING.search(column) or (is_text and values.str.contains(_EMAIL).any()):
            personal.append(column)
        n_distinct = values.nunique()
        enough = NEARLY_UNIQUE if is_text else 0.95
        if n_distinct > MANY_VALUES and n_distinct >= enough * len(values):
            unique.append((column, n_distinct, len(values), column in described))
    findings = []
    if personal:
        message = f"{name}: {', '.join(map(repr, personal))} {'holds' if len(personal) == 1 else 'hold'} personal data."
        remedy = "Take it out of the source before importing: nothing here needs it, and manifests get copied."
        findings.append(Finding("personal-data", "warning", message, {"columns": personal}, remedy))
    if unique:
        table = pd.DataFrame(unique, columns=["column", "distinct", "values", "input"])
        told = ", ".join(f"{column} ({distinct:,} of {n:,})" for column, distinct, n, _ in unique)
        inputs = [column for column, _, _, used in unique if used]
        message = f"{name}: nearly every value is another, so it identifies photos rather than describes them: {told}."
        if inputs:
            remedy = f"Take {', '.join(inputs)} out of the card's 'metadata': a model can only learn it by heart."
        else:
            remedy = "No model gets it, as the card's 'metadata' does not list it."
        severity = "warning" if inputs else "info"
        evidence = {"n": len(unique), "inputs": inputs, "examples": examples(table)}
        findings.append(Finding("identifier", severity, message, evidence, remedy, table))  # type: ignore[arg-type]
    return findings


def _is_text_or_whole(values: pd.Series) -> bool:
    if isinstance(values.dtype, pd.StringDtype):
        return True
    if not pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        return False
    numbers = values.to_numpy(dtype=np.float64)
    return bool((numbers == np.round(numbers)).all())
