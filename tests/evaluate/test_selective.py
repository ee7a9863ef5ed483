"""Risk-coverage curves against plain loops, and referral rules that are chosen on val and reported on test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import CLASSES, folded, simulated, with_test_labels_permuted

from dermlab.core.errors import InputError
from dermlab.evaluate import write_predictions
from dermlab.evaluate.cases import cases_from_arrays
from dermlab.evaluate.fitting import groups_needed, pooled_quantile, promise
from dermlab.evaluate.intervals import Estimate
from dermlab.evaluate.selective import RiskCoverage, error_threshold, referral, risk_coverage


def as_predictions(tmp_path: Any, frame: Any, **meta: Any) -> Any:
    return write_predictions(tmp_path / "table.parquet", frame, {"classes": list(CLASSES), **meta})


def plain_aurc(confidence: Any, wrong: Any) -> float:
    order = np.argsort(-np.asarray(confidence), kind="stable")
    return float(np.mean(np.cumsum(np.asarray(wrong)[order]) / np.arange(1, len(order) + 1)))


def test_the_area_is_that_of_a_plain_loop() -> None:
    label, probabilities, group = simulated(0, n=300)
    values = RiskCoverage([cases_from_arrays(label, probabilities, group)]).value()
    wrong = probabilities.argmax(axis=1) != label
    expected = plain_aurc(probabilities.max(axis=1), wrong)
    assert values["aurc"] == pytest.approx(expected)
    assert values["excess_aurc"] == pytest.approx(expected - plain_aurc(1.0 - wrong, wrong))
    assert values["error"] == values["risk:1"] == pytest.approx(wrong.mean())
    order = np.argsort(-probabilities.max(axis=1))
    assert values["risk:0.5"] == pytest.approx(wrong[order[:150]].mean())


def test_ties_count_as_the_average_over_their_orders() -> None:
    confidence, label = np.array([0.9, 0.8, 0.8, 0.8, 0.6]), np.array([1, 0, 1, 1, 0])
    wrong = label == 0
    found = [plain_aurc(confidence[list(order)], wrong[list(order)]) for order in itertools.permutations(range(5))]
    probabilities = np.stack([1 - confidence, confidence], axis=1)
    assert RiskCoverage([cases_from_arrays(label, probabilities)]).value()["aurc"] == pytest.approx(np.mean(found))


def test_extremes_of_the_curve() -> None:
    label = np.array([0] * 70 + [1] * 30)
    same = np.tile([0.6, 0.4], (100, 1))
    values = RiskCoverage([cases_from_arrays(label, same)]).value()
    assert values["aurc"] == pytest.approx(0.3)  # no order: the error at every coverage
    assert values["risk:0.1"] == pytest.approx(0.3)
    best = same.copy()
    best[:70] = [0.9, 0.1]
    values = RiskCoverage([cases_from_arrays(label, best)]).value()
    assert values["excess_aurc"] == pytest.approx(0, abs=1e-12)
    assert values["risk:0.7"] == 0


def test_a_replicate_is_the_curve_of_the_rows_drawn() -> None:
    label, probabilities, group = simulated(1, n=120, n_groups=30)
    probabilities = probabilities.round(1)
    curve = RiskCoverage([cases_from_arrays(label, probabilities, group)])
    counts = np.random.default_rng(0).integers(0, 3, curve.n_groups)
    codes = np.unique(group, return_inverse=True)[1]
    rows = np.repeat(np.arange(120), counts[codes])
    drawn = RiskCoverage([cases_from_arrays(label[rows], probabilities[rows], classes=range(4))]).value()
    at = curve.at(counts[:, None].astype(float))
    assert {name: values[0] for name, values in at.items()} == pytest.approx(drawn)


def test_the_curve_of_a_table(tmp_path: Any) -> None:
    table = as_predictions(tmp_path, folded(n=300))
    found = risk_coverage(table, coverages=(0.25, 0.5, 1.0), n_boot=200)
    json.dumps(found)
    assert found["n"] == len(table.test())
    for figure in (found["aurc"], *(point["risk"] for point in found["curve"])):
        assert figure["low"] <= figure["value"] <= figure["high"]
    assert found["curve"][-1]["risk"] == found["error"]
    assert found["curve"][0]["risk"]["value"] < found["error"]["value"]
    with pytest.raises(InputError, match="coverages"):
        risk_coverage(table, coverages=(0.0,))


def test_the_error_threshold_keeps_as_many_as_it_may() -> None:
    random = np.random.default_rng(0)
    confidence = random.integers(30, 100, 200) / 100
    right = random.random(200) < confidence
    found = error_threshold(confidence, right, np.arange(200), 0.2, finite_sample=False)
    serving = [t for t in np.unique(confidence) if (~right[confidence >= t]).mean() <= 0.2]
    assert found == min(serving)
    assert error_threshold(confidence, right, np.arange(200), 0.2) >= found
    assert error_threshold(confidence, np.zeros(200, bool), np.arange(200), 0.2) == np.inf
    assert error_threshold(confidence, np.ones(200, bool), np.arange(200), 0.2) == confidence.min()


def test_what_is_referred_follows_from_the_thresholds(tmp_path: Any) -> None:
    frame = folded(n=500)
    found = referral(
        as_predictions(tmp_path, frame), max_error=0.3, sensitivity={"MEL": 0.8, "ACK+BCC": 0.5}, n_boot=50
    )
    json.dumps(found)
    test = frame[frame["split"] == "test"]
    columns = [f"p:{name}" for name in CLASSES]
    sent = np.zeros(len(test), bool)
    for entry in found["thresholds"]:
        own = (test["fold"] == entry["fold"]).to_numpy()
        away = test[columns].max(axis=1).to_numpy() < entry["refer_below"]
        away |= test["p:MEL"].to_numpy() >= entry["refer_from"]["MEL"]
        away |= (test["p:ACK"] + test["p:BCC"]).to_numpy() >= entry["refer_from"]["ACK+BCC"]
        sent |= own & away
    wrong = test[columns].to_numpy().argmax(axis=1) != [CLASSES.index(name) for name in test["label"]]
    mel = (test["label"] == "MEL").to_numpy()
    assert found["coverage"]["value"] == pytest.approx(1 - sent.mean())
    assert found["referred_per_100"]["value"] == pytest.approx(100 * sent.mean())
    assert found["referred_per_100"]["low"] <= 100 * sent.mean() <= found["referred_per_100"]["high"]
    assert found["error_kept"]["value"] == pytest.approx(wrong[~sent].mean())
    assert found["error_referred"]["value"] == pytest.approx(wrong[sent].mean())
    assert found["error_saved"]["value"] == pytest.approx(wrong.mean() - wrong[~sent].mean())
    assert found["error_saved"]["low"] < found["error_saved"]["value"] < found["error_saved"]["high"]
    error, sensitivity, _ = found["promises"]
    assert (error["kind"], error["n"]) == ("error", (~sent).sum())
    assert sensitivity["found"]["value"] == pytest.approx(sent[mel].mean())
    assert found["per_class"]["MEL"]["referred"] == sensitivity["found"]
    assert sensitivity["n"] == mel.sum()


def test_a_threshold_for_sensitivity_reaches_it_on_val(tmp_path: Any) -> None:
    frame = folded(n=500, n_folds=1)
    found = referral(as_predictions(tmp_path, frame), sensitivity={"MEL": 0.9}, finite_sample=False, n_boot=50)
    own = frame[(frame["split"] == "val") & (frame["label"] == "MEL")]
    start = found["thresholds"][0]["refer_from"]["MEL"]
    weights = 1 / own.groupby("group")["group"].transform("size")
    caught = own["p:MEL"] >= start
    assert (weights * caught).sum() >= 0.9 * own["group"].nunique() - 1e-9
    assert (weights * (own["p:MEL"] > start)).sum() < 0.9 * own["group"].nunique()


def test_a_promise_that_val_cannot_support_refers_everything(tmp_path: Any) -> None:
    frame = folded(n=300)
    few = frame.drop(frame.index[(frame["split"] == "val") & (frame["label"] == "ACK")][3:])
    found = referral(as_predictions(tmp_path, few), sensitivity={"ACK": 0.95}, n_boot=50)
    assert found["coverage"]["value"] == 0
    assert all(entry["refers_all"] for entry in found["thresholds"])
    assert found["error_kept"]["value"] is None
    assert any("needs 19" in line for line in found["warnings"])
    none = frame[(frame["split"] == "test") | (frame["label"] != "ACK")]
    assert referral(as_predictions(tmp_path, none), sensitivity={"ACK": 0.5}, n_boot=50)["coverage"]["value"] == 0
    hopeless = referral(as_predictions(tmp_path, frame), max_error=1e-6, n_boot=50)
    assert hopeless["coverage"]["value"] == 0
    assert any("everything is referred" in line for line in hopeless["warnings"])


def test_permuted_test_labels_leave_the_thresholds_alone(tmp_path: Any) -> None:
    frame, asked = folded(n=400), {"max_error": 0.3, "sensitivity": {"MEL": 0.9}}
    found = referral(as_predictions(tmp_path, frame), n_boot=50, **asked)
    again = referral(as_predictions(tmp_path, with_test_labels_permuted(frame)), n_boot=50, **asked)
    assert again["thresholds"] == found["thresholds"]
    assert again["coverage"] == found["coverage"]
    assert again["error_kept"] != found["error_kept"]


def test_the_order_of_rows_does_not_matter(tmp_path: Any) -> None:
    frame = folded(n=200)
    frame[[f"p:{name}" for name in CLASSES]] = frame[[f"p:{name}" for name in CLASSES]].round(2)
    frame["p:NEV"] = 1 - frame["p:ACK"] - frame["p:BCC"] - frame["p:MEL"]
    found = referral(as_predictions(tmp_path, frame), max_error=0.4, sensitivity={"MEL": 0.7}, n_boot=50)
    shuffled = frame.sample(frac=1, random_state=0, ignore_index=True)
    assert referral(as_predictions(tmp_path, shuffled), max_error=0.4, sensitivity={"MEL": 0.7}, n_boot=50) == found


def test_the_same_answers_twice_are_no_more_evidence(tmp_path: Any) -> None:
    frame = folded(n=300, n_folds=1)
    twice = frame.assign(repeat=1)
    both = np.concatenate([frame["repeat"] if "repeat" in frame else np.zeros(len(frame), int), twice["repeat"]])
    frame = pd.concat([frame, twice], ignore_index=True).assign(repeat=both)
    found = referral(as_predictions(tmp_path, frame), max_error=0.3, n_boot=200)
    alone = referral(as_predictions(tmp_path, twice.assign(repeat=0)), max_error=0.3, n_boot=200)
    assert found["n"] == alone["n"]
    assert found["error_kept"]["value"] == pytest.approx(alone["error_kept"]["value"])
    assert found["error_kept"]["low"] == pytest.approx(alone["error_kept"]["low"], abs=0.01)
    assert found["error_saved"] == pytest.approx(alone["error_saved"])


@pytest.mark.parametrize("aim", [0.8, 0.9])
def test_the_promised_sensitivity_holds_on_average(aim: float) -> None:
    """Twenty-five patients of one to four photos each, a new patient's photo: 4,000 draws."""
    random = np.random.default_rng(0)
    caught = []
    for _ in range(4000):
        sizes = random.integers(1, 5, 26)
        group = np.repeat(np.arange(26), sizes)
        score = random.normal(size=26)[group] + random.normal(size=len(group))
        new = group == 25
        threshold = pooled_quantile(-score[~new], group[~new], aim)
        caught.append(-score[new][0] <= threshold)
    assert aim - 0.015 < np.mean(caught) < aim + 0.06


def test_a_verdict_needs_the_whole_interval() -> None:
    figure = Estimate(0.95, 0.92, 0.97, "wilson")
    assert promise(figure, 0.9) == "held"
    assert promise(figure, 0.94) == "cannot tell"
    assert promise(figure, 0.98) == "broken"
    assert promise(figure, 0.98, at_least=False) == "held"
    assert promise(figure, 0.9, at_least=False) == "broken"
    assert promise(Estimate(0.95, np.nan, np.nan, "wilson"), 0.9) == "cannot tell"


def test_how_many_groups_a_promise_needs() -> None:
    for level in (0.5, 0.8, 0.9, 0.95, 0.99):
        n = groups_needed(level)
        assert np.isfinite(pooled_quantile(np.arange(n, dtype=float), np.arange(n), level))
        assert np.isinf(pooled_quantile(np.arange(n - 1, dtype=float), np.arange(n - 1), level))


def test_what_cannot_be_referred_says_why(tmp_path: Any) -> None:
    frame = folded(n=200, n_folds=1)
    table = as_predictions(tmp_path, frame)
    for options, message in [
        ({}, "needs max_error"),
        ({"max_error": 1.5}, "max_error: must lie between 0 and 1"),
        ({"sensitivity": {"XYZ": 0.9}}, "'XYZ' is not one of ACK"),
        ({"sensitivity": {"MEL": 1.0}}, "sensitivity of MEL"),
        ({"sensitivity": {CLASSES: 0.9}}, "names every class"),
        ({"max_error": 0.1, "fitted_on": "test"}, "only reports"),
        ({"max_error": 0.1, "fitted_on": "train"}, "no labelled rows of split 'train'"),
    ]:
        with pytest.raises(InputError, match=message):
            referral(table, **options)
    hard = frame.drop(columns=[f"p:{name}" for name in CLASSES]).assign(prediction="MEL")
    with pytest.raises(InputError, match="hard labels"):
        risk_coverage(as_predictions(tmp_path, hard))
    labels = frame.drop(columns="label").assign(**{f"y:{name}": 1.0 for name in CLASSES})
    with pytest.raises(InputError, match="one answer a case"):
        referral(as_predictions(tmp_path, labels, kind="multilabel"), max_error=0.1)


def test_a_branch_that_nobody_defined_points_to_the_data_set(table: Callable[..., Any]) -> None:
    predictions = table(0)
    with pytest.raises(InputError, match=r"'malignant' is not one of ACK, .*--data"):
        referral(predictions, sensitivity={"malignant": 0.95})
    with pytest.raises(InputError, match=r"'mel' is not one of .*; did you mean 'MEL'\?"):
        referral(predictions, sensitivity={"mel": 0.95})
