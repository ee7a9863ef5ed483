"""From a column of a predictions table to the levels that results are broken down by.

Skin type goes by Fitzpatrick's six and by bands of them, age by bands of years, other numbers by quarters; a blank is
a level of its own, ``not recorded``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.evaluate.intake import as_text, listed
from dermlab.evaluate.predictions import LEADING, PROBABILITY, TRUTH, Predictions

NOT_RECORDED = "not recorded"
PAIR = "*"
TIMES = " × "
MAX_LEVELS = 20  # an automatic choice passes over a column of more: it is an id or free text
FEW_VALUES = 6  # numbers of at most so many distinct values are levels as they stand

SKIN_TYPES = ("I", "II", "III", "IV", "V", "VI")
SKIN_TYPE_BANDS = {
    "three bands": (("I–II", 2), ("III–IV", 4), ("V–VI", 6)),
    "two bands": (("I–III", 3), ("IV–VI", 6)),
}
AGE_BANDS = ((18, "0–17"), (40, "18–39"), (60, "40–59"), (75, "60–74"), (np.inf, "75 and over"))
ITA_LEVELS = ("very light", "light", "intermediate", "tan", "brown", "dark", "skin type recorded")

SKIN_TYPE_NAMES = ("skin_type", "fitspatrick", "fitzpatrick", "fitzpatrick_skin_type", "skin_phototype", "phototype")
AGE_NAMES = ("age", "age_approx", "age_years", "patient_age")
ITA_BAND = "ita_band"
STANDARD = (
    *SKIN_TYPE_NAMES,
    ITA_BAND,
    *("sex", "gender"),
    *AGE_NAMES,
    *("site", "centre", "center", "hospital", "clinic"),
    "modality",
    *("device", "camera", "dermatoscope", "scanner", "instrument", "phone"),
    *("region", "localization", "localisation", "body_site", "anatom_site_general"),
)
"""The columns, by the names they go by, that results are always broken down by where a table has them."""

BOOKKEEPING = frozenset(
    {*LEADING, "n_images", "seen_in_training", "path", "patient_id", "lesion_id", "captured_at"}
) | {
    "mask_path",
    "event",
    "time_to_event",
    "ita_degrees",
    "ita_share",
}
"""Columns that describe no group of patients."""


@dataclass(frozen=True)
class Levels:
    """A column as levels.

    Attributes:
        column: its name; a pair's is ``a*b``, a banded one's ``skin_type (three bands)``.
        names: the recorded levels, in the order of tables.
        codes: int64 (units,) place in ``names``, -1 where not recorded.
        estimated: whether it was estimated from the photo and not recorded by a person.
    """

    column: str
    names: tuple[str, ...]
    codes: np.ndarray
    estimated: bool = False

    def same_partition(self, other: Levels) -> bool:
        """Tell whether two columns divide the units alike, whatever they call the parts."""
        if len(self.names) != len(other.names):
            return False
        both = np.unique(np.stack([self.codes, other.codes]), axis=1)
        missing = (both == -1).sum(axis=0) == 1
        return not missing.any() and all(len(np.unique(side)) == both.shape[1] for side in both)


def with_columns(predictions: Predictions, frame: pd.DataFrame, columns: Iterable[str] | None = None) -> Predictions:
    """Return the table with describing columns of another joined by image, for subgroups.

    Columns that the table has already stay as they are.

    Args:
        predictions: any table that still has a row for each image.
        frame: ``image_id`` (unique) and describing columns: a data set's manifest, a clinic's spreadsheet.
        columns: which of them; None: all that describe patients or photos (ids, paths and the target are no such).

    Raises:
        InputError: a column is not there, an image stands twice in ``frame``, or no image of the table is in it.
    """
    if "image_id" not in frame:
        raise InputError("the table to join has no column 'image_id'")
    if columns is None:
        target = predictions.meta.get("target")
        wanted = [str(name) for name in frame if name not in BOOKKEEPING and name != target]
        wanted = [name for name in wanted if not name.startswith((PROBABILITY, TRUTH))]
    else:
        wanted = list(columns)
        absent = [name for name in wanted if name not in frame]
        if absent:
            raise InputError(f"no column {absent[0]!r} to join; there are {listed(frame.columns)}")
    wanted = [name for name in wanted if name not in predictions.frame]
    ids = pd.Index(as_text(frame["image_id"]))
    if ids.has_duplicates:
        raise InputError(f"the table to join holds image {ids[ids.duplicated()][0]!r} twice")
    place = ids.get_indexer(pd.Index(predictions.frame["image_id"]))
    if (place < 0).all():
        raise InputError(
            f"{predictions.source}: no image of it is among the {len(ids):,} to join "
            f"(such as {ids[0]!r}; the table has {predictions.frame['image_id'].iloc[0]!r})"
        )
    joined = frame[wanted].reset_index(drop=True).reindex(np.where(place < 0, len(ids), place))
    result = pd.concat([predictions.frame, joined.set_axis(predictions.frame.index)], axis=1)
    warnings = predictions.warnings
    unknown = int(predictions.frame["image_id"][place < 0].nunique())
    if unknown:
        warnings.append(f"{unknown} images of the table are not in the data joined to it: nothing is known of them")
    return predictions.with_frame(result, warnings=warnings)


def describing_columns(predictions: Predictions) -> list[str]:
    """Return the columns of a table that say something of the patient or the photo, in its order."""
    own = {PROBABILITY + name for name in predictions.classes} | {TRUTH + name for name in predictions.classes}
    return [str(name) for name in predictions.frame if name not in own and name not in BOOKKEEPING]


def choose_levels(
    frame: pd.DataFrame, units: np.ndarray, available: Sequence[str], columns: Sequence[str] | str | None, source: str
) -> tuple[list[Levels], list[str]]:
    """Return the columns asked for as levels of the units, and what was passed over and why.

    Args:
        frame: rows with ``unit`` and the columns.
        units: str (U,) names of the units in the order of the result.
        available: the describing columns.
        columns: names, pairs ``a*b``; None: those of :data:`STANDARD` that are there; ``"all"``: every describing one.
        source: for messages.

    Raises:
        InputError: a column is not there, or is no group (a list in every cell, all different).
    """
    asked = columns is not None and columns != "all"
    if columns is None:
        wanted = [name for name in STANDARD for have in available if have.lower() == name]
        wanted = [have for name in dict.fromkeys(wanted) for have in available if have.lower() == name]
    elif isinstance(columns, str):
        wanted = list(available) if columns == "all" else [columns]
    else:
        wanted = list(columns)
    by_unit = frame.assign(unit=frame["unit"].astype(str)).groupby("unit", sort=False)
    known: dict[str, pd.Series] = {}
    told: list[str] = []
    result: list[Levels] = []

    def values(name: str) -> pd.Series:
        if name not in available:
            raise InputError(f"{source}: no column {name!r} to break down by; there are {listed(available) or 'none'}")
        if name not in known:
            known[name] = by_unit[name].first().reindex(units)
            several = int((by_unit[name].nunique(dropna=True) > 1).sum())
            if several:
                told.append(f"{name}: {several} units have images of different {name}; the first counts")
        return known[name]

    for name in dict.fromkeys(wanted):
        made: list[Levels] = []
        if PAIR in name and name not in available:
            parts = [part.strip() for part in name.split(PAIR)]
            if len(parts) != 2 or not all(parts):
                raise InputError(f"{source}: a pair of columns is written a*b, not {name!r}")
            made = [_crossed(name, *(_levels(part, values(part)) for part in parts))]
        else:
            column = _levels(name, values(name))
            made = [column, *_skin_type_bands(column)]
        for levels in made:
            twin = next((other for other in result if levels.same_partition(other)), None)
            if twin is not None:
                told.append(f"{levels.column}: divides the units as {twin.column} does; told once")
            elif not asked and len(levels.names) > MAX_LEVELS:
                told.append(f"{levels.column}: {len(levels.names)} values, more than {MAX_LEVELS}; passed over")
            elif not asked and len(levels.names) + bool((levels.codes < 0).any()) < 2:
                told.append(f"{levels.column}: {levels.names[0] if levels.names else NOT_RECORDED} throughout")
            else:
                result.append(levels)
    return result, told


def _levels(column: str, values: pd.Series) -> Levels:
    """Return one column as levels."""
    name = column.lower()
    numbers = _as_numbers(values)
    if numbers is None:
        return _of_text(column, values, order=ITA_LEVELS if name == ITA_BAND else (), estimated=name == ITA_BAND)
    known = ~np.isnan(numbers)
    if name in SKIN_TYPE_NAMES and np.isin(numbers[known], range(1, 7)).all():
        return _coded(column, SKIN_TYPES, np.where(known, numbers - 1, -1))
    if name in AGE_NAMES:
        edges = [edge for edge, _ in AGE_BANDS[:-1]]
        return _coded(column, [band for _, band in AGE_BANDS], np.where(known, np.digitize(numbers, edges), -1))
    distinct = np.unique(numbers[known])
    if len(distinct) <= FEW_VALUES:
        return _coded(column, [f"{value:g}" for value in distinct], _places(distinct, numbers))
    cuts = np.unique(np.quantile(numbers[known], (0.25, 0.5, 0.75)))
    place = np.searchsorted(cuts, numbers, side="left")
    bands = []
    for code in range(len(cuts) + 1):
        inside = numbers[known & (place == code)]
        bands.append(f"{inside.min():g}–{inside.max():g}" if len(inside) else f"quarter {code + 1}")
    return _coded(column, bands, np.where(known, place, -1))


def _coded(column: str, names: Sequence[str], codes: np.ndarray) -> Levels:
    """Return levels without those that nobody has."""
    codes = codes.astype(np.int64)
    present = np.unique(codes[codes >= 0])
    place = np.full(len(names) + 1, -1)
    place[present] = np.arange(len(present))
    return Levels(column, tuple(names[code] for code in present), place[codes])


def _places(distinct: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(numbers), -1, np.searchsorted(distinct, numbers))


def _as_numbers(values: pd.Series) -> np.ndarray | None:
    """Return numbers with NaN for blanks, None where the column holds words (or truth values)."""
    if pd.api.types.is_bool_dtype(values.dtype):
        return None
    if not pd.api.types.is_numeric_dtype(values.dtype):
        plain = values.dropna()
        if plain.map(lambda value: isinstance(value, (bool, np.bool_, str))).any():
            return None
    numbers = pd.to_numeric(values, errors="coerce")
    if bool((numbers.isna() & values.notna()).any()):
        return None
    array = numbers.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.isfinite(array), array, np.nan)


def _of_text(column: str, values: pd.Series, *, order: Sequence[str], estimated: bool) -> Levels:
    words: dict[Any, str | None] = {}
    for value in values.dropna().unique().tolist():
        text = {True: "yes", False: "no"}[bool(value)] if isinstance(value, (bool, np.bool_)) else str(value).strip()
        words[value] = {"True": "yes", "False": "no"}.get(text, text) or None
    found = {word for word in words.values() if word}
    names = [name for name in order if name in found] + sorted(found - set(order))
    place = {name: code for code, name in enumerate(names)}
    codes = [-1 if pd.isna(value) else place.get(words[value] or "", -1) for value in values.tolist()]
    return Levels(column, tuple(names), np.array(codes, np.int64), estimated)


def _crossed(name: str, first: Levels, second: Levels) -> Levels:
    """Return the levels of a pair; what lacks either is not recorded."""
    codes = np.where((first.codes < 0) | (second.codes < 0), -1, first.codes * max(len(second.names), 1) + second.codes)
    names = [one + TIMES + other for one in first.names for other in second.names]
    crossed = _coded(name, names, codes) if names else Levels(name, (), codes.astype(np.int64))
    return Levels(name, crossed.names, crossed.codes, first.estimated or second.estimated)


def _skin_type_bands(levels: Levels) -> list[Levels]:
    """Return Fitzpatrick's types in bands, where the column holds them."""
    if not levels.names or not set(levels.names) <= set(SKIN_TYPES) or levels.column.lower() not in SKIN_TYPE_NAMES:
        return []
    number = np.array([SKIN_TYPES.index(name) + 1 for name in levels.names] + [0])[levels.codes]
    result = []
    for kind, bands in SKIN_TYPE_BANDS.items():
        codes = np.where(number > 0, np.searchsorted([last for _, last in bands], number), -1)
        result.append(_coded(f"{levels.column} ({kind})", [name for name, _ in bands], codes))
    return result
