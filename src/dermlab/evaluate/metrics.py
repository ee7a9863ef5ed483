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
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from dermlab.core.errors import InputError
from dermlab.evaluate.cases import Cases, cases_from_arrays

N_BINS = 15
ROUNDING = 1e-12
SUMMED_AT_ONCE = 128  # rows whose running sum stays in the processor's cache
WHOLE_IN_SINGLE = 2**24  # sums of whole numbers below this are exact in single precision


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
    "within_one": Metric("confusion"),
    "recall": Metric("confusion"),
    "precision": Metric("confusion"),
    "f1": Metric("confusion"),
    "specificity": Metric("confusion"),
    "npv": Metric("confusion"),
    "top2": Metric("top_k", probabilities=True),
    "top3": Metric("top_k", probabilities=True),
    "top5": Metric("top_k", probabilities=True),
    "auroc": Metric("ranking", probabilities=True),
    "auprc": Metric("ranking", probabilities=True),
    "ece": Metric("reliability", higher_is_better=False, probabilities=True, inflated=True),
    "ece_equal_mass": Metric("reliability", higher_is_better=False, probabilities=True, inflated=True),
    "brier": Metric("losses", higher_is_better=False, probabilities=True),
    "log_loss": Metric("losses", higher_is_better=False, probabilities=True),
    "micro_auroc": Metric("micro_ranking", probabilities=True),
    "micro_f1": Metric("label_sets"),
    "subset_accuracy": Metric("label_sets"),
    "hamming_loss": Metric("label_sets", higher_is_better=False),
    "label_accuracy": Metric("label_sets", probabilities=True),
}
PER_CLASS = ("recall", "precision", "f1", "specificity", "npv", "auroc", "auprc")
ONLY_PER_CLASS = ("recall", "precision", "f1", "specificity", "npv")
# What is asked for at a stated operating point → the conditions that may be stated with it.
OPERATING: dict[str, tuple[tuple[str, ...], ...]] = {
    "sens": (("spec",), ("thr",)),
    "spec": (("sens",), ("thr",)),
    "ppv": (("prev",), ("prev", "thr")),
    "npv": (("prev",), ("prev", "thr")),
    "net_benefit": (("thr",), ("prev", "thr")),
}
OPERATING_EXAMPLES = "sens@spec=0.9:MEL, spec@sens=0.95:MEL, ppv@prev=0.02:MEL, net_benefit@thr=0.1:MEL"
ORDINAL = ("quadratic_kappa", "mean_absolute_error", "within_one")
MULTILABEL = ("micro_auroc", "micro_f1", "subset_accuracy", "hamming_loss", "label_accuracy")
NOT_FOR_MULTILABEL = ("top1", "kappa", "weighted_f1", *ORDINAL)


@dataclass(frozen=True)
class Point:
    """A metric at a stated operating point of one class against the rest.

    Attributes:
        name: as it was asked for, ``sens@spec=0.9:MEL``.
        wanted: a key of :data:`OPERATING`: sensitivity, specificity, predictive value, net benefit.
        given: what is stated: ``spec`` or ``sens`` (a least value), ``thr`` (the class is called where its probability
            is at least this), ``prev`` (prevalence of the class where the model will be used).
        of_class: the class, empty for the second of two.
    """

    name: str
    wanted: str
    given: tuple[tuple[str, float], ...]
    of_class: str

    def stated(self, key: str) -> float | None:
        """Return one of the stated conditions, None where it is not stated."""
        return dict(self.given).get(key)

    @property
    def family(self) -> str:
        """Sums that are needed: all thresholds (``ranking``), or one decision."""
        return "ranking" if {"spec", "sens"} & dict(self.given).keys() else "decision"

    def code(self, cases: Cases) -> int:
        """Return the code of the class.

        Raises:
            InputError: no class is named, and there are more than two.
        """
        if self.of_class:
            return cases.classes.index(self.of_class)
        if len(cases.classes) != 2 or cases.multilabel:
            raise InputError(f"metric {self.name!r}: name the class, {self.name}:{cases.classes[0]}")
        return 1


def point(name: str) -> Point | None:
    """Return the operating point that a metric's name states, None where it states none.

    Raises:
        InputError: there is no such metric, or a stated value is none.
    """
    asked, _, of_class = name.partition(":")
    wanted, *stated = asked.split("@")
    if not stated:
        return None
    given = {}
    for condition in stated:
        key, _, text = condition.partition("=")
        try:
            given[key.strip()] = float(text)
        except ValueError:
            raise InputError(f"metric {name!r}: {condition!r} is not a condition such as thr=0.2") from None
    if wanted not in OPERATING or tuple(sorted(given)) not in OPERATING[wanted] or len(given) < len(stated):
        known = "; ".join(
            " or ".join(key + "".join(f"@{condition}=" for condition in each) for each in ways)
            for key, ways in OPERATING.items()
        )
        raise InputError(f"metric {name!r} is not among the operating points: {known}")
    for key, value in given.items():
        if not 0 < value < 1:
            raise InputError(f"metric {name!r}: {key} must lie between 0 and 1, not {value:g}")
    return Point(name, wanted, tuple(sorted(given.items())), of_class)


def metric(name: str) -> Metric:
    """Return what is known of a metric.

    Args:
        name: a key of :data:`METRICS`, ``top7``, a metric of one class (``recall:MEL``, ``auroc:MEL``), or one at a
            stated operating point of a class (``sens@spec=0.9:MEL``; :func:`point`).

    Raises:
        InputError: there is no such metric.
    """
    asked = point(name)
    if asked is not None:
        return Metric(asked.family, probabilities=asked.wanted not in ("ppv", "npv") or asked.stated("thr") is not None)
    base, _, of_class = name.partition(":")
    if of_class:
        if base in PER_CLASS:
            return METRICS[base]
    elif re.fullmatch(r"top[1-9]\d*", base) and base not in METRICS:
        return Metric("top_k", probabilities=True)
    elif base in METRICS and base not in ONLY_PER_CLASS:
        return METRICS[base]
    overall = [key for key in METRICS if key not in ONLY_PER_CLASS]
    raise InputError(
        f"metric {name!r} is none of {', '.join(overall)}; none of {', '.join(PER_CLASS)} of a class (recall:MEL); "
        f"and states no operating point ({OPERATING_EXAMPLES})"
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
            places += [np.full(n, 3 * n_classes + place) for place in range(3)]
            values += [distance, distance**2, (distance <= 1).astype(np.float64)]
        shape = (3 * n_classes + (3 if cases.ordinal else 0), cases.n_groups)
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
        rightly_not = n - true - predicted + hit
        result = {
            "top1": top1,
            "balanced_accuracy": mean_defined(recall),
            "macro_f1": mean_defined(f1),
            "weighted_f1": ratio((np.nan_to_num(f1) * true).sum(axis=0), n),
            "kappa": ratio(top1 - chance, 1 - chance),
            **of_classes("recall", recall, self.classes),
            **of_classes("precision", precision, self.classes),
            **of_classes("f1", f1, self.classes),
            **of_classes("specificity", ratio(rightly_not, n - true), self.classes),
            **of_classes("npv", ratio(rightly_not, n - predicted), self.classes),
        }
        if self.ordinal:
            place = np.arange(n_classes, dtype=np.float64)
            expected = np.einsum("ib,ij,jb->b", true, (place[:, None] - place) ** 2, predicted, optimize=True)
            result["mean_absolute_error"] = ratio(totals[3 * n_classes], n)
            result["within_one"] = ratio(totals[3 * n_classes + 2], n)
            result["quadratic_kappa"] = 1 - ratio(totals[3 * n_classes + 1] * n, expected)
        return result


class LabelCounts:
    """True and false positives and negatives of each label of a multi-label target, as it was called."""

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
        specificity = ratio(tn, tn + fp)
        return {
            "balanced_accuracy": mean_defined((recall + specificity) / 2),
            "macro_f1": mean_defined(f1),
            **of_classes("recall", recall, self.classes),
            **of_classes("precision", ratio(tp, tp + fp), self.classes),
            **of_classes("f1", f1, self.classes),
            **of_classes("specificity", specificity, self.classes),
            **of_classes("npv", ratio(tn, tn + fn), self.classes),
        }


class Decisions:
    """One class called or not called at a threshold: predictive values at a prevalence, net benefit.

    Predictive values follow from sensitivity and specificity by Bayes' rule at the stated prevalence, which is that of
    the clinic and not of the test set. Net benefit: true positives less false positives weighted by the odds of the
    threshold, per case (Vickers & Elkin 2006, "Decision curve analysis", Medical Decision Making 26:565).
    """

    def __init__(self, cases: Cases, points: Sequence[Point]) -> None:
        self.points = tuple(points)
        places, groups = [], []
        for place, asked in enumerate(self.points):
            code, threshold = asked.code(cases), asked.stated("thr")
            label = class_labels(cases, code)
            if threshold is not None:
                assert cases.probabilities is not None
                called = cases.probabilities[:, code] >= threshold
            else:
                called = cases.predicted[:, code] == 1 if cases.multilabel else cases.predicted == code
            known = np.flatnonzero(~np.isnan(label))
            places.append(4 * place + (2 * label[known] + called[known]).astype(np.int64))  # tn, fp, fn, tp
            groups.append(cases.group[known])
        where = np.concatenate(places)
        self.rows = sum_rows(where, np.concatenate(groups), np.ones(len(where)), (4 * len(points), cases.n_groups))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the value at each operating point; NaN without cases on both sides (net benefit: without cases)."""
        result = {}
        for place, asked in enumerate(self.points):
            tn, fp, fn, tp = totals[4 * place : 4 * place + 4]
            sensitivity, specificity = ratio(tp, tp + fn), ratio(tn, tn + fp)
            prevalence, threshold = asked.stated("prev"), asked.stated("thr")
            share = ratio(tp + fn, tn + fp + fn + tp) if prevalence is None else np.full_like(tp, prevalence)
            if asked.wanted == "sens":
                found = sensitivity
            elif asked.wanted == "spec":
                found = specificity
            elif asked.wanted == "ppv":
                found = ratio(sensitivity * share, sensitivity * share + (1 - specificity) * (1 - share))
            elif asked.wanted == "npv":
                found = ratio(specificity * (1 - share), specificity * (1 - share) + (1 - sensitivity) * share)
            else:
                assert threshold is not None
                if prevalence is None:  # one side may be empty: there is no benefit, or no harm, to count
                    gain, harm = ratio(tp, tn + fp + fn + tp), ratio(fp, tn + fp + fn + tp)
                else:
                    gain, harm = sensitivity * share, (1 - specificity) * (1 - share)
                found = gain - harm * threshold / (1 - threshold)
            result[asked.name] = found
        return result


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

    def __init__(self, cases: Cases, *, precision: bool = True, points: Sequence[Point] = ()) -> None:
        assert cases.probabilities is not None
        self.classes, self.precision = cases.classes, precision
        self.points = [(asked, asked.code(cases)) for asked in points]
        self.parts: list[tuple[slice, slice, np.ndarray, np.ndarray]] = []
        places, groups, offset = [], [], 0
        for code in range(len(cases.classes)):
            label, scores = class_labels(cases, code), cases.probabilities[:, code]
            positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
            cuts, own = np.unique(scores[positive], return_inverse=True)
            piece = 2 * np.searchsorted(cuts, scores[negative], side="left")
            if len(cuts):
                piece += cuts[np.minimum(piece // 2, len(cuts) - 1)] == scores[negative]
            pieces, other = np.unique(piece, return_inverse=True)
            border = 2 * np.arange(len(cuts))
            below, up_to = np.searchsorted(pieces, border + 1), np.searchsorted(pieces, border + 2)
            if not precision and not points and len(cuts):
                # Cuts that no negative lies between are one to AUROC.
                begins = np.append(True, (np.diff(below) > 0) | (np.diff(up_to) > 0))
                below, up_to, own = below[begins], up_to[begins], (np.cumsum(begins) - 1)[own]
            n_cuts = len(below)
            middle, end = offset + n_cuts, offset + n_cuts + len(pieces)
            self.parts.append((slice(offset, middle), slice(middle, end), below, up_to))
            places += [offset + own, middle + other]
            groups += [cases.group[positive], cases.group[negative]]
            offset = end
        place = np.concatenate(places)
        self.rows = sum_rows(place, np.concatenate(groups), np.ones(len(place)), (offset, cases.n_groups))

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return AUROC (and average precision) of each class, the mean over those where it is defined, and points."""
        auroc = np.full((len(self.classes), totals.shape[1]), np.nan)
        auprc = auroc.copy()
        at_points: dict[str, np.ndarray] = {}
        for code, (positives, negatives, below, up_to) in enumerate(self.parts):
            positive = totals[positives]
            counted = running_sums(totals[negatives])
            n_positive, n_negative = positive.sum(axis=0), counted[-1]
            lower = counted[below]
            wins = np.einsum("kb,kb->b", positive, lower)
            tied = np.flatnonzero(up_to > below)
            between = counted[up_to[tied]] - lower[tied]
            wins += np.einsum("kb,kb->b", positive[tied], between) / 2
            auroc[code] = ratio(wins, n_positive * n_negative)
            here = [asked for asked, of_class in self.points if of_class == code]
            if not self.precision and not here:
                continue
            found = running_sums(positive[::-1])[:0:-1]  # positives at or above each cut
            for asked in here:
                at_points[asked.name] = on_the_curve(asked, found, lower, n_positive, n_negative)
            if not self.precision:
                continue
            precision = np.nan_to_num(ratio(found, found + n_negative - lower))
            auprc[code] = ratio(np.einsum("kb,kb->b", positive, precision), n_positive)
            auprc[code, n_negative == 0] = np.nan
        result = {"auroc": mean_defined(auroc), **of_classes("auroc", auroc, self.classes)}
        if self.precision:
            result |= {"auprc": mean_defined(auprc), **of_classes("auprc", auprc, self.classes)}
        return result | at_points


def on_the_curve(
    asked: Point, found: np.ndarray, lower: np.ndarray, n_positive: np.ndarray, n_negative: np.ndarray
) -> np.ndarray:
    """Return (B,) the best sensitivity (specificity) at which the specificity (sensitivity) is at least as stated.

    The class is called from a cut upward; a cut above all scores calls nobody, with sensitivity 0 and specificity 1.

    Args:
        asked: ``sens@spec=`` or ``spec@sens=``.
        found: float64 (cuts, B) positives at or above each cut, cuts ascending.
        lower: float64 (cuts, B) negatives below each cut.
        n_positive: float64 (B,).
        n_negative: float64 (B,).
    """
    undefined = (n_positive == 0) | (n_negative == 0)
    if not len(found):
        return np.full(len(n_positive), np.nan)
    everyone = np.arange(found.shape[1])
    if asked.wanted == "sens":
        reached = lower >= asked.given[0][1] * n_negative * (1 - ROUNDING)
        first = np.where(reached.any(axis=0), reached.argmax(axis=0), len(found))  # the lowest cut, hence most found
        value = ratio(np.vstack([found, np.zeros_like(n_positive)])[first, everyone], n_positive)
    else:
        reached = found >= asked.given[0][1] * n_positive * (1 - ROUNDING)
        last = len(found) - 1 - reached[::-1].argmax(axis=0)  # the lowest cut of all finds every positive
        value = ratio(lower[last, everyone], n_negative)
    return np.where(undefined, np.nan, value)


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
                else "is for multi-label targets"
                if name in MULTILABEL
                else "is for ordinal targets"
            )
            raise InputError(f"metric {name!r} {why}")
        wanted.add(known.family)
    result: list[Family] = []
    if "confusion" in wanted:
        result.append(LabelCounts(cases) if cases.multilabel else ConfusionCounts(cases))
    if "decision" in wanted:
        result.append(Decisions(cases, [asked for asked in map(point, names) if asked and asked.family == "decision"]))
    if "top_k" in wanted:
        result.append(TopK(cases, sorted({int(name[3:]) for name in names if metric(name).family == "top_k"})))
    if "ranking" in wanted:
        points = [asked for asked in map(point, names) if asked and asked.family == "ranking"]
        result.append(Ranking(cases, precision=any(name.startswith("auprc") for name in names), points=points))
    if "reliability" in wanted:
        result.append(Reliability(cases))
    if "losses" in wanted:
        result.append(Losses(cases))
    if wanted & {"label_sets", "micro_ranking"}:
        from dermlab.evaluate.multilabel import LabelSets, MicroRanking

        result += [
            made(cases) for name, made in (("label_sets", LabelSets), ("micro_ranking", MicroRanking)) if name in wanted
        ]
    return result


def defined(name: str, cases: Cases) -> bool:
    """Tell whether a metric exists for this kind of target and of predictions."""
    known = metric(name)
    if known.probabilities and cases.probabilities is None:
        return False
    if cases.multilabel:
        return name not in NOT_FOR_MULTILABEL and known.family != "top_k"
    return name not in MULTILABEL and (cases.ordinal or name not in ORDINAL)


class Evaluation:
    """One model's metrics as a function of how often each group is counted, averaged over its case sets.

    Args:
        sets: case sets (repeats, seeds) that share the coding of groups.
        names: the metrics wanted; those of single classes come with them.
    """

    def __init__(self, sets: Sequence[Cases], names: Sequence[str]) -> None:
        from scipy.sparse import vstack

        self.names = tuple(names)
        self.sets = tuple(sets)
        self.n_groups = sets[0].n_groups
        self._families = [families(cases, names) for cases in sets]
        flat = [family for members in self._families for family in members]
        self.rows = vstack([family.rows for family in flat], format="csr")

    def at(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        """Return (B,) values of each metric for counts (groups, B); those in single precision are whole numbers."""
        return self.from_totals(self.totals(counts))

    def totals(self, counts: np.ndarray) -> np.ndarray:
        """Return ``rows @ counts``, float64 (totals, B).

        Counts in single precision are whole numbers, as most rows are; they add up twice as fast and to the last bit.
        """
        if counts.dtype != np.float32:
            return np.asarray(self.rows @ counts)
        single, largest, broken, rows = self._in_single
        if not largest * counts.max(initial=0.0) < WHOLE_IN_SINGLE:
            return np.asarray(self.rows @ counts.astype(np.float64))
        found = np.asarray(single @ counts).astype(np.float64)
        if len(broken):
            found[broken] = rows @ counts.astype(np.float64)
        return found

    @cached_property
    def _in_single(self) -> tuple[Any, float, np.ndarray, Any]:
        """Rows in single precision, the largest sum of one, and which rows hold other than whole numbers, and these."""
        from scipy.sparse import csr_matrix

        rows = self.rows
        row_of = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        broken = np.unique(row_of[rows.data != np.rint(rows.data)])
        single = csr_matrix((rows.data.astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)
        return single, float(np.asarray(abs(single).sum(axis=1)).max(initial=0.0)), broken, rows[broken]

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


def class_labels(cases: Cases, code: int) -> np.ndarray:
    """Return float64 (N,) 1 where a case is of the class, 0 where it is not, NaN where that is unknown."""
    return cases.truth[:, code] if cases.multilabel else np.where(cases.truth == code, 1.0, 0.0)


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
    unit, first = np.arange(len(cases)), cases.probabilities.argmax(axis=1)  # what is decided may weigh costs
    return cases.probabilities[unit, first], (first == cases.truth).astype(np.float64), unit


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


def running_sums(values: np.ndarray) -> np.ndarray:
    """Return float64 (N + 1, B): at each place the sum of the rows (N, B) before it.

    By blocks, since numpy adds up along the first axis a column at a time and would leave the processor's cache.
    """
    result = np.zeros((len(values) + 1, values.shape[1]))
    for start in range(0, len(values), SUMMED_AT_ONCE):
        block = result[start + 1 : start + 1 + SUMMED_AT_ONCE]
        np.cumsum(values[start : start + SUMMED_AT_ONCE], axis=0, out=block)
        block += result[start]
    return result


def mean_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN, NaN where nothing is."""
    known = ~np.isnan(values)
    return ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


def of_classes(name: str, values: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Name the rows of (C, B) values ``name:class``."""
    return {f"{name}:{label}": values[code] for code, label in enumerate(classes)}
