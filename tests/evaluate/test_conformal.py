"""Conformal sets: MAPIE's sets, simulated coverage over patients, and thresholds that test labels cannot move."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import CLASSES, as_table, folded, simulated, with_test_labels_permuted
from sklearn.base import BaseEstimator, ClassifierMixin

from dermlab.core.errors import InputError
from dermlab.evaluate import write_predictions
from dermlab.evaluate.conformal import conformal_sets, strangeness
from dermlab.evaluate.fitting import pooled_quantile


def as_predictions(tmp_path: Any, frame: Any, **meta: Any) -> Any:
    return write_predictions(tmp_path / "table.parquet", frame, {"classes": list(CLASSES), **meta})


def members(table: Any) -> np.ndarray:
    return np.array([[name in held for name in CLASSES] for held in table["set"]])


class Said(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose features are its probabilities."""

    def __init__(self) -> None:
        self.classes_ = np.arange(4)

    def fit(self, features: Any, labels: Any) -> Any:
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, features: Any) -> Any:
        return features.argmax(axis=1)

    def predict_proba(self, features: Any) -> Any:
        return features


class Ones(np.random.RandomState):
    """MAPIE's random number is 1 here, as in our score, so that its randomised sets are comparable."""

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        return np.ones(size)


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.6, 0.8, 0.95])
def test_sets_are_mapies(method: Any, coverage: float, tmp_path: Any) -> None:
    mapie = pytest.importorskip("mapie.classification")
    label, probabilities, _ = simulated(0, n=500)
    val = np.arange(500) < 250
    oracle = mapie.SplitConformalClassifier(
        Said(), confidence_level=coverage, conformity_score=method, prefit=True, random_state=Ones(0)
    ).conformalize(probabilities[val], label[val])
    options = {} if method == "lac" else {"conformity_score_params": {"include_last_label": "randomized"}}
    theirs = oracle.predict_set(probabilities[~val], **options)[1][:, :, 0]
    frame = as_table(label, probabilities, np.arange(500)).assign(split=np.where(val, "val", "test"))
    table, _ = conformal_sets(as_predictions(tmp_path, frame), coverage=coverage, method=method, n_boot=50)
    np.testing.assert_array_equal(members(table), theirs)


def test_equal_probabilities_are_equally_strange() -> None:
    found = strangeness(np.array([[0.4, 0.2, 0.2, 0.2], [0.5, 0.5, 0.0, 0.0]]), "aps")
    np.testing.assert_allclose(found, [[0, 0.4, 0.4, 0.4], [0, 0, 1, 1]])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0.05, 0.99))
@settings(max_examples=100, deadline=None)
def test_one_case_a_group_gives_the_textbook_quantile(scores: list[float], level: float) -> None:
    n = len(scores)
    place = int(np.ceil((n + 1) * level - 1e-9))
    expected = np.sort(scores)[place - 1] if place <= n else np.inf
    assert pooled_quantile(np.array(scores), np.arange(n), level) == expected
    tripled = pooled_quantile(np.repeat(scores, 3), np.repeat(np.arange(n), 3), level)
    assert tripled == expected  # three photos of one patient are no more patients


@pytest.mark.parametrize("grouping", ["weighted", "one_per_group"])
def test_simulated_coverage_of_new_patients(grouping: Any, tmp_path: Any) -> None:
    """Clustered cases, the same generator for val and test: 40 tables, patients weighing alike."""
    found = []
    for seed in range(40):
        frame = folded(seed, n=400, n_folds=1, n_groups=120)
        table = as_predictions(tmp_path, frame)
        _, report = conformal_sets(table, coverage=0.8, grouping=grouping, subgroups=[], n_boot=2, seed=seed)
        found.append(report["coverage_of_groups"]["value"])
    assert np.mean(found) == pytest.approx(0.806, abs=0.02)  # (1 + 1 / groups) x .8


def test_class_conditional_sets_hold_each_class(tmp_path: Any) -> None:
    found = []
    for seed in range(12):
        table = as_predictions(tmp_path, folded(seed, n=1500, n_folds=1, n_groups=1200, skill=1.0))
        _, report = conformal_sets(table, coverage=0.8, class_conditional=True, subgroups=[], n_boot=2)
        found.append([entry["coverage"]["value"] for entry in report["per_class"].values()])
    assert np.abs(np.mean(found, axis=0) - 0.81).max() < 0.05


def test_a_class_the_model_never_says_is_lost_unless_sets_are_class_conditional(tmp_path: Any) -> None:
    frame = folded(n=1200, n_folds=1)
    columns = [f"p:{name}" for name in CLASSES]
    values = frame[columns].to_numpy() * [0.01, 1, 1, 1]
    frame[columns] = values / values.sum(axis=1, keepdims=True)
    table = as_predictions(tmp_path, frame)
    _, marginal = conformal_sets(table, subgroups=[], n_boot=50)
    _, conditional = conformal_sets(table, class_conditional=True, subgroups=[], n_boot=50)
    assert marginal["per_class"]["ACK"]["verdict"] == "broken"
    assert conditional["per_class"]["ACK"]["coverage"]["value"] > 0.8
    assert marginal["per_class"]["ACK"]["coverage"]["high"] < 0.6


def test_the_report_counts_the_table(tmp_path: Any) -> None:
    frame = folded(n=400).assign(skin_type=np.tile([1.0, 2.0, np.nan, 4.0], 200))
    table, report = conformal_sets(as_predictions(tmp_path, frame), coverage=0.8, subgroups=["skin_type"], n_boot=100)
    json.dumps(report)
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    assert table["unit"].tolist() == test["image_id"].tolist()
    inside = members(table)
    own = inside[np.arange(len(test)), [CLASSES.index(name) for name in test["label"]]]
    assert (table["covered"].to_numpy(bool) == own).all()
    assert (table["size"].to_numpy() == inside.sum(axis=1)).all()
    assert report["n"] == len(test)
    assert report["coverage"]["value"] == pytest.approx(own.mean())
    assert report["coverage_of_groups"]["value"] == pytest.approx(
        table["covered"].astype(float).groupby(table["group"]).mean().mean()
    )
    assert report["mean_size"]["value"] == pytest.approx(inside.sum(axis=1).mean())
    assert sum(report["sizes"]) == pytest.approx(1)
    assert report["share_single"]["value"] == pytest.approx(report["sizes"][1])
    assert report["accuracy_of_single"]["value"] == pytest.approx(own[inside.sum(axis=1) == 1].mean())
    mel = (test["label"] == "MEL").to_numpy()
    assert report["per_class"]["MEL"]["coverage"]["value"] == pytest.approx(own[mel].mean())
    levels = {entry["level"]: entry for entry in report["subgroups"]["skin_type"]}
    blank = test["skin_type"].isna().to_numpy()
    assert levels["not recorded"]["n"] == blank.sum()
    assert levels["not recorded"]["coverage"]["value"] == pytest.approx(own[blank].mean())
    first = table["set"].map(lambda held: held[0] if held else None)
    likeliest = test[[f"p:{name}" for name in CLASSES]].to_numpy().argmax(axis=1)
    assert all(said is None or said == CLASSES[code] for said, code in zip(first, likeliest, strict=True))


def test_each_fold_has_its_own_threshold_and_permuted_test_labels_move_none(tmp_path: Any) -> None:
    frame = folded(n=400)
    sharp = (frame["fold"] == 1).to_numpy()
    columns = [f"p:{name}" for name in CLASSES]
    flat = np.sqrt(frame.loc[sharp, columns].to_numpy())
    frame.loc[sharp, columns] = flat / flat.sum(axis=1, keepdims=True)
    for options in ({}, {"class_conditional": True, "method": "aps"}, {"grouping": "one_per_group"}):
        table, found = conformal_sets(as_predictions(tmp_path, frame), n_boot=50, **options)
        moved, again = conformal_sets(as_predictions(tmp_path, with_test_labels_permuted(frame)), n_boot=50, **options)
        assert again["thresholds"] == found["thresholds"]
        assert found["thresholds"][0]["quantile"] != found["thresholds"][1]["quantile"]
        assert moved["set"].tolist() == table["set"].tolist()
        assert again["coverage"] != found["coverage"]


@pytest.mark.parametrize("grouping", ["weighted", "one_per_group"])
def test_the_order_of_rows_does_not_matter(grouping: Any, tmp_path: Any) -> None:
    frame = folded(n=300)
    _, found = conformal_sets(as_predictions(tmp_path, frame), grouping=grouping, n_boot=50)
    shuffled = frame.sample(frac=1, random_state=0, ignore_index=True)
    _, again = conformal_sets(as_predictions(tmp_path, shuffled), grouping=grouping, n_boot=50)
    assert again["thresholds"] == found["thresholds"]
    assert again["coverage"] == found["coverage"]
    assert again["per_class"] == found["per_class"]


def test_a_class_of_too_few_val_groups_is_in_every_set(tmp_path: Any) -> None:
    frame = folded(n=400, n_folds=1)
    few = frame.drop(frame.index[(frame["split"] == "val") & (frame["label"] == "ACK")][4:])
    table, report = conformal_sets(as_predictions(tmp_path, few), class_conditional=True, n_boot=50)
    assert members(table)[:, 0].all()
    assert report["per_class"]["ACK"]["always"]
    assert report["thresholds"][0]["quantile"]["ACK"] is None
    assert any("ACK (" in line and "needs 9" in line for line in report["warnings"])
    none = frame[(frame["split"] == "test") | (frame["label"] != "ACK")]
    _, report = conformal_sets(as_predictions(tmp_path, none), n_boot=50)
    assert any("no val case of ACK" in line for line in report["warnings"])
    tiny = frame.drop(frame.index[frame["split"] == "val"][3:])
    table, report = conformal_sets(as_predictions(tmp_path, tiny), n_boot=50)
    assert (table["size"] == 4).all()
    assert report["share_all"]["value"] == 1


def test_a_photo_without_a_label_gets_a_set_and_no_verdict(tmp_path: Any) -> None:
    frame = folded(n=200, n_folds=1)
    row = frame.index[frame["split"] == "test"][0]
    frame.loc[row, "label"] = None
    table, report = conformal_sets(as_predictions(tmp_path, frame), n_boot=50)
    assert table["covered"].isna().tolist() == [True] + [False] * (len(table) - 1)
    assert report["n"] == len(table) - 1


def test_few_groups_claim_nothing(tmp_path: Any) -> None:
    frame = folded(n=300, n_folds=1)
    frame["site"] = np.where(frame["group"].isin(frame["group"].unique()[:12]), "small", "large")
    _, report = conformal_sets(as_predictions(tmp_path, frame), subgroups=["site"], n_boot=50)
    verdicts = {entry["level"]: entry["verdict"] for entry in report["subgroups"]["site"]}
    assert verdicts["small"] == "too few"
    assert verdicts["large"] in ("held", "cannot tell", "broken")


def test_what_has_no_sets_says_why(tmp_path: Any) -> None:
    frame = folded(n=200, n_folds=1)
    table = as_predictions(tmp_path, frame)
    for options, message in [
        ({"coverage": 90}, "coverage: must lie between 0 and 1"),
        ({"method": "raps"}, "one of lac, aps"),
        ({"grouping": "none"}, "one of weighted"),
        ({"subgroups": ["nurse"]}, "no column 'nurse'"),
        ({"fitted_on": "test"}, "only reports"),
    ]:
        with pytest.raises(InputError, match=message):
            conformal_sets(table, **options)
    labels = frame.drop(columns="label").assign(**{f"y:{name}": 1.0 for name in CLASSES})
    with pytest.raises(InputError, match="one true class a case"):
        conformal_sets(as_predictions(tmp_path, labels, kind="multilabel"))
