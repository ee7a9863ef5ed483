"""Decisions by a cost matrix, and figures at the level of branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from dermlab.core.errors import InputError
from dermlab.evaluate.costs import expected_cost, hierarchy_metrics, least_cost

# Rows: truth ACK, BCC, MEL, NEV; columns the decision. A missed melanoma is dear.
COSTS = np.array([[0, 1, 1, 1], [2, 0, 1, 5], [20, 10, 0, 30], [1, 1, 1, 0]], float)
HIERARCHY = {"malignant": ("BCC", "MEL"), "benign": ("ACK", "NEV")}


def test_equal_costs_decide_for_the_most_probable() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 200)
    np.testing.assert_array_equal(least_cost(probabilities, 1 - np.eye(4)), probabilities.argmax(axis=1))


def test_two_classes_have_elkans_threshold() -> None:
    # Elkan 2001, eq. 2: decide for 1 where p ≥ (c10 − c00) / (c10 − c00 + c01 − c11), here 1 / (1 + 9).
    p = np.linspace(0.0, 1.0, 102)
    decided = least_cost(np.column_stack([1 - p, p]), [[0, 1], [9, 0]])
    np.testing.assert_array_equal(decided, (p > 0.1).astype(int))


def test_costs_are_those_of_what_was_there(table: Any) -> None:
    predictions = table(seed=3)
    found = expected_cost(predictions, COSTS, n_boot=300)
    truth = predictions.truth()
    for rule, decided in (
        ("most_probable", predictions.predicted()),
        ("least_cost", least_cost(predictions.probabilities(), COSTS)),
    ):
        assert found[rule]["value"] == pytest.approx(100 * COSTS[truth, decided].mean())
        assert found[rule]["low"] < found[rule]["value"] < found[rule]["high"]
        assert np.sum(found["decisions"][rule]) == len(truth)
    assert found["difference"]["value"] == pytest.approx(found["least_cost"]["value"] - found["most_probable"]["value"])
    assert found["difference"]["verdict"] == "lower cost"
    assert found["difference"]["high"] < 0
    # What pairs share cancels: the interval of the difference is narrower than either cost's.
    width = {name: found[name]["high"] - found[name]["low"] for name in ("difference", "most_probable")}
    assert width["difference"] < width["most_probable"]
    assert found["one_class"]["value"] == pytest.approx(100 * COSTS[truth].mean(axis=0).min())
    gained = found["least_cost"]["value"] - found["one_class"]["value"]
    assert found["against_one_class"]["value"] == pytest.approx(gained)


def test_costs_that_change_no_decision_make_no_difference(table: Any) -> None:
    found = expected_cost(table(), 1 - np.eye(4), n_boot=100)
    assert found["difference"]["value"] == 0
    assert found["difference"]["verdict"] == "cannot tell apart"
    assert found["changed"]["value"] == 0


def test_an_odd_matrix_is_told(table: Any) -> None:
    odd = COSTS.copy()
    odd[0, 0] = 7
    assert any(
        "deciding BCC, MEL, NEV costs less than deciding ACK" in text
        for text in expected_cost(table(), odd, n_boot=100)["warnings"]
    )
    with pytest.raises(InputError, match="4 rows of 4"):
        expected_cost(table(), COSTS[:3])


def test_branches_sum_their_probabilities(table: Any) -> None:
    predictions = table(seed=1)
    found = hierarchy_metrics(predictions, HIERARCHY, n_boot=300)
    malignant = predictions.probabilities()[:, [1, 2]].sum(axis=1)
    truth = predictions.frame["label"].isin(["BCC", "MEL"]).to_numpy()
    assert found["positive"] == "malignant"
    assert found["sensitivity"]["value"] == pytest.approx(recall_score(truth, malignant >= 0.5))
    assert found["specificity"]["value"] == pytest.approx(recall_score(~truth, malignant < 0.5))
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, malignant))
    assert found["cases"] == {"malignant": truth.sum(), "benign": (~truth).sum()}
    chosen = np.isin(predictions.predicted(), [1, 2])
    assert found["by_most_probable_class"]["sensitivity"]["value"] == pytest.approx(recall_score(truth, chosen))
    wrong = predictions.predicted() != predictions.truth()
    errors = {name: one["value"] for name, one in found["errors"].items()}
    assert errors["all"] == pytest.approx(wrong.mean())
    assert errors["across"] == pytest.approx((chosen != truth).mean())
    assert errors["within"] + errors["across"] == pytest.approx(errors["all"])
    assert found["across_of_errors"]["value"] == pytest.approx(errors["across"] / errors["all"])
    missed = sum(one["n"] * one["share"]["value"] for one in found["missed"].values())
    assert missed == pytest.approx(truth.sum() * (1 - found["sensitivity"]["value"]))


def test_a_lower_threshold_finds_more(table: Any) -> None:
    high, low = (hierarchy_metrics(table(), HIERARCHY, threshold=at, n_boot=100) for at in (0.5, 0.2))
    assert low["sensitivity"]["value"] > high["sensitivity"]["value"]
    assert low["specificity"]["value"] < high["specificity"]["value"]
    assert low["auroc"] == high["auroc"]


def test_classes_in_no_branch_are_left_out(table: Any) -> None:
    predictions = table()
    found = hierarchy_metrics(predictions, {"malignant": ("BCC", "MEL"), "benign": ("NEV",)}, n_boot=100)
    assert found["n"] == (predictions.frame["label"] != "ACK").sum()
    assert any("rows of ACK are in no branch" in text for text in found["warnings"])


@pytest.mark.parametrize(
    ("hierarchy", "options", "told"),
    [
        ({"malignant": ("XYZ",), "benign": ("NEV",)}, {}, "'XYZ'"),
        ({"malignant": ("MEL",)}, {}, "at least two branches"),
        ({"malignant": ("MEL",), "benign": ("MEL",)}, {}, "two branches"),
        (HIERARCHY, {"positive": "grey"}, "'grey'"),
    ],
)
def test_a_wrong_hierarchy_is_one_line(table: Any, hierarchy: Any, options: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        hierarchy_metrics(table(), hierarchy, **options)
