"""The nearest-neighbour head against scikit-learn, and the choice of k."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from dermlab.adapt.knn import KNNHead, votes
from dermlab.evaluate.metrics import score


def embeddings(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.integers(0, 4, size=n)
    centres = np.random.default_rng(5).normal(size=(4, 20))
    return (centres[y] + 1.5 * random.normal(size=(n, 20))).astype(np.float32), y


@pytest.mark.parametrize("k", [1, 7, 50])
def test_plain_votes_are_those_of_scikit_learn(k: int) -> None:
    X, y = embeddings()
    queries, _ = embeddings(80, seed=1)
    ours = KNNHead(k=k, weights="uniform").fit(X, y).predict_proba(queries)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(X, y).predict_proba(queries)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_softmax_votes_are_those_of_scikit_learn_with_that_weight() -> None:
    X, y = embeddings()
    queries, _ = embeddings(80, seed=1)
    ours = KNNHead(k=30).fit(X, y).predict_proba(queries)
    oracle = KNeighborsClassifier(
        30, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    np.testing.assert_allclose(ours, oracle.fit(X, y).predict_proba(queries), atol=1e-5)


@pytest.mark.parametrize("metric", ["top1", "macro_f1", "log_loss"])
def test_k_is_the_best_on_val_and_ties_go_to_the_larger(metric: str) -> None:
    X, y = embeddings()
    X_val, y_val = embeddings(90, seed=1)
    head = KNNHead(choose_by=metric).fit(X, y, validation=(X_val, y_val))
    values = {
        k: score(y_val, KNNHead(k=k).fit(X, y, validation=(X_val, y_val)).predict_proba(X_val), metric)
        for k in (1, 5, 10, 20, 30, 50, 100, 200)
    }
    best = min(values.values()) if metric == "log_loss" else max(values.values())
    # Log losses are met in single precision here and in double there.
    assert head.k_ == max(k for k, value in values.items() if value == pytest.approx(best, rel=1e-6))
    assert [row["k"] for row in head.head_report_["sweep"]] == list(values)


def test_more_neighbours_than_photos_means_all_of_them() -> None:
    X, y = embeddings(12)
    head = KNNHead(k=200, weights="uniform").fit(X, y, validation=(X, y))
    assert head.k_ == 12
    np.testing.assert_allclose(head.predict_proba(X[:1])[0], np.bincount(y, minlength=4)[np.unique(y)] / 12)


def test_votes_for_several_k_are_those_of_each_alone() -> None:
    random = np.random.default_rng(0)
    similarity = np.sort(random.uniform(-1, 1, size=(50, 40)))[:, ::-1]
    codes = random.integers(0, 3, size=(50, 40))
    together = votes(similarity, codes, [1, 9, 40], 3, 0.07)
    for place, k in enumerate([1, 9, 40]):
        alone = votes(similarity[:, :k], codes[:, :k], [k], 3, 0.07)[0]
        np.testing.assert_allclose(together[place], alone, atol=1e-12)


def test_an_empty_vector_and_lengths_do_no_harm() -> None:
    X, y = embeddings()
    scaled = X * np.random.default_rng(0).uniform(0.1, 10, size=(len(X), 1)).astype(np.float32)
    queries = np.vstack([np.zeros((1, 20), np.float32), X[:5]])
    first, second = (KNNHead(k=20).fit(bank, y).predict_proba(queries) for bank in (X, scaled))
    np.testing.assert_allclose(first[1:], second[1:], atol=1e-4)
    assert np.isfinite(first).all()


def test_centring_undoes_a_common_direction() -> None:
    """With a common shift all similarities are near 1 and all votes alike; centring gives back what was there."""
    X, y = embeddings()
    queries, _ = embeddings(90, seed=1)
    shift = np.full(20, 50.0, np.float32)
    shifted, alone = (
        KNNHead(k=20, centre=True).fit(X + by, y).predict_proba(queries + by) for by in (shift, 0 * shift)
    )
    plain = KNNHead(k=20).fit(X + shift, y).predict_proba(queries + shift)
    np.testing.assert_allclose(shifted, alone, atol=1e-3)
    assert np.abs(plain - alone).max() > 0.1
