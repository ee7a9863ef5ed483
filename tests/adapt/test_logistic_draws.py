"""Logistic regression on many draws at once, against scikit-learn on each draw alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dermlab.adapt import logistic_draws
from dermlab.adapt.logistic_draws import DrawPaths

CS = (1e-3, 1e-1, 1.0)
N, D, K = 600, 30, 4


def pool(seed: int = 0, n: int = N, n_classes: int = K) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    codes = random.integers(0, n_classes, n)
    spread = np.linspace(3, 0.3, D)
    X = 5 + random.normal(size=(n, D)) * spread + random.normal(size=(n_classes, D))[codes] * spread * 0.5
    return X.astype(np.float32), codes


def plain(X: np.ndarray, codes: np.ndarray, C: float) -> LogisticRegression:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-8, max_iter=20_000))
    return model.fit(X.astype(np.float64), codes)


@pytest.mark.parametrize(("n", "pooled_from"), [(12, 0.25), (30, 0.25), (60, 0.25), (60, 0.05), (400, 0.25)])
def test_each_draw_has_the_probabilities_of_scikit_learn(
    n: int, pooled_from: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer samples than features, as many, more, and most of the pool: every way of multiplying."""
    monkeypatch.setattr(logistic_draws, "POOLED_FROM", pooled_from)
    X, codes = pool()
    random = np.random.default_rng(1)
    draws = [np.sort(random.permutation(N)[:n]) for _ in range(5)]
    fits = DrawPaths(X, codes, K, tolerance=3e-6).solve(draws, CS)
    for fit in fits:
        assert (fit.gradient_norm <= 3e-6).all()
        logits = fit.logits(X).astype(np.float64)
        found = np.exp(logits - logits.max(axis=2, keepdims=True))
        found /= found.sum(axis=2, keepdims=True)
        for place, rows in enumerate(draws):
            model = plain(X[rows], codes[rows], fit.C)
            expected = np.zeros((N, K))
            expected[:, model[-1].classes_] = model.predict_proba(X.astype(np.float64))
            np.testing.assert_allclose(found[place], expected, atol=3e-3)


def test_two_classes_are_penalised_as_scikit_learn_does() -> None:
    X, codes = pool(n_classes=2)
    rows = np.arange(80)
    fit = DrawPaths(X, codes, 2, tolerance=1e-6).solve([rows], [0.05])[0]
    model = plain(X[rows], codes[rows], 0.05)
    logits = fit.logits(X)[0]
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], model.decision_function(X.astype(np.float64)), atol=5e-3)


def test_draws_that_lack_a_class_never_answer_it() -> None:
    X, codes = pool()
    without = np.flatnonzero(codes != 2)[:40]
    fits = DrawPaths(X, codes, K).solve([np.arange(40), without], CS)
    for fit in fits:
        assert np.isneginf(fit.intercept[1, 2])
        assert (fit.logits(X)[1].argmax(axis=1) != 2).all()
        assert (fit.logits(X)[0].argmax(axis=1) == 2).any()


def test_a_draw_s_answer_does_not_depend_on_its_company() -> None:
    X, codes = pool()
    random = np.random.default_rng(2)
    draws = [np.sort(random.permutation(N)[:n]) for n in (20, 20, 100, 300, 300)]
    together = DrawPaths(X, codes, K, tolerance=1e-6).solve(draws, CS)
    for place, rows in enumerate(draws):
        alone = DrawPaths(X, codes, K, tolerance=1e-6).solve([rows], CS)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one.coef[place], other.coef[0], atol=2e-3)


def test_a_feature_that_never_varied_in_a_draw_has_no_say_in_it() -> None:
    X, codes = pool()
    rows = np.arange(50)
    X[rows, 3] = 7.0
    fit = DrawPaths(X, codes, K).solve([rows], [1.0])[0]
    assert not fit.coef[0, :, 3].any()


def test_penalties_come_back_strongest_first_and_the_gradient_says_whether_they_converged() -> None:
    X, codes = pool()
    fits = DrawPaths(X, codes, K, tolerance=1e-6).solve([np.arange(200)], (1.0, 1e-3), max_iterations=1)
    assert [fit.C for fit in fits] == [1e-3, 1.0]
    assert fits[1].gradient_norm[0] > 1e-6
