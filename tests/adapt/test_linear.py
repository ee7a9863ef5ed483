"""The linear head against scikit-learn, and how the sweep chooses."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from dermlab.adapt.linear import LinearHead
from dermlab.adapt.logistic import LogisticPath, softmax
from dermlab.evaluate.metrics import score


def standardised(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "wide":  # more features than samples: the rotation goes to the sample space
        random = np.random.default_rng(0)
        y = random.integers(0, 3, size=60)
        return StandardScaler().fit_transform(random.normal(size=(60, 200)) + y[:, None] * 0.2), y
    data = {"wine": load_wine, "cancer": load_breast_cancer, "digits": load_digits}[name]()
    rows = slice(0, 500)
    X = data.data[rows]
    return StandardScaler().fit_transform(X[:, X.std(axis=0) > 0]), data.target[rows]


@pytest.mark.parametrize("name", ["wine", "cancer", "digits", "wide"])
@pytest.mark.parametrize("C", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("weight", [None, "balanced"])
def test_coefficients_are_those_of_scikit_learn(name: str, C: float, weight: str | None) -> None:
    X, y = standardised(name)
    ours = LinearHead(C=C, class_weight=weight, tol=1e-9).fit(X, y)
    theirs = LogisticRegression(C=C, class_weight=weight, tol=1e-10, max_iter=20_000).fit(X, y)
    coef, intercept = theirs.coef_, theirs.intercept_
    if len(coef) == 1:  # two classes: one vector w there, -w/2 and +w/2 here
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    np.testing.assert_allclose(ours.coef_, coef, atol=2e-5 * max(1, np.abs(coef).max()))
    np.testing.assert_allclose(ours.intercept_, intercept - intercept.mean(), atol=1e-3)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-5)


def test_single_precision_gives_the_same_probabilities() -> None:
    X, y = standardised("digits")
    double = LinearHead(C=0.01).fit(X, y)
    single = LinearHead(C=0.01).fit(X.astype(np.float32), y)
    assert single.head_report_["converged"]
    np.testing.assert_allclose(single.predict_proba(X), double.predict_proba(X), atol=1e-3)


def test_the_gradient_at_the_solution_is_as_small_as_reported() -> None:
    """The gradient is written down here anew, in the original features."""
    X, y = standardised("wine")
    weight = np.random.default_rng(0).uniform(0.5, 2, size=len(y))
    fit = LogisticPath(X, y, 3, weight, tolerance=1e-7).solve(0.3)
    residual = (softmax(X @ fit.coef.T + fit.intercept) - np.eye(3)[y]) * weight[:, None]
    gradient = residual.T @ X / weight.sum() + fit.coef / (0.3 * weight.sum())
    assert fit.converged
    assert max(np.abs(gradient).max(), np.abs(residual.mean(axis=0)).max()) < 2e-7


def test_a_warm_start_does_not_change_the_solution() -> None:
    X, y = standardised("wide")
    swept = {fit.C: fit for fit in LogisticPath(X, y, 3, tolerance=1e-9).sweep(np.array([1e-3, 0.1, 1.0, 10.0]))}
    for C, fit in swept.items():
        cold = LogisticPath(X, y, 3, tolerance=1e-9).solve(C)
        np.testing.assert_allclose(fit.coef, cold.coef, atol=1e-5)


def test_the_best_penalty_on_val_is_chosen_by_the_metric_named() -> None:
    random = np.random.default_rng(1)
    y = random.integers(0, 3, size=400)
    X = random.normal(size=(400, 60)) + np.eye(60)[:3][y] * 1.5
    grid = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    for metric in ("top1", "macro_f1", "auroc", "log_loss"):
        head = LinearHead(C=grid, choose_by=metric).fit(X[:200], y[:200], validation=(X[200:], y[200:]))
        every = {
            C: score(y[200:], LinearHead(C=C).fit(X[:200], y[:200], validation=(X, y)).predict_proba(X[200:]), metric)
            for C in grid
        }
        best = min(every.values()) if metric == "log_loss" else max(every.values())
        assert every[head.C_] == pytest.approx(best, abs=1e-6)
        assert min(C for C, value in every.items() if value == pytest.approx(best, abs=1e-9)) == head.C_


def test_ties_go_to_the_stronger_penalty() -> None:
    X, y = standardised("cancer")
    separable = np.where(y[:, None] == 1, 1.0, -1.0) + X[:, :1] * 1e-3
    head = LinearHead(C=(0.01, 0.1, 1.0), choose_by="top1").fit(separable, y, validation=(separable, y))
    assert head.C_ == 0.01


def test_the_grid_is_extended_at_its_edge_and_says_so() -> None:
    """Labels without noise: the weaker the penalty the better, without end."""
    random = np.random.default_rng(0)
    X = random.normal(size=(300, 2))
    y = (X[:, 0] > 0).astype(int)
    report = LinearHead().fit(X, y, validation=(X, y)).head_report_
    assert report["chosen"]["C"] > 10
    assert report["n_extensions"] == 6
    assert any("edge" in text for text in report["warnings"])


def test_a_feature_that_never_varied_in_training_has_no_say() -> None:
    X, y = standardised("wine")
    X = np.hstack([X, np.full((len(X), 1), 3.0)])
    head = LinearHead().fit(X, y)
    moved = X.copy()
    moved[:, -1] = 1e6
    assert np.array_equal(head.predict_proba(X), head.predict_proba(moved))


@pytest.mark.parametrize("name", ["wine", "cancer"])
def test_without_standardising_it_is_scikit_learns_regression_on_raw_features(name: str) -> None:
    X, y = standardised(name)
    X = X * np.linspace(0.2, 3, X.shape[1]) + 5  # of unlike spread and far from zero
    ours = LinearHead(C=1.0, standardise=False, tol=1e-9).fit(X, y)
    theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=20_000).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    assert np.abs(ours.predict_proba(X) - LinearHead(C=1.0, tol=1e-9).fit(X, y).predict_proba(X)).max() > 1e-3
