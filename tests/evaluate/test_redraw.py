"""Small test sets redrawn from large tables: against exact enumeration, the normal law, and what cannot be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.stats
from made_up import CLASSES, as_table

from dermlab.core.errors import InputError
from dermlab.evaluate import write_predictions
from dermlab.evaluate.compare import mcnemar
from dermlab.evaluate.redraw import _crossing, _shares, lines, redraw


@pytest.fixture
def single(tmp_path: Any) -> dict[str, Any]:
    """1,000 photos of as many patients; a alone is right on 120 of them, b alone on 90."""
    label = np.arange(1000) % 4
    tables = {}
    for name, wrong in (("b", np.arange(0, 120)), ("a", np.arange(120, 210))):
        said = label.copy()
        said[wrong] = (said[wrong] + 1) % 4
        frame = as_table(label, 0.1 + 0.6 * np.eye(4)[said], np.arange(1000)).drop(columns="group")
        tables[name] = write_predictions(tmp_path / f"{name}.parquet", frame, {"classes": list(CLASSES), "model": name})
    return tables


def shaken(table: Any, seed: int) -> Any:
    """The same model, each of its answers moved at random."""
    columns = [f"p:{name}" for name in CLASSES]
    scores = table.frame[columns].to_numpy()
    scores = scores * np.exp(0.8 * np.random.default_rng(seed).normal(size=scores.shape))
    scores /= scores.sum(axis=1, keepdims=True)
    return table.with_frame(table.frame.assign(**dict(zip(columns, scores.T, strict=True))))


def test_flips_and_calls_are_those_of_exact_enumeration(single: dict[str, Any]) -> None:
    """100 photos drawn: the counts right for one alone are trinomial; every outcome is ranked and tested."""
    found = redraw(single, n=100, draws=4000, sizes=[100], stratified=False, seed=1)
    expected = dict.fromkeys(("flipped", "tied", "significant", "significant_wrong"), 0.0)
    for a_only in range(40):
        for b_only in range(40):
            chance = scipy.stats.multinomial.pmf([a_only, b_only, 100 - a_only - b_only], 100, [0.12, 0.09, 0.79])
            called = mcnemar(a_only, b_only) < 0.05
            expected["flipped"] += chance * (b_only > a_only)
            expected["tied"] += chance * (b_only == a_only)
            expected["significant"] += chance * called
            expected["significant_wrong"] += chance * (called and b_only > a_only)
    pair = found["pairs"][0]
    assert (pair["a"], pair["b"], pair["difference"]) == ("a", "b", pytest.approx(0.03))
    assert found["order"] == ["a", "b"]
    assert found["test"] == "exact McNemar"
    for key, value in expected.items():
        assert pair["sizes"][0][key] == pytest.approx(value, abs=4 * np.sqrt(value / 4000)), key
    overall = found["sizes"][0]
    assert overall["winner_differs"] == pair["sizes"][0]["flipped"]
    assert overall["same_order"] == pytest.approx(1 - overall["winner_differs"])
    assert overall["unsure"] == pytest.approx(1 - pair["sizes"][0]["significant"])
    assert overall["wrong_winner"] == pair["sizes"][0]["significant_wrong"]


def test_the_size_for_a_reliable_order_follows_the_normal_law(single: dict[str, Any]) -> None:
    expected = (1.645 / 0.03) ** 2 * (0.21 - 0.03**2)
    found = redraw(single, n=100, draws=1000, sizes=[100, 200, 400, 600, 800, 1000], seed=2)
    assert not found["pairs"][0]["extrapolated"]
    assert found["pairs"][0]["n_for_5_percent"] == pytest.approx(expected, rel=0.25)
    beyond = redraw(single, n=100, draws=200, sizes=[100], seed=2)["pairs"][0]
    assert beyond["extrapolated"]
    assert beyond["n_for_5_percent"] == pytest.approx(expected, rel=0.02)


def test_equal_models_tie_and_are_never_told_apart(table: Callable[..., Any]) -> None:
    found = redraw({"x": table(0, name="x"), "y": table(0, name="y")}, n=100, draws=200)
    pair = found["pairs"][0]["sizes"][0]
    assert (pair["flipped"], pair["tied"], pair["significant"]) == (0, 1, 0)
    assert found["n_for_5_percent"] is not None or found["pairs"][0]["n_for_5_percent"] is None
    assert "does not tell apart x and y" in found["warnings"][0]


@pytest.mark.parametrize("metric", ["top1", "macro_f1", "auroc", "log_loss", "ece"])
def test_draws_by_patient_rank_three_models(table: Callable[..., Any], metric: str) -> None:
    tables = {name: table(0, name=name, skill=skill, n=600) for name, skill in (("fair", 1.5), ("good", 3.0))}
    tables["twin"] = shaken(tables["fair"], 1)
    tables["fair"] = shaken(tables["fair"], 2)
    found = redraw(tables, metric=metric, n=80, draws=300, sizes=[40, 160])
    assert [one["n"] for one in found["sizes"]] == [40, 80, 160]
    assert (found["n"], found["group_by"]) == (600, "patient_id")
    near = next(pair for pair in found["pairs"] if "good" not in (pair["a"], pair["b"]))
    far = next(pair for pair in found["pairs"] if {pair["a"], pair["b"]} == {"good", "twin"})
    if metric != "ece":
        assert found["order"][0] == "good"
        assert near["sizes"][1]["flipped"] > 0.2 > far["sizes"][1]["flipped"]
        assert far["sizes"][1]["significant"] > 0.5 > near["sizes"][1]["significant"]
        assert far["n_for_5_percent"] < near["n_for_5_percent"]
    else:
        assert found["test"] is None
        assert near["sizes"][0]["significant"] is None
        assert found["sizes"][0]["wrong_winner"] is None
    assert any("test sets of 80" in line for line in lines(found))
    assert redraw(tables, metric=metric, n=80, draws=300, sizes=[40, 160]) == found


def test_the_quick_test_of_a_draw_keeps_its_level(table: Callable[..., Any]) -> None:
    """Two models that are equal but for chance: 5 % of the small tests, or little more, call a difference."""
    base = table(0, n=2000, n_groups=900)
    tables = {name: shaken(base, seed) for name, seed in (("x", 3), ("y", 4))}
    for metric in ("top1", "auroc"):
        pair = redraw(tables, metric=metric, n=150, draws=1000, sizes=[150])["pairs"][0]
        assert abs(pair["difference"]) < 0.02
        assert 0.02 < pair["sizes"][0]["significant"] < 0.11, metric


def test_classes_are_drawn_in_proportion() -> None:
    strata = [np.arange(70), np.arange(70, 95), np.arange(95, 100)]
    assert _shares(strata, 20).tolist() == [14, 5, 1]
    assert _shares(strata, 10).tolist() == [7, 3, 0]
    assert all(_shares(strata, drawn).sum() == drawn for drawn in range(2, 100))


def test_the_crossing_lies_between_the_sizes_and_is_that_of_a_root_law() -> None:
    rates = [(n, float(scipy.stats.norm.sf(np.sqrt(n) / 8))) for n in (50, 100, 200, 400)]
    assert _crossing(rates)[0] == pytest.approx((8 * 1.645) ** 2, rel=0.01)
    assert _crossing([(50, 0.3), (100, 0.2)]) == (None, False)
    assert _crossing([(50, 0.01), (100, 0.0)]) == (50, False)


def test_what_cannot_be_drawn_is_one_line(table: Callable[..., Any], single: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least two predictions tables"):
        redraw({"a": single["a"]})
    with pytest.raises(InputError, match="5000 units cannot be drawn from a table of 1000"):
        redraw(single, n=5000)
    with pytest.raises(InputError, match="at least two units"):
        redraw(single, n=1)
    with pytest.raises(InputError, match="is none of"):
        redraw(single, metric="accuracy")
    alone = {name: one.with_frame(one.frame.assign(group="P")) for name, one in single.items()}
    with pytest.raises(InputError, match="one group"):
        redraw(alone)
