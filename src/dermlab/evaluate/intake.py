"""Brings any predictions table into dermlab's form, or says in one line which file, row and column is wrong.

What cannot be scored honestly is refused: missing scores, probabilities that are none, unknown labels, an image twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.delimited import with_decimal_points
from dermlab.core.errors import InputError
from dermlab.evaluate.columns import Columns
from dermlab.evaluate.multilabel import with_thresholds
from dermlab.evaluate.predictions import KEYS, LEADING, PROBABILITY, TRUTH, Predictions

EXACT_SUM = 1e-6  # rounding of single precision: left as it is
QUIET_SUM = 1e-3  # divided by the sum without a word
SPOKEN = re.compile(r"^(p|prob|proba|probability|score)[ _:.-]+")  # how names of score columns begin
LOOSE_SUM = 0.05  # many classes rounded to two decimals: divided by the sum, and said


def admit(
    frame: pd.DataFrame,
    meta: dict[str, Any],
    columns: Columns,
    *,
    source: str,
    truth: pd.DataFrame | None = None,
) -> Predictions:
    """Return a table in dermlab's form.

    Args:
        frame: the table as it was read.
        meta: its sidecar, empty where it has none.
        columns: how it names its columns.
        source: the file, for messages.
        truth: labels (and units, groups, subgroup columns) by ``image_id``, which win over the table's own.

    Raises:
        InputError: the table cannot be scored honestly.
    """
    check = Check(source)
    check.has_rows(frame)
    table = _identity(frame, meta, columns, check)
    borrowed: set[str] = set()
    if truth is not None:
        frame = _with_truth(frame, table["image_id"], truth, columns, check)
        borrowed = {"unit", "group"} & set(truth)
    independent = meta.get("kind") == "multilabel" or any(str(name).startswith(TRUTH) for name in frame)
    if not independent:
        table["label"] = _labels(frame, columns, check)
    for name, chosen, fallback in (("unit", columns.unit, "image_id"), ("group", columns.group, "unit")):
        table[name] = _holder(frame, None if name in borrowed else chosen, name, table[fallback], check)
    scores, classes = _scores(frame, columns, check)
    warnings = list(meta.get("warnings", []))
    if independent:
        for name in classes:
            table[TRUTH + name] = check.zero_one(frame, TRUTH + name)
    else:
        if scores is None:
            table["prediction"] = _hard_labels(frame, columns, check)
        classes = classes or _classes_seen(table, columns, check)
        for name, column in (("label", columns.label), ("prediction", columns.prediction)):
            if name in table:
                check.known(table[name], classes, column)
        if len(classes) < 2:
            raise InputError(f"{source}: only one class ({listed(classes)}); name all classes with --classes")
    if scores is not None:
        values, told = _probabilities(scores, columns, check, independent=independent)
        warnings += told
        table[[PROBABILITY + name for name in classes]] = values
    elif independent:
        raise InputError(f"{source}: a multi-label table needs {PROBABILITY}<class> columns beside {TRUTH}<class>")
    check.unique(table, columns.id)
    table = pd.concat([table, _description(frame, table, columns, classes)], axis=1)
    table = table[[name for name in LEADING if name in table] + [name for name in table if name not in LEADING]]
    several_images = table["unit"].nunique() < table["image_id"].nunique()
    several_units = table["group"].nunique() < table["unit"].nunique()
    defaults = {
        "model": _model_name(source),
        "target": str(table["target"].iloc[0]),
        "kind": "multilabel" if independent else "binary" if len(classes) == 2 else "multiclass",
        "unit": columns.unit or ("unit" if several_images else "image"),
        "group_by": columns.group or ("group" if several_units else "image_id"),
        "pooling": "mean",
    }
    given = {key: value for key, value in meta.items() if value is not None}
    kept = {"source": source, "classes": list(classes), "warnings": list(dict.fromkeys(warnings))}
    return with_thresholds(Predictions(table, tuple(classes), {**defaults, **given, **kept}))


class Check:
    """Checks of single columns, with errors that name file, row and column."""

    def __init__(self, source: str) -> None:
        """Check the table that was read from ``source``."""
        self.source = source

    def at(self, row: int, column: str | None, message: str) -> InputError:
        """Return the error for one cell; rows are counted as an editor counts them, the header being row 1."""
        return InputError.at(self.source, message, row=row + 2, column=column)

    def missing(self, frame: pd.DataFrame, column: str, option: str) -> InputError:
        """Return the error for a column that is not there."""
        known = listed(frame.columns)
        return InputError(f"{self.source}: no column {column!r}; name it with {option} (columns: {known})")

    def has_rows(self, frame: pd.DataFrame) -> None:
        """Raise where there are no rows, or a column's name occurs twice."""
        if not len(frame):
            raise InputError(f"{self.source}: has no rows")
        twice = frame.columns[frame.columns.duplicated()].tolist()
        if twice:
            raise InputError(f"{self.source}: the column {twice[0]!r} occurs twice")

    def text(self, frame: pd.DataFrame, column: str, option: str, what: str) -> pd.Series:
        """Return a column of text in which nothing may be missing."""
        if column not in frame:
            raise self.missing(frame, column, option)
        empty = np.flatnonzero(frame[column].isna().to_numpy())
        if len(empty):
            raise self.at(int(empty[0]), column, f"is empty; {what} is required")
        return as_text(frame[column])

    def numbers(self, frame: pd.DataFrame, column: str) -> np.ndarray:
        """Return a column of finite numbers."""
        values = _numbers(frame[column], is_share=True).to_numpy(np.float64, na_value=np.nan)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            found = frame[column].iloc[int(bad[0])]
            shown = "is empty" if pd.isna(found) else f"'{found}' is not a finite number"
            raise self.at(int(bad[0]), column, f"{shown}; every row needs a number here")
        return values

    def integers(self, frame: pd.DataFrame, column: str) -> np.ndarray:
        """Return a column of whole numbers as int64."""
        values = self.numbers(frame, column)
        bad = np.flatnonzero(values != np.floor(values))
        if len(bad):
            raise self.at(int(bad[0]), column, f"{values[bad[0]]} is not a whole number")
        return values.astype(np.int64)

    def zero_one(self, frame: pd.DataFrame, column: str) -> np.ndarray:
        """Return a column of 0, 1 and NaN where it is empty."""
        if column not in frame:
            raise InputError(
                f"{self.source}: no column {column!r}; a multi-label table has {TRUTH}<class> for every class"
            )
        values = pd.to_numeric(frame[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        bad = np.flatnonzero(frame[column].notna().to_numpy() & ~np.isin(values, (0.0, 1.0)))
        if len(bad):
            raise self.at(int(bad[0]), column, f"'{frame[column].iloc[int(bad[0])]}' is not 0, 1 or empty")
        return values

    def known(self, values: pd.Series, classes: Sequence[str], column: str) -> None:
        """Raise at the first label that is none of the classes."""
        strange = np.flatnonzero((values.notna() & ~values.isin(list(classes))).to_numpy())
        if len(strange):
            word = values.iloc[int(strange[0])]
            near = nearest(word, classes)
            hint = f"; did you mean {near!r}?" if near else ""
            raise self.at(int(strange[0]), column, f"{word!r} is not one of {listed(classes, 40)}{hint}")

    def unique(self, table: pd.DataFrame, column: str) -> None:
        """Raise where an image occurs twice in a fold, or belongs to two units, or a unit to two groups."""
        repeated = np.flatnonzero(table.duplicated(["image_id", *KEYS]).to_numpy())
        if len(repeated):
            row = int(repeated[0])
            name = table["image_id"].iloc[row]
            raise self.at(row, column, f"{name!r} occurs twice in the same split, fold, repeat and seed")
        for inner, outer in (("image_id", "unit"), ("unit", "group")):
            homes = table[[inner, outer]].drop_duplicates()
            strays = homes[inner].duplicated()
            if strays.any():
                name = homes.loc[strays, inner].iloc[0]
                which = listed(homes.loc[homes[inner] == name, outer])
                raise InputError(f"{self.source}: {inner} {name!r} belongs to two {outer}s ({which})")


def _identity(frame: pd.DataFrame, meta: dict[str, Any], columns: Columns, check: Check) -> pd.DataFrame:
    """Return image id, target, split, fold, repeat and seed of each row."""
    table = pd.DataFrame({"image_id": check.text(frame, columns.id, "--id", "the image's id")}, index=frame.index)
    table["target"] = as_text(frame["target"]) if "target" in frame else str(meta.get("target") or columns.label)
    split = columns.split_column or "split"
    if columns.split_column or split in frame:
        table["split"] = check.text(frame, split, "--split_column", "the split")
    else:
        table["split"] = "test"
    for name in KEYS[1:]:
        table[name] = check.integers(frame, name) if name in frame else 0
    return table


def _holder(frame: pd.DataFrame, chosen: str | None, name: str, fallback: pd.Series, check: Check) -> pd.Series:
    """Return the unit of each image, or the group of each unit; where there is none it stands for itself."""
    if chosen and chosen not in frame:
        raise check.missing(frame, chosen, f"--{name}")
    column = chosen or name
    return as_text(frame[column]).fillna(fallback) if column in frame else fallback


def _with_truth(
    frame: pd.DataFrame, ids: pd.Series, truth: pd.DataFrame, columns: Columns, check: Check
) -> pd.DataFrame:
    """Join labels, units, groups and subgroup columns from another table by image id; the truth wins."""
    known = truth.assign(image_id=as_text(truth["image_id"])).set_index("image_id")
    if known.index.has_duplicates:
        raise InputError(f"truth: image {known.index[known.index.duplicated()][0]!r} occurs twice")
    absent = np.flatnonzero(~ids.isin(known.index).to_numpy())
    if len(absent):
        more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
        row = int(absent[0])
        raise check.at(row, columns.id, f"{ids.iloc[row]!r}{more} is not among the images whose truth is known")
    joined = known.loc[ids].set_axis(frame.index).rename(columns={"label": columns.label})
    return pd.concat([frame.drop(columns=[name for name in joined if name in frame]), joined], axis=1)


def _labels(frame: pd.DataFrame, columns: Columns, check: Check) -> pd.Series:
    if columns.label not in frame:
        raise check.missing(frame, columns.label, "--label (or give --truth)")
    return as_text(frame[columns.label])


def _hard_labels(frame: pd.DataFrame, columns: Columns, check: Check) -> pd.Series:
    if columns.prediction not in frame:
        seen = sorted(set(as_text(frame[columns.label]).dropna())) if columns.label in frame else []
        if len(seen) > 1 and all(name in frame for name in seen):
            raise InputError(
                f"{check.source}: columns are named as the labels are; if they hold the classes' scores, name all "
                f"classes: --classes {','.join(seen)}"
            )
        raise InputError(
            f"{check.source}: no columns {columns.probability_prefix}<class> of probabilities and no "
            f"column {columns.prediction!r} of hard labels: name --probability_prefix, --probability or --prediction "
            f"(columns: {listed(frame.columns)})"
        )
    return check.text(frame, columns.prediction, "--prediction", "the predicted class")


def _classes_seen(table: pd.DataFrame, columns: Columns, check: Check) -> tuple[str, ...]:
    """Return the classes of a table that does not name them: what occurs, sorted."""
    seen = sorted(set(table["label"].dropna()))
    if "prediction" in table:
        # A label that only predictions hold is as likely a misspelling, which would count as an error each time.
        strange = np.flatnonzero(~table["prediction"].isin(seen).to_numpy())
        if len(strange):
            word = table["prediction"].iloc[int(strange[0])]
            near = nearest(word, seen)
            hint = f"did you mean {near!r}? If" if near else "if"
            raise check.at(
                int(strange[0]),
                columns.prediction,
                f"{word!r} is predicted, but no row's label is that ({listed(seen, 40)}); {hint} "
                "it is a class of its own, name all classes with --classes",
            )
        return tuple(seen)
    if len(seen) != 2:
        raise InputError(
            f"{check.source}: --probability is for two classes, the labels are {listed(seen)}; "
            "give --classes NEGATIVE,POSITIVE"
        )
    assert columns.probability is not None
    # "probability of malignant" is that of malignant, wherever it stands in the alphabet.
    return tuple(reversed(seen)) if _bears(columns.probability, columns) == seen[0].casefold() else tuple(seen)


def _bears(column: str, columns: Columns) -> str:
    """Return the class that the name of a score column speaks of, in small letters: ``p_MEL`` is of ``mel``."""
    return SPOKEN.sub("", column.removeprefix(columns.probability_prefix).casefold())


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known name that a word was most likely meant to be, whatever its capitals; None where none is near."""
    import difflib

    small = {name.casefold().strip(): name for name in known}
    found = difflib.get_close_matches(word.casefold().strip(), list(small), n=1)
    return small[found[0]] if found else None


def _scores(frame: pd.DataFrame, columns: Columns, check: Check) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Find the score columns: one for the positive class, those with a prefix, or the class names themselves."""
    if columns.probability is not None:
        if columns.probability not in frame:
            raise check.missing(frame, columns.probability, "--probability")
        if len(columns.classes) not in (0, 2):
            raise InputError(f"{check.source}: --probability is for two classes, not for {len(columns.classes)}")
        if columns.classes and _bears(columns.probability, columns) == columns.classes[0].casefold():
            negative, positive = reversed(columns.classes)
            raise InputError(
                f"{check.source}: --probability {columns.probability!r} has the name of the first class, but is read "
                f"as the probability of the second ({negative}); the positive class comes last: "
                f"--classes {negative},{positive}"
            )
        return check.numbers(frame, columns.probability)[:, None], columns.classes
    prefix, classes = columns.probability_prefix, columns.classes
    found = [str(name) for name in frame.columns if prefix and str(name).startswith(prefix)]
    if found:
        classes = classes or tuple(name.removeprefix(prefix) for name in found)
        absent = [name for name in classes if prefix + name not in found]
        extra = [name for name in found if name.removeprefix(prefix) not in classes]
        if absent or extra:
            problem = f"no column {prefix + absent[0]!r}" if absent else f"column {extra[0]!r} is of no known class"
            raise InputError(f"{check.source}: {problem}; the classes are {listed(classes, 40)}")
        return np.column_stack([check.numbers(frame, prefix + name) for name in classes]), classes
    if classes and all(name in frame for name in classes):
        return np.column_stack([check.numbers(frame, name) for name in classes]), classes
    return None, classes


def _probabilities(
    scores: np.ndarray, columns: Columns, check: Check, *, independent: bool
) -> tuple[np.ndarray, list[str]]:
    """Turn scores into probabilities whose rows sum to 1 (independent ones need not), and say what was mended."""
    single = columns.probability is not None
    if columns.scores == "logits":
        if single or independent:
            positive = 0.5 * (1 + np.tanh(scores / 2))  # the logistic function without overflow
            return (np.hstack([1 - positive, positive]) if single else positive), []
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True), []
    outside = (scores < -EXACT_SUM) | (scores > 1 + EXACT_SUM)
    if outside.any():
        row, column = (int(place[0]) for place in np.nonzero(outside))
        told = f"the score {scores[row, column]:g} is not within 0 and 1; "
        if _are_percent(scores):
            raise check.at(row, None, told + "are these percent? Then divide them by 100")
        raise check.at(row, None, told + "if these are logits say --scores logits")
    scores = np.clip(scores, 0.0, 1.0)
    if single:
        return np.hstack([1 - scores, scores]), []
    if independent:
        return scores, []
    sums = scores.sum(axis=1)
    off = np.abs(sums - 1)
    if off.max() > LOOSE_SUM:
        row = int(np.flatnonzero(off > LOOSE_SUM)[0])
        told = f"the {scores.shape[1]} class probabilities sum to {sums[row]:.4g}, not to 1"
        raise check.at(row, None, f"{told} (logits need --scores logits)")
    mended = off > EXACT_SUM
    scores[mended] /= sums[mended, None]
    loose = int((off > QUIET_SUM).sum())
    if not loose:
        return scores, []
    return scores, [
        f"{loose} rows of probabilities were off a sum of 1 by up to {off.max():.3f} and were divided by it"
    ]


def _are_percent(scores: np.ndarray) -> bool:
    """Tell whether scores look like percent: within 0 and 100, and of several classes adding up to 100."""
    inside = scores.min() >= 0 and scores.max() <= 100
    return bool(inside and (scores.shape[1] == 1 or (np.abs(scores.sum(axis=1) - 100) <= 100 * LOOSE_SUM).all()))


def _description(frame: pd.DataFrame, table: pd.DataFrame, columns: Columns, classes: Sequence[str]) -> pd.DataFrame:
    """Return what is left of the table: columns that describe the images, for subgroups."""
    used = {columns.id, columns.label, columns.prediction, columns.probability, columns.group, columns.unit}
    used |= {columns.split_column, *LEADING, *classes}
    scores = tuple(prefix for prefix in (columns.probability_prefix, PROBABILITY, TRUTH) if prefix)
    kept = [name for name in frame if name not in used and name not in table and not str(name).startswith(scores)]
    return pd.DataFrame({str(name): _typed(frame[name]) for name in kept}, index=frame.index)


def as_text(column: pd.Series) -> pd.Series:
    """Return ids and labels as text; nulls stay, and 3.0, which a column with blanks makes of 3, is ``3``."""
    return pd.Series([_text(value) for value in column.tolist()], index=column.index, dtype=object)


def _text(value: Any) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _typed(column: pd.Series) -> pd.Series:
    """Return a column of text as numbers where every value is one."""
    if not (pd.api.types.is_object_dtype(column.dtype) or pd.api.types.is_string_dtype(column.dtype)):
        return column
    numbers = _numbers(column)
    return numbers if bool(numbers.notna().any()) and bool((numbers.notna() | column.isna()).all()) else column


def _numbers(column: pd.Series, *, is_share: bool = False) -> pd.Series:
    """Return a column as numbers, NaN where a value is none; decimal commas are read."""
    present = column.dropna()
    if len(present) and all(isinstance(value, str) for value in present):
        column = with_decimal_points(present.astype("string"), is_share=is_share).reindex(column.index)
    return pd.to_numeric(column.astype(object), errors="coerce")


def _model_name(source: str) -> str:
    path = Path(source)
    return path.parent.name if path.name == "predictions.parquet" and path.parent.name else path.stem


def listed(names: Iterable[Any], limit: int = 12) -> str:
    """Return names for a message, the first ``limit`` of them."""
    words = [str(name) for name in names]
    return ", ".join(words[:limit]) + (f", … ({len(words)} in all)" if len(words) > limit else "")
