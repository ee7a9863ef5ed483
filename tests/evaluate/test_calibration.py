"""Reliability and temperature: against scikit-learn, a known distortion, and the rule that val alone is fitted on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from made_up import CLASSES, as_table, simulated
from sklearn.calibration import calibration_curve

from dermlab.core.errors import InputError
from dermlab.evaluate import calibrate, reliability, score, summarise, write_predictions
from dermlab.evaluate.calibration import apply_temperature, expected_ece, fit_temperature
from dermlab.evaluate.cases import cases_from_arrays


def test_bins_agree_with_scikit_learns_curve() -> None:
    label, probabilities, _ = simulated(0, n=800)
    bins = reliability(label, probabilities, n_bins=10)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == label
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=10)
    filled = [item for item in bins if item["n"]]
    assert [item["accuracy"] for item in filled] == pytest.approx(accuracy.tolist())
    assert [item["confidence"] for item in filled] == pytest.approx(mean_confidence.tolist())
    assert sum(item["n"] for item in bins) == 800
    fine = reliability(label, probabilities)
    assert score(label, probabilities, "ece") == pytest.approx(
        sum(item["n"] * abs(item["accuracy"] - item["confidence"]) for item in fine if item["n"]) / 800
    )


def test_bins_of_equal_mass_hold_about_the_same_number() -> None:
    label, probabilities, _ = simulated(0, n=750)
    counts = [item["n"] for item in reliability(label, probabilities, equal_mass=True)]
    assert sum(counts) == 750
    assert max(counts) - min(counts) <= 1


def test_equal_confidences_share_a_bin_of_equal_mass() -> None:
    bins = reliability([0, 1] * 30, [[0.7, 0.3]] * 60, n_bins=5, equal_mass=True)
    assert sorted(item["n"] for item in bins) == [0, 0, 0, 0, 60]


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_the_temperature_that_distorted_the_probabilities_is_found(truth: float) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 2
    powers = np.exp(logits)
    honest = powers / powers.sum(axis=1, keepdims=True)
    label = (honest.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    distorted = apply_temperature(honest, 1 / truth)
    assert fit_temperature(label, distorted) == pytest.approx(truth, rel=0.05)
    restored = apply_temperature(distorted, truth)
    np.testing.assert_allclose(restored, honest, rtol=0, atol=1e-4)  # the smallest were cut at 1e-12


def test_temperature_of_independent_labels() -> None:
    random = np.random.default_rng(0)
    honest = random.uniform(0.02, 0.98, (8000, 3))
    truth = (random.random((8000, 3)) < honest).astype(float)
    truth[:50, 0] = np.nan
    sharp = apply_temperature(honest, 0.5, independent=True)
    assert fit_temperature(truth, sharp) == pytest.approx(2.0, rel=0.06)


def test_zeros_of_a_neighbour_vote_stay_finite() -> None:
    votes = np.array([[1.0, 0.0], [0.6, 0.4], [0.0, 1.0], [1.0, 0.0]])
    temperature = fit_temperature(np.array([1, 0, 1, 0]), votes)
    assert 1 < temperature <= 20
    assert np.isfinite(apply_temperature(votes, temperature)).all()


def two_folds(seed: int = 0) -> Any:
    """A table of two folds with val and test, the second one far too sure of itself."""
    label, probabilities, group = simulated(seed, n=600)
    frame = as_table(label, probabilities, group)
    frame["fold"] = np.arange(600) % 2
    frame["split"] = np.where(np.arange(600) % 4 < 2, "val", "test")
    sharp = (frame["fold"] == 1).to_numpy()
    columns = [f"p:{name}" for name in CLASSES]
    frame.loc[sharp, columns] = apply_temperature(probabilities[sharp], 0.2)
    return frame


def test_each_fold_gets_its_own_temperature_and_order_is_kept(tmp_path: Any) -> None:
    before = write_predictions(tmp_path / "table.parquet", two_folds(), {"classes": list(CLASSES)})
    after = calibrate(before)
    found = after.meta["calibration"]
    assert found["fitted_on"] == "val"
    assert found["temperatures"][1]["temperature"] > 3 * found["temperatures"][0]["temperature"]
    assert (after.predicted() == before.predicted()).all()
    first, second = summarise(before, n_boot=100), summarise(after, n_boot=100)
    assert second["top1"]["value"] == first["top1"]["value"]
    assert second["log_loss"]["value"] < first["log_loss"]["value"]
    assert second["ece"]["value"] < first["ece"]["value"]
    assert second["calibration"] == found


def test_permuted_test_labels_leave_the_temperature_alone(tmp_path: Any) -> None:
    frame = two_folds()
    held = calibrate(write_predictions(tmp_path / "a.parquet", frame, {"classes": list(CLASSES)}))
    test = (frame["split"] == "test").to_numpy()
    frame.loc[test, "label"] = np.random.default_rng(0).permutation(frame.loc[test, "label"].to_numpy())
    again = calibrate(write_predictions(tmp_path / "b.parquet", frame, {"classes": list(CLASSES)}))
    assert again.meta["calibration"] == held.meta["calibration"]


def test_what_cannot_be_calibrated_says_why(table: Callable[..., Any], tmp_path: Any) -> None:
    with pytest.raises(InputError, match="no labelled rows of split 'val'"):
        calibrate(table())
    with pytest.raises(InputError, match="test split only reports"):
        calibrate(table(), fitted_on="test")
    hard = two_folds().drop(columns=[f"p:{name}" for name in CLASSES]).assign(prediction="MEL")
    predictions = write_predictions(tmp_path / "hard.parquet", hard, {"classes": list(CLASSES)})
    with pytest.raises(InputError, match="hard labels"):
        calibrate(predictions)


def test_the_error_that_chance_alone_makes() -> None:
    """What a perfectly calibrated model would show: near the average of simulated ones, and falling with n."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(40):
        confidence = random.uniform(0.5, 1, 200)
        label = np.where(random.random(200) < confidence, 1, 0)
        found.append(score(label, confidence, "ece", classes=[0, 1]))
    confidence = random.uniform(0.5, 1, 200)
    small = expected_ece([cases_from_arrays(np.ones(200, int), confidence, classes=[0, 1])])
    large = expected_ece([cases_from_arrays(np.ones(3200, int), np.tile(confidence, 16), classes=[0, 1])])
    assert small == pytest.approx(np.mean(found), rel=0.1)
    assert large == pytest.approx(small / 4, rel=0.1)
