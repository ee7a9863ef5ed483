"""Figures by how often a class was seen in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import recall_score

from dermlab.core.errors import InputError
from dermlab.evaluate.frequency import by_frequency

COUNTS = {"ACK": 15, "BCC": 60, "MEL": 99, "NEV": 500}


def test_classes_fall_into_bins_by_their_training_images(table: Any) -> None:
    predictions = table()
    found = by_frequency(predictions, COUNTS, n_boot=200)
    assert {one["bin"]: one["classes"] for one in found["bins"]} == {
        "head": ["NEV"],
        "medium": ["BCC", "MEL"],
        "tail": ["ACK"],
    }
    predicted = np.array(predictions.classes)[predictions.predicted()]
    recalls = recall_score(predictions.frame["label"], predicted, labels=list(COUNTS), average=None)
    for name, recall in zip(COUNTS, recalls, strict=True):
        assert found["classes"][name]["recall"]["value"] == pytest.approx(recall)
    assert found["bins"][1]["recall"]["value"] == pytest.approx(recalls[1:3].mean())
    assert found["head_minus_tail"]["value"] == pytest.approx(recalls[3] - recalls[0])
    assert found["head_minus_tail"]["low"] < found["head_minus_tail"]["value"] < found["head_minus_tail"]["high"]
    assert found["spearman"]["value"] == pytest.approx(spearmanr(list(COUNTS.values()), recalls)[0])


def test_the_p_of_few_classes_counts_all_their_orders(table: Any) -> None:
    found = by_frequency(table(), COUNTS, n_boot=100)["spearman"]
    # Four classes have 24 orders: even a perfect correlation is found in 2 of them.
    assert found["p"] * 24 == pytest.approx(round(found["p"] * 24))
    assert found["p"] >= 2 / 24
    assert found["n_classes"] == 4


def test_a_class_never_found_has_an_interval_all_the_same(table: Any) -> None:
    predictions = table()
    frame = predictions.frame.copy()
    rare = (frame["label"] == "ACK").to_numpy()
    frame.loc[rare, [f"p:{name}" for name in COUNTS]] = [0.0, 1.0, 0.0, 0.0]
    found = by_frequency(predictions.with_frame(frame), COUNTS, n_boot=100)
    for recall in (found["classes"]["ACK"]["recall"], found["bins"][-1]["recall"]):
        assert recall["value"] == recall["low"] == 0
        assert 0.01 < recall["high"] < 0.3


def test_equal_counts_correlate_with_nothing(table: Any) -> None:
    found = by_frequency(table(), dict.fromkeys(COUNTS, 50), n_boot=100)
    assert found["spearman"]["value"] is None
    assert found["head_minus_tail"] is None
    assert [one["bin"] for one in found["bins"]] == ["medium"]


def test_a_class_without_training_images_is_the_tail(table: Any) -> None:
    found = by_frequency(table(), {"NEV": 500, "MEL": 200}, n_boot=100)
    assert found["bins"][-1]["classes"] == ["ACK", "BCC"]
    assert found["classes"]["ACK"]["n_train"] == 0
    with pytest.raises(InputError, match="'XYZ' is not one of the classes"):
        by_frequency(table(), {"XYZ": 1})
    with pytest.raises(InputError, match="-1 images"):
        by_frequency(table(), {"MEL": -1})
