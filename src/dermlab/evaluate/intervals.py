"""Intervals: the bootstrap over groups (percentile, BCa), and Wilson's for single proportions.

Images of one patient resemble each other, so patients are drawn, with all that belongs to them. Ignoring that makes
intervals too narrow (docs/explanation/statistics.md shows by how much).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from dermlab.core.errors import InputError
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.evaluate.cases import cases_from_arrays, group_codes
from dermlab.evaluate.metrics import ROUNDING, Evaluation, metric

Method = Literal["percentile", "bca"]
NO_WIDTH = "no width"
BLOCK = 64  # replicates at a time: their totals stay in the processor's cache; fixed, since draws are named by block
LONG = 2e9  # multiplications from which a bar is worth showing


@dataclass(frozen=True)
class Estimate:
    """A value with its interval.

    Attributes:
        value: on the data as they are; NaN where undefined.
        low: lower end, NaN where there is no interval.
        high: upper end.
        method: how the interval was made: ``percentile``, ``bca`` or ``wilson``; ``no width`` where there is none
            because all bootstrap replicates are alike, which is no certainty.
        replicates: float64 (n_boot,) bootstrap values, empty for Wilson's.
    """

    value: float
    low: float
    high: float
    method: str
    replicates: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)

    def to_dict(self) -> dict[str, float | None]:
        """Return value, low and high for JSON; what is undefined is None, and so is an interval of no width."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {key: None if np.isnan(number) else float(number) for key, number in numbers.items()}


def bootstrap(
    metric: str | Callable[[Any, Any], float],
    y_true: Any,
    y_prob: Any,
    groups: Any = None,
    *,
    n_boot: int = 2000,
    seed: int = 0,
    method: Method = "percentile",
    level: float = 0.95,
    classes: Any = None,
) -> Estimate:
    """Return a metric with its bootstrap interval over groups.

    Efron & Tibshirani 1993, "An introduction to the bootstrap", chs. 13 (percentile) and 14.3 (BCa); whole groups are
    drawn with replacement (Field & Welsh 2007, "Bootstrapping clustered data", the cluster bootstrap).

    Args:
        metric: a name of :data:`dermlab.evaluate.metrics.METRICS` (vectorised), or ``f(y_true, y_prob) -> float``.
        y_true: (N,) labels.
        y_prob: (N, C) probabilities in class order, (N,) probabilities of the second of two classes, or hard labels.
        groups: (N,) patient or lesion of each row; None: rows are independent.
        n_boot: number of replicates.
        seed: the same seed gives the same bits.
        method: ``percentile`` or ``bca``.
        level: coverage aimed at.
        classes: the classes in order; None: the sorted labels.

    Example:
        >>> from dermlab.evaluate import bootstrap
        >>> estimate = bootstrap("top1", ["a", "b", "a", "b"], ["a", "b", "b", "b"], groups=[1, 1, 2, 3])
        >>> estimate.value
        0.75
    """
    _check_level(level, n_boot)
    if callable(metric):
        return _bootstrap_callable(metric, y_true, y_prob, groups, n_boot, seed, method, level)
    evaluation = Evaluation([cases_from_arrays(y_true, y_prob, groups, classes=classes)], [metric])
    value, drawn = evaluation.value()[metric], resample([evaluation], n_boot=n_boot, seed=seed, names=[metric])[0]
    jackknifed = jackknife(evaluation, [metric])[metric] if method == "bca" else None
    replicates = centred(metric, value, drawn[metric])
    return interval(value, replicates, evaluation.n_groups, method=method, level=level, jackknifed=jackknifed)


def interval(
    value: float,
    replicates: np.ndarray,
    n_groups: int,
    *,
    method: Method = "percentile",
    level: float = 0.95,
    jackknifed: np.ndarray | None = None,
) -> Estimate:
    """Return the interval that bootstrap replicates give; replicates where the metric is undefined are passed over.

    Where all of them are alike there is none: the data show no spread, and a point would read as certainty.
    (:mod:`dermlab.evaluate.estimates` has what stands in for proportions.)

    Args:
        value: on the data as they are.
        replicates: (n_boot,).
        n_groups: number of groups drawn from.
        method: ``percentile``, or ``bca``, which needs ``jackknifed``.
        level: coverage aimed at.
        jackknifed: (groups,) value without each group.
    """
    known = replicates[~np.isnan(replicates)]
    if np.isnan(value) or len(known) < 2 or n_groups < 2:
        return Estimate(value, np.nan, np.nan, method, replicates)
    if without_width(known):
        return Estimate(value, np.nan, np.nan, NO_WIDTH, replicates)
    half = expanded((1 - level) / 2, n_groups)
    tails = np.array([half, 1 - half])
    if method == "bca":
        assert jackknifed is not None
        tails = _bca_tails(value, known, jackknifed[~np.isnan(jackknifed)], tails)
    low, high = np.quantile(known, tails)
    return Estimate(value, float(low), float(high), method, replicates)


def without_width(replicates: np.ndarray) -> bool:
    """Tell whether all bootstrap replicates (those that are defined) are alike."""
    known = replicates[~np.isnan(replicates)]
    return bool(len(known)) and float(np.ptp(known)) <= ROUNDING * max(1.0, float(np.abs(known).max()))


def expanded(tail: float, n_groups: int) -> float:
    """Return the tail of the bootstrap distribution at which an interval from few groups keeps its level.

    A bootstrap over ``n_groups`` understates the variance by ``(n - 1) / n`` and, for a mean, stands for a normal
    interval where Student's would be right; the tail is moved out by both (the expanded percentile interval of
    Hesterberg 2015, "What teachers should know about the bootstrap"). At 100 groups, 0.025 becomes 0.0231.
    """
    from scipy.special import ndtr, stdtrit

    return float(ndtr(stdtrit(n_groups - 1, tail) * np.sqrt(n_groups / (n_groups - 1))))


def centred(name: str, value: float, replicates: np.ndarray) -> np.ndarray:
    """Return the replicates of a metric that noise inflates, moved back by their mean excess over ``value``.

    The calibration error averages absolute gaps. Resampling adds noise to every gap, so that all replicates of a well
    calibrated model exceed its value; their spread, not their place, is what the bootstrap tells.
    """
    if not metric(name).inflated or np.isnan(replicates).all():
        return replicates
    return replicates - (np.nanmean(replicates) - value)


def _bca_tails(value: float, replicates: np.ndarray, jackknifed: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Shift the tails for bias and skewness (Efron 1987, "Better bootstrap confidence intervals", sec. 3)."""
    from scipy.stats import norm

    # Half of the ties: metrics of counts have many, and all on one side would be read as bias.
    below = ((replicates < value).sum() + (replicates == value).sum() / 2) / len(replicates)
    bias = norm.ppf(np.clip(below, 1 / (len(replicates) + 1), len(replicates) / (len(replicates) + 1)))
    deviation = jackknifed.mean() - jackknifed
    spread = (deviation**2).sum() ** 1.5
    skew = (deviation**3).sum() / (6 * spread) if spread > 0 else 0.0
    shifted = bias + norm.ppf(tails)
    return norm.cdf(bias + shifted / (1 - skew * shifted))


def resample(
    evaluations: Sequence[Evaluation], *, n_boot: int, seed: int, names: Sequence[str] | None = None
) -> list[dict[str, np.ndarray]]:
    """Return (n_boot,) replicates of each metric of each model; all models see the same draws of groups.

    Args:
        evaluations: models on the same groups.
        n_boot: number of replicates.
        seed: the draws depend on it and on nothing else, no number of threads in particular.
        names: the metrics to keep; None: all, those of single classes included.
    """
    n_groups = evaluations[0].n_groups

    def block(number: int) -> list[dict[str, np.ndarray]]:
        counts = group_counts(n_groups, min(BLOCK, n_boot - number * BLOCK), seed, number).astype(np.float32)
        found = [evaluation.at(counts) for evaluation in evaluations]
        return [{name: values[name] for name in names or values} for values in found]

    n_blocks = -(-n_boot // BLOCK)
    work = float(sum(evaluation.rows.nnz for evaluation in evaluations)) * n_boot
    blocks = list(in_threads(block, n_blocks, "bootstrap", work))
    return [
        {name: np.concatenate([part[model][name] for part in blocks]) for name in blocks[0][model]}
        for model in range(len(evaluations))
    ]


def group_counts(n_groups: int, n_replicates: int, seed: int, block: int) -> np.ndarray:
    """Return how often each group is drawn, float64 (groups, replicates): a multinomial in each column."""
    random = generator(seed, "bootstrap", block)
    drawn = random.integers(0, n_groups, size=(n_replicates, n_groups))
    drawn += n_groups * np.arange(n_replicates)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=n_groups * n_replicates).reshape(n_replicates, n_groups)
    return np.ascontiguousarray(counts.T, dtype=np.float64)


def all_counts(n_groups: int, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the draws of :func:`resample` block by block, float64 (groups, replicates) each."""
    for block in range(-(-n_boot // BLOCK)):
        yield group_counts(n_groups, min(BLOCK, n_boot - block * BLOCK), seed, block)


def jackknife(evaluation: Evaluation, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return (groups,) values of each metric with each group left out."""
    totals = np.asarray(evaluation.rows.sum(axis=1)).reshape(-1, 1)
    columns = evaluation.rows.tocsc()

    def block(number: int) -> dict[str, np.ndarray]:
        without = totals - columns[:, number * BLOCK : (number + 1) * BLOCK].toarray()
        values = evaluation.from_totals(without)
        return {name: values[name] for name in names}

    n_blocks = -(-evaluation.n_groups // BLOCK)
    blocks = list(in_threads(block, n_blocks, "jackknife", float(evaluation.rows.shape[0]) * evaluation.n_groups))
    return {name: np.concatenate([part[name] for part in blocks]) for name in names}


def in_threads(function: Callable[[int], Any], n_blocks: int, description: str, work: float) -> Iterator[Any]:
    """Yield ``function(0), function(1), …`` in order, in threads where that pays; long work shows a bar.

    Threads serve because scipy's sparse products and numpy's sums release the interpreter's lock.

    Args:
        function: takes a block's number.
        n_blocks: how many blocks of :data:`BLOCK` replicates there are.
        description: for the bar.
        work: about how many multiplications lie ahead.
    """
    threads = min(
        4, n_blocks, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if threads <= 1 or work < LONG / 1000:
        yield from map(function, range(n_blocks))
        return
    with ThreadPoolExecutor(threads) as pool:
        if work < LONG:
            yield from pool.map(function, range(n_blocks))
            return
        with progress(description, n_blocks * BLOCK, "replicates") as advance:
            for result in pool.map(function, range(n_blocks)):
                advance(BLOCK)
                yield result


def _bootstrap_callable(
    function: Callable[[Any, Any], float],
    y_true: Any,
    y_prob: Any,
    groups: Any,
    n_boot: int,
    seed: int,
    method: Method,
    level: float,
) -> Estimate:
    """Bootstrap a function of the user's: rows of the drawn groups are put together and handed to it."""
    truth, scores = np.asarray(y_true), np.asarray(y_prob)
    if len(truth) != len(scores) or not len(truth):
        raise InputError(f"y_prob: has {len(scores)} rows, y_true has {len(truth)}")
    codes, n_groups = group_codes(np.arange(len(truth)) if groups is None else groups, len(truth))
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])

    def value(counts: np.ndarray) -> float:
        rows = np.concatenate([np.tile(members[code], int(counts[code])) for code in np.flatnonzero(counts)])
        try:
            return float(function(truth[rows], scores[rows]))
        except ValueError:  # scikit-learn's word for "undefined on these rows"
            return np.nan

    replicates = [value(column) for counts in all_counts(n_groups, n_boot, seed) for column in counts.T]
    ones = np.ones(n_groups)
    without = None
    if method == "bca":
        without = np.array([value(ones - (np.arange(n_groups) == code)) for code in range(n_groups)])
    value_now = float(function(truth, scores))
    return interval(value_now, np.array(replicates), n_groups, method=method, level=level, jackknifed=without)


def wilson(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (Wilson 1927; recommended by Brown, Cai & DasGupta 2001).

    Args:
        successes: number of successes, between 0 and ``n``.
        n: number of trials; an effective number need not be whole.
        level: coverage aimed at.

    Returns:
        Lower and upper end, (NaN, NaN) where ``n`` is 0.
    """
    if n <= 0:
        return np.nan, np.nan
    from scipy.special import ndtri

    z = float(ndtri((1 + level) / 2))
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def wilson_grouped(hits: np.ndarray, group: np.ndarray, level: float = 0.95) -> Estimate:
    """Return a proportion with Wilson's interval at the effective sample size of clustered cases.

    Args:
        hits: (N,) success of each case, within 0 and 1.
        group: (N,) codes of the groups.
        level: coverage aimed at.
    """
    return wilson_over_sets([(hits, group)], level)


def wilson_over_sets(sets: Sequence[tuple[np.ndarray, np.ndarray]], level: float = 0.95) -> Estimate:
    """Return the mean of a proportion over case sets (repeats, seeds) with Wilson's interval over groups.

    The cases count as ``share (1 - share) / variance`` independent ones, the variance being the linearised one of a
    mean over clusters; this keeps Wilson's good behaviour near 0 and 1, where the bootstrap's interval shrinks to a
    point (Franco et al. 2019, "Comparative study of confidence intervals for proportions in complex sample surveys").
    Student's quantile stands for the normal one, as the variance is estimated from few groups (Korn & Graubard 1998).
    Where there is no variance to go by (all cases agree, or all groups do), each group counts as one case. Answers
    about one patient in several sets are one cluster.

    Args:
        sets: for each case set (N,) success of each case, within 0 and 1, and (N,) codes of the groups; sets without a
            case are passed over.
        level: coverage aimed at.
    """
    from scipy.special import ndtri, stdtrit

    sets = [one for one in sets if len(one[0])]
    if not sets:
        return Estimate(np.nan, np.nan, np.nan, "wilson")
    shares = [float(hits.mean()) for hits, _ in sets]
    share, n = float(np.mean(shares)), sum(len(hits) for hits, _ in sets)
    _, codes = np.unique(np.concatenate([group for _, group in sets]), return_inverse=True)
    n_groups = int(codes.max()) + 1
    effective = float(n)
    if n_groups < n:
        effective = float(n_groups)
        moved = [(hits - own) / len(hits) / len(sets) for (hits, _), own in zip(sets, shares, strict=True)]
        spread = float((np.bincount(codes, weights=np.concatenate(moved)) ** 2).sum())
        if n_groups > 1 and 0 < share < 1 and spread > ROUNDING**2:
            variance = n_groups / (n_groups - 1) * spread
            trust = (stdtrit(n_groups - 1, (1 - level) / 2) / ndtri((1 - level) / 2)) ** 2
            effective = min(float(n), max(1.0, share * (1 - share) / variance / trust))
    return Estimate(share, *wilson(share * effective, effective, level), "wilson")


def _check_level(level: float, n_boot: int) -> None:
    if not 0 < level < 1:
        raise InputError(f"level: must lie between 0 and 1, such as 0.95, not {level}")
    if n_boot < 1:
        raise InputError(f"n_boot: must be at least 1, not {n_boot}")
