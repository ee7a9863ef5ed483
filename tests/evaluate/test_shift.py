"""Label maps for external validation, and priors corrected as Bayes' rule has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import precision_score, recall_score

from dermlab.core.errors import InputError
from dermlab.evaluate.shift import (
    adjust_priors,
    class_shares,
    estimate_priors,
    hierarchy_map,
    map_labels,
    prior_shift,
)

HIERARCHY = {"malignant": ("BCC", "MEL"), "benign": ("ACK", "NEV")}


def test_merged_classes_sum_their_probabilities(table: Any) -> None:
    before = table()
    after = map_labels(before, hierarchy_map(HIERARCHY), ["benign", "malignant"])
    assert after.classes == ("benign", "malignant")
    assert after.kind == "binary"
    old = before.probabilities()
    np.testing.assert_allclose(after.probabilities(), np.column_stack([old[:, [0, 3]].sum(1), old[:, [1, 2]].sum(1)]))
    expected = before.frame["label"].isin(["BCC", "MEL"]).map({True: "malignant", False: "benign"})
    assert (after.frame["label"] == expected).all()
    assert after.frame["image_id"].equals(before.frame["image_id"])


def test_a_class_without_a_place_is_dropped_and_said(table: Any) -> None:
    before = table()
    after = map_labels(before, {"BCC": "basalioma", "MEL": "melanoma", "NEV": "naevus", "ACK": None})
    kept = before.frame["label"] != "ACK"
    assert len(after) == kept.sum() < len(before)
    old = before.probabilities()[kept.to_numpy()][:, 1:]
    np.testing.assert_allclose(after.probabilities(), old / old.sum(axis=1, keepdims=True))
    told = " ".join(after.warnings)
    assert f"{(~kept).sum()} images of ACK" in told
    assert "the model's ACK have no class here" in told


def test_another_data_sets_words_are_mapped_too(table: Any) -> None:
    before = table()
    theirs = before.frame.set_index("image_id")["label"].map({"BCC": "bcc", "MEL": "mel", "NEV": "nv", "ACK": "df"})
    after = map_labels(
        before,
        hierarchy_map(HIERARCHY),
        ["benign", "malignant"],
        labels=theirs,
        label_mapping={"bcc": "malignant", "mel": "malignant", "nv": "benign"},
    )
    kept = before.frame["label"] != "ACK"
    assert after.frame["image_id"].tolist() == before.frame["image_id"][kept].tolist()
    assert ((after.frame["label"] == "malignant") == before.frame["label"][kept].isin(["BCC", "MEL"]).to_numpy()).all()


def test_hard_labels_are_mapped(table: Any) -> None:
    before = table()
    hard = before.frame.drop(columns=[f"p:{name}" for name in before.classes])
    hard["prediction"] = np.array(before.classes)[before.predicted()]
    after = map_labels(before.with_frame(hard), {"BCC": "x", "MEL": "x", "NEV": "y"})
    kept = (hard["label"] != "ACK") & (hard["prediction"] != "ACK")
    assert (
        after.frame["prediction"].tolist()
        == hard["prediction"][kept].map({"BCC": "x", "MEL": "x", "NEV": "y"}).tolist()
    )
    assert any("rows decide for ACK" in text for text in after.warnings)


@pytest.mark.parametrize(
    ("mapping", "classes", "told"),
    [
        ({"XYZ": "a", "MEL": "b"}, None, "'XYZ' is not a class"),
        ({"MEL": "a", "BCC": "a"}, None, "at least two classes"),
        ({"MEL": "a", "BCC": "b"}, ["a", "c"], "'b' is not one of the new classes"),
    ],
)
def test_a_wrong_map_is_one_line(table: Any, mapping: Any, classes: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        map_labels(table(), mapping, classes)


def gaussians(n: int, priors: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    label = random.choice(3, n, p=priors)
    return random.normal(size=(n, 2)) + np.array([[0, 0], [1.5, 0], [0, 1.5]])[label], label


def test_known_priors_give_what_a_model_of_those_priors_gives() -> None:
    old, new = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.2, 0.7])
    X, y = gaussians(500, old, 0)
    trained, wanted = (LinearDiscriminantAnalysis(priors=priors).fit(X, y) for priors in (old, new))
    np.testing.assert_allclose(adjust_priors(trained.predict_proba(X), old, new), wanted.predict_proba(X), atol=1e-10)


def test_estimated_priors_are_the_maximum_of_the_likelihood() -> None:
    old, new = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.2, 0.6])
    X, y = gaussians(3000, old, 0)
    fitted = LinearDiscriminantAnalysis(priors=old).fit(X, y)
    probabilities = fitted.predict_proba(gaussians(3000, new, 1)[0])
    found = estimate_priors(probabilities, old)

    def loss(logits: np.ndarray) -> float:
        shares = np.exp(logits) / np.exp(logits).sum()
        return -np.log((probabilities * shares / old).sum(axis=1)).sum()

    best = np.exp(minimize(loss, np.zeros(3)).x)
    np.testing.assert_allclose(found, best / best.sum(), atol=1e-4)
    np.testing.assert_allclose(found, new, atol=0.04)
    weights = np.column_stack([np.ones(3000), np.arange(3000) < 1500]).astype(float)
    both = estimate_priors(probabilities, old, weights)
    np.testing.assert_allclose(both[:, 0], found, atol=1e-6)
    np.testing.assert_allclose(both[:, 1], estimate_priors(probabilities[:1500], old), atol=1e-6)


@pytest.mark.parametrize("tolerance", [1e-8, 1e-6])
def test_shares_at_the_border_are_the_maximum_too(tolerance: float) -> None:
    """Probabilities that mean little, so that most shares come out 0: where Karush, Kuhn and Tucker's conditions hold.

    The likelihood is concave, so they are enough: shares above 0 gain nothing by a further step, those at 0 would lose.
    """
    random = np.random.default_rng(3)
    probabilities = random.dirichlet(np.full(12, 0.3), 900)
    old = random.dirichlet(np.full(12, 5.0))
    weights = random.poisson(1.0, (900, 40)).astype(float)
    found = estimate_priors(probabilities, old, weights, tolerance=tolerance)
    likelihood = probabilities / old
    gain = likelihood.T @ (weights / (likelihood @ found)) / weights.sum(axis=0)
    np.testing.assert_allclose(found.sum(axis=0), 1)
    assert np.abs(found * (gain - 1)).max() < 10 * tolerance
    assert gain.max() < 1.011
    assert (found < 1e-3).any()


def test_a_stated_prevalence_changes_decisions_towards_it(table: Any) -> None:
    before = table()
    same = dict.fromkeys(before.classes, 0.25)
    after, told = prior_shift(before, train_priors=same, prevalence={**same, "MEL": 3.0}, n_boot=100)
    assert told["used"]["MEL"] == pytest.approx(0.8)
    decided = [np.mean(one.predicted() == before.classes.index("MEL")) for one in (before, after)]
    assert decided[1] > decided[0]
    assert told["top1"]["difference"]["value"] > 0
    assert told["top1"]["after"]["low"] <= told["top1"]["after"]["value"] <= told["top1"]["after"]["high"]
    assert told["changed"] == pytest.approx(np.mean(before.predicted() != after.predicted()))
    unchanged, none = prior_shift(before, train_priors=same, prevalence=same, n_boot=100)
    np.testing.assert_allclose(unchanged.probabilities(), before.probabilities())
    assert none["top1"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert none["changed"] == 0


def test_accuracy_at_a_prevalence_is_the_weighted_recall(table: Any) -> None:
    before = table()
    shares = {"ACK": 0.1, "BCC": 0.2, "MEL": 0.3, "NEV": 0.4}
    _, told = prior_shift(before, train_priors=shares, prevalence=shares, n_boot=100)
    hit = before.predicted() == before.truth()
    expected = sum(share * hit[before.frame["label"] == name].mean() for name, share in shares.items())
    assert told["top1"]["before"]["value"] == pytest.approx(expected)


def test_priors_name_every_class(table: Any) -> None:
    with pytest.raises(InputError, match="no share of NEV"):
        prior_shift(table(), train_priors={"ACK": 1, "BCC": 1, "MEL": 1})
    with pytest.raises(InputError, match="0 or more"):
        prior_shift(table(), train_priors={"ACK": -1, "BCC": 1, "MEL": 1, "NEV": 1})
    shares = class_shares(table(), "test")
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["NEV"] == pytest.approx((table().frame["label"] == "NEV").mean(), abs=1e-5)


def test_what_the_correction_costs_each_class_stands_beside_the_accuracy(table: Any) -> None:
    before = table()
    shares = dict(zip(before.classes, (0.02, 0.02, 0.02, 0.94), strict=True))
    same = dict.fromkeys(before.classes, 0.25)
    after, told = prior_shift(before, train_priors=same, prevalence=shares, n_boot=200)
    assert told["majority"] == {"class": "NEV", "top1": pytest.approx(0.94)}
    label = before.frame["label"].to_numpy()
    weight = np.array([shares[name] / np.mean(label == name) for name in label])
    for side, one in (("before", before), ("after", after)):
        called = np.array(one.classes)[one.predicted()]
        for name in before.classes:
            found = told["per_class"][name]
            assert found["n"] == (label == name).sum()
            assert found["recall"][side]["value"] == pytest.approx(recall_score(label == name, called == name))
            expected = precision_score(label == name, called == name, sample_weight=weight)
            assert found["ppv"][side]["value"] == pytest.approx(expected)
            rightly_not = recall_score(label != name, called != name, sample_weight=weight)
            assert found["specificity"][side]["value"] == pytest.approx(rightly_not)
    lost = told["per_class"]["MEL"]["recall"]["difference"]
    assert lost["value"] < 0
    assert lost["low"] <= lost["value"] <= lost["high"]


def test_shares_in_percent_are_divided_and_said(table: Any) -> None:
    same = dict.fromkeys(table().classes, 0.25)
    _, told = prior_shift(table(), train_priors=same, prevalence=dict.fromkeys(same, 25.0), n_boot=100)
    assert "the prevalence stated sums to 100, not 1: each share was divided by that" in told["warnings"]
    _, quiet = prior_shift(table(), train_priors=same, prevalence=same, n_boot=100)
    assert not [text for text in quiet["warnings"] if "sums to" in text]


def test_a_class_no_longer_found_has_an_interval_of_some_width(table: Any) -> None:
    same = dict.fromkeys(table().classes, 0.25)
    _, told = prior_shift(table(), train_priors=same, prevalence={**dict.fromkeys(same, 0.0), "NEV": 1.0}, n_boot=100)
    recall = told["per_class"]["MEL"]["recall"]["after"]
    assert recall["value"] == recall["low"] == 0
    assert recall["high"] > 0
