"""The nearest-neighbour head: cosine similarity, votes by similarity, k chosen on val."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from dermlab.adapt.base import Head
from dermlab.features.neighbours import nearest

KS = (1, 5, 10, 20, 30, 50, 100, 200)
BLOCK_VALUES = 1 << 23


class KNNHead(Head):
    """Cosine k-nearest neighbours; ``k`` is chosen on val from one search for the largest.

    With ``weights="softmax"`` a neighbour of similarity s votes with weight ``exp(s / temperature)`` (Wu et al. 2018,
    "Unsupervised feature learning via non-parametric instance discrimination", section 3.4; temperature .07 as in
    DINO's evaluation), which also ranks better than counting heads does. Ties between values of ``k`` go to the
    larger, the smoother.

    Args:
        k: one number of neighbours, or several to choose from; None is 1, 5, 10, 20, 30, 50, 100, 200. Numbers above
            the number of training samples mean all of them.
        weights: ``"softmax"`` or ``"uniform"`` (one vote each).
        temperature: of the softmax.
        centre: subtract the training mean first; helps encoders whose vectors all point one way (CLIP's do).
        classes: all classes of the target in order; None: those that occur.
        choose_by: metric on val that chooses.
        random_state: seed of the hold-out where no validation is given.

    Attributes:
        k_: the chosen number of neighbours.
        bank_: training vectors, float32 (N, D), divided by their length (cosine needs no more).
        bank_codes_: class codes of the bank, int64 (N,); of labels 0, 1 and -1 (unknown), (N, S).
        mean_: float32 (D,), subtracted first; zero without ``centre``.
    """

    def __init__(
        self,
        k: int | Sequence[int] | None = None,
        weights: Literal["softmax", "uniform"] = "softmax",
        temperature: float = 0.07,
        centre: bool = False,
        classes: Sequence[Any] | None = None,
        choose_by: str = "log_loss",
        random_state: int = 0,
    ) -> None:
        self.k = k
        self.weights = weights
        self.temperature = temperature
        self.centre = centre
        self.classes = classes
        self.choose_by = choose_by
        self.random_state = random_state

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        if self.weights not in ("softmax", "uniform"):
            raise ValueError(f"weights: {self.weights!r} is not one of softmax, uniform")
        self._fill_bank(X, codes)
        ks = sorted({min(int(k), len(codes)) for k in np.atleast_1d(KS if self.k is None else self.k)})
        if ks[0] < 1:
            raise ValueError(f"k: {ks[0]} is not a number of neighbours")
        if X_val is None or codes_val is None:
            self._choose(ks[len(ks) // 2])
            return
        similarity, index = nearest(self._prepare(X_val), self.bank_, ks[-1])
        every = self._votes(similarity, index, ks)
        scores = [self._score(codes_val, probabilities) for probabilities in every]
        self.head_report_["sweep"] = [{"k": k, "val_score": value} for k, value in zip(ks, scores, strict=True)]
        best = max(range(len(ks)), key=lambda place: (scores[place], ks[place]))
        self.head_report_["val_score"] = scores[best]
        self._choose(ks[best])

    def _refit(self, X: np.ndarray, codes: np.ndarray) -> None:
        self._fill_bank(X, codes)

    def _fill_bank(self, X: np.ndarray, codes: np.ndarray) -> None:
        self.mean_ = np.zeros(X.shape[1], np.float32)
        if self.centre:
            self.mean_ = X.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.bank_, self.bank_codes_ = self._prepare(X), np.nan_to_num(codes, nan=-1).astype(np.int64)

    def _prepare(self, X: np.ndarray) -> np.ndarray:
        centred = np.asarray(X, dtype=np.float64) - self.mean_
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        return (centred / np.where(length > 0, length, 1.0)).astype(np.float32)

    def _temperature(self) -> float | None:
        return self.temperature if self.weights == "softmax" else None

    def _choose(self, k: int) -> None:
        self.k_ = k
        self.head_report_["chosen"] = {"k": k}

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        queries = self._prepare(X)
        _, index = nearest(queries, self.bank_, self.k_)
        similarity = exact_similarity(queries, self.bank_, index)
        return self._votes(similarity, index, [self.k_])[0]

    def _votes(self, similarity: np.ndarray, index: np.ndarray, ks: Sequence[int]) -> np.ndarray:
        if not self.multilabel_:
            return votes(similarity, self.bank_codes_[index], ks, len(self.seen_), self._temperature())
        marks = (self.bank_codes_ == 1).astype(np.float64), (self.bank_codes_ >= 0).astype(np.float64)
        return label_votes(similarity, index, *marks, ks, self._temperature())


def exact_similarity(queries: np.ndarray, bank: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the products of queries (Q, D) with their neighbours ``bank[index]``, float64 (Q, K).

    The search multiplies blocks in single precision, whose last bits depend on how many queries come together; a
    photo's probabilities must not.
    """
    result = np.empty(index.shape)
    block = max(1, BLOCK_VALUES // (index.shape[1] * bank.shape[1]))
    for start in range(0, len(queries), block):
        part = slice(start, start + block)
        neighbours = bank[index[part]].astype(np.float64)
        result[part] = (neighbours @ queries[part, :, None].astype(np.float64))[..., 0]
    return result


def votes(
    similarity: np.ndarray, codes: np.ndarray, ks: Sequence[int], n_classes: int, temperature: float | None
) -> np.ndarray:
    """Return class probabilities for several numbers of neighbours at once, float64 (len(ks), Q, C).

    Args:
        similarity: of the neighbours of Q queries, best first, (Q, K), K at least max(ks).
        codes: their class codes, int (Q, K).
        ks: ascending numbers of neighbours.
        n_classes: C.
        temperature: of the softmax over similarities; None: one vote each.
    """
    weight = None
    if temperature is not None:
        # Measured from the best neighbour, so that the largest weight is 1 and nothing overflows or vanishes.
        weight = np.exp((similarity.astype(np.float64) - similarity[:, :1]) / temperature)
    result = np.zeros((len(ks), len(similarity), n_classes))
    first = np.arange(len(similarity))[:, None] * n_classes
    total = np.zeros(first.size * n_classes)
    done = 0
    for place, k in enumerate(ks):
        cell = (first + codes[:, done:k]).ravel()
        total += np.bincount(cell, None if weight is None else weight[:, done:k].ravel(), minlength=len(total))
        result[place] = total.reshape(-1, n_classes)
        done = k
    return result / result.sum(axis=2, keepdims=True)


def label_votes(
    similarity: np.ndarray,
    index: np.ndarray,
    yes: np.ndarray,
    known: np.ndarray,
    ks: Sequence[int],
    temperature: float | None,
) -> np.ndarray:
    """Return the share of the votes that say yes to each label, for several numbers of neighbours: (len(ks), Q, L).

    A neighbour votes on the labels that are known of it; where none of k does, the label's share of the bank stands.

    Args:
        similarity: of the neighbours of Q queries, best first, (Q, K), K at least max(ks).
        index: which samples of the bank they are, (Q, K).
        yes: 1 where a sample of the bank has the label, float (N, L).
        known: 1 where that is known, float (N, L).
        ks: ascending numbers of neighbours.
        temperature: of the softmax over similarities; None: one vote each.
    """
    weight = np.ones(similarity.shape)
    if temperature is not None:
        weight = np.exp((similarity.astype(np.float64) - similarity[:, :1]) / temperature)
    share = yes.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    result = np.empty((len(ks), len(similarity), yes.shape[1]))
    block = max(1, BLOCK_VALUES // (similarity.shape[1] * yes.shape[1]))
    for start in range(0, len(similarity), block):
        part = slice(start, start + block)
        said = np.cumsum(weight[part, :, None] * yes[index[part]], axis=1)
        votes_cast = np.cumsum(weight[part, :, None] * known[index[part]], axis=1)
        for place, k in enumerate(ks):
            below = votes_cast[:, k - 1]
            result[place, part] = np.where(below > 0, said[:, k - 1] / np.where(below > 0, below, 1.0), share)
    return result
