"""Every metric as a function of how often each group is counted.

All metrics here depend on the data through sums over groups: counts of hits and predictions, of negatives between two
positives in the ranking, of errors in a confidence bin. Each family writes these sums as a sparse matrix ``rows``
(totals x groups). A metric's value is that of ``rows @ ones``; 2,000 bootstrap replicates are ``rows @ counts`` with a
multinomial count per group and replicate; a jackknife subtracts one column; a paired permutation swaps the columns of
two models. One implementation therefore serves point values, intervals and tests, and is fast in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.cases import Cases, cases_from_arrays

N_BINS = 15


@dataclass(frozen=True)
class Metric:
    """What is known of a metric by name.

    Attributes:
        family: which sums it needs.
        higher_is_better: the direction.
        probabilities: whether hard labels are not enough.
        inflated: whether noise can only raise it, so that replicates lie higher than the value does.
    """

    family: str
    higher_is_better: bool = True
    probabilities: bool = False
    inflated: bool = False


METRICS: dict[str, Metric] = {
    "top1": Metric("confusion"),
    "balanced_accuracy": Metric("confusion"),
    "macro_f1": Metric("confusion"),
    "weighted_f1": Metric("confusion"),
    "kappa": Metric("confusion"),
    "quadratic_kappa": Metric("confusion"),
    "mean_absolute_error": Metric("confusion", higher_is_better=False),
    "recall": Metric("confusion"),
    "precision": Metric("confusion"),
    "f1": Metric("confusion"),
    "top2": Metric("top_k", probabilities=True),
    "top3": Metric("top_k", probabilities=True),
    "top5": Metric("top_k", probabilities=True),
    "auroc": Metric("ranking", probabilities=True),
    "auprc": Metric("ranking", probabilities=True),
    "ece": Metric("reliability", higher_is_better=False, probabilities=True, inflated=True),
    "ece_equal_mass": Metric("reliability", higher_is_better=False, probabilities=True, inflated=True),
    "brier": Metric("losses", higher_is_better=False, probabilities=True),
    "log_loss": Metric("losses", higher_is_better=False, probabilities=True),
}
PER_CLASS = ("recall", "precision", "f1", "auroc", "auprc")
ORDINAL = ("quadratic_kappa", "mean_absolute_error")
NOT_FOR_MULTILABEL = ("top1", "kappa", "weighted_f1", *ORDINAL)


def metric(name: str) -> Metric:
    """Return what is known of a metric.

    Args:
        name: a key of :data:`METRICS`, ``top7``, or a metric of one class: ``recall:MEL``, ``auroc:MEL``.

    Raises:
        InputError: there is no such metric.
    """
    base, _, of_class = name.partition(":")
    if of_class:
        if base in PER_CLASS:
            return METRICS[base]
    elif re.fullmatch(r"top[1-9]\d*", base) and base not in METRICS:
        return Metric("top_k", probabilities=True)
    elif base in METRICS and base not in ("recall", "precision", "f1"):
        return METRICS[base]
    overall = [key for key in METRICS if key not in ("recall", "precision", "f1")]
    raise InputError(
        f"metric {name!r} is none of {', '.join(overall)}, and none of {', '.join(PER_CLASS)} of a class (recall:MEL)"
    )


class Family(Protocol):
    """Metrics that share their sums.

    Attributes:
        rows: sparse float64 (totals, groups): what each group adds to each total.
    """

    rows: Any

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return (B,) values by metric name from totals (totals, B); NaN where a metric is undefined."""
        ...


def sum_rows(places: np.ndarray, groups: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> Any:
    """Return the sparse matrix (totals, groups) that adds ``values`` at ``(places, groups)``."""
    from scipy.sparse import csr_matrix

    kept = values != 0
    return csr_matrix((values[kept].astype(np.float64), (places[kept], groups[kept])), shape=shape)


class ConfusionCounts:
    """Hits, true and predicted cases of each class: accuracy, recall, precision, F1, kappa."""

    def __init__(self, cases: Cases) -> None:
        n_classes, n = len(cases.classes), len(cases)
        self.classes, self.ordinal = cases.classes, cases.ordinal
        ones = np.ones(n)
        places = [cases.truth, n_classes + cases.truth, 2 * n_classes + cases.predicted]
        values = [cases.correct(), ones, ones]
        if cases.ordinal:
            distance = np.abs(cases.truth - cases.predicted).astype(np.float64)
            places += [np.full(n, 3 * n_classes), np.full(n, 3 * n_classes + 1)]
            values += [distance, distance**2]
        shape = (3 * n_classes + (2 if cases.ordinal else 0), cases.n_groups)
        groups = np.tile(cases.group, len(places))
        self.rows = sum_rows(np.concatenate(places), groups, np.concatenate(values), shape)

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the metrics of hard decisions; macro averages run over the classes that occur."""
        n_classes = len(self.classes)
        hit, true, predicted = (totals[k * n_classes : (k + 1) * n_classes] for k in range(3))
        n = true.sum(axis=0)
        recall, precision = ratio(hit, true), ratio(hit, predicted)
        f1 = ratio(2 * hit, true + predicted)
        chance = ratio((true * predicted).sum(axis=0), n * n)
        top1 = ratio(hit.sum(axis=0), n)
        result = {
            "top1": top1,
            "balanced_accuracy": mean_defined(recall),
            "macro_f1": mean_defined(f1),
            "weighted_f1": ratio((np.nan_to_num(f1) * true).sum(axis=0), n),
            "kappa": ratio(top1 - chance, 1 - chance),
            **of_classes("recall", recall, self.classes),
            **of_classes("precision", precision, self.classes),
            **of_classes("f1", f1, self.classes),
        }
        if self.ordinal:
            place = np.arange(n_classes, dtype=np.float64)
            expected = np.einsum("ib,ij,jb->b", true, (place[:, None] - place) ** 2, predicted, optimize=True)
            result["mean_absolute_error"] = ratio(totals[3 * n_classes], n)
            result["quadratic_kappa"] = 1 - ratio(totals[3 * n_classes + 1] * n, expected)
        return result


class LabelCounts:
    """True and false positives and negatives of each label of a multi-label target, at probability .5."""

    def __init__(self, cases: Cases) -> None:
        self.classes = cases.classes
        unit, label = np.nonzero(~np.isnan(cases.truth))
        outcome = (2 * cases.truth + cases.predicted)[unit, label].astype(np.int64)  # 0 tn, 1 fp, 2 fn, 3 tp
        shape = (4 * len(cases.classes), cases.n_groups)
        self.rows = sum_rows(outcome * len(cases.classes) + label, cases.group[unit], np.ones(len(unit)), shape)

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return means over labels; balanced accuracy is the mean of sensitivity and specificity."""
        tn, fp, fn, tp = totals.reshape(4, len(self.classes), -1)
        recall, f1 = ratio(tp, tp + fn), ratio(2 * tp, 2 * tp + fp + fn)
        return {
            "balanced_accuracy": mean_defined((recall + ratio(tn, tn + fp)) / 2),
            "macro_f1": mean_defined(f1),
            **of_classes("recall", recall, self.classes),
            **of_classes("precision", ratio(tp, tp + fp), self.classes),
            **of_classes("f1", f1, self.classes),
        }


class TopK:
    """Whether the true class is among the k most probable; see :func:`top_k_credit`."""

    def __init__(self, cases: Cases, ks: Sequence[int]) -> None:
        self.ks = tuple(ks)
        credit = [top_k_credit(cases, k) for k in self.ks]
        places = np.repeat(np.arange(len(ks) + 1), len(cases))
        values = np.concatenate([*credit, np.ones(len(cases))])
        self.rows = sum_rows(places, np.tile(cases.group, len(ks) + 1), values, (len(ks) + 1, cases.n_groups))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the share of credit for each k."""
        return {f"top{k}": ratio(totals[place], totals[-1]) for place, k in enumerate(self.ks)}


class Ranking:
    """AUROC and average precision of each class against the rest, from negatives counted between the positives.

    For each class the distinct scores of its positives cut the score axis; a total counts the negatives in each piece
    (equal scores are a piece of their own, so ties get one half). With cumulative sums over the pieces the
    Mann-Whitney statistic of any weighting costs as much as there are positives, not as there are images.
    """

    def __init__(self, cases: Cases, *, precision: bool = True) -> None:
        assert cases.probabilities is not None
        self.classes, self.precision = cases.classes, precision
        self.parts: list[tuple[slice, slice, np.ndarray, np.ndarray]] = []
        places, groups, offset = [], [], 0
        for code in range(len(cases.classes)):
            label = cases.truth[:, code] if cases.multilabel else np.where(cases.truth == code, 1.0, 0.0)
            scores = cases.probabilities[:, code]
            positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
            cuts, own = np.unique(scores[positive], return_inverse=True)
            piece = 2 * np.searchsorted(cuts, scores[negative], side="left")
            if len(cuts):
                piece += cuts[np.minimum(piece // 2, len(cuts) - 1)] == scores[negative]
            pieces, other = np.unique(piece, return_inverse=True)
            border = 2 * np.arange(len(cuts))
            below, up_to = np.searchsorted(pieces, border + 1), np.searchsorted(pieces, border + 2)
            middle, end = offset + len(cuts), offset + len(cuts) + len(pieces)
            self.parts.append((slice(offset, middle), slice(middle, end), below, up_to))
            places += [offset + own, middle + other]
            groups += [cases.group[positive], cases.group[negative]]
            offset = end
        place = np.concatenate(places)
        self.rows = sum_rows(place, np.concatenate(groups), np.ones(len(place)), (offset, cases.n_groups))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return AUROC (and average precision) of each class and the mean over the classes where it is defined."""
        auroc = np.full((len(self.classes), totals.shape[1]), np.nan)
        auprc = auroc.copy()
        for code, (positives, negatives, below, up_to) in enumerate(self.parts):
            positive = totals[positives]
            counted = np.zeros((negatives.stop - negatives.start + 1, totals.shape[1]))
            np.cumsum(totals[negatives], axis=0, out=counted[1:])
            n_positive, n_negative = positive.sum(axis=0), counted[-1]
            lower = counted[below]
            wins = np.einsum("kb,kb->b", positive, lower + counted[up_to]) / 2
            auroc[code] = ratio(wins, n_positive * n_negative)
            if not self.precision:
                continue
            found = np.cumsum(positive[::-1], axis=0)[::-1]  # positives at or above each cut
            precision = np.nan_to_num(ratio(found, found + n_negative - lower))
            auprc[code] = ratio(np.einsum("kb,kb->b", positive, precision), n_positive)
            auprc[code, n_negative == 0] = np.nan
        result = {"auroc": mean_defined(auroc), **of_classes("auroc", auroc, self.classes)}
        if self.precision:
            result |= {"auprc": mean_defined(auprc), **of_classes("auprc", auprc, self.classes)}
        return result


class Reliability:
    """Expected calibration error: the gap between confidence and accuracy, averaged over bins of confidence.

    Guo et al. 2017, "On calibration of modern neural networks", eq. 3, for the most probable class. Bins of equal mass
    are cut on the data as they are, and stay where they are under resampling.
    """

    def __init__(self, cases: Cases, n_bins: int = N_BINS) -> None:
        confidence, correct, unit = confidences(cases)
        self.n_bins = n_bins
        bins = [confidence_bins(confidence, n_bins), n_bins + confidence_bins(confidence, n_bins, equal_mass=True)]
        gap = correct - confidence
        places = np.concatenate([*bins, np.full(len(unit), 2 * n_bins)])
        values = np.concatenate([gap, gap, np.ones(len(unit))])
        self.rows = sum_rows(places, np.tile(cases.group[unit], 3), values, (2 * n_bins + 1, cases.n_groups))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the error over bins of equal width and over bins of equal mass."""
        gap = np.abs(totals[:-1]).reshape(2, self.n_bins, -1).sum(axis=1)
        return {"ece": ratio(gap[0], totals[-1]), "ece_equal_mass": ratio(gap[1], totals[-1])}


class Losses:
    """Brier score and logarithmic loss; for two classes Brier is halved to its usual form, as scikit-learn does."""

    def __init__(self, cases: Cases) -> None:
        assert cases.probabilities is not None
        probabilities = cases.probabilities
        tiny = np.finfo(np.float64).eps
        if cases.multilabel:
            unit, label = np.nonzero(~np.isnan(cases.truth))
            truth, score = cases.truth[unit, label], probabilities[unit, label]
            squared = (score - truth) ** 2
            logged = -np.log(np.clip(np.where(truth == 1, score, 1 - score), tiny, 1.0))
        else:
            unit = np.arange(len(cases))
            own = probabilities[unit, cases.truth]
            squared = (probabilities**2).sum(axis=1) - 2 * own + 1
            squared /= 2 if len(cases.classes) == 2 else 1
            logged = -np.log(np.clip(own, tiny, 1 - tiny))
        places = np.repeat(np.arange(3), len(unit))
        values = np.concatenate([squared, logged, np.ones(len(unit))])
        self.rows = sum_rows(places, np.tile(cases.group[unit], 3), values, (3, cases.n_groups))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return both losses, averaged over units (multi-label: over units and labels)."""
        return {"brier": ratio(totals[0], totals[2]), "log_loss": ratio(totals[1], totals[2])}


def families(cases: Cases, names: Sequence[str]) -> list[Family]:
    """Return the families that the named metrics need.

    Raises:
        InputError: a metric needs probabilities where there are hard labels, or does not exist for this target.
    """
    wanted: set[str] = set()
    for name in names:
        known = metric(name)
        of_class = name.partition(":")[2]
        if of_class and of_class not in cases.classes:
            raise InputError(f"metric {name!r}: {of_class!r} is not one of {', '.join(cases.classes)}")
        if not defined(name, cases):
            why = (
                "needs probabilities, and these are hard labels"
                if known.probabilities and cases.probabilities is None
                else "is not defined for a multi-label target"
                if cases.multilabel
                else "is for ordinal targets"
            )
            raise InputError(f"metric {name!r} {why}")
        wanted.add(known.family)
    result: list[Family] = []
    if "confusion" in wanted:
        result.append(LabelCounts(cases) if cases.multilabel else ConfusionCounts(cases))
    if "top_k" in wanted:
        result.append(TopK(cases, sorted({int(name[3:]) for name in names if metric(name).family == "top_k"})))
    if "ranking" in wanted:
        result.append(Ranking(cases, precision=any(name.startswith("auprc") for name in names)))
    if "reliability" in wanted:
        result.append(Reliability(cases))
    if "losses" in wanted:
        result.append(Losses(cases))
    return result


def defined(name: str, cases: Cases) -> bool:
    """Tell whether a metric exists for this kind of target and of predictions."""
    known = metric(name)
    if known.probabilities and cases.probabilities is None:
        return False
    if cases.multilabel:
        return name not in NOT_FOR_MULTILABEL and known.family != "top_k"
    return cases.ordinal or name not in ORDINAL


class Evaluation:
    """One model's metrics as a function of how often each group is counted, averaged over its case sets.

    Args:
        sets: case sets (repeats, seeds) that share the coding of groups.
        names: the metrics wanted; those of single classes come with them.
    """

    def __init__(self, sets: Sequence[Cases], names: Sequence[str]) -> None:
        from scipy.sparse import vstack

        self.names = tuple(names)
        self.n_groups = sets[0].n_groups
        self._families = [families(cases, names) for cases in sets]
        flat = [family for members in self._families for family in members]
        self.rows = vstack([family.rows for family in flat], format="csr")

    def at(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return (B,) values of each metric for counts (groups, B)."""
        return self.from_totals(self.rows @ counts)

    def from_totals(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return (B,) values of each metric from totals (totals, B), averaged over the sets where they are defined."""
        per_set: list[dict[str, np.ndarray]] = []
        start = 0
        for members in self._families:
            values: dict[str, np.ndarray] = {}
            for family in members:
                end = start + family.rows.shape[0]
                values.update(family.values(totals[start:end]))
                start = end
            per_set.append(values)
        if len(per_set) == 1:
            return per_set[0]
        return {name: mean_defined(np.stack([values[name] for values in per_set])) for name in per_set[0]}

    def value(self) -> dict[str, float]:
        """Return each metric's value on the data as they are."""
        return {name: float(values[0]) for name, values in self.at(np.ones((self.n_groups, 1))).items()}


def score(y: Any, probs: Any, metric: str, *, classes: Any = None) -> float:
    """Return one metric's value, for choosing on ``val``.

    Args:
        y: (N,) labels; integers are class codes.
        probs: (N, C) probabilities in class order, or (N,) hard labels.
        metric: a metric's name; :func:`higher_is_better` tells its direction.
        classes: the classes in order where ``y`` holds names.

    Returns:
        The value, NaN where it is undefined on these data (AUROC of one class alone).
    """
    return Evaluation([cases_from_arrays(y, probs, classes=classes)], [metric]).value()[metric]


def higher_is_better(name: str) -> bool:
    """Tell whether a higher value of the metric is better."""
    return metric(name).higher_is_better


def confusion_matrix(sets: Sequence[Cases]) -> np.ndarray:
    """Return counts (true class, predicted class) as int64, summed over the case sets."""
    n_classes = len(sets[0].classes)
    cells = np.concatenate([cases.truth * n_classes + cases.predicted for cases in sets])
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def top_k_credit(cases: Cases, k: int) -> np.ndarray:
    """Return (N,) 1.0 where the true class is among the k most probable, else 0.0.

    Where classes tie at the border (a nearest-neighbour vote leaves many at 0), the true class gets the share of the
    remaining places that falls to each of the tied, which is what breaking ties at random gives on average.
    """
    assert cases.probabilities is not None
    own = cases.probabilities[np.arange(len(cases)), cases.truth][:, None]
    above, tied = (cases.probabilities > own).sum(axis=1), (cases.probabilities == own).sum(axis=1)
    return np.clip((k - above) / tied, 0.0, 1.0)


def confidences(cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return confidence, whether it was right (0 or 1), and the case it belongs to, a row for each decision.

    A decision is the most probable class; in multi-label targets it is every label, its confidence the probability.
    """
    assert cases.probabilities is not None
    if cases.multilabel:
        unit, label = np.nonzero(~np.isnan(cases.truth))
        return cases.probabilities[unit, label], cases.truth[unit, label], unit
    unit = np.arange(len(cases))
    return cases.probabilities[unit, cases.predicted], cases.correct(), unit


def confidence_bins(confidence: np.ndarray, n_bins: int = N_BINS, *, equal_mass: bool = False) -> np.ndarray:
    """Return the bin (0 … n_bins - 1) of each confidence; bins are open at their lower end, the first is not."""
    if equal_mass:
        edges = np.quantile(confidence, np.arange(1, n_bins) / n_bins, method="inverted_cdf")
        return np.searchsorted(edges, confidence, side="left").astype(np.int64)
    return np.clip(np.ceil(confidence * n_bins).astype(np.int64) - 1, 0, n_bins - 1)


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return ``above / below``, NaN where ``below`` is 0."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=result, where=below != 0)
    return result


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN, NaN where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def of_classes(name: str, values: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Name the rows of (C, B) values ``name:class``."""
    return {f"{name}:{label}": values[code] for code, label in enumerate(classes)}
