"""The gain decomposition: hand-worked Shapley values, and intervals that know seeds and patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermlab.bench.config import Decomposition
from dermlab.bench.decomposition import decompose, shapley_weights, subsets
from dermlab.core.files import read_json
from dermlab.evaluate.predictions import Predictions


def table(right: np.ndarray, groups: np.ndarray, seed: int = 0) -> Predictions:
    """A table of two classes in which the units of ``right`` are answered correctly."""
    n = len(right)
    truth = np.arange(n) % 2
    said = np.where(right, truth, 1 - truth)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(n)],
            "unit": [f"i{k:03d}" for k in range(n)],
            "group": [f"g{g}" for g in groups],
            "target": "t",
            "split": "test",
            "fold": 0,
            "repeat": 0,
            "seed": seed,
            "label": np.where(truth, "b", "a"),
            "p:a": np.where(said, 0.2, 0.8),
            "p:b": np.where(said, 0.8, 0.2),
        }
    )
    meta = {"unit": "image", "group_by": "patient_id", "classes": ["a", "b"], "kind": "binary"}
    return Predictions(frame, ("a", "b"), meta)


def first(share: float, n: int = 100) -> np.ndarray:
    return np.arange(n) < round(share * n)


GROUPS = np.arange(100) // 2
GLOVES = {"": 0, "l": 0, "m": 0, "r": 0, "lm": 0, "lr": 1, "mr": 1, "lmr": 1}


def test_shapley_weights_give_the_published_values_of_the_glove_game() -> None:
    # Two left gloves (l, m), one right one (r): the right one is worth 2/3, each left one 1/6.
    found = {
        factor: sum(weight * GLOVES["".join(sorted(some))] for some, weight in weights.items())
        for factor, weights in shapley_weights("lmr").items()
    }
    assert found == pytest.approx({"l": 1 / 6, "m": 1 / 6, "r": 2 / 3})


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_shapley_values_add_up_to_the_whole_gain(k: int) -> None:
    factors = [f"f{place}" for place in range(k)]
    worth = dict(zip(subsets(factors), np.random.default_rng(k).normal(size=2**k), strict=True))
    total = sum(
        weight * worth[some] for weights in shapley_weights(factors).values() for some, weight in weights.items()
    )
    assert total == pytest.approx(worth[frozenset(factors)] - worth[frozenset()])


def plan(**fields: Any) -> Decomposition:
    steps = [{"factor": "recipe", "candidate": "r"}, {"factor": "backbone", "candidate": "rb"}]
    return Decomposition.model_validate({"baseline": "base", "steps": steps, **fields})


def test_two_factors_by_hand() -> None:
    # base .50, +recipe .60, +backbone alone .56, both .72: in order .10 and .12, over both orders .13 and .09.
    tables = {name: [table(first(v), GROUPS)] for name, v in {"base": 0.5, "r": 0.6, "b": 0.56, "rb": 0.72}.items()}
    found = decompose(
        tables,
        plan(combinations=[{"factors": ["backbone"], "candidate": "b"}]),
        metric="top1",
        n_boot=300,
        seed=0,
    )
    assert [step["difference"] for step in found["steps"]] == pytest.approx([0.10, 0.12])
    assert [value["difference"] for value in found["shapley"]["values"]] == pytest.approx([0.13, 0.09])
    assert found["total"]["difference"] == pytest.approx(0.22)
    assert found["missing"] == []
    assert found["n"] == 100
    assert found["n_groups"] == 50
    for step in found["steps"]:
        assert step["low"] < step["difference"] < step["high"]
        assert step["over"] == "groups"
    assert "3 training seeds" in found["warnings"][0]


def test_a_missing_set_of_factors_is_named_and_nothing_is_averaged() -> None:
    tables = {name: [table(first(v), GROUPS)] for name, v in {"base": 0.5, "r": 0.6, "rb": 0.72}.items()}
    found = decompose(tables, plan(), metric="top1", n_boot=100, seed=0)
    assert found["shapley"] is None
    assert found["missing"] == [["backbone"]]
    assert any("1 of 4 sets of factors have no run (backbone)" in text for text in found["warnings"])


def test_three_seeds_a_side_widen_the_interval_by_what_the_seeds_differ() -> None:
    def found(shares: dict[str, list[float]]) -> dict[str, Any]:
        tables = {
            name: [table(first(v), GROUPS, seed) for seed, v in enumerate(values)] for name, values in shares.items()
        }
        return decompose(tables, plan(), metric="top1", n_boot=300, seed=0)["steps"][0]

    steady = found({"base": [0.5, 0.5, 0.5], "r": [0.6, 0.6, 0.6], "rb": [0.7, 0.7, 0.7]})
    shaky = found({"base": [0.4, 0.5, 0.6], "r": [0.5, 0.6, 0.7], "rb": [0.7, 0.7, 0.7]})
    assert steady["over"] == shaky["over"] == "seeds and groups"
    assert steady["difference"] == pytest.approx(shaky["difference"])
    assert shaky["high"] - shaky["low"] > 1.5 * (steady["high"] - steady["low"])
    assert steady["verdict"] == "gain"
    assert shaky["verdict"] == "cannot tell"


def test_a_step_of_three_seeds_is_what_the_comparison_of_recipes_says() -> None:
    from dermlab.evaluate.seeds import compare_recipes

    random = np.random.default_rng(0)
    tables = {
        name: [table(random.random(100) < share, GROUPS, seed) for seed in range(3)]
        for name, share in {"base": 0.5, "r": 0.7, "rb": 0.8}.items()
    }
    step = decompose(tables, plan(), metric="top1", n_boot=300, seed=0)["steps"][0]
    pair = next(
        entry
        for entry in compare_recipes(tables, metrics=["top1"], n_boot=300, seed=0)["comparisons"]
        if {entry["a"], entry["b"]} == {"base", "r"}
    )
    assert step["difference"] == pytest.approx(-pair["difference"])
    assert step["low"] == pytest.approx(-pair["high"])
    assert step["p"] == pytest.approx(pair["p"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"steps": [{"factor": "a", "candidate": "x"}] * 2}, "each factor is added once"),
        ({"combinations": [{"factors": ["head"], "candidate": "x"}]}, "'head' is no factor"),
        ({"combinations": [{"factors": ["recipe"], "candidate": "x"}]}, "has a candidate already"),
    ],
)
def test_a_plan_names_each_set_of_factors_once(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        plan(**fields)


def test_the_command_takes_finished_tables_apart(tmp_path: Path) -> None:
    import dermlab
    from dermlab.evaluate.predictions import write_predictions

    for name, share in {"base": 0.5, "new0": 0.7, "new1": 0.72, "new2": 0.74}.items():
        made = table(first(share), GROUPS)
        write_predictions(tmp_path / f"{name}.parquet", made.frame, made.meta)
    found = dermlab.decompose(
        baseline=str(tmp_path / "base.parquet"),
        steps=[{"factor": "recipe", "candidate": "new"}],
        runs_of={"new": [tmp_path / f"new{k}.parquet" for k in range(3)]},
        out=tmp_path / "out",
        n_boot=100,
    )
    assert found.found["steps"][0]["difference"] == pytest.approx(0.22)
    assert found.found["runs"][1]["n_seeds"] == 3
    assert read_json(tmp_path / "out" / "decomposition.json")["n"] == 100
    assert any("over groups" in line for line in found.lines())
