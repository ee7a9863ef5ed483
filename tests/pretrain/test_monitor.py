"""What the monitor measures, and when it raises its voice."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from dermlab.pretrain.monitor import effective_rank, examine, neighbour_score, spread


def test_the_spread_is_one_all_over_the_sphere_and_nothing_for_one_vector() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 32))
    assert spread(draws) == pytest.approx(1.0, abs=0.02)
    assert spread(np.ones((50, 32))) == pytest.approx(0.0, abs=1e-6)
    assert spread(3 * draws) == pytest.approx(spread(draws))


def test_the_effective_rank_is_the_number_of_equal_directions() -> None:
    draws = np.random.default_rng(1).normal(size=(5000, 6))
    wide = np.concatenate([draws, np.zeros((5000, 10))], axis=1)
    assert effective_rank(wide) == pytest.approx(6, abs=0.05)
    assert effective_rank(np.outer(np.arange(9.0), np.ones(5))) == pytest.approx(1, abs=1e-6)
    assert effective_rank(np.ones((9, 5))) == 1.0


def test_the_neighbours_score_is_scikit_learns() -> None:
    random = np.random.default_rng(2)
    centres = random.normal(size=(3, 8))
    codes = random.integers(0, 3, 120)
    points = (centres[codes] + 0.9 * random.normal(size=(120, 8))).astype(np.float32)
    model = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07)).fit(
        points[:80], codes[:80]
    )
    expected = f1_score(codes[80:], model.predict(points[80:]), average="macro")
    found = neighbour_score(points[:80], codes[:80], points[80:], codes[80:], 3, 7)
    assert found == pytest.approx(expected)
    assert 0.4 < found < 1


def row(epoch: int, **changes: Any) -> dict[str, Any]:
    fields = {"loss": 3.0, "teacher_entropy": 2.0, "marginal_entropy": 4.0, "target_movement": 1e-2}
    return {"epoch": epoch, **fields, "n_skipped": 0, "n_steps": 10, **changes}


def seen(epoch: int, knn: float | None = 0.5, **changes: Any) -> dict[str, Any]:
    return {"epoch": epoch, "knn": knn, "spread": 0.8, "rank": 20.0, **changes}


def names(history: list[dict[str, Any]], looks: list[dict[str, Any]], n_outputs: int = 100) -> list[str]:
    found = examine(history, looks, n_outputs=n_outputs, n_epochs=50, method="dino")
    return [alarm.name for alarm in found]


def test_a_healthy_run_is_left_in_peace() -> None:
    history = [row(epoch, loss=4.6 - 0.05 * epoch) for epoch in range(1, 20)]
    assert names(history, [seen(epoch, 0.3 + 0.01 * epoch) for epoch in range(0, 20, 2)]) == []
    assert names([], []) == []


def test_each_trouble_has_its_name() -> None:
    chance = math.log(100)
    flat = [row(epoch, loss=chance * (1 + 1e-3 * (-1) ** epoch)) for epoch in range(1, 6)]
    assert names(flat, []) == ["flat-loss"]
    assert names(flat[:4], []) == []  # too early to tell
    assert names(flat, [], n_outputs=0) == []  # a method without prototypes
    assert names([row(1, marginal_entropy=0.01)], []) == ["one-prototype"]
    assert names([row(3, target_movement=1e-9)], []) == ["teacher-stopped"]
    assert names([row(3), row(50, target_movement=0.0)], []) == []  # at the very end momentum is 1
    assert names([row(1, n_skipped=2)], []) == ["non-finite"]
    assert names([row(1)], [seen(0), seen(1, spread=0.01)]) == ["collapse"]
    assert names([row(1)], [seen(0, spread=0.01), seen(1)]) == []  # random weights may be narrow
    falling = [seen(0, 0.4), seen(2, 0.6), seen(4, 0.5), seen(6, 0.5), seen(8, 0.54)]
    assert names([row(8)], falling) == ["knn-falling"]
    assert names([row(8)], [*falling[:-1], seen(8, 0.58)]) == []


def test_alarms_say_what_to_change() -> None:
    (alarm,) = examine([row(1)], [seen(0), seen(1, rank=1.1)], n_outputs=0, n_epochs=9, method="simclr")
    assert "batch_size" in alarm.says
    assert alarm.epoch == 1
