"""Which interval a metric gets: Wilson's where it is a single proportion, else the bootstrap's, and neither's pretence.

A bootstrap whose replicates are all alike (twelve melanomas, all found) gives an interval of no width, which reads as
certainty and is ignorance. Proportions, and what is made of proportions (F1, means over classes, the difference of two
models on the same cases), get Wilson's interval or one derived from it there; other metrics get none and are marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dermlab.evaluate.cases import Cases
from dermlab.evaluate.intervals import (
    NO_WIDTH,
    Estimate,
    Method,
    centred,
    interval,
    jackknife,
    resample,
    wilson,
    wilson_grouped,
    wilson_over_sets,
)
from dermlab.evaluate.metrics import Evaluation, class_labels, metric, point, top_k_credit

Hits = tuple[np.ndarray, np.ndarray]
"""Success of each case that counts, float64 (N,) within 0 and 1, and its group, int64 (N,)."""
SAME_BASE = ("recall", "specificity", "sens", "spec")  # counted over cases that the truth alone chooses


def estimate(
    evaluations: Sequence[Evaluation],
    *,
    n_boot: int,
    seed: int,
    method: Method = "percentile",
    level: float = 0.95,
    names: Sequence[str] | None = None,
) -> list[dict[str, Estimate]]:
    """Return every metric of every model with its interval; all models see the same draws.

    Args:
        evaluations: models on the same groups.
        n_boot: bootstrap replicates.
        seed: of the bootstrap.
        method: of the bootstrap, ``percentile`` or ``bca``.
        level: coverage aimed at.
        names: the metrics to keep; None: all, those of single classes included.
    """
    drawn = resample(evaluations, n_boot=n_boot, seed=seed, names=names)
    results = []
    for evaluation, replicates in zip(evaluations, drawn, strict=True):
        values = evaluation.value()
        jackknifed = jackknife(evaluation, list(replicates)) if method == "bca" else {}
        results.append(
            {
                name: estimate_metric(
                    name,
                    evaluation.sets,
                    values[name],
                    draws,
                    evaluation.n_groups,
                    method=method,
                    level=level,
                    jackknifed=jackknifed.get(name),
                )
                for name, draws in replicates.items()
            }
        )
    return results


def estimate_metric(
    name: str,
    sets: Sequence[Cases],
    value: float,
    replicates: np.ndarray,
    n_groups: int,
    *,
    method: Method = "percentile",
    level: float = 0.95,
    jackknifed: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
) -> Estimate:
    """Return one metric with the interval that is right for it.

    Args:
        name: of the metric.
        sets: the cases that it was computed on.
        value: on these cases.
        replicates: (n_boot,) bootstrap values.
        n_groups: number of groups that its spread is known from.
        method: of the bootstrap.
        level: coverage aimed at.
        jackknifed: (groups,) value without each group, for ``bca``.
        classes: the classes that an average over classes runs over; None: all that occur.
    """
    hits = proportion(name, sets)
    if hits is not None:
        return replace(wilson_over_sets(hits, level), replicates=replicates)
    moved = centred(name, value, replicates)
    found = interval(value, moved, n_groups, method=method, level=level, jackknifed=jackknifed)
    if found.method == NO_WIDTH:
        return _of_proportions(name, sets, found, level, classes)
    # Moving the replicates of a calibration error back may carry the lower end below what can be.
    return replace(found, low=max(0.0, found.low)) if metric(name).inflated else found


def proportion(name: str, sets: Sequence[Cases]) -> list[Hits] | None:
    """Return what a metric counts, by case set, where it is a single proportion; None where it is none.

    Top-k, recall, specificity and predictive values of a class, and sensitivity and specificity at a stated threshold.
    """
    found = [_counted(name, cases) for cases in sets]
    if any(one is None for one in found):
        return None
    return [
        (one[0][one[1]].astype(np.float64), cases.group[one[1]])
        for one, cases in zip(found, sets, strict=True)
        if one is not None
    ]


def _counted(name: str, cases: Cases) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the successes (N,) and, bool (N,), which cases count."""
    asked, (base, _, part) = point(name), name.partition(":")
    if asked is not None:
        threshold = asked.stated("thr")
        if threshold is None or asked.wanted not in ("sens", "spec"):
            return None
        assert cases.probabilities is not None
        code = asked.code(cases)
        label, called = class_labels(cases, code), cases.probabilities[:, code] >= threshold
        return (called, label == 1) if asked.wanted == "sens" else (~called, label == 0)
    if not part:
        if cases.multilabel or not base.startswith("top"):
            return None
        hits = cases.correct() if base == "top1" else top_k_credit(cases, int(base[3:]))
        return hits, np.ones(len(cases), bool)
    if base not in ("recall", "specificity", "precision", "npv"):
        return None
    code = cases.classes.index(part)
    label = class_labels(cases, code)
    said = cases.predicted[:, code] == 1 if cases.multilabel else cases.predicted == code
    known = ~np.isnan(label)
    return {
        "recall": (said, label == 1),
        "specificity": (~said, label == 0),
        "precision": (label == 1, said & known),
        "npv": (label == 0, ~said & known),
    }[base]


def _of_proportions(
    name: str, sets: Sequence[Cases], found: Estimate, level: float, classes: Sequence[str] | None
) -> Estimate:
    """Return an interval for a metric whose replicates have no width, where it is made of proportions.

    F1 is 2J / (1 + J) of the share J of hits among all cases that are or are called a class, and rises with it. A mean
    over classes gets its reach from theirs (MOVER: Zou & Donner 2008, "Construction of confidence limits about effect
    measures", Stat. Med. 27:1693, eq. 3), the classes taken for independent.
    """
    base, _, part = name.partition(":")
    if base == "f1" and part:
        one = _f1(part, sets, level)
        return replace(one, replicates=found.replicates) if not np.isnan(one.value) else found
    if base not in ("balanced_accuracy", "macro_f1"):
        return found
    parts = []
    for of_class in sets[0].classes if classes is None else classes:
        hits = proportion(f"recall:{of_class}", sets)
        assert hits is not None
        one = wilson_over_sets(hits, level) if base == "balanced_accuracy" else _f1(of_class, sets, level)
        parts += [one] if not np.isnan(one.value) else []
    if not parts:
        return found
    below = float(np.sqrt(sum((one.value - one.low) ** 2 for one in parts))) / len(parts)
    above = float(np.sqrt(sum((one.high - one.value) ** 2 for one in parts))) / len(parts)
    return replace(found, low=max(0.0, found.value - below), high=min(1.0, found.value + above), method="wilson")


def _f1(of_class: str, sets: Sequence[Cases], level: float) -> Estimate:
    """Return the F1 of a class with Wilson's interval of the share that it rises with."""
    hits = []
    for cases in sets:
        code = cases.classes.index(of_class)
        label = class_labels(cases, code) == 1
        said = cases.predicted[:, code] == 1 if cases.multilabel else cases.predicted == code
        either = (label | said) & ~np.isnan(class_labels(cases, code))
        hits.append(((label & said)[either].astype(np.float64), cases.group[either]))
    share = wilson_over_sets(hits, level)
    value, low, high = (2 * end / (1 + end) for end in (share.value, share.low, share.high))
    return Estimate(value, low, high, "wilson")


def paired_difference(
    name: str, a: Sequence[Cases], b: Sequence[Cases], found: Estimate, level: float = 0.95
) -> Estimate:
    """Return the difference of two models on the same cases where its replicates have no width.

    Where no case tells the two apart, they differ on at most as large a share of cases as Wilson's interval of none of
    so many groups reaches to; where they differ alike in every group, (difference + 1) / 2 is taken for a share.

    Args:
        name: of the metric.
        a: cases of the first.
        b: of the second, the same ones in the same order.
        found: the difference, of no width.
        level: coverage aimed at.

    Returns:
        ``found`` where the metric is no share of cases that both have in common.
    """
    ours, theirs = proportion(name, a), proportion(name, b)
    base = name.partition("@")[0].partition(":")[0]
    if ours is None or theirs is None or not (base.startswith("top") or base in SAME_BASE):
        return found
    gap = np.concatenate([mine - other for (mine, _), (other, _) in zip(ours, theirs, strict=True)])
    group = np.concatenate([group for _, group in ours])
    n_groups = len(np.unique(group))
    if n_groups < 2:
        return found
    if not gap.any():
        reach = wilson(0, n_groups, level)[1]
        return replace(found, low=-reach, high=reach, method="wilson")
    share = wilson_grouped((gap + 1) / 2, group, level)
    return replace(found, low=2 * share.low - 1, high=2 * share.high - 1, method="wilson")
