"""Bootstrap and Wilson intervals: against scipy, statsmodels and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as sk
from made_up import simulated
from statsmodels.stats.proportion import proportion_confint

from dermlab.core.errors import InputError
from dermlab.evaluate import bootstrap, wilson
from dermlab.evaluate.cases import cases_from_arrays
from dermlab.evaluate.intervals import (
    BLOCK,
    centred,
    expanded,
    group_counts,
    interval,
    jackknife,
    resample,
    wilson_grouped,
)
from dermlab.evaluate.metrics import Evaluation


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (37, 168), (1, 1)])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_wilson_equals_statsmodels(k: int, n: int, level: float) -> None:
    assert wilson(k, n, level) == pytest.approx(proportion_confint(k, n, alpha=1 - level, method="wilson"))


def test_wilson_of_nothing_is_undefined() -> None:
    assert np.isnan(wilson(0, 0)).all()


def test_wilson_of_independent_cases_is_the_plain_one() -> None:
    hits = np.array([1.0] * 30 + [0.0] * 12)
    found = wilson_grouped(hits, np.arange(42))
    assert (found.low, found.high) == pytest.approx(wilson(30, 42))


def test_wilson_of_copied_cases_knows_that_they_are_copies() -> None:
    """Each case five times over: as wide as without the copies, but for the estimated variance, and not narrower."""
    hits = np.array([1.0] * 60 + [0.0] * 40)
    once = wilson_grouped(hits, np.arange(100))
    copied = wilson_grouped(np.repeat(hits, 5), np.repeat(np.arange(100), 5))
    assert copied.value == once.value
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.03)
    assert copied.high - copied.low >= once.high - once.low


def test_a_class_that_was_always_found_keeps_an_interval() -> None:
    found = wilson_grouped(np.ones(6), np.array([0, 0, 1, 1, 2, 2]))
    assert (found.low, found.high) == pytest.approx(wilson(3, 3))


def test_the_percentile_interval_is_that_of_scipy_but_for_the_expansion() -> None:
    """Independent rows and accuracy: the same distribution as scipy.stats.bootstrap, tails moved out as documented."""
    label, probabilities, _ = simulated(0, n=200)
    found = bootstrap("top1", label, probabilities, n_boot=8000, seed=1)
    hits = (probabilities.argmax(axis=1) == label).astype(float)
    level = 1 - 2 * expanded(0.025, 200)
    theirs = scipy.stats.bootstrap(
        (hits,), np.mean, n_resamples=8000, method="percentile", confidence_level=level, rng=np.random.default_rng(0)
    )
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.006)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.006)
    assert np.std(found.replicates) == pytest.approx(theirs.standard_error, rel=0.05)


def test_bca_equals_scipys_from_the_same_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skewed statistic: our tails on our replicates and jackknife, against scipy's own formula on its own."""
    random = np.random.default_rng(3)
    hits = (random.random(40) < 0.08).astype(float)
    theirs = scipy.stats.bootstrap((hits,), np.mean, n_resamples=20000, method="BCa", rng=np.random.default_rng(0))
    without = (hits.sum() - hits) / (len(hits) - 1)
    monkeypatch.setattr("dermlab.evaluate.intervals.expanded", lambda tail, n_groups: tail)
    ours = interval(hits.mean(), theirs.bootstrap_distribution, 40, method="bca", jackknifed=without)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.026)  # a step is 1/40


def test_the_expansion_is_students_interval_of_a_mean() -> None:
    """Hesterberg's expansion: for a mean, the percentile interval of few groups has the half width of Student's."""
    n = 12
    z = scipy.stats.norm.isf(expanded(0.025, n))
    biased_spread = np.sqrt((n - 1) / n)
    assert z * biased_spread == pytest.approx(scipy.stats.t.isf(0.025, n - 1))
    assert expanded(0.025, 100_000) == pytest.approx(0.025, abs=1e-5)


def test_the_jackknife_leaves_out_one_group_at_a_time() -> None:
    label, probabilities, group = simulated(2, n=120, n_groups=BLOCK + 10)
    evaluation = Evaluation([cases_from_arrays(label, probabilities, group)], ["macro_f1", "auroc"])
    left_out = jackknife(evaluation, ["macro_f1", "auroc"])
    names = np.unique(group)
    for place in (0, 5, len(names) - 1):
        kept = group != names[place]
        expected = sk.f1_score(label[kept], probabilities[kept].argmax(axis=1), average="macro")
        assert left_out["macro_f1"][place] == pytest.approx(expected)
        truth = np.eye(4)[label[kept]]
        assert left_out["auroc"][place] == pytest.approx(sk.roc_auc_score(truth, probabilities[kept]))


def test_vectorised_replicates_are_those_of_a_loop_over_scikit_learn() -> None:
    """The same draws of patients, metric by metric, from a user's function and from the matrix product."""
    label, probabilities, group = simulated(5, n=150, n_groups=50, n_classes=3)
    for name, function in (
        ("top1", lambda y, p: sk.accuracy_score(y, p.argmax(axis=1))),
        ("macro_f1", lambda y, p: sk.f1_score(y, p.argmax(axis=1), average="macro")),
        ("auroc", lambda y, p: sk.roc_auc_score(np.eye(3)[y], p)),
    ):
        fast = bootstrap(name, label, probabilities, group, n_boot=70, seed=4)
        slow = bootstrap(function, label, probabilities, group, n_boot=70, seed=4)
        assert fast.value == pytest.approx(slow.value)
        np.testing.assert_allclose(fast.replicates, slow.replicates, rtol=1e-12)
        assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_the_same_seed_gives_the_same_bits_in_any_order_of_rows(method: str) -> None:
    label, probabilities, group = simulated(1)
    rows = np.random.default_rng(0).permutation(len(label))
    first = bootstrap("auroc", label, probabilities, group, n_boot=300, seed=9, method=method)
    again = bootstrap("auroc", label, probabilities, group, n_boot=300, seed=9, method=method)
    other = bootstrap("auroc", label, probabilities, group, n_boot=300, seed=10, method=method)
    moved = bootstrap("auroc", label[rows], probabilities[rows], group[rows], n_boot=300, seed=9, method=method)
    assert first == again
    assert (first.replicates == again.replicates).all()
    assert (first.low, first.high) != (other.low, other.high)
    assert (moved.low, moved.high) == pytest.approx((first.low, first.high))


def test_more_replicates_begin_with_the_same_ones() -> None:
    label, probabilities, group = simulated(1)
    few = bootstrap("top1", label, probabilities, group, n_boot=2 * BLOCK, seed=9)
    many = bootstrap("top1", label, probabilities, group, n_boot=5 * BLOCK, seed=9)
    assert (many.replicates[: 2 * BLOCK] == few.replicates).all()


def test_every_replicate_draws_as_many_groups_as_there_are() -> None:
    counts = group_counts(37, 20, seed=1, block=3)
    assert counts.shape == (37, 20)
    assert (counts.sum(axis=0) == 37).all()
    assert counts.mean(axis=1).std() < 0.5


def test_ignoring_clusters_makes_intervals_too_narrow() -> None:
    """Photos of a patient are alike: over patients the interval is clearly wider than over photos."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(60), 5)
    easy = (random.random(60) < 0.6)[group]
    hits = random.random(300) < np.where(easy, 0.95, 0.1)
    label = np.zeros(300, int)
    said = np.where(hits, 0, 1)
    over_patients = bootstrap("top1", label, said, group, classes=[0, 1])
    over_photos = bootstrap("top1", label, said, classes=[0, 1])
    assert over_patients.high - over_patients.low > 1.7 * (over_photos.high - over_photos.low)


def test_grouped_intervals_hold_the_truth_and_ungrouped_ones_do_not() -> None:
    """A small simulation; the full one is benchmarks/coverage.py. Accuracy .7 on average, patients easy or hard."""
    held, held_ignoring = [], []
    for simulation in range(200):
        random = np.random.default_rng([7, simulation])
        group = np.repeat(np.arange(100), random.integers(1, 6, 100))
        chance = random.beta(1.4, 0.6, 100)[group]
        said = np.where(random.random(len(group)) < chance, 0, 1)
        label = np.zeros(len(group), int)
        for kept, groups in ((held, group), (held_ignoring, None)):
            found = bootstrap("top1", label, said, groups, classes=[0, 1], n_boot=256, seed=simulation)
            kept.append(found.low <= 0.7 <= found.high)
    assert 0.9 <= np.mean(held) <= 0.99
    assert np.mean(held_ignoring) < 0.9


def test_replicates_where_a_class_is_missing_are_passed_over() -> None:
    label = np.array([0] * 20 + [1])
    scores = np.append(np.linspace(0, 1, 20), 0.9)
    found = bootstrap("auroc", label, scores, n_boot=500)
    assert np.isnan(found.replicates).mean() == pytest.approx((20 / 21) ** 21, abs=0.07)
    assert found.value == pytest.approx(0.9)
    assert 0 < found.low < found.high


def test_one_group_gives_a_value_and_no_interval() -> None:
    found = bootstrap("top1", [0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], groups=["p", "p", "p"])
    assert found.value == pytest.approx(2 / 3)
    assert np.isnan(found.low)
    assert found.to_dict() == {"value": pytest.approx(2 / 3), "low": None, "high": None}


def test_the_interval_of_a_calibration_error_holds_its_value() -> None:
    """Resampling inflates the error: unmoved, the whole percentile interval would lie above the value."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 400)
    label = (random.random(400) < confidence).astype(int)
    cases = cases_from_arrays(label, confidence)
    evaluation = Evaluation([cases], ["ece"])
    value, raw = evaluation.value()["ece"], resample([evaluation], n_boot=500, seed=0)[0]["ece"]
    assert np.quantile(raw, 0.2) > value
    assert centred("ece", value, raw).mean() == pytest.approx(value)
    found = bootstrap("ece", label, confidence, n_boot=500)
    assert 0 <= found.low < found.value < found.high


def test_a_worked_example_by_hand() -> None:
    """Two patients, three photos: drawing A twice, both, or B twice, with chances 1/4, 1/2, 1/4, gives 1, 2/3, 0."""
    found = bootstrap("top1", ["x", "x", "y"], ["x", "x", "x"], groups=["A", "A", "B"], n_boot=4000)
    values, counts = np.unique(found.replicates.round(6), return_counts=True)
    assert values.tolist() == [0.0, 0.666667, 1.0]
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_wrong_arguments_are_one_line() -> None:
    with pytest.raises(InputError, match="level"):
        bootstrap("top1", [0, 1], [0, 1], level=95)
    with pytest.raises(InputError, match="groups"):
        bootstrap("top1", [0, 1], [0, 1], groups=[1])
    with pytest.raises(InputError, match="columns"):
        bootstrap("top1", ["a", "b"], [[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
    with pytest.raises(InputError, match="not one of the classes"):
        bootstrap("top1", ["a", "c"], ["a", "b"], classes=["a", "b"])
