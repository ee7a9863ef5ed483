"""Calibration: against scikit-learn, known distortions, and the rule that val alone is fitted on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import CLASSES, as_table, folded, simulated, with_test_labels_permuted
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from dermlab.core.errors import InputError
from dermlab.evaluate import calibrate, reliability, score, summarise, write_predictions
from dermlab.evaluate.calibration import (
    apply_isotonic,
    apply_temperature,
    apply_vector,
    calibration_report,
    cross_validated_log_loss,
    expected_ece,
    fit_isotonic,
    fit_temperature,
    fit_vector,
    parts_of_groups,
)
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


class Said(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose features are its probabilities, for scikit-learn's calibration of it."""

    def __init__(self, n_classes: int = 4, logits: bool = False) -> None:
        self.n_classes, self.logits = n_classes, logits
        self.classes_ = np.arange(n_classes)

    def fit(self, features: Any, labels: Any) -> Any:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def decision_function(self, features: Any) -> Any:
        return np.log(features) if self.logits else features

    def predict(self, features: Any) -> Any:
        return features.argmax(axis=1)


def test_isotonic_agrees_with_scikit_learn() -> None:
    label, probabilities, _ = simulated(0, n=1500)
    oracle = CalibratedClassifierCV(FrozenEstimator(Said()), method="isotonic").fit(probabilities, label)
    new = simulated(1, n=500)[1]
    ours = apply_isotonic(new, fit_isotonic(label, probabilities))
    # Shares are held .5 / (n + 1) away from 0 and 1, scikit-learn's are not.
    np.testing.assert_allclose(ours, oracle.predict_proba(new), rtol=0, atol=0.002)
    clipped = np.stack(
        [
            np.clip(one.predict(new[:, code]), 0.5 / 1501, 1 - 0.5 / 1501)
            for code, one in enumerate(oracle.calibrated_classifiers_[0].calibrators)
        ],
        axis=1,
    )
    np.testing.assert_allclose(ours, clipped / clipped.sum(axis=1, keepdims=True), rtol=0, atol=1e-4)
    assert ours.min() > 0


def test_temperature_agrees_with_scikit_learn() -> None:
    label, probabilities, _ = simulated(0, n=1500)
    oracle = CalibratedClassifierCV(FrozenEstimator(Said(logits=True)), method="temperature").fit(probabilities, label)
    new = simulated(1, n=100)[1]
    ours = apply_temperature(new, fit_temperature(label, probabilities))
    np.testing.assert_allclose(ours, oracle.predict_proba(new), rtol=0, atol=1e-4)


def test_vector_scaling_undoes_scales_and_shifts() -> None:
    random = np.random.default_rng(0)
    honest = np.exp(random.normal(size=(20_000, 4)) * 1.5)
    honest /= honest.sum(axis=1, keepdims=True)
    label = (honest.cumsum(axis=1) < random.random((20_000, 1))).sum(axis=1)
    distorted = apply_vector(honest, np.array([2.0, 1.0, 0.5, 1.5]), np.array([1.0, -1.0, 0.0, 0.5]))
    scale, shift = fit_vector(label, distorted)
    restored = apply_vector(distorted, scale, shift)
    assert log_loss(label, distorted) > log_loss(label, honest) + 0.1
    assert log_loss(label, restored) < log_loss(label, honest) + 0.01


def test_vector_scaling_of_independent_labels_is_platts_sigmoid() -> None:
    random = np.random.default_rng(0)
    said = random.uniform(0.02, 0.98, (20_000, 2))
    logits = np.log(said / (1 - said))
    truth = (random.random(said.shape) < 1 / (1 + np.exp(-(0.5 * logits - 1)))).astype(float)
    truth[:100, 1] = np.nan
    scale, shift = fit_vector(truth, said)
    for code in range(2):
        known = ~np.isnan(truth[:, code])
        oracle = LogisticRegression(C=np.inf).fit(logits[known, code : code + 1], truth[known, code])
        assert scale[code] == pytest.approx(oracle.coef_[0, 0], rel=0.01)
        assert shift[code] == pytest.approx(oracle.intercept_[0], rel=0.01)


def test_few_cases_move_vector_scaling_little_and_absent_classes_not_at_all() -> None:
    label, probabilities, _ = simulated(3, n=40)
    probabilities, label = probabilities[label != 0], label[label != 0]
    temperature = fit_temperature(label, probabilities)
    scale, shift = fit_vector(label, probabilities)
    assert scale[0] == pytest.approx(1 / temperature)
    assert shift[0] == 0
    assert (np.abs(shift) < 2).all()
    knots = fit_isotonic(label, probabilities)
    assert knots[0] is None
    assert all(knot is not None for knot in knots[1:])


def test_parts_keep_groups_whole_and_classes_alike() -> None:
    label, _, group = simulated(0, n=400, n_groups=90)
    part = parts_of_groups(label, group, 5, 0)
    assert all(len(np.unique(part[group == code])) == 1 for code in np.unique(group))
    counts = np.array([[(label[part == number] == code).sum() for code in range(4)] for number in range(5)])
    assert (counts > 0).all()
    assert (parts_of_groups(label[:3], np.array([5, 5, 9]), 5, 0) <= 1).all()
    shuffled = np.random.default_rng(0).permutation(400)
    assert (parts_of_groups(label[shuffled], group[shuffled], 5, 0) == part[shuffled]).all()


def as_predictions(tmp_path: Any, frame: pd.DataFrame, **meta: Any) -> Any:
    return write_predictions(tmp_path / "table.parquet", frame, {"classes": list(CLASSES), **meta})


def sharpened(frame: pd.DataFrame, temperature: float = 0.3) -> pd.DataFrame:
    columns = [f"p:{name}" for name in CLASSES]
    frame[columns] = apply_temperature(frame[columns].to_numpy(), temperature)
    return frame


def test_the_report_measures_what_scikit_learn_measures(tmp_path: Any) -> None:
    table = as_predictions(tmp_path, sharpened(folded(n=400)))
    report = calibration_report(table, n_boot=200)
    json.dumps(report)
    for method in ("temperature", "vector", "isotonic"):
        after = calibrate(table, method=method).test()
        entry = report["methods"][method]
        assert entry["after"]["log_loss"]["value"] == pytest.approx(log_loss(after.truth(), after.probabilities()))
        assert entry["after"]["brier"]["value"] == pytest.approx(
            brier_score_loss(after.truth(), after.probabilities(), labels=range(4))
        )
        assert entry["after"]["ece"]["value"] == pytest.approx(score(after.truth(), after.probabilities(), "ece"))
        for name, change in entry["change"].items():
            assert change["value"] == pytest.approx(entry["after"][name]["value"] - report["before"][name]["value"])
        assert entry["change"]["log_loss"]["high"] < 0
        assert sum(item["n"] for item in entry["reliability"]) == report["n"] == len(after)
    assert report["before"]["log_loss"]["value"] == pytest.approx(
        log_loss(table.test().truth(), table.test().probabilities())
    )
    assert report["methods"]["temperature"]["change"]["top1"]["value"] == 0
    change, before, after = (
        report["methods"]["temperature"]["change"]["log_loss"],
        report["before"]["log_loss"],
        report["methods"]["temperature"]["after"]["log_loss"],
    )
    unpaired = np.hypot(before["high"] - before["low"], after["high"] - after["low"])
    assert change["high"] - change["low"] < unpaired
    assert report["chosen"]["verdict"] == "better"
    assert report["chosen"]["after"]["ece"]["value"] < report["before"]["ece"]["value"]


def test_the_method_is_the_best_of_a_cross_validation_within_val(tmp_path: Any) -> None:
    frame = sharpened(folded(n=400))
    table = as_predictions(tmp_path, frame)
    report = calibration_report(table, n_boot=50)
    for place in report["chosen"]["places"]:
        own = frame[(frame["fold"] == place["fold"]) & (frame["split"] == "val")]
        losses = place["cross_validated_log_loss"]
        assert place["method"] == min(losses, key=losses.get)
        assert losses["none"] == pytest.approx(
            log_loss([CLASSES.index(name) for name in own["label"]], own[[f"p:{name}" for name in CLASSES]].to_numpy())
        )
    chosen = calibrate(table, method="chosen")
    assert [fit["method"] for fit in chosen.meta["calibration"]["fits"]] == [
        place["method"] for place in report["chosen"]["places"]
    ]
    assert summarise(chosen, n_boot=50)["log_loss"]["value"] == pytest.approx(
        report["chosen"]["after"]["log_loss"]["value"]
    )


def test_well_calibrated_probabilities_are_left_alone() -> None:
    random = np.random.default_rng(0)
    honest = np.exp(random.normal(size=(3000, 4)))
    honest /= honest.sum(axis=1, keepdims=True)
    label = (honest.cumsum(axis=1) < random.random((3000, 1))).sum(axis=1)
    losses = cross_validated_log_loss(label, honest, np.arange(3000), ["none", "temperature", "vector", "isotonic"])
    assert losses["none"] < losses["vector"] < losses["isotonic"]


def test_permuted_test_labels_leave_every_fit_and_choice_alone(tmp_path: Any) -> None:
    frame = folded(n=300)
    report = calibration_report(as_predictions(tmp_path, frame), n_boot=50)
    again = calibration_report(as_predictions(tmp_path, with_test_labels_permuted(frame)), n_boot=50)
    assert again["before"] != report["before"]
    assert again["chosen"]["places"] == report["chosen"]["places"]
    for method in ("temperature", "vector", "isotonic"):
        assert again["methods"][method]["places"] == report["methods"][method]["places"]


def test_the_order_of_rows_changes_nothing_that_is_reported(tmp_path: Any) -> None:
    frame = folded(n=200)
    report = calibration_report(as_predictions(tmp_path, frame), n_boot=50)
    shuffled = frame.sample(frac=1, random_state=0, ignore_index=True)
    again = calibration_report(as_predictions(tmp_path, shuffled), n_boot=50)
    for method in ("temperature", "vector", "isotonic"):
        for name, figure in report["methods"][method]["after"].items():
            assert again["methods"][method]["after"][name]["value"] == pytest.approx(figure["value"], abs=2e-3)


def test_too_few_val_units_refuse_a_correction_of_each_class(tmp_path: Any) -> None:
    frame = folded(n=300, n_folds=1)
    few = frame.drop(frame.index[frame["split"] == "val"][20:])
    table = as_predictions(tmp_path, few)
    report = calibration_report(table, n_boot=50)
    assert report["methods"]["vector"] == {"refused": "needs 30 labelled val units, and there are 20"}
    assert "after" in report["methods"]["temperature"]
    assert any("vector is not fitted" in line for line in report["warnings"])
    with pytest.raises(InputError, match="use 'temperature'"):
        calibrate(table, method="isotonic")
    with pytest.raises(InputError, match="must be one of"):
        calibrate(table, method="platt")
    with pytest.raises(InputError, match="must be among"):
        calibration_report(table, methods=["platt"])


def test_a_class_absent_from_val_is_said(tmp_path: Any) -> None:
    frame = folded(n=300, n_folds=1)
    frame = frame[(frame["split"] == "test") | (frame["label"] != "ACK")]
    report = calibration_report(as_predictions(tmp_path, frame), n_boot=50)
    assert report["methods"]["isotonic"]["places"][0]["n_knots"]["ACK"] is None
    assert any("ACK (0)" in line for line in report["warnings"])


def test_groups_in_val_and_test_are_said(tmp_path: Any) -> None:
    frame = folded(n=300, n_folds=1)
    frame["split"] = np.where(np.arange(300) % 2, "val", "test")
    report = calibration_report(as_predictions(tmp_path, frame), n_boot=50)
    assert any("lie in both val and test" in line for line in report["warnings"])


def test_the_report_of_multilabel_and_binary_targets(tmp_path: Any) -> None:
    random = np.random.default_rng(0)
    n = 400
    honest = random.uniform(0.05, 0.95, (n, 2))
    sharp = apply_temperature(honest, 0.3, independent=True)
    frame = pd.DataFrame({"image_id": [f"i{row}" for row in range(n)], "split": ["val", "test"] * (n // 2)})
    truth = (random.random((n, 2)) < honest).astype(float)
    for code, name in enumerate(("itch", "bleed")):
        frame[f"y:{name}"], frame[f"p:{name}"] = truth[:, code], sharp[:, code]
    table = write_predictions(tmp_path / "labels.parquet", frame, {"kind": "multilabel", "classes": ["itch", "bleed"]})
    report = calibration_report(table, n_boot=50)
    assert "top1" not in report["before"]
    assert report["chosen"]["verdict"] == "better"
    after = calibrate(table, method="isotonic").probabilities()
    assert ((after > 0) & (after < 1)).all()

    binary = pd.DataFrame({"image_id": frame["image_id"], "split": frame["split"]})
    binary["label"] = np.where(truth[:, 0] == 1, "yes", "no")
    binary["p:no"], binary["p:yes"] = 1 - sharp[:, 0], sharp[:, 0]
    table = write_predictions(tmp_path / "binary.parquet", binary, {"kind": "binary", "classes": ["no", "yes"]})
    report = calibration_report(table, n_boot=50)
    after = calibrate(table, method="temperature").test()
    assert report["methods"]["temperature"]["after"]["brier"]["value"] == pytest.approx(
        brier_score_loss(after.truth(), after.probabilities()[:, 1])
    )
    assert report["chosen"]["verdict"] == "better"


def test_hard_labels_have_no_calibration(tmp_path: Any) -> None:
    frame = two_folds().drop(columns=[f"p:{name}" for name in CLASSES]).assign(prediction="MEL")
    table = write_predictions(tmp_path / "hard.parquet", frame, {"classes": list(CLASSES)})
    with pytest.raises(InputError, match="hard labels; a calibration needs probabilities"):
        calibration_report(table)
