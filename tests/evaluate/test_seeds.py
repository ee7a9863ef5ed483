"""Recipes over training seeds: against the covariances of the answers themselves, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from made_up import CLASSES

from dermlab.core.errors import InputError
from dermlab.evaluate import compare_recipes, summarise
from dermlab.evaluate.seeds import lines, recipes_of

COLUMNS = [f"p:{name}" for name in CLASSES]


def trained(table: Any, seed: int, *, shake: float = 0.6) -> Any:
    """The same recipe trained with another seed: every answer shaken."""
    random = np.random.default_rng([11, seed])
    scores = table.frame[COLUMNS].to_numpy()
    scores = scores * np.exp(shake * random.normal(size=scores.shape))
    scores /= scores.sum(axis=1, keepdims=True)
    return table.with_frame(table.frame.assign(seed=seed, **dict(zip(COLUMNS, scores.T, strict=True))))


@pytest.fixture
def recipes(table: Callable[..., Any]) -> dict[str, list[Any]]:
    good, fair = table(0, name="good", skill=3.0), table(0, name="fair", skill=1.2)
    return {"good": [trained(good, seed) for seed in (1, 2, 3, 4)], "fair": [trained(fair, seed) for seed in (5, 6, 7)]}


def hits(table: Any) -> np.ndarray:
    frame = table.frame
    return (np.array(CLASSES)[frame[COLUMNS].to_numpy().argmax(axis=1)] == frame["label"]).to_numpy(float)


def test_accuracy_is_analysed_as_obuchowski_and_rockette_do(table: Callable[..., Any]) -> None:
    """Independent photos: error covariances from the answers themselves stand for those of the bootstrap."""
    base = table(3, skill=2.0, n_groups=10**6)
    bases = [base, trained(base, 99, shake=1.2)]
    runs = [[trained(bases[0], seed) for seed in range(4)], [trained(bases[1], 10 + seed) for seed in range(3)]]
    found = compare_recipes({"a": runs[0], "b": runs[1]}, metrics=["top1"], n_boot=4000)
    right = [np.stack([hits(one) for one in side]) for side in runs]
    covariance = np.cov(np.concatenate(right)) / 300
    means = [side.mean(axis=1) for side in right]

    def shared(block: np.ndarray) -> float:
        return (block.sum() - np.trace(block)) / (len(block) * (len(block) - 1))

    within = [shared(covariance[:4, :4]), shared(covariance[4:, 4:])]
    seeds = [means[0].var(ddof=1) / 4, means[1].var(ddof=1) / 3]
    groups = within[0] + within[1] - 2 * covariance[:4, 4:].mean()
    assert groups > sum(seeds) / 2
    error = np.sqrt(sum(seeds) + groups)
    df = error**4 / (seeds[0] ** 2 / 3 + seeds[1] ** 2 / 2 + groups**2 / 299)
    difference = means[0].mean() - means[1].mean()
    entry = found["comparisons"][0]
    assert entry["difference"] == pytest.approx(difference)
    assert entry["high"] - entry["low"] == pytest.approx(2 * scipy.stats.t.ppf(0.975, df) * error, rel=0.05)
    assert entry["sd_seeds"] == pytest.approx(np.sqrt(sum(seeds)))
    assert entry["sd_groups"] == pytest.approx(np.sqrt(groups), rel=0.05)
    recipe = found["recipes"][0]["metrics"]["top1"]
    assert recipe["value"] == pytest.approx(means[0].mean())
    assert recipe["by_seed"] == pytest.approx(means[0].tolist())
    assert recipe["sd_runs"] == pytest.approx(means[0].std(ddof=1))
    assert recipe["sd_seeds"] < recipe["sd_runs"]  # part of the plain one is the noise of the photos
    assert any(f"SD over its seeds {recipe['sd_runs']:.4f}" in line for line in lines(found))
    assert recipe["sd_groups"] == pytest.approx(np.sqrt(np.trace(covariance[:4, :4]) / 4), rel=0.05)
    assert found["recipes"][1]["n_seeds"] == 3
    assert entry["n_seeds"] == [4, 3]


def test_seeds_that_differ_widen_the_interval(table: Callable[..., Any]) -> None:
    base = table(0, name="base", skill=2.0)
    alike = [trained(base, seed, shake=0.0) for seed in (1, 2, 3)]
    unlike = [trained(table(0, name=f"luck{seed}", skill=0.5 * seed + 1), seed) for seed in (1, 2, 3)]
    found = compare_recipes({"alike": alike, "unlike": unlike}, metrics=["top1"], n_boot=500)
    first, second = (recipe["metrics"]["top1"] for recipe in found["recipes"])
    single = summarise(base, n_boot=500)["top1"]
    assert first["sd_seeds"] == pytest.approx(0.0, abs=1e-9)
    assert first["share_seeds"] == pytest.approx(0.0, abs=1e-9)
    assert first["high"] - first["low"] == pytest.approx(single["high"] - single["low"], rel=0.12)
    assert second["share_seeds"] > 0.5
    assert second["sd_seeds"] == pytest.approx(np.std(second["by_seed"], ddof=1), rel=0.1)
    assert second["high"] - second["low"] > 2 * (first["high"] - first["low"])


def test_a_better_recipe_is_found_and_said(recipes: dict[str, list[Any]]) -> None:
    found = compare_recipes(recipes, n_boot=300)
    assert [entry["metric"] for entry in found["comparisons"]] == ["top1", "balanced_accuracy", "macro_f1", "auroc"]
    for entry in found["comparisons"]:
        assert entry["verdict"] == "a better"
        assert entry["low"] < entry["difference"] < entry["high"]
        assert entry["p_adjusted"] == entry["p"]
    assert (found["n"], found["group_by"], found["warnings"]) == (300, "patient_id", [])
    assert any("good − fair" in line and "good better" in line for line in lines(found))
    lower = compare_recipes(recipes, metrics=["log_loss"], n_boot=300)["comparisons"][0]
    assert (lower["verdict"], lower["difference"] < 0) == ("a better", True)


def test_with_fewer_than_three_seeds_nothing_is_claimed(recipes: dict[str, list[Any]]) -> None:
    found = compare_recipes({"good": recipes["good"], "fair": recipes["fair"][:2]}, metrics=["top1"], n_boot=200)
    entry = found["comparisons"][0]
    assert entry["verdict"] == "cannot tell apart"
    assert (entry["low"], entry["p"], entry["p_adjusted"]) == (None, None, None)
    assert "at least 3" in entry["warnings"][0]
    assert "fewer than 3 seeds of fair" in found["warnings"][0]
    few = found["recipes"][1]["metrics"]["top1"]
    assert few["low"] is None
    assert few["sd_seeds"] is not None
    one = compare_recipes({"fair": recipes["fair"][:1]}, metrics=["top1"], n_boot=200)["recipes"][0]["metrics"]["top1"]
    assert (one["sd_seeds"], one["share_seeds"]) == (None, None)
    assert one["sd_groups"] > 0


def test_runs_are_found_in_several_tables_and_in_one(recipes: dict[str, list[Any]]) -> None:
    """Tables of one model and different seeds are its runs, so are the seeds of a stacked table: the same result."""
    tables = {f"run{place}": one for place, one in enumerate([*recipes["good"], *recipes["fair"]])}
    found = recipes_of(tables)
    assert found is not None
    assert {name: len(runs) for name, runs in found.items()} == {"good": 4, "fair": 3}
    stacked = {
        name: [runs[0].with_frame(pd.concat([one.frame for one in runs], ignore_index=True))]
        for name, runs in recipes.items()
    }
    assert recipes_of({name: runs[0] for name, runs in stacked.items()}) is not None
    plain, again = (compare_recipes(one, metrics=["top1"], n_boot=200) for one in (found, stacked))
    assert plain["comparisons"] == again["comparisons"]
    assert recipes_of({"a": recipes["good"][0], "b": recipes["fair"][0]}) is None
    same_seed = {"a": recipes["good"][0], "b": recipes["good"][0]}
    assert recipes_of(same_seed) is None
    with pytest.raises(InputError, match="at least one recipe"):
        compare_recipes({})
