"""Intervals where the bootstrap has no width, and the one rule of which interval a metric gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from dermlab.evaluate import bootstrap, compare_predictions, read_predictions, summarise, wilson
from dermlab.evaluate.cases import cases_from_arrays
from dermlab.evaluate.costs import hierarchy_metrics
from dermlab.evaluate.estimates import estimate
from dermlab.evaluate.frequency import by_frequency
from dermlab.evaluate.influence import auroc_influence, delong
from dermlab.evaluate.intervals import wilson_grouped, wilson_over_sets
from dermlab.evaluate.metrics import Evaluation


def perfect(n: int = 12, classes: str = "abc") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities that are all right, and groups of two photos."""
    label = np.arange(n) % len(classes)
    scores = np.full((n, len(classes)), 0.1)
    scores[np.arange(n), label] = 0.8
    return label, scores, np.arange(n) // 2


def test_a_bootstrap_without_width_is_no_interval() -> None:
    for name in ("top1", "auroc", "macro_f1"):
        found = bootstrap(name, *perfect(), n_boot=200)
        assert (found.value, found.method) == (1.0, "no width")
        assert found.to_dict() == {"value": 1.0, "low": None, "high": None}


def test_all_right_of_twelve_is_no_certainty() -> None:
    label, scores, group = perfect()
    found = estimate([Evaluation([cases_from_arrays(label, scores, group)], ["macro_f1", "auroc"])], n_boot=200, seed=0)
    one = found[0]
    # Recall of a class: four photos of four patients. Clopper & Pearson's end is 0.40; Wilson's lies near it.
    assert (one["recall:0"].low, one["recall:0"].high) == pytest.approx(wilson(4, 4))
    assert one["recall:0"].low == pytest.approx(beta.ppf(0.025, 4, 1), abs=0.12)
    assert one["f1:0"].low == pytest.approx(2 * wilson(4, 4)[0] / (1 + wilson(4, 4)[0]))
    for name in ("balanced_accuracy", "macro_f1"):
        assert one[name].method == "wilson"
        assert one["recall:0"].low < one[name].low < 1.0
        assert one[name].high == 1.0
    assert (one["auroc"].method, one["kappa"].method) == ("no width", "no width")


def test_a_mean_of_shares_keeps_its_value_and_reaches_as_its_classes_do() -> None:
    """One class always found and one never: every replicate says one half."""
    label = np.array([0] * 20 + [1] * 20)
    found = estimate(
        [Evaluation([cases_from_arrays(label, np.zeros(40, int), classes=[0, 1])], ["top1"])], n_boot=99, seed=0
    )
    one = found[0]["balanced_accuracy"]
    reach = 1 - wilson(20, 20)[0]
    assert (one.value, one.low, one.high) == pytest.approx((0.5, 0.5 - reach / 2, 0.5 + reach / 2))


def test_groups_that_agree_to_the_last_case_count_once_each() -> None:
    """Each of ten patients with one right and one wrong answer: no spread between patients is no knowledge."""
    found = wilson_grouped(np.tile([1.0, 0.0], 10), np.repeat(np.arange(10), 2))
    assert (found.low, found.high) == pytest.approx(wilson(5, 10))


def test_repeats_are_averaged_and_no_more_evidence() -> None:
    random = np.random.default_rng(0)
    hits = (random.random(80) < 0.7).astype(float)
    one, many = (wilson_over_sets([(hits, np.arange(80))] * n) for n in (1, 5))
    assert many.value == one.value
    # As wide, but that the variance is now an estimate (Student's quantile, n - 1).
    assert one.high - one.low < many.high - many.low < 1.03 * (one.high - one.low)
    assert np.isnan(wilson_over_sets([(np.empty(0), np.empty(0, int))]).value)


@pytest.fixture
def all_right(tmp_path: Any) -> Callable[..., Any]:
    """A table on disk of a model that is always right, with repeats."""

    def make(n: int = 12, name: str = "right", n_repeats: int = 1, shift: float = 0.0) -> Any:
        label, scores, group = perfect(n)
        scores = scores + shift * np.eye(3)[label] - shift / 3
        frame = pd.DataFrame({"image_id": [f"i{row}" for row in range(n)], "label": np.array(list("abc"))[label]})
        frame["group"] = [f"P{code}" for code in group]
        frame[["p:a", "p:b", "p:c"]] = scores
        frame = pd.concat([frame.assign(repeat=repeat) for repeat in range(n_repeats)], ignore_index=True)
        path = tmp_path / f"{name}.csv"
        frame.to_csv(path, index=False)
        return read_predictions(path)

    return make


@pytest.mark.parametrize("n_repeats", [1, 3])
def test_metrics_of_a_perfect_model_are_honest(all_right: Any, n_repeats: int) -> None:
    metrics = summarise(all_right(n_repeats=n_repeats), n_boot=200)
    assert metrics["top1"]["low"] == pytest.approx(wilson(6, 6)[0])  # six patients
    assert metrics["top1"]["high"] == 1.0
    assert metrics["per_class"]["a"]["recall"]["low"] < 0.6
    assert metrics["auroc"]["low"] is None
    assert {"top1", "recall", "macro_f1"} <= set(metrics["interval"]["wilson"])
    assert any("no certainty" in text and "auroc" in text for text in metrics["warnings"])


def test_rates_over_repeats_have_wilsons_interval_too(all_right: Any) -> None:
    table = all_right(n_repeats=3)
    found = hierarchy_metrics(table, {"malignant": ["a"], "benign": ["b", "c"]}, n_boot=100)
    assert found["sensitivity"]["value"] == 1.0
    assert found["sensitivity"]["low"] == pytest.approx(wilson(4, 4)[0])
    assert found["auroc"]["low"] is None
    rare = by_frequency(table, {"a": 200, "b": 50, "c": 1}, n_boot=100)
    assert all(0 < one["recall"]["low"] < 1 for one in rare["bins"])
    assert all(0 < one["f1"]["low"] < 1 for one in rare["classes"].values())


def test_a_bin_of_one_found_and_one_missed_class_keeps_its_mean(tmp_path: Any) -> None:
    """Wilson's interval of all cases together would have moved the mean of recalls from .5 to 8/48."""
    frame = pd.DataFrame({"label": ["a"] * 8 + ["b"] * 40 + ["c"] * 10, "prediction": ["a"] * 8 + ["c"] * 50})
    frame["image_id"] = [f"i{row}" for row in range(len(frame))]
    frame.to_csv(tmp_path / "hard.csv", index=False)
    found = by_frequency(read_predictions(tmp_path / "hard.csv"), {"a": 1, "b": 2, "c": 500}, n_boot=100)
    tail = next(one for one in found["bins"] if one["bin"] == "tail")
    assert tail["recall"]["value"] == pytest.approx(0.5)
    assert tail["recall"]["low"] < 0.5 < tail["recall"]["high"]


def test_two_models_that_agree_differ_by_no_more_than_none_of_so_many_allows(all_right: Any) -> None:
    found = compare_predictions(
        {"a": all_right(60), "b": all_right(60, "sharper", shift=0.1)}, margin=0.05, n_boot=200, n_permutations=99
    )
    top1 = next(entry for entry in found if entry["metric"] == "top1")
    assert (top1["low"], top1["high"]) == pytest.approx((-wilson(0, 30)[1], wilson(0, 30)[1]))
    assert (top1["verdict"], top1["equivalent"]) == ("cannot tell apart", False)
    auroc = next(entry for entry in found if entry["metric"] == "auroc")
    assert (auroc["low"], auroc["equivalent"], auroc["p_equivalence"]) == (None, False, None)


def test_one_model_under_two_names_differs_by_nothing(all_right: Any) -> None:
    found = compare_predictions({"a": all_right(), "b": all_right()}, margin=0.01, n_boot=100, n_permutations=99)
    assert {(entry["difference"], entry["low"], entry["high"]) for entry in found} == {(0.0, 0.0, 0.0)}
    assert all(entry["equivalent"] for entry in found)


def test_a_model_that_is_right_wherever_the_other_is_wrong_is_not_certain_to_be(tmp_path: Any) -> None:
    label, scores, _ = perfect(12, "ab")
    scores = scores / scores.sum(axis=1, keepdims=True)
    tables = {}
    for name, given in (("right", scores), ("wrong", scores[:, ::-1])):
        frame = pd.DataFrame({"image_id": [f"i{k}" for k in range(12)], "label": np.array(list("ab"))[label]})
        frame[["p:a", "p:b"]] = given
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        tables[name] = read_predictions(tmp_path / f"{name}.csv")
    found = compare_predictions(tables, metrics=["top1"], n_boot=200)[0]
    assert (found["low"], found["high"]) == pytest.approx((2 * wilson(12, 12)[0] - 1, 1.0))


def test_delong_without_spread_is_a_sign_test_and_not_a_certainty() -> None:
    label, scores, _ = perfect(4, "ab")
    right, wrong = (cases_from_arrays(label, one) for one in (scores, scores[:, ::-1]))
    influence = auroc_influence([right]) - auroc_influence([wrong])
    assert delong(1.0, influence) == pytest.approx(2 * 0.5**2)  # two patients a side
    assert delong(0.0, influence) == 1.0
