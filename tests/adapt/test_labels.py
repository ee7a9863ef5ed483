"""Heads on targets of several labels a photo: each label is a question of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from dermlab.adapt.base import Head, hold_out_labels, label_log_loss
from dermlab.adapt.floors import MajorityHead
from dermlab.adapt.fusion import FusionHead
from dermlab.adapt.knn import KNNHead
from dermlab.adapt.linear import LinearHead
from dermlab.adapt.mlp import MLPHead
from dermlab.adapt.saving import load_head, save_head

SIGNS = ("crust", "scale", "ulcer")
HEADS = [
    KNNHead(),
    LinearHead(),
    LinearHead(class_weight="balanced"),
    MLPHead(epochs=8, n_members=2, hidden=16, learning_rate=1e-2),
    FusionHead(n_embedding=6, epochs=8, n_members=2, hidden=16, learning_rate=1e-2),
    MajorityHead(),
]


def photos(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, 8)).astype(np.float32)
    W = np.array([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]])
    return X, (random.random((n, 3)) < expit(X @ W - [0, 1, 2])).astype(float)


@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
class TestEveryHead:
    def test_labels_are_answered_one_by_one(self, head: Head) -> None:
        fitted = clone(head).set_params(classes=SIGNS).fit(*photos(), validation=photos(80, seed=1))
        X, y = photos(200, seed=2)
        probabilities = fitted.predict_proba(X)
        assert fitted.classes_.tolist() == list(SIGNS)
        assert probabilities.shape == (200, 3)
        assert (np.ptp(probabilities.sum(axis=1)) > 0.1) != isinstance(head, MajorityHead)
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
        assert np.array_equal(fitted.predict(X), (probabilities >= 0.5).astype(int))
        if not isinstance(head, MajorityHead):
            assert roc_auc_score(y, probabilities) > 0.75
        assert np.isfinite(fitted.head_report_["val_score"])

    def test_unknown_labels_and_labels_of_one_kind(self, head: Head) -> None:
        X, y = photos()
        y[:, 1] = np.where(np.isnan(y[:, 1]), np.nan, 0)
        y[::3, 0] = np.nan
        X_val, y_val = photos(60, seed=1)
        y_val[5] = np.nan
        fitted = clone(head).set_params(classes=SIGNS).fit(X, y, validation=(X_val, y_val))
        probabilities = fitted.predict_proba(X)
        assert np.isfinite(probabilities).all()
        assert (probabilities[:, 1] == 0).all()
        assert any("scale" in text for text in fitted.head_report_["warnings"])

    def test_a_saved_head_predicts_the_same_bits(self, head: Head, tmp_path: Path) -> None:
        X, y = photos()
        fitted = clone(head).set_params(classes=SIGNS).fit(X, y)
        save_head(fitted, tmp_path)
        assert np.array_equal(load_head(tmp_path).predict_proba(X), fitted.predict_proba(X))

    def test_labels_that_nobody_has_leave_nothing_to_fit(self, head: Head, tmp_path: Path) -> None:
        X, y = photos(20)
        fitted = clone(head).fit(X, np.zeros_like(y))
        assert (fitted.predict_proba(X) == 0).all()
        save_head(fitted, tmp_path)
        assert (load_head(tmp_path).predict_proba(X) == 0).all()

    def test_other_labels_than_yes_and_no_are_refused(self, head: Head) -> None:
        X, y = photos(20)
        with pytest.raises(ValueError, match="0, 1 or NaN"):
            clone(head).fit(X, y * 2)
        with pytest.raises(ValueError, match="2 classes"):
            clone(head).set_params(classes=("a", "b")).fit(X, y)


def test_linear_is_scikit_learns_regression_of_each_label() -> None:
    X, y = photos()
    X, y = X.astype(np.float64), y.copy()
    y[::5, 2] = np.nan
    head = LinearHead(C=0.1, tol=1e-9).fit(X, y, validation=photos(60, seed=1))
    scaled = StandardScaler().fit_transform(X)
    for code in range(3):
        known = ~np.isnan(y[:, code])
        theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000).fit(scaled[known], y[known, code])
        np.testing.assert_allclose(head.predict_proba(X)[:, code], theirs.predict_proba(scaled)[:, 1], atol=1e-5)


def test_balanced_weights_are_scikit_learns() -> None:
    X, y = photos()
    X = X.astype(np.float64)
    head = LinearHead(C=0.1, tol=1e-9, class_weight="balanced").fit(X, y, validation=photos(60, seed=1))
    scaled = StandardScaler().fit_transform(X)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000, class_weight="balanced").fit(scaled, y[:, 2])
    np.testing.assert_allclose(head.predict_proba(X)[:, 2], theirs.predict_proba(scaled)[:, 1], atol=1e-5)


def test_neighbours_vote_on_each_label_as_scikit_learns() -> None:
    X, y = photos()
    head = KNNHead(k=7, weights="uniform").fit(X, y, validation=photos(60, seed=1))
    theirs = KNeighborsClassifier(7, metric="cosine").fit(X, y)
    expected = np.column_stack([column[:, 1] for column in theirs.predict_proba(X)])
    np.testing.assert_allclose(head.predict_proba(X), expected, atol=1e-9)


def test_the_majority_floor_is_the_share_of_each_label() -> None:
    X, y = photos()
    y[0, 0] = np.nan
    assert MajorityHead().fit(X, y).predict_proba(X[:1])[0] == pytest.approx(np.nanmean(y, axis=0))


def test_a_loss_weighs_known_labels_only() -> None:
    labels = np.array([[1.0, 0.0], [np.nan, 1.0]])
    probabilities = np.array([[0.5, 0.2], [0.9, 0.25]])
    expected = -np.mean(np.log([0.5, 0.8, 0.25]))
    assert label_log_loss(probabilities, labels, np.ones((2, 2))) == pytest.approx(expected)
    assert np.isnan(label_log_loss(probabilities, np.full((2, 2), np.nan), np.ones((2, 2))))


def test_what_is_held_out_has_every_label_and_no_divided_patient() -> None:
    _, y = photos(300)
    groups = np.arange(300) // 3
    held = hold_out_labels(y, groups, 0)
    assert 0.15 < held.mean() < 0.25
    assert not set(groups[held]) & set(groups[~held])
    np.testing.assert_allclose(y[held].mean(axis=0), y.mean(axis=0), atol=0.05)
