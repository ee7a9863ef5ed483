from __future__ import annotations

import math

import pytest

from dermlab.report.plots import axis, confusion_cells, reliability_points, stacked


@pytest.mark.parametrize(
    "values", [[0.61, 0.54, 0.68], [0.0, 1.0], [0.99, 0.999], [0.5], [0.5, None, float("nan")], [], [0.2001, 0.2002]]
)
def test_an_axis_holds_its_values_and_has_round_ticks_inside(values: list[float | None]) -> None:
    scale = axis(values)
    for value in values:
        if value is not None and math.isfinite(value):
            assert scale.low <= value <= scale.high
    assert 0 <= scale.low < scale.high <= 1
    assert 2 <= len(scale.ticks) <= 8
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in scale.ticks)
    steps = {round(b - a, 6) for a, b in zip(scale.ticks[:-1], scale.ticks[1:], strict=True)}
    assert len(steps) == 1


def test_positions_run_from_left_to_right_and_stop_at_the_edges() -> None:
    scale = axis([0.0, 1.0])
    assert [scale.position(value) for value in (0.0, 0.25, 1.0)] == [0.0, 25.0, 100.0]
    assert scale.position(-1) == 0.0
    assert scale.position(2) == 100.0


def test_reliability_marks_stand_where_their_bin_says_and_grow_with_it() -> None:
    bins = [
        {"confidence": 0.25, "accuracy": 0.5, "n": 4},
        {"confidence": 0.75, "accuracy": 1.0, "n": 16},
        {"confidence": 0.95, "accuracy": None, "n": 0},
    ]
    small, large = reliability_points(bins, size=200, largest=10)
    assert (small.x, small.y) == (50, 100)
    assert (large.x, large.y) == (150, 0)
    assert large.radius == 10
    assert small.radius == 5  # a quarter of the predictions: half the radius


def test_confusion_cells_are_shares_of_the_true_class() -> None:
    cells = confusion_cells([[3, 1], [0, 0]])
    assert [(cell.n, cell.share) for cell in cells[0]] == [(3, 0.75), (1, 0.25)]
    assert [cell.share for cell in cells[1]] == [0.0, 0.0]


def test_stacked_bars_leave_empty_parts_out() -> None:
    assert stacked({"train": 6, "val": 0, "test": 2}, 8) == [("train", 6, 75.0), ("test", 2, 25.0)]
    assert stacked({"train": 0}, 0) == []
