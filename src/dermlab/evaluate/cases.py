"""Scored units as arrays: the one form in which metrics, intervals and comparisons read predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.predictions import Predictions, pool_units


@dataclass(frozen=True)
class Cases:
    """Units that were scored once each, with the group (patient, lesion) that each belongs to.

    Attributes:
        truth: int64 (N,) class codes; multi-label targets: float64 (N, C) of 0, 1 and NaN where unknown.
        predicted: int64 (N,) class codes, the decision; multi-label targets: (N, C) of 0 and 1.
        probabilities: float64 (N, C), or None for hard labels.
        group: int64 (N,) codes in ``range(n_groups)``.
        n_groups: number of groups; one that has no unit here (it has one in another repeat) still counts.
        classes: class names, C of them.
        ordinal: whether the classes are ordered.
    """

    truth: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    group: np.ndarray
    n_groups: int
    classes: tuple[str, ...]
    ordinal: bool = False

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.truth)

    @property
    def multilabel(self) -> bool:
        """Whether each class is a yes-or-no question of its own."""
        return self.truth.ndim == 2

    def correct(self) -> np.ndarray:
        """Return 1.0 where a unit's class was found, else 0.0 (multi-label: the share of its labels that are right)."""
        if not self.multilabel:
            return (self.truth == self.predicted).astype(np.float64)
        known = ~np.isnan(self.truth)
        right = ((self.truth == self.predicted) & known).sum(axis=1)
        return right / np.maximum(known.sum(axis=1), 1)


@dataclass(frozen=True)
class CaseSets:
    """The cases of a predictions table: one set per repeat and seed, folds pooled; metrics are averaged over the sets.

    Attributes:
        sets: the sets; all share the coding of groups.
        keys: for each set its ``(repeat, seed)``, or ``(repeat, seed, fold)`` where every fold scored the same units.
        units: names of the distinct units, sorted.
        groups: names of the groups, sorted: ``group`` codes point here.
        group_of_unit: int64 (units,) code of each unit's group.
        unit: for each set int64 (N,), the place of each case in ``units``.
        warnings: what was left out and why.
    """

    sets: tuple[Cases, ...]
    keys: tuple[tuple[int, ...], ...]
    units: np.ndarray
    groups: np.ndarray
    group_of_unit: np.ndarray
    unit: tuple[np.ndarray, ...]
    warnings: tuple[str, ...]

    @property
    def clustered(self) -> bool:
        """Whether any group holds several units."""
        return len(self.groups) < len(self.units)


def case_sets(predictions: Predictions, split: str | None = "test") -> CaseSets:
    """Pool a predictions table to the unit scored and return its cases as arrays, in an order of their own.

    Args:
        predictions: any table; images of one unit are pooled by its rule.
        split: the split scored, or None for all rows.

    Raises:
        InputError: the split is missing, or no row has a label.
    """
    predictions = pool_units(predictions if split is None else predictions.part(split))
    warnings: list[str] = []
    truth = predictions.truth()
    labelled = ~np.isnan(truth).all(axis=1) if truth.ndim == 2 else truth >= 0
    if not labelled.all():
        if not labelled.any():
            raise InputError(f"{predictions.meta.get('source', 'predictions')}: no row has a label")
        warnings.append(f"{int((~labelled).sum())} of {len(labelled)} rows have no label and are left out")
        predictions = predictions.with_frame(predictions.frame[labelled].reset_index(drop=True))
    # Sorted by unit, so that sums run in the same order whatever the order of the rows, to the last bit.
    frame = predictions.frame.sort_values(["repeat", "seed", "unit", "fold"], kind="stable", ignore_index=True)
    predictions = predictions.with_frame(frame)
    truth, predicted = predictions.truth(), predictions.predicted() if predictions.kind != "multilabel" else None
    probabilities = predictions.probabilities() if predictions.has_probabilities else None
    if predicted is None:
        from dermlab.evaluate.multilabel import thresholds_of

        assert probabilities is not None
        predicted = (probabilities >= thresholds_of(predictions)).astype(np.float64)
    elif probabilities is not None:
        tied = int(((probabilities == probabilities.max(axis=1, keepdims=True)).sum(axis=1) > 1).sum())
        if tied:
            warnings.append(
                f"{tied} of {len(frame)} rows tie for the most probable class; the first in class order counts"
            )
    # Three folds that each score the same test set are three answers to one question, not three times the evidence.
    columns = ["repeat", "seed"]
    if frame.duplicated(["unit", *columns]).any():
        columns.append("fold")
        warnings.append("several folds score the same units: values are averaged over the folds, not pooled")
    units, unit_codes = np.unique(frame["unit"].to_numpy(str), return_inverse=True)
    groups, group_codes = np.unique(frame["group"].to_numpy(str), return_inverse=True)
    group_of_unit = np.zeros(len(units), np.int64)
    group_of_unit[unit_codes] = group_codes
    sets, keys, places = [], [], []
    for key, rows in frame.groupby(columns, sort=True).indices.items():
        sets.append(
            Cases(
                truth[rows],
                predicted[rows],
                None if probabilities is None else probabilities[rows],
                group_codes[rows].astype(np.int64),
                len(groups),
                predictions.classes,
                ordinal=predictions.kind == "ordinal",
            )
        )
        keys.append(tuple(int(part) for part in _as_tuple(key)))
        places.append(unit_codes[rows].astype(np.int64))
    return CaseSets(tuple(sets), tuple(keys), units, groups, group_of_unit, tuple(places), tuple(warnings))


def cases_from_arrays(
    y_true: Any, y_prob: Any, groups: Any = None, *, classes: Any = None, ordinal: bool = False
) -> Cases:
    """Return cases from plain arrays, in scikit-learn's manner.

    Args:
        y_true: (N,) class labels of any type, or (N, C) of 0 and 1 for multi-label targets.
        y_prob: (N, C) probabilities, columns in the order of ``classes``; (N,) floats for two classes: the probability
            of the second; (N,) of labels: hard predictions.
        groups: (N,) group of each row (patient, lesion); None: each row is its own group.
        classes: the classes in order; None: the sorted distinct labels, or ``range(C)`` where the labels are integers
            and the columns outnumber the labels seen.
        ordinal: whether the classes are ordered.

    Raises:
        InputError: shapes do not fit, a label is not among the classes, or a score is not finite.
    """
    truth, scores = np.asarray(y_true), np.asarray(y_prob)
    if truth.ndim not in (1, 2) or not len(truth):
        raise InputError(f"y_true: must be (N,) or (N, C) with N > 0, not of shape {truth.shape}")
    if len(scores) != len(truth):
        raise InputError(f"y_prob: has {len(scores)} rows, y_true has {len(truth)}")
    group, n_groups = np.arange(len(truth)), len(truth)
    if groups is not None:
        group, n_groups = group_codes(groups, len(truth))
    if scores.dtype.kind == "f" and not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).reshape(len(scores), -1).all(axis=1))[0])
        raise InputError(f"y_prob: row {row} is not finite")
    if truth.ndim == 2:
        if scores.shape != truth.shape:
            raise InputError(f"y_prob: must be of y_true's shape {truth.shape}, not {scores.shape}")
        names = tuple(str(name) for name in (range(truth.shape[1]) if classes is None else classes))
        scores = scores.astype(np.float64)
        return Cases(truth.astype(np.float64), (scores >= 0.5).astype(np.float64), scores, group, n_groups, names)
    hard = scores.ndim == 1 and (scores.dtype.kind != "f" or truth.dtype.kind == "f")
    if classes is None:
        known = np.unique(np.concatenate([truth, scores]) if hard else truth)
        n_columns = scores.shape[1] if scores.ndim == 2 else 0 if hard else 2
        if n_columns > len(known) and truth.dtype.kind in "iu" and truth.min() >= 0 and truth.max() < n_columns:
            known = np.arange(n_columns)
    else:
        known = np.asarray(classes)
    codes = _codes(truth, known, "y_true")
    names = tuple(str(name) for name in known.tolist())
    if hard:
        return Cases(codes, _codes(scores, known, "y_prob"), None, group, n_groups, names, ordinal)
    probabilities = scores.astype(np.float64)
    if probabilities.ndim == 1:
        probabilities = np.column_stack([1 - probabilities, probabilities])
    if probabilities.shape[1] != len(known):
        raise InputError(
            f"y_prob: has {probabilities.shape[1]} columns for {len(known)} classes ({', '.join(names[:12])}); "
            "name the classes with classes="
        )
    return Cases(codes, probabilities.argmax(axis=1), probabilities, group, n_groups, names, ordinal)


def group_codes(groups: Any, n: int) -> tuple[np.ndarray, int]:
    """Return int64 (n,) codes of the groups in sorted order, and how many there are.

    Raises:
        InputError: there is not one group for each of the ``n`` rows.
    """
    names = np.asarray(groups)
    if names.shape != (n,):
        raise InputError(f"groups: must be of shape ({n},), not {names.shape}")
    unique, codes = np.unique(names.astype(str) if names.dtype == object else names, return_inverse=True)
    return codes.astype(np.int64), len(unique)


def _codes(labels: np.ndarray, known: np.ndarray, what: str) -> np.ndarray:
    place = {label: code for code, label in enumerate(known.tolist())}
    try:
        return np.array([place[label] for label in labels.tolist()], np.int64)
    except KeyError as error:
        raise InputError(f"{what}: {error.args[0]!r} is not one of the classes {list(place)[:12]}") from None


def _as_tuple(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)
