"""What ``val`` decides and ``test`` reports: the rows to fit on, and the shares that come out with their intervals.

Calibration, referral and conformal sets all fit a number on the ``val`` rows of each fold, repeat and seed, apply it to
the other rows of the same fold, and report pooled test rows. That much they share, and it is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dermlab.core.errors import InputError
from dermlab.evaluate.cases import CaseSets
from dermlab.evaluate.intervals import Estimate, wilson_over_sets
from dermlab.evaluate.predictions import Predictions, pool_units
from dermlab.evaluate.ratios import Ratios

HELD, BROKEN, CANNOT_TELL, TOO_FEW = "held", "broken", "cannot tell", "too few"
ROUNDING = 1e-9
Weighted = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Place:
    """One fold of one repeat and seed.

    Attributes:
        fold: number of the fold.
        repeat: of the folds.
        seed: of the training.
        rows: int64 places of all its rows in the pooled table.
        fitting: int64 places of those that are fitted on: of the split to fit on, and labelled.
    """

    fold: int
    repeat: int
    seed: int
    rows: np.ndarray
    fitting: np.ndarray

    def key(self) -> dict[str, int]:
        """Return fold, repeat and seed for JSON."""
        return {"fold": self.fold, "repeat": self.repeat, "seed": self.seed}


@dataclass(frozen=True)
class Fitting:
    """A predictions table pooled to its units, and the places in which something is fitted.

    Attributes:
        predictions: the pooled table, in the order of its rows.
        places: its folds, repeats and seeds.
        probabilities: float64 (rows, C).
        truth: int64 (rows,) class codes, -1 where unknown; multi-label float64 (rows, C).
        group: int64 (rows,) codes of the groups.
        warnings: what a reader has to know.
    """

    predictions: Predictions
    places: tuple[Place, ...]
    probabilities: np.ndarray
    truth: np.ndarray
    group: np.ndarray
    warnings: tuple[str, ...]

    @property
    def independent(self) -> bool:
        """Whether each class is a yes-or-no question of its own."""
        return self.truth.ndim == 2

    def n_groups(self, rows: np.ndarray) -> int:
        """Return how many groups the rows belong to."""
        return len(np.unique(self.group[rows]))


def fitting_places(predictions: Predictions, fitted_on: str, purpose: str, split: str = "test") -> Fitting:
    """Pool a table to its units and find in each fold, repeat and seed the labelled rows to fit on.

    Args:
        predictions: a table with the rows of ``fitted_on`` beside those to be scored.
        fitted_on: the split that is fitted on.
        purpose: what is fitted, for messages: ``a temperature``.
        split: the split that reports; it is never fitted on.

    Raises:
        InputError: hard labels, the reporting split, or a fold without labelled rows to fit on.
    """
    source = predictions.source
    if not predictions.has_probabilities:
        raise InputError(f"{source}: holds hard labels; {purpose} needs probabilities")
    if fitted_on in ("test", split):
        raise InputError(f"fitted_on: the {fitted_on} split only reports; {purpose} is fitted on val")
    predictions = pool_units(predictions)
    frame, truth = predictions.frame, predictions.truth()
    labelled = ~np.isnan(truth).all(axis=1) if truth.ndim == 2 else truth >= 0
    chosen = (frame["split"] == fitted_on).to_numpy() & labelled
    reporting = (frame["split"] == split).to_numpy()
    group = pd.factorize(frame["group"])[0].astype(np.int64)
    places, shared = [], 0
    found: dict[Any, Any] = dict(frame.groupby(["fold", "repeat", "seed"], sort=True).indices)
    for key, rows in found.items():
        fold, repeat, seed = (int(part) for part in key)
        fitting = rows[chosen[rows]]
        if not len(fitting):
            raise InputError(
                f"{source}: fold {fold}, repeat {repeat}, seed {seed} has no labelled rows of split {fitted_on!r} "
                f"to fit {purpose} on"
            )
        shared += len(np.intersect1d(group[fitting], group[rows[reporting[rows]]]))
        places.append(Place(fold, repeat, seed, rows, fitting))
    warnings = []
    if shared:
        warnings.append(
            f"{shared} groups lie in both {fitted_on} and {split} of a fold: what was fitted on {fitted_on} knew them"
        )
    return Fitting(predictions, tuple(places), predictions.probabilities(), truth, group, tuple(warnings))


def scored_rows(found: CaseSets, frame: pd.DataFrame, split: str) -> list[np.ndarray]:
    """Return for each case set where its cases stand in the pooled table ``frame``, as int64 (N,)."""
    names = frame["unit"].to_numpy(str)
    columns = [frame[column].to_numpy() for column in ("repeat", "seed", "fold")]
    scored = (frame["split"] == split).to_numpy()
    result = []
    for key, unit in zip(found.keys, found.unit, strict=True):
        inside = scored.copy()
        for column, value in zip(columns, key, strict=False):  # a key of (repeat, seed) leaves the fold open
            inside &= column == value
        rows = np.flatnonzero(inside)
        result.append(rows[pd.Index(names[rows]).get_indexer(pd.Index(found.units[unit]))])
    return result


def share(found: CaseSets, weighted: Sequence[Weighted], level: float) -> Estimate:
    """Return a share of cases with Wilson's interval over groups, which stays honest near 0 and 1.

    It is averaged over the case sets (repeats, seeds); the answers about one patient in several of them are one
    cluster.

    Args:
        found: the case sets.
        weighted: for each case set, (N,) successes (0 or 1) and (N,) weights, 1 for the cases that count, else 0.
        level: coverage of the interval.
    """
    counted = [weights > 0 for _, weights in weighted]
    return wilson_over_sets(
        [
            (values[inside].astype(np.float64), cases.group[inside])
            for cases, (values, _), inside in zip(found.sets, weighted, counted, strict=True)
        ],
        level,
    )


def as_ratios(found: CaseSets, quantities: Mapping[str, Sequence[Weighted]]) -> Ratios:
    """Return weighted means over cases, averaged over the case sets, in the form that is drawn from by groups.

    Args:
        found: the case sets.
        quantities: by name, for each case set, (N,) values and (N,) weights.
    """
    terms = []
    for place in range(len(found.sets)):
        counted = {name: weighted[place] for name, weighted in quantities.items()}
        terms.append({name: (values * weights, weights * 1.0) for name, (values, weights) in counted.items()})
    return Ratios(terms, [cases.group for cases in found.sets], len(found.groups))


def pooled_quantile(scores: np.ndarray, group: np.ndarray, level: float, *, finite_sample: bool = True) -> float:
    """Return the score that a new case will not exceed with probability ``level``, groups being exchangeable.

    Patients, not photos, are drawn alike, so each group has weight 1, shared by its cases, and the new case's group
    weighs 1 more at infinity: the pooled distribution functions of Dunn, Wasserman & Ramdas 2023 ("Distribution-free
    prediction sets for two-layer hierarchical models", sec. 3) with the finite-sample quantile of Lee, Barber & Willett
    2023 ("Distribution-free inference with hierarchical data"), who show that a random case of a new group stays within
    it at least that often. With one case a group it is the ``ceil((n + 1) level)``-th smallest score.

    Args:
        scores: float (N,), larger is stranger.
        group: int (N,) codes of the groups.
        level: between 0 and 1.
        finite_sample: add the new group; without it the plain quantile.

    Returns:
        The quantile, infinity where the groups are too few for the level (and where there are none).
    """
    if not len(scores):
        return np.inf
    _, codes, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    mass = np.cumsum((1 / sizes[codes])[order])
    place = int(np.searchsorted(mass, level * (len(sizes) + finite_sample) - ROUNDING))
    return float(scores[order][place]) if place < len(scores) else np.inf


def groups_needed(level: float) -> int:
    """Return how many groups :func:`pooled_quantile` needs for a finite quantile at ``level``."""
    return int(np.ceil(level / (1 - level) - ROUNDING))


def promise(found: Estimate, aim: float, *, at_least: bool = True) -> str:
    """Say whether a promise ``held`` on test or was ``broken``: ``cannot tell`` where the interval has the aim in it.

    Args:
        found: on test, with its interval.
        aim: what was promised.
        at_least: whether the promise was a floor (a sensitivity, a coverage), else a ceiling (an error).
    """
    if np.isnan(found.value) or np.isnan(found.low):
        return CANNOT_TELL
    if found.low >= aim if at_least else found.high <= aim:
        return HELD
    return BROKEN if (found.high < aim if at_least else found.low > aim) else CANNOT_TELL


def within(name: str, value: float) -> float:
    """Return ``value`` where it lies between 0 and 1.

    Raises:
        InputError: it does not; the text calls it ``name``.
    """
    if not 0 < value < 1:
        raise InputError(f"{name}: must lie between 0 and 1, such as 0.9, not {value}")
    return float(value)
