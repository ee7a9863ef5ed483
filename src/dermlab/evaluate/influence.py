"""How much each group moves a metric: DeLong's placements for AUROC, first derivatives for metrics of sums.

The squares of these deviations add up to a variance, without a bootstrap: for DeLong's test and interval, for the
design effect, and for the thousands of small test sets of :mod:`~dermlab.evaluate.redraw`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dermlab.evaluate.cases import Cases, CaseSets
from dermlab.evaluate.intervals import Estimate
from dermlab.evaluate.metrics import ROUNDING, Evaluation, class_labels, metric

SMOOTH = ("confusion", "top_k", "losses", "decision", "label_sets")  # few sums, the metric smooth in them
STEP = 1e-3  # of a sum, in units; central differences err by its square


@dataclass(frozen=True)
class Influence:
    """Deviations of a metric by group.

    Attributes:
        parts: float64 (parts, groups); they add up to what each group moves the metric by.
        factor: float64 (parts, parts) what the product of two parts is multiplied by: n / (n - 1), n being the groups
            that have a share in either.
    """

    parts: np.ndarray
    factor: np.ndarray

    def __sub__(self, other: Influence) -> Influence:
        """Return the deviations of the difference of two models on the same cases."""
        return Influence(self.parts - other.parts, self.factor)

    def total(self) -> np.ndarray:
        """Return (groups,) what each group moves the metric by."""
        return self.parts.sum(axis=0)

    def n_groups(self) -> int:
        """Return the number of groups that the rarest part rests on."""
        factor = np.diag(self.factor)
        return int(np.where(factor > 1, np.rint(factor / np.maximum(factor - 1, 1e-300)), 1).min())

    def variance(self) -> float:
        """Return the variance of the metric.

        Obuchowski 1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53:567, sec. 2: sums of
        squares over the groups that hold positives (or negatives) are divided by one less than *their* number, the
        covariance of the two sides by one less than the number of all groups.
        """
        return float(((self.parts @ self.parts.T) * self.factor).sum())


def _factor(held: np.ndarray) -> np.ndarray:
    """Return the correction for each pair of parts from bool (parts, groups) who has a share; 1 for a single group."""
    own = held.sum(axis=1).astype(np.float64)
    either = own[:, None] + own - held.astype(np.float64) @ held.T.astype(np.float64)
    return np.where(either > 1, either / np.maximum(either - 1, 1), 1.0)


def auroc_influence(sets: Sequence[Cases], name: str = "auroc") -> Influence:
    """Return the deviations of an AUROC: the placement values of DeLong et al. 1988 (eqs. 3-5), summed within groups.

    With groups, one class against the rest, this is Obuchowski 1997 exactly, for one model and for the difference of
    two; where each group is one case it is DeLong exactly. The one-vs-rest mean adds the deviations of its classes;
    with two classes it is the area of either.

    Args:
        sets: case sets with probabilities, averaged over.
        name: ``auroc`` or ``auroc:<class>``.
    """
    first = sets[0]
    of_class = name.partition(":")[2]
    codes = [first.classes.index(of_class)] if of_class else list(range(len(first.classes)))
    parts = np.zeros((2 * len(codes), first.n_groups))
    held = np.zeros(parts.shape, bool)
    for cases in sets:
        found = [_placements(cases, code) for code in codes]
        weight = sum(one is not None for one in found)
        if not weight:
            parts[:] = np.nan
        for place, one in enumerate(found):
            if one is not None:
                parts[2 * place : 2 * place + 2] += one[0] / weight / len(sets)
                held[2 * place : 2 * place + 2] |= one[1]
    return Influence(parts, _factor(held))


def _placements(cases: Cases, code: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the deviations (2, groups) of the two sides of a class and, bool (2, groups), which groups hold each."""
    from scipy.stats import rankdata

    assert cases.probabilities is not None
    label, scores = class_labels(cases, code), cases.probabilities[:, code]
    sides = [np.flatnonzero(label == side) for side in (1, 0)]
    if not len(sides[0]) or not len(sides[1]):
        return None
    ranks_of_all = np.empty(len(scores))
    both = np.concatenate(sides)
    ranks_of_all[both] = rankdata(scores[both])
    parts, held = np.zeros((2, cases.n_groups)), np.zeros((2, cases.n_groups), bool)
    for place, (own, other, sign) in enumerate(((sides[0], sides[1], 1), (sides[1], sides[0], -1))):
        # The share of the other side that a case is placed above, ties counting one half.
        placed = (ranks_of_all[own] - rankdata(scores[own])) / len(other)
        weights = sign * (placed - placed.mean()) / len(own)
        parts[place] = np.bincount(cases.group[own], weights=weights, minlength=cases.n_groups)
        held[place, cases.group[own]] = True
    return parts, held


def influences(found: CaseSets, names: Sequence[str], *, by_unit: bool = False) -> dict[str, Influence]:
    """Return the deviations of each metric that has them: AUROC, and all metrics of counts, losses and top-k.

    Args:
        found: cases of one model.
        names: metrics; those without deviations (calibration error, average precision) are missing from the result.
        by_unit: take every unit for a group of its own.
    """
    sets = found.sets
    if by_unit:
        sets = tuple(
            replace(cases, group=place, n_groups=len(found.units))
            for cases, place in zip(found.sets, found.unit, strict=True)
        )
    result = {name: auroc_influence(sets, name) for name in names if name.partition(":")[0] == "auroc"}
    smooth = [name for name in names if metric(name).family in SMOOTH]
    if smooth:
        held = np.zeros((1, sets[0].n_groups), bool)
        held[0, np.concatenate([cases.group for cases in sets])] = True
        for name, moved in _derivatives(Evaluation(sets, smooth), smooth).items():
            result[name] = Influence(moved[None], _factor(held))
    return result


def _derivatives(evaluation: Evaluation, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return (groups,) the derivative of each metric by how often a group is counted (infinitesimal jackknife)."""
    totals = np.asarray(evaluation.rows.sum(axis=1)).ravel()
    moving = np.flatnonzero(totals)  # a sum that is 0 here has no group to move it, and a class may begin to exist
    steps = np.zeros((len(totals), len(moving)))
    steps[moving, np.arange(len(moving))] = STEP
    above, below = evaluation.from_totals(totals[:, None] + steps), evaluation.from_totals(totals[:, None] - steps)
    result = {}
    for name in names:
        slope = np.zeros(len(totals))
        slope[moving] = (above[name] - below[name]) / (2 * STEP)
        result[name] = evaluation.rows.T @ slope
    return result


def delong(difference: float, influence: Influence) -> float:
    """Return the two-sided p of a difference of AUROCs from its deviations (normal approximation)."""
    from scipy.special import ndtr

    spread = float(np.sqrt(influence.variance()))
    if np.isnan(spread) or np.isnan(difference):
        return np.nan
    if spread == 0:  # every case is placed as much better as every other: of all ways to swap the models, two do that
        return 1.0 if abs(difference) <= ROUNDING else float(min(1.0, 2 * 0.5 ** influence.n_groups()))
    return float(2 * ndtr(-abs(difference) / spread))


def delong_interval(sets: Sequence[Cases], name: str = "auroc", level: float = 0.95) -> Estimate:
    """Return an AUROC with DeLong's interval, over groups where there are any.

    It is symmetric on the scale of the log odds (Pepe 2003, "The statistical evaluation of medical tests", sec. 5.2),
    where areas near 1 behave, with Student's quantile for the number of groups. With 100 clustered patients that holds
    the truth in 93.4 % of simulations, on the plain scale with the normal quantile in 92.7 %.

    Args:
        sets: case sets with probabilities, averaged over.
        name: ``auroc`` or ``auroc:<class>``.
        level: coverage aimed at.
    """
    from scipy.special import expit, logit, stdtrit

    value = Evaluation(sets, [name]).value()[name]
    if not 0 < value < 1:  # no log odds; DeLong's variance is 0 there, and says nothing
        return Estimate(value, np.nan, np.nan, "delong")
    n_groups = len(np.unique(np.concatenate([cases.group for cases in sets])))
    spread = np.sqrt(auroc_influence(sets, name).variance()) / (value * (1 - value))
    half = stdtrit(max(n_groups - 1, 1), (1 + level) / 2) * spread
    return Estimate(value, float(expit(logit(value) - half)), float(expit(logit(value) + half)), "delong")
