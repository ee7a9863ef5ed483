"""Deviations by group: against Obuchowski's formulas written out, the jackknife and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import simulated
from scipy.special import logit
from scipy.stats import t

from dermlab.evaluate.cases import CaseSets, cases_from_arrays
from dermlab.evaluate.influence import auroc_influence, delong_interval, influences
from dermlab.evaluate.intervals import jackknife, resample
from dermlab.evaluate.metrics import Evaluation


def obuchowski(scores: list[np.ndarray], label: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and covariance matrix of clustered ROC areas, as Obuchowski 1997 (sec. 2) writes them, pair by pair."""
    names = np.unique(group)
    positive, negative = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    m, n, total = len(positive), len(negative), len(names)
    holders = [sum((label[group == name] == side).any() for name in names) for side in (1, 0)]
    areas, sums = [], []
    for score in scores:
        wins = (score[positive][:, None] > score[negative]) + 0.5 * (score[positive][:, None] == score[negative])
        area = wins.mean()
        above, below = wins.mean(axis=1), wins.mean(axis=0)
        x = np.array([above[group[positive] == name].sum() - (group[positive] == name).sum() * area for name in names])
        y = np.array([below[group[negative] == name].sum() - (group[negative] == name).sum() * area for name in names])
        areas.append(area)
        sums.append((x, y))
    covariance = np.zeros((len(scores), len(scores)))
    for r, (x_r, y_r) in enumerate(sums):
        for s, (x_s, y_s) in enumerate(sums):
            s10 = holders[0] / ((holders[0] - 1) * m) * (x_r * x_s).sum()
            s01 = holders[1] / ((holders[1] - 1) * n) * (y_r * y_s).sum()
            s11 = total / (total - 1) * np.array([(x_r * y_s).sum(), (x_s * y_r).sum()])
            covariance[r, s] = s10 / m + s01 / n + s11.sum() / (m * n)
    return np.array(areas), covariance


@pytest.mark.parametrize("digits", [1, 9])
def test_the_clustered_area_is_obuchowskis_exactly(digits: int) -> None:
    """Patients with both classes, with one, with a single photo; ties. Variance of each and of the difference."""
    random = np.random.default_rng(2)
    group = random.integers(0, 30, 80)
    label = (random.random(80) < 0.4).astype(int)
    scores = [np.round(0.5 * label + random.normal(size=80) + random.normal(size=30)[group], digits) for _ in range(2)]
    areas, covariance = obuchowski(scores, label, group)
    cases = [cases_from_arrays(label, np.column_stack([-x, x]), group, classes=[0, 1]) for x in scores]
    for name in ("auroc", "auroc:1", "auroc:0"):
        moved = [auroc_influence([one], name) for one in cases]
        for place in range(2):
            assert Evaluation([cases[place]], [name]).value()[name] == pytest.approx(areas[place])
            assert moved[place].variance() == pytest.approx(covariance[place, place])
        expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        assert (moved[0] - moved[1]).variance() == pytest.approx(expected)
    found = delong_interval([cases[0]])
    spread = np.sqrt(covariance[0, 0]) / (areas[0] * (1 - areas[0]))
    quantiles = t(len(set(group)) - 1).ppf([0.025, 0.975])
    assert logit([found.low, found.high]) == pytest.approx(logit(areas[0]) + quantiles * spread)
    assert found.value == pytest.approx(areas[0])


def test_a_perfect_ranking_stays_within_its_bounds_and_one_class_has_none() -> None:
    label, scores = np.array([0, 0, 0, 1, 1, 1]), np.array([0.1, 0.2, 0.6, 0.5, 0.8, 0.9])
    found = delong_interval([cases_from_arrays(label, scores)])
    assert found.low < found.value < found.high < 1
    assert found.method == "delong"
    perfect = delong_interval([cases_from_arrays(label, label.astype(float))])
    assert perfect.value == 1
    assert np.isnan([perfect.low, perfect.high]).all()
    alone = delong_interval([cases_from_arrays([1, 1], [0.2, 0.3], classes=[0, 1])])
    assert np.isnan([alone.value, alone.low, alone.high]).all()


def test_the_deviations_of_other_metrics_are_the_jackknifes_and_the_bootstraps() -> None:
    label, probabilities, group = simulated(1, n=600, n_groups=200)
    cases = cases_from_arrays(label, probabilities, group)
    units = np.arange(600)
    found = CaseSets((cases,), ((0, 0),), units, np.unique(group), cases.group, (units,), ())
    names = ["top1", "macro_f1", "kappa", "log_loss", "top2", "recall:2", "ppv@prev=0.1:2", "auroc", "auroc:2"]
    moved = influences(found, [*names, "ece"])
    assert set(moved) == set(names)
    evaluation = Evaluation([cases], names)
    left_out = jackknife(evaluation, names)
    draws = resample([evaluation], n_boot=2000, seed=0, names=names)[0]
    for name in names:
        spread = np.sqrt(moved[name].variance())
        assert spread == pytest.approx(np.nanstd(draws[name]), rel=0.08), name
        by_jackknife = -(left_out[name] - left_out[name].mean())
        assert np.corrcoef(moved[name].total(), by_jackknife)[0, 1] > 0.99, name
    by_unit = influences(found, ["top1"], by_unit=True)["top1"]
    hits = cases.correct()
    assert by_unit.variance() == pytest.approx(hits.var(ddof=1) / 600)
