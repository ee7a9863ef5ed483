"""The ensemble's weights are the best convex ones on val, fold by fold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from dermlab.adapt.ensemble import EnsembleHead, choose_weights, combine, ensemble_predictions
from dermlab.adapt.knn import KNNHead
from dermlab.adapt.linear import LinearHead
from dermlab.core.errors import InputError
from dermlab.evaluate.predictions import Predictions


def models(n: int = 200, m: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    codes = random.integers(0, 3, size=n)
    logits = random.normal(size=(m, n, 3)) + np.eye(3)[codes] * np.linspace(0, 2, m)[:, None, None]
    powers = np.exp(logits)
    return powers / powers.sum(axis=2, keepdims=True), codes


def test_the_weights_are_those_of_a_general_optimiser() -> None:
    probabilities, codes = models()
    ours = choose_weights(probabilities, codes)

    def loss(weights: np.ndarray) -> float:
        return float(-np.log(combine(probabilities, weights)[np.arange(len(codes)), codes]).mean())

    theirs = minimize(
        loss,
        np.full(4, 0.25),
        method="SLSQP",
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert ours.sum() == pytest.approx(1)
    assert (ours >= 0).all()
    assert loss(ours) == pytest.approx(theirs.fun, abs=1e-5)


def test_a_model_that_knows_nothing_gets_nothing() -> None:
    probabilities, codes = models()
    probabilities = np.stack([probabilities[3], np.full_like(probabilities[3], 1 / 3)])
    assert choose_weights(probabilities, codes)[1] < 0.05


def test_equal_models_share() -> None:
    probabilities, codes = models()
    np.testing.assert_allclose(choose_weights(probabilities[[3, 3]], codes), [0.5, 0.5])


def test_an_ensemble_of_heads_is_the_weighted_mean_of_its_members() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, size=300)
    X = random.normal(size=(300, 8)) + np.eye(8)[y] * 2
    head = EnsembleHead((("linear", LinearHead()), ("knn", KNNHead()))).fit(
        X[:200], y[:200], validation=(X[200:], y[200:])
    )
    parts = [member.predict_proba(X) for _, member in head.heads_]
    expected = sum(weight * part for weight, part in zip(head.weights_, parts, strict=True))
    np.testing.assert_allclose(head.predict_proba(X), expected)
    assert set(head.head_report_["chosen"]["weights"]) == {"linear", "knn"}


def table(probabilities: np.ndarray, codes: np.ndarray, name: str) -> Predictions:
    """Lay probabilities out as two folds, a half of each fold's rows val and a half test."""
    n = len(codes)
    classes = ("ACK", "BCC", "MEL")
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "split": np.where(np.arange(n) % 2, "val", "test"),
            "fold": (np.arange(n) >= n // 2).astype(int),
            "repeat": 0,
            "seed": 0,
            "label": np.array(classes)[codes],
            "group": [f"g{k // 4}" for k in range(n)],
        }
    )
    for code, column in enumerate(classes):
        frame[f"p:{column}"] = probabilities[:, code]
    return Predictions(frame, classes, {"model": name, "lineage": {"encoder": name}})


def test_tables_are_mixed_by_weights_from_the_val_rows_of_each_fold() -> None:
    probabilities, codes = models(200, 2)
    tables = {name: table(probabilities[k], codes, name) for k, name in enumerate(("a", "b"))}
    shuffled = tables["b"].frame.sample(frac=1, random_state=0).reset_index(drop=True)
    tables["b"] = tables["b"].with_frame(shuffled)
    mixed, weights = ensemble_predictions(tables)
    for fold in (0, 1):
        rows = (mixed.frame["fold"] == fold).to_numpy()
        val = rows & (mixed.frame["split"] == "val").to_numpy()
        test = rows & ~val
        expected = combine(probabilities[:, test], choose_weights(probabilities[:, val], codes[val]))
        np.testing.assert_allclose(mixed.probabilities()[test], expected, atol=1e-12)
    assert sum(weights.values()) == pytest.approx(1)
    assert mixed.meta["lineage"] == {"a": {"encoder": "a"}, "b": {"encoder": "b"}}


def test_a_val_row_is_mixed_by_weights_that_its_own_group_had_no_say_in() -> None:
    probabilities, codes = models(200, 4)
    probabilities, names = probabilities[2:], ("a", "b")
    first, _ = ensemble_predictions({name: table(probabilities[k], codes, name) for k, name in enumerate(names)})
    changed = codes.copy()
    changed[1] = (changed[1] + 1) % 3  # a row of val
    second, _ = ensemble_predictions({name: table(probabilities[k], changed, name) for k, name in enumerate(names)})
    own = (first.frame["group"] == "g0").to_numpy() & (first.frame["split"] == "val").to_numpy()
    moved = (first.probabilities() != second.probabilities()).any(axis=1)
    assert not moved[own].any()
    assert moved[(first.frame["split"] == "test").to_numpy() & (first.frame["fold"] == 0).to_numpy()].any()


def test_an_ensemble_of_noise_does_not_look_better_on_val_than_it_is() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), size=(12, 400))
    codes = random.integers(0, 3, size=400)
    mixed, _ = ensemble_predictions({f"m{k}": table(one, codes, f"m{k}") for k, one in enumerate(probabilities)})
    loss = -np.log(mixed.probabilities()[np.arange(400), codes])
    val = (mixed.frame["split"] == "val").to_numpy()
    fitted = [
        combine(probabilities[:, rows], choose_weights(probabilities[:, rows], codes[rows]))[range(100), codes[rows]]
        for rows in (np.flatnonzero(val)[:100], np.flatnonzero(val)[100:])
    ]
    assert loss[val].mean() > -np.log(fitted).mean()
    assert loss[val].mean() == pytest.approx(loss[~val].mean(), abs=0.06)


def test_permuted_test_labels_change_no_weight() -> None:
    probabilities, codes = models(200, 2)
    changed = codes.copy()
    changed[::2] = np.roll(changed[::2], 1)  # the even rows are test
    first, second = (
        ensemble_predictions({name: table(probabilities[k], y, name) for k, name in enumerate(("a", "b"))})
        for y in (codes, changed)
    )
    assert first[1] == second[1]
    assert np.array_equal(first[0].probabilities(), second[0].probabilities())


def test_tables_of_other_images_are_refused() -> None:
    probabilities, codes = models(100, 2)
    tables = {"a": table(probabilities[0], codes, "a"), "b": table(probabilities[1, :90], codes[:90], "b")}
    with pytest.raises(InputError, match="same images"):
        ensemble_predictions(tables)
    with pytest.raises(InputError, match="two"):
        ensemble_predictions({"a": tables["a"]})
