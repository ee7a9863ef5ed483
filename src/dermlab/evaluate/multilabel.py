"""Targets of several labels a case: where each label is called, and the metrics that take a case's labels together.

A case's labels are yes-or-no questions of their own: probabilities do not sum to 1, and each label has a threshold from
which it is called. The thresholds are chosen on ``val``, once for every fold, and travel in the table's sidecar.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dermlab.evaluate.cases import Cases
from dermlab.evaluate.metrics import Ranking, mean_defined, ratio, sum_rows
from dermlab.evaluate.predictions import Predictions, pool_units

HALF = 0.5


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the probability from which calling a label gives the highest F1; 0.5 without a yes or without a no.

    It lies half-way between two scores that occur, so that cases near it are called alike elsewhere. Of equals the
    highest, which calls fewest. (Lipton et al. 2014, "Optimal thresholding of classifiers to maximize F1 measure":
    at the best threshold of calibrated probabilities F1 is twice the threshold; hence it is rarely one half.)

    Args:
        truth: float (N,) of 0, 1 and NaN where unknown.
        scores: float (N,) probabilities.
    """
    known = ~np.isnan(truth)
    order = np.argsort(-scores[known], kind="stable")
    score, yes = scores[known][order], truth[known][order]
    n_yes = yes.sum()
    if not 0 < n_yes < len(yes):
        return HALF
    last = np.flatnonzero(np.append(score[1:] < score[:-1], True))  # the last place of each distinct score
    f1 = 2 * np.cumsum(yes)[last] / (last + 1 + n_yes)
    best = int(f1.argmax())
    if best == len(last) - 1:
        return float(score[-1])
    return float((score[last[best]] + score[last[best] + 1]) / 2)


def with_thresholds(predictions: Predictions) -> Predictions:
    """Return a multi-label table whose sidecar says from which probability each label is called.

    The thresholds of a fold are those of highest F1 on its pooled ``val`` units. A table without labelled ``val`` rows
    keeps what its sidecar says; without that, labels are called from 0.5. Other tables come back as they are.
    """
    frame = predictions.frame
    if predictions.kind != "multilabel" or not (frame["split"] == "val").any():
        return predictions
    val = pool_units(predictions.part("val"))
    truth, scores = val.truth(), val.probabilities()
    found = []
    names = ("repeat", "fold", "seed")
    for key, rows in val.frame.groupby(list(names), sort=True).indices.items():
        if np.isnan(truth[rows]).all():
            continue
        assert isinstance(key, tuple)
        own = {
            name: best_threshold(truth[rows, code], scores[rows, code]) for code, name in enumerate(predictions.classes)
        }
        found.append({**{name: int(part) for name, part in zip(names, key, strict=True)}, "labels": own})
    if not found:
        return predictions
    return predictions.with_frame(frame, thresholds={"chosen_on": "val", "for": "f1", "folds": found})


def thresholds_of(predictions: Predictions) -> np.ndarray:
    """Return from which probability each label of each row is called, float64 (rows, classes)."""
    result = np.full((len(predictions), len(predictions.classes)), HALF)
    frame = predictions.frame
    for fold in (predictions.meta.get("thresholds") or {}).get("folds", ()):
        rows = np.ones(len(frame), bool)
        for name in ("repeat", "fold", "seed"):
            if name in fold:  # thresholds without a fold hold for all rows
                rows &= (frame[name] == fold[name]).to_numpy()
        result[rows] = [fold["labels"].get(name, HALF) for name in predictions.classes]
    return result


def mean_thresholds(predictions: Predictions) -> dict[str, float] | None:
    """Return each label's threshold averaged over the folds, None where none were chosen."""
    folds = (predictions.meta.get("thresholds") or {}).get("folds", ())
    if not folds:
        return None
    return {name: float(np.mean([fold["labels"].get(name, HALF) for fold in folds])) for name in predictions.classes}


class LabelSets:
    """Metrics of a case's labels together, and of all pairs of case and label alike.

    ``subset_accuracy``: all labels right; ``hamming_loss``: share of wrong labels; ``micro_f1``: F1 over all pairs;
    ``label_accuracy``: accuracy of each label, called above 0.5 whatever the chosen threshold, averaged over the labels
    (the ACC of MedMNIST's Evaluator, Yang et al. 2023). Unknown labels take no part.
    """

    def __init__(self, cases: Cases) -> None:
        n, n_labels = cases.truth.shape
        known = ~np.isnan(cases.truth)
        wrong = known & (cases.truth != cases.predicted)
        called, there = known & (cases.predicted == 1), known & (cases.truth == 1)
        right_at_half = known.astype(np.float64)
        if cases.probabilities is not None:
            right_at_half = (known & ((cases.probabilities > HALF) == (cases.truth == 1))).astype(np.float64)
        self.n_labels = n_labels
        totals = [
            (known.any(axis=1) & ~wrong.any(axis=1)).astype(np.float64),
            known.any(axis=1).astype(np.float64),
            wrong.sum(axis=1).astype(np.float64),
            known.sum(axis=1).astype(np.float64),
            (called & there).sum(axis=1).astype(np.float64),
            (called.sum(axis=1) + there.sum(axis=1)).astype(np.float64),
            *right_at_half.T,
            *known.T.astype(np.float64),
        ]
        places = np.repeat(np.arange(len(totals)), n)
        shape = (len(totals), cases.n_groups)
        self.rows = sum_rows(places, np.tile(cases.group, len(totals)), np.concatenate(totals), shape)

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the four metrics; NaN where no label is known (micro-F1: where none is there or called)."""
        whole, units, wrong, pairs, hits, both = totals[:6]
        right, known = totals[6:].reshape(2, self.n_labels, -1)
        return {
            "subset_accuracy": ratio(whole, units),
            "hamming_loss": ratio(wrong, pairs),
            "micro_f1": ratio(2 * hits, both),
            "label_accuracy": mean_defined(ratio(right, known)),
        }


class MicroRanking:
    """AUROC over all pairs of case and label at once (micro-averaged): are the labels that are there ranked first?"""

    def __init__(self, cases: Cases) -> None:
        assert cases.probabilities is not None
        unit, label = np.nonzero(~np.isnan(cases.truth))
        pairs = Cases(
            cases.truth[unit, label][:, None],
            cases.predicted[unit, label][:, None],
            cases.probabilities[unit, label][:, None],
            cases.group[unit],
            cases.n_groups,
            ("any label",),
        )
        self.ranking = Ranking(pairs, precision=False)
        self.rows: Any = self.ranking.rows

    def values(self, totals: np.ndarray) -> dict[str, np.ndarray]:
        """Return the micro-averaged AUROC."""
        return {"micro_auroc": self.ranking.values(totals)["auroc"]}


def call_words(predictions: Predictions, classes: Sequence[str]) -> str:
    """Say from which probabilities the labels of a table are called."""
    chosen = mean_thresholds(predictions)
    if chosen is None:
        return "multi-label target: a label is called from probability .5 (no val to choose on); no top-1 or top-3"
    low, high = min(chosen.values()), max(chosen.values())
    return (
        "multi-label target: each label is called from the probability of highest F1 on val "
        f"({low:.2f} to {high:.2f} over {len(classes)} labels); no top-1 or top-3"
    )
