"""The questionnaire as numbers, learned on the training part only: scaled, with every blank marked, leaks left out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin

from dermlab.core.errors import InputError
from dermlab.data.missingness import missingness_auroc

if TYPE_CHECKING:
    from dermlab.data.card import MetadataColumn

IQR_OF_NORMAL = 1.349
"""The interquartile range of a normal distribution in standard deviations: scaled numbers have about unit spread."""

CLIP = 5.0
"""Scaled numbers are clipped to ±5: an age of 999 must not outweigh the photo."""

_TRUE = frozenset({"true", "yes", "1", "1.0"})
_FALSE = frozenset({"false", "no", "0", "0.0"})


class QuestionnaireEncoder(TransformerMixin, BaseEstimator):
    """Encodes typed questionnaire columns as features; all statistics come from the rows that ``fit`` sees.

    Each column becomes a block of features whose last one says "is missing" (0 or 1):

    - numeric: ``(x - median) / (IQR / 1.349)`` clipped to ±5, 0 where missing;
    - boolean: +1 true, -1 false, 0 where missing;
    - categorical: one 0/1 feature per level seen in training and one for any level that was not.

    A column whose *missingness* betrays the label on the training rows is dropped whole, value and indicator
    (the test and its thresholds: :mod:`dermlab.data.missingness`); so is one that is blank, or one and the same
    value, in every training row.

    Args:
        drop_leaking: whether columns whose blanks betray the label are dropped; False only to measure the leak.

    Attributes:
        feature_names_: name of each feature, in order.
        blocks_: number of features of each kept column, in order; the last of a block is its missing indicator.
        dropped_: column -> why it was left out.
        kept_: names of the columns kept, in order.
    """

    def __init__(self, drop_leaking: bool = True) -> None:
        self.drop_leaking = drop_leaking

    def fit(
        self,
        frame: pd.DataFrame,
        y: Any = None,
        columns: Sequence[MetadataColumn] | None = None,
        *,
        groups: np.ndarray | None = None,
    ) -> QuestionnaireEncoder:
        """Learn medians, spreads, levels and which columns leak, from training rows alone.

        Args:
            frame: the questionnaire of the training images, one row an image.
            y: labels (N,), used for the missingness test only; None skips it.
            columns: the card's description of the columns to use; None takes every column of ``frame`` and judges its
                kind by its type.
            groups: patient (else lesion) of each row, (N,): one patient's ten photos are one observation for the test.

        Raises:
            InputError: a column is not in ``frame`` or holds a value that does not fit its kind.
        """
        described = _describe(frame) if columns is None else [_description(column) for column in columns]
        for column in described:
            if column["column"] not in frame:
                raise InputError(f"questionnaire: column {column['column']!r} is missing")
        missing = frame[[column["column"] for column in described]].isna()
        self.dropped_: dict[str, str] = {}
        if self.drop_leaking and y is not None and described:
            table = missingness_auroc(missing, np.asarray(y, dtype=object), groups)
            leaking = table[table["leaks"]]
            self.dropped_ = dict(zip(leaking["column"].astype(str), leaking["reason"].astype(str), strict=True))
        self.plan_: list[dict[str, Any]] = []
        for column in described:
            name = column["column"]
            if name in self.dropped_:
                continue
            learned = _learn(column, frame[name], missing[name].to_numpy())
            if isinstance(learned, str):
                self.dropped_[name] = learned
            else:
                self.plan_.append(learned)
        self._name_features()
        return self

    def _name_features(self) -> None:
        names: list[str] = []
        self.blocks_: tuple[int, ...] = ()
        for plan in self.plan_:
            column = plan["column"]
            values = [f"{column}={level}" for level in plan["levels"]] if plan["kind"] == "categorical" else [column]
            if plan["kind"] == "categorical":
                values.append(f"{column}=(unseen)")
            names += [*values, f"{column} is missing"]
            self.blocks_ += (len(values) + 1,)
        self.feature_names_ = names
        self.kept_ = [plan["column"] for plan in self.plan_]

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the features, float32 (N, Q).

        Raises:
            InputError: a column is missing from ``frame`` or holds a value that does not fit its kind.
        """
        absent = [plan["column"] for plan in self.plan_ if plan["column"] not in frame]
        if absent:
            listed = ", ".join(absent)
            raise InputError(
                f"questionnaire: the model needs the columns {', '.join(self.kept_)}; missing here: {listed} "
                "(a column of blanks is accepted)"
            )
        result = np.zeros((len(frame), len(self.feature_names_)), dtype=np.float32)
        start = 0
        for plan, size in zip(self.plan_, self.blocks_, strict=True):
            series = frame[plan["column"]]
            missing = series.isna().to_numpy()
            block = result[:, start : start + size]
            block[missing, -1] = 1.0
            if plan["kind"] == "numeric":
                scaled = (_numbers(series, missing) - plan["median"]) * plan["scale"]
                block[:, 0] = np.where(missing, 0.0, np.clip(scaled, -CLIP, CLIP))
            elif plan["kind"] == "boolean":
                block[:, 0] = np.where(missing, 0.0, 2 * _truths(series, missing) - 1)
            else:
                index = pd.Index(plan["levels"], dtype=object).get_indexer(_texts(series, missing, plan["values"]))
                index[index < 0] = len(plan["levels"])
                rows = np.flatnonzero(~missing)
                block[rows, index[rows]] = 1.0
            start += size
        return result

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the feature names, in scikit-learn's manner."""
        return np.asarray(self.feature_names_, dtype=object)

    def blank(self) -> np.ndarray:
        """Return the features of a questionnaire nobody filled in, float32 (Q,)."""
        result = np.zeros(len(self.feature_names_), dtype=np.float32)
        result[np.cumsum(self.blocks_, dtype=np.int64) - 1] = 1.0
        return result

    def to_dict(self) -> dict[str, Any]:
        """Return what ``fit`` learned as JSON-able values."""
        return {"drop_leaking": self.drop_leaking, "plan": self.plan_, "dropped": self.dropped_}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> QuestionnaireEncoder:
        """Rebuild a fitted encoder from :meth:`to_dict`."""
        encoder = cls(drop_leaking=state["drop_leaking"])
        encoder.plan_ = [dict(plan) for plan in state["plan"]]
        encoder.dropped_ = dict(state["dropped"])
        encoder._name_features()
        return encoder


def _description(column: MetadataColumn) -> dict[str, Any]:
    return {"column": column.column, "kind": column.kind, "values": list(column.values) if column.values else None}


def _describe(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Judge each column's kind by its type."""
    kinds = {}
    for name in frame.columns:
        if pd.api.types.is_bool_dtype(frame[name]):
            kinds[name] = "boolean"
        else:
            kinds[name] = "numeric" if pd.api.types.is_numeric_dtype(frame[name]) else "categorical"
    return [{"column": str(name), "kind": kind, "values": None} for name, kind in kinds.items()]


def _learn(column: dict[str, Any], series: pd.Series, missing: np.ndarray) -> dict[str, Any] | str:
    """Return the plan of one column, or the reason why it is left out."""
    if missing.all():
        return "it is blank in every training row"
    some = bool(missing.any())
    if column["kind"] == "numeric":
        values = _numbers(series, missing)[~missing]
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
        # Half of the answers may be one value (a zero); then the standard deviation is the spread.
        spread = (high - low) / IQR_OF_NORMAL or float(values.std())
        learned: dict[str, Any] = {"median": float(median), "scale": 1.0 / spread if spread > 0 else 0.0}
        constant = spread == 0
    elif column["kind"] == "boolean":
        learned, constant = {}, len(np.unique(_truths(series, missing)[~missing])) == 1
    else:
        seen = set(_texts(series, missing, column["values"])[~missing])
        order = column["values"] or sorted(seen)
        learned = {"levels": [level for level in order if level in seen]}
        constant = len(seen) == 1
    if constant and not some:
        return "it has the same value in every training row"
    return {**column, **learned}


def _numbers(series: pd.Series, missing: np.ndarray) -> np.ndarray:
    values = pd.to_numeric(series, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(series, ~missing & ~np.isfinite(values), "a finite number")
    return values


def _truths(series: pd.Series, missing: np.ndarray) -> np.ndarray:
    """Return 1.0 for true, 0.0 for false, NaN where missing."""
    if pd.api.types.is_bool_dtype(series.dtype):
        return series.astype("boolean").to_numpy(dtype=np.float64, na_value=np.nan)
    words = series.astype(str).str.lower()
    true, false = words.isin(_TRUE).to_numpy(dtype=bool), words.isin(_FALSE).to_numpy(dtype=bool)
    _refuse(series, ~missing & ~true & ~false, "true or false")
    return np.where(missing, np.nan, true.astype(np.float64))


def _texts(series: pd.Series, missing: np.ndarray, values: Sequence[str] | None) -> np.ndarray:
    texts = series.astype(object).where(~missing, None).to_numpy()
    if any(not isinstance(text, str) for text in itertools.compress(texts, ~missing)):
        texts = np.array([None if text is None else str(text) for text in texts], dtype=object)
    if values is not None:
        allowed = set(values)
        wrong = np.array([text is not None and text not in allowed for text in texts], dtype=bool)
        _refuse(series, wrong, f"one of {', '.join(values)}")
    return texts


def _refuse(series: pd.Series, wrong: np.ndarray, expected: str) -> None:
    """Raise the one line for the first value that does not fit."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        row = int(rows[0])
        more = f" (and {len(rows) - 1} more)" if len(rows) > 1 else ""
        raise InputError(
            f"questionnaire column {series.name!r}, record {row + 1}: {series.iloc[row]!r} is not {expected}{more}"
        )
