"""What a page says of trainings: curves, the kept epoch, the screening, recipes over seeds, the steps of a gain."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from dermlab.report import html, parts, training

Json = dict[str, Any]


def run(candidate: str, seed: int, losses: list[float | None], top1: list[float], **over: Any) -> Json:
    history = [
        {"epoch": place, "phase": "finetune", "train_loss": loss, "val_loss": loss, "val_top1": share}
        for place, (loss, share) in enumerate(zip(losses, top1, strict=True), 1)
    ]
    base = {"stage": "full", "repeat": 0, "fold": 0, "best_epoch": 1, "history": history, "alarms": []}
    return {"candidate": candidate, "seed": seed, **base, **over}


def estimate(value: float, half: float = 0.02, **over: Any) -> Json:
    return {"value": value, "low": value - half, "high": value + half, "n_seeds": 3, **over}


def step(factor: str, value: float, difference: float, verdict: str, half: float = 0.02) -> Json:
    ends = {"low": difference - half, "high": difference + half, "p": 0.01, "p_adjusted": 0.02}
    over = {"over": "seeds and groups", "n_seeds": 3, "verdict": verdict}
    return {"factor": factor, "candidate": f"with {factor}", "value": value, "difference": difference, **ends, **over}


def curves_of(part: Json) -> list[Json]:
    (shown,) = parts.view({"training": part})
    return next(block["charts"] for block in shown["blocks"] if block["kind"] == "curves")


def test_the_curve_of_a_seed_is_the_mean_over_the_folds_that_reached_the_epoch() -> None:
    runs = [
        run("a", 0, [1.0, 0.6], [0.5, 0.6], best_epoch=2),
        run("a", 0, [2.0, 0.8, 0.4], [0.3, 0.4, 0.9], fold=1, best_epoch=3),
        run("a", 1, [3.0], [0.1]),
    ]
    first, second = training.mean_curves(runs, "val_top1")
    assert first["val_loss"] == pytest.approx([1.5, 0.7, 0.4])
    assert first["metric"] == pytest.approx([0.4, 0.5, 0.9])
    assert (first["seed"], second["seed"], second["epochs"]) == (0, 1, [1])


def test_the_ring_stands_at_the_kept_epoch_on_the_curve() -> None:
    loss, top1 = curves_of({"metric": "top1", "runs": [run("a", 0, [1.0, 0.5, 0.7], [0.3, 0.6, 0.5], best_epoch=2)]})
    (ring,) = loss["kept"]
    assert ring["epoch"] == 2
    solid = next(line for line in loss["lines"] if not line["dash"])
    assert f"{ring['x']},{ring['y']}" in solid["points"].split()
    assert ring["x"] == loss["width"] / 2
    heights = [float(point.split(",")[1]) for point in solid["points"].split()]
    assert heights.index(max(heights)) == 1  # downwards on the page: the lowest loss
    assert top1["kind"] == "share"


def test_a_divergence_is_cut_off_and_told_and_a_loss_that_is_no_number_is_left_out() -> None:
    bad = [{"name": "diverged", "epoch": 3, "disqualifies": True}]
    part = {"metric": "top1", "runs": [run("a", 0, [0.5, 0.4, 60.0, math.nan], [0.5, 0.6, 0.1, 0.1], alarms=bad)]}
    (shown,) = parts.view({"training": part})
    loss = next(block["charts"] for block in shown["blocks"] if block["kind"] == "curves")[0]
    assert "cut at" in loss["title"]
    assert all(0 <= float(point.split(",")[1]) <= loss["height"] for point in loss["lines"][1]["points"].split())
    assert len(loss["lines"][1]["points"].split()) == 3
    assert shown["tone"] == "bad"
    assert "1 went wrong (a)" in shown["sentence"]
    page = str(shown["blocks"])
    assert "diverged (epoch 3)" in page
    assert "not finite" in page


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.234, 0.61), (3.0, 3.0), (0.0, 0.0), (1e-4, 712.0)])
def test_ticks_are_round_and_hold_all_values(low: float, high: float) -> None:
    ticks = training.nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 7
    steps = {round(after - before, 9) for before, after in itertools.pairwise(ticks)}
    assert len(steps) == 1
    assert float(f"{steps.pop():.0e}") == pytest.approx(ticks[1] - ticks[0])  # one figure


def test_the_bars_of_the_steps_join_and_reach_the_last_value() -> None:
    part = {
        **{"metric": "top1", "n": 200, "n_groups": 90, "unit": "image", "group_by": "patient_id"},
        "factors": ["recipe", "TTA"],
        "baseline": {"candidate": "old", **estimate(0.5)},
        "runs": [{"factors": [], "candidate": "old", **estimate(0.5)}],
        "steps": [step("recipe", 0.6, 0.1, "gain"), step("TTA", 0.59, -0.01, "cannot tell")],
        "total": step("total", 0.59, 0.09, "gain"),
        "shapley": None,
        "missing": [["TTA"]],
        "warnings": ["few seeds"],
    }
    (shown,) = parts.view({"decomposition": part})
    chart = shown["blocks"][0]["chart"]
    first, gain, small, last = chart["bars"]
    assert gain["top"] + gain["height"] == pytest.approx(first["top"], abs=0.2)
    assert small["top"] == pytest.approx(gain["top"], abs=0.2)
    assert last["top"] == pytest.approx(small["top"] + small["height"], abs=0.2)
    assert last["top"] + last["height"] == pytest.approx(chart["height"], abs=0.2)
    assert len({gain["tone"], small["tone"], first["tone"]}) == 3
    assert gain["high"] < gain["top"] < gain["low"] < gain["top"] + gain["height"]
    assert "+9.0 (+7.0 to +11.0) points" in shown["sentence"]
    assert "recipe, +10.0 points" in shown["sentence"]
    assert shown["notes"] == ["Few seeds."]
    rows = [[cell["text"] for cell in line] for line in shown["blocks"][1]["rows"]]
    assert rows[2] == ["+ TTA", "with TTA", "cannot tell", "59.0%", "−1.0 (−3.0 to +1.0)", "0.020"]
    assert shown["blocks"][2]["text"] == "Intervals are over seeds and patients."


def test_an_interval_beyond_what_a_share_can_be_ends_at_the_frame() -> None:
    part = {"metric": "top1", "baseline": {"value": 0.2}, "steps": [step("TTA", 0.3, 0.1, "cannot tell", half=0.9)]}
    chart = training.waterfall(part, "share")
    assert [tick for _, tick in chart["y_ticks"]][:: len(chart["y_ticks"]) - 1] == ["0.0%", "100.0%"]
    _, drawn, _ = chart["bars"]
    assert (drawn["low"], drawn["high"]) == (chart["height"], 0.0)


def test_a_screening_says_who_goes_on_and_that_it_is_no_leaderboard() -> None:
    rows = [
        {"candidate": "a", "val_score": 0.61, "goes_on": True, "why": "the best on val"},
        {"candidate": "b", "val_score": None, "goes_on": False, "why": "failed: no such file"},
    ]
    budget = {"max_train_samples": 24000, "max_val_samples": None, "frozen_epochs": 1, "finetune_epochs": 4}
    (shown,) = parts.view({"screening": {"metric": "top1", "seed": 17, "budget": budget, "rows": rows}})
    assert "24,000 photos at most for 1 + 4 epochs" in shown["sentence"]
    assert "a went on" in shown["sentence"]
    assert "nothing of test" in shown["sentence"]
    cells = [[cell["text"] for cell in line] for line in shown["blocks"][0]["rows"]]
    assert cells == [["a", "yes", "the best on val", "61.0%"], ["b", "no", "failed: no such file", "–"]]


def test_recipes_are_told_apart_over_seeds_or_not() -> None:
    part = {
        "group_by": "patient_id",
        "recipes": [
            {"name": name, "n_seeds": 3, "metrics": {"top1": estimate(value, by_seed=[value - 0.01, value + 0.01])}}
            for name, value in (("a", 0.7), ("b", 0.6))
        ],
        "comparisons": [{"a": "a", "b": "b", "metric": "top1", **step("", 0, 0.1, "a better")}],
        "warnings": [],
    }
    (shown,) = parts.view({"recipes": part})
    assert "1 pair of those below can be told apart" in shown["sentence"]
    assert [cell["text"] for cell in shown["blocks"][0]["rows"][0]] == ["a", "3", "70.0% (68.0–72.0)", "69.0%, 71.0%"]
    part["comparisons"][0]["verdict"] = "cannot tell apart"
    assert "cannot be told apart by these trainings" in parts.view({"recipes": part})[0]["sentence"]


def test_the_page_draws_them_and_escapes_names(record: Json) -> None:
    further = {"training": {"metric": "top1", "runs": [run("<b>&", 0, [1.0, 0.5], [0.3, 0.6])]}}
    page = html.render(record, {}, further)
    assert "&lt;b&gt;&amp;: loss" in page
    assert "<b>&:" not in page
    assert page.count('class="chart"') == 2
