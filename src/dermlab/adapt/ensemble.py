"""Ensembles: the weighted mean of several models' probabilities, the weights chosen on val."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from dermlab.adapt.base import MIN_PROBABILITY, Head
from dermlab.core.errors import InputError
from dermlab.core.randomness import generator

if TYPE_CHECKING:
    from dermlab.evaluate.predictions import Predictions

MAX_STEPS = 2000
GAIN = 1e-7
NEGLIGIBLE = 1e-3
N_PARTS = 5


def choose_weights(probabilities: np.ndarray, codes: np.ndarray, sample_weight: np.ndarray | None = None) -> np.ndarray:
    """Return the convex weights whose mixture has the least log loss.

    The problem is that of a mixture's proportions with known components; expectation–maximisation (Dempster, Laird and
    Rubin 1977, section 4.3) climbs to its one maximum without step sizes, from equal weights. Weights under .001 end
    as 0.

    Args:
        probabilities: of M models, float (M, N, C).
        codes: true class of each sample, int (N,).
        sample_weight: float (N,); default: one each.

    Returns:
        Weights of the models, float64 (M,), non-negative, summing to 1.
    """
    n_models, n = probabilities.shape[:2]
    own = np.maximum(probabilities[:, np.arange(n), codes].astype(np.float64), MIN_PROBABILITY)
    shares = np.ones(n) / n if sample_weight is None else sample_weight / sample_weight.sum()
    weights = np.full(n_models, 1.0 / n_models)
    before = -np.inf
    for _ in range(MAX_STEPS):
        mixture = weights @ own
        value = float(shares @ np.log(mixture))
        if value - before < GAIN:
            break
        before = value
        weights = weights * ((own / mixture) @ shares)
    weights = np.where(weights < NEGLIGIBLE, 0.0, weights)
    return weights / weights.sum()


def combine(probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mixture (N, C) of probabilities (M, N, C)."""
    return np.tensordot(weights, probabilities, axes=1)


class EnsembleHead(Head):
    """Heads on the same features, their probabilities mixed with weights chosen on val.

    Args:
        heads: (name, head) pairs; None: linear and nearest neighbours.
        classes: all classes of the target in order; None: those that occur.
        choose_by: metric on val that is reported; the weights minimise log loss.
        random_state: seed of the hold-out where no validation is given.

    Attributes:
        heads_: the fitted heads, (name, head) pairs.
        weights_: weight of each, float64 (M,).
    """

    def __init__(
        self,
        heads: Sequence[tuple[str, Head]] | None = None,
        classes: Sequence[Any] | None = None,
        choose_by: str = "log_loss",
        random_state: int = 0,
    ) -> None:
        self.heads = heads
        self.classes = classes
        self.choose_by = choose_by
        self.random_state = random_state

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        from dermlab.adapt.knn import KNNHead
        from dermlab.adapt.linear import LinearHead

        if self.multilabel_:
            raise ValueError("an ensemble of heads takes one label a sample")
        heads = self.heads if self.heads is not None else (("linear", LinearHead()), ("knn", KNNHead()))
        validation = None
        if X_val is not None and codes_val is not None:
            # Members see class codes; a class that only val holds is beyond any of them and chooses nothing.
            known = np.isin(codes_val, self.seen_)
            validation = X_val[known], np.searchsorted(self.seen_, codes_val[known])
        inner = tuple(range(len(self.seen_)))
        self.heads_ = [
            (name, clone(head).set_params(classes=inner).fit(X, codes, validation=validation)) for name, head in heads
        ]
        self.weights_ = np.full(len(self.heads_), 1.0 / len(self.heads_))
        if X_val is not None and codes_val is not None and validation is not None and len(validation[1]):
            judged = np.stack([head.predict_proba(validation[0]) for _, head in self.heads_])
            self.weights_ = choose_weights(judged, validation[1])
            self.head_report_["val_score"] = self._score(codes_val, self._seen_probabilities(X_val))
        names = [name for name, _ in self.heads_]
        self.head_report_ |= {
            "chosen": {"weights": dict(zip(names, self.weights_.tolist(), strict=True))},
            "converged": all(head.head_report_["converged"] for _, head in self.heads_),
            "members": {name: head.head_report_ for name, head in self.heads_},
        }

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        return combine(np.stack([head.predict_proba(X) for _, head in self.heads_]), self.weights_)


def _held_out_mixture(probabilities: np.ndarray, codes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mix val (M, N, C) with weights that each of five parts of its groups had no say in: (N, C).

    The weights are chosen on val; scored there with those very weights, the mixture would look better than each of its
    members by what it has fitted, and would win where it should not.
    """
    codes_of_groups = np.unique(groups, return_inverse=True)[1]
    part = generator(0, "ensemble", "parts").permutation(codes_of_groups.max(initial=-1) + 1)[codes_of_groups] % N_PARTS
    mixed = np.empty(probabilities.shape[1:])
    for number in range(N_PARTS):
        judged, others = part == number, part != number
        weights = np.full(len(probabilities), 1.0 / len(probabilities))
        if others.any():
            weights = choose_weights(probabilities[:, others], codes[others])
        mixed[judged] = combine(probabilities[:, judged], weights)
    return mixed


def ensemble_predictions(tables: Mapping[str, Predictions]) -> tuple[Predictions, dict[str, float]]:
    """Mix the tables of several candidates, whatever their features: the weights of each fold are chosen on its val.

    Rows of ``test`` are mixed by weights from all of val; rows of ``val`` by weights from other groups of val than
    their own, so that a score on val may be held against the members' own.

    Args:
        tables: name → predictions of the same images under the same split; each with rows of ``val``.

    Returns:
        The mixed table (its sidecar names the members and their lineage), and the mean weight of each member.

    Raises:
        InputError: fewer than two tables, or they do not hold the same rows and classes.
    """
    from dermlab.evaluate.predictions import PROBABILITY

    if len(tables) < 2:
        raise InputError("an ensemble needs at least two candidates")
    names = list(tables)
    keys = ["repeat", "fold", "seed", "split", "image_id"]
    first = tables[names[0]]
    columns = [PROBABILITY + name for name in first.classes]
    frame = first.frame.reset_index(drop=True)
    index = frame.set_index(keys).index
    stacked = [frame[columns].to_numpy(np.float64)]
    for name in names[1:]:
        other = tables[name]
        if other.classes != first.classes:
            raise InputError(f"ensemble: {name} and {names[0]} do not predict the same classes")
        place = other.frame.set_index(keys).index.get_indexer(index)
        if len(other) != len(first) or (place < 0).any():
            raise InputError(f"ensemble: {name} and {names[0]} did not predict the same images of the same folds")
        stacked.append(other.frame[columns].to_numpy(np.float64)[place])
    probabilities = np.stack(stacked)
    codes = first.truth()
    mixed = np.zeros_like(stacked[0])
    chosen = []
    for _, rows in frame.groupby(["repeat", "fold", "seed"], sort=True).indices.items():
        val = rows[(frame["split"].to_numpy()[rows] == "val") & (codes[rows] >= 0)]
        weights = np.full(len(names), 1.0 / len(names))
        if len(val):
            weights = choose_weights(probabilities[:, val], codes[val])
        mixed[rows] = combine(probabilities[:, rows], weights)
        mixed[val] = _held_out_mixture(probabilities[:, val], codes[val], frame["group"].to_numpy()[val])
        chosen.append(weights)
    frame[columns] = mixed
    means = dict(zip(names, np.mean(chosen, axis=0).tolist(), strict=True))
    lineage = {name: tables[name].meta.get("lineage") for name in names}
    meta = {"model": "ensemble", "weights": means, "lineage": lineage, "calibration": None}
    return first.with_frame(frame, **meta), means
