"""Rare classes: how a model fares by how often it saw a class in training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.cases import case_sets
from dermlab.evaluate.estimates import estimate_metric
from dermlab.evaluate.intervals import interval, resample
from dermlab.evaluate.metrics import Evaluation, mean_defined
from dermlab.evaluate.predictions import Predictions

# Liu et al. 2019, "Large-scale long-tailed recognition in an open world", sec. 5: many-, medium- and few-shot classes.
FEW, MANY = 20, 100
BINS = ("head", "medium", "tail")
AVERAGE = {"recall": "balanced_accuracy", "f1": "macro_f1", "auroc": "auroc"}
EXACT = 8  # up to so many classes every permutation is tried
MIN_CASES = 5


def by_frequency(
    predictions: Predictions,
    train_counts: Mapping[str, int],
    *,
    split: str = "test",
    few: int = FEW,
    many: int = MANY,
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Any]:
    """Break figures down by how many training images each class had.

    Args:
        predictions: any table of one label a case.
        train_counts: class → images in training (of one fold: the mean over folds where there are several); a class
            that is not named had none.
        split: the split scored.
        few: classes of fewer training images are the ``tail``.
        many: classes of more are the ``head``; between are the ``medium``.
        n_boot: bootstrap replicates over groups.
        seed: of the bootstrap.
        level: coverage of the intervals.

    Returns:
        A dictionary for JSON::

            {"n", "n_groups", "unit", "group_by", "few", "many",
             "bins": [{"bin", "classes", "n", "n_train", "recall": {value, low, high}, "f1": {…},
                       "auroc": {…} or null}],
             "classes": {class: {"bin", "n_train", "n", "recall": {…}, "f1": {…}}},
             "spearman": {"value", "low", "high", "p", "n_classes", "test"},   # recall against training images
             "head_minus_tail": {value, low, high} or null,   # mean recall, most against least frequent bin there is
             "warnings"}

        Means over classes leave out classes without a case.

    Raises:
        InputError: a multi-label target, a class of ``train_counts`` that the table does not know, or a negative count.
    """
    found = case_sets(predictions, split)
    first = found.sets[0]
    if first.multilabel:
        raise InputError(f"{predictions.source}: frequencies are for one label a case, not for a multi-label target")
    classes = predictions.classes
    for name, count in train_counts.items():
        if name not in classes:
            raise InputError(f"train_counts: {name!r} is not one of the classes {', '.join(classes)}")
        if count < 0:
            raise InputError(f"train_counts: {name!r} cannot have {count} images")
    trained = np.array([float(train_counts.get(name, 0)) for name in classes])
    names = ["macro_f1", *([] if first.probabilities is None else ["auroc"])]
    kinds = ("recall", "f1", *(() if first.probabilities is None else ("auroc",)))
    evaluation = Evaluation(found.sets, names)
    draws, values = resample([evaluation], n_boot=n_boot, seed=seed)[0], evaluation.value()
    n_groups = len(found.groups)
    cases = np.mean([np.bincount(one.truth, minlength=len(classes)) for one in found.sets], axis=0)
    holders = [
        len(np.unique(np.concatenate([one.group[one.truth == code] for one in found.sets])))
        for code in range(len(classes))
    ]
    value = {kind: np.array([values[f"{kind}:{name}"] for name in classes]) for kind in kinds}
    drawn = {kind: np.stack([draws[f"{kind}:{name}"] for name in classes]) for kind in kinds}
    bin_of = np.where(trained > many, 0, np.where(trained >= few, 1, 2))
    present = cases > 0

    def averaged(kind: str, members: np.ndarray) -> tuple[float, np.ndarray]:
        kept = members & present
        if not kept.any():
            return np.nan, np.full(n_boot, np.nan)
        return float(mean_defined(value[kind][kept][:, None])[0]), mean_defined(drawn[kind][kept])

    def told(kind: str, members: np.ndarray, holders: int) -> dict[str, float | None]:
        """Return a figure of one class, or averaged over several, with its interval."""
        names = [classes[place] for place in np.flatnonzero(members & present)]
        if not names:
            return interval(np.nan, np.full(n_boot, np.nan), holders).to_dict()
        metric = f"{kind}:{names[0]}" if len(names) == 1 else AVERAGE[kind]
        figure = averaged(kind, members)
        return estimate_metric(metric, found.sets, *figure, holders, level=level, classes=names).to_dict()

    def known_from(members: np.ndarray) -> int:
        """Return how many groups the spread of a mean over classes is known from: their harmonic mean."""
        counts = [holders[place] for place in np.flatnonzero(members & present)]
        return max(2, int(len(counts) / sum(1 / n for n in counts))) if counts else n_groups

    bins = []
    for code, name in enumerate(BINS):
        members = bin_of == code
        if not members.any():
            continue
        entry: dict[str, Any] = {
            "bin": name,
            "classes": [classes[place] for place in np.flatnonzero(members)],
            "n": round(float(cases[members].sum())),
            "n_train": round(float(trained[members].sum())),
            "auroc": None,
        }
        bins.append(entry | {kind: told(kind, members, known_from(members)) for kind in kinds})
    occupied = [code for code in range(3) if (present & (bin_of == code)).any()]
    gap = None
    if len(occupied) > 1:
        (head, head_draws), (tail, tail_draws) = (
            averaged("recall", bin_of == code) for code in (occupied[0], occupied[-1])
        )
        fewest = min(known_from(bin_of == code) for code in (occupied[0], occupied[-1]))
        gap = interval(head - tail, head_draws - tail_draws, fewest, level=level).to_dict()
    per_class = {}
    for code, name in enumerate(classes):
        per_class[name] = {
            "bin": BINS[bin_of[code]],
            "n_train": round(float(trained[code])),
            "n": round(float(cases[code])),
        } | {kind: told(kind, np.arange(len(classes)) == code, holders[code]) for kind in ("recall", "f1")}
    rare = [f"{name} ({int(n)})" for name, n in zip(classes, cases, strict=True) if 0 < n < MIN_CASES]
    warnings = [*predictions.warnings, *found.warnings]
    if rare:
        warnings.append(f"fewer than {MIN_CASES} cases of {', '.join(rare)}: their figures are rough")
    return {
        "n": len(found.units),
        "n_groups": n_groups,
        "unit": predictions.meta.get("unit", "image"),
        "group_by": predictions.meta.get("group_by", "image_id"),
        "few": few,
        "many": many,
        "bins": bins,
        "classes": per_class,
        "spearman": _rank_correlation(
            trained[present], value["recall"][present], drawn["recall"][present], n_groups, level
        ),
        "head_minus_tail": gap,
        "warnings": list(dict.fromkeys(warnings)),
    }


def _rank_correlation(
    trained: np.ndarray, recall: np.ndarray, drawn: np.ndarray, n_groups: int, level: float
) -> dict[str, Any]:
    """Return Spearman's correlation of recall with training images over the classes.

    Its interval is over patients, the classes as they are; its p is over the classes (would other classes show it?),
    exact by trying all orders where there are few.
    """
    n = len(trained)
    none = {"value": None, "low": None, "high": None, "p": None, "n_classes": n, "test": None}
    if n < 3 or np.ptp(trained) == 0:
        return none
    value = float(_spearman(trained, recall[:, None])[0])
    if np.isnan(value):
        return none
    estimate = interval(value, _spearman(trained, drawn), n_groups, level=level).to_dict()
    if n <= EXACT:
        orders = np.array(list(itertools.permutations(range(n)))).T
        extreme = np.abs(_spearman(trained, recall[orders])) >= abs(value) - 1e-12
        p, test = float(extreme.mean()), f"exact permutation of {n} classes"
    else:
        from scipy.stats import t

        statistic = abs(value) * math.sqrt((n - 2) / max(1e-300, 1 - value**2))
        p, test = float(2 * t.sf(statistic, n - 2)), "Student's t"
    return {**estimate, "p": p, "n_classes": n, "test": test}


def _spearman(fixed: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the rank correlation of ``fixed`` (C,) with each column (C, B), NaN where a column does not vary."""
    from scipy.stats import rankdata

    known = ~np.isnan(columns).any(axis=0)
    result = np.full(columns.shape[1], np.nan)
    a = rankdata(fixed) - (len(fixed) + 1) / 2
    b = rankdata(columns[:, known], axis=0) - (len(fixed) + 1) / 2
    size = np.sqrt((a**2).sum() * (b**2).sum(axis=0))
    result[known] = np.divide(a @ b, size, out=np.full(len(size), np.nan), where=size > 0)
    return result
