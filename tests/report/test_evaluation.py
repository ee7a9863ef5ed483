"""The page of one predictions table: what it says first, that it stands alone, that no name becomes markup."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from as_browser import HOSTILE, Page
from made_up import as_table, simulated

from dermlab.core.errors import InputError
from dermlab.core.files import json_ready
from dermlab.evaluate import summarise, write_predictions
from dermlab.report.evaluation import write_evaluation


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, Any]:
    table = as_table(*simulated(3, 240, 90))
    found = summarise(write_predictions(tmp_path / "p.parquet", table, {"group_by": "patient_id"}), n_boot=100)
    return json.loads(json.dumps(json_ready(found)))


def page_of(metrics: dict[str, Any], folder: Path) -> Page:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    write_evaluation(folder)
    return Page((folder / "evaluation.html").read_text(encoding="utf-8"))


def test_warnings_stand_above_the_figures_and_grave_ones_first(metrics: dict[str, Any], tmp_path: Path) -> None:
    metrics["warnings"] = ["fewer than 10 cases of MEL (3)", "auroc is undefined on these cases"]
    words = page_of(metrics, tmp_path / "out").words
    places = [
        words.index(part)
        for part in ("Auroc is undefined", "Fewer than 10 cases of MEL", "95% interval", "Class by class")
    ]
    assert places == sorted(places)


def test_every_headline_metric_has_its_n_and_interval(metrics: dict[str, Any], tmp_path: Path) -> None:
    words = page_of(metrics, tmp_path / "out").words
    assert f"On {metrics['n']} photos of {metrics['n_groups']} patients" in words
    for name in ("top1", "balanced_accuracy"):
        assert f"{100 * metrics[name]['low']:.1f}–{100 * metrics[name]['high']:.1f}" in words
    for name, found in metrics["per_class"].items():
        assert f"{name} n = {found['n']}" in words
    assert "bootstrap over patients (100 replicates, percentile)" in words


def test_the_page_stands_alone_and_can_be_read_aloud(metrics: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(metrics, tmp_path / "out")
    page.check_self_contained()
    page.check_accessible()


def test_names_of_users_stay_text(metrics: dict[str, Any], tmp_path: Path) -> None:
    clean = page_of(metrics, tmp_path / "clean")
    metrics |= {"model": HOSTILE, "target": HOSTILE, "unit": HOSTILE, "group_by": HOSTILE}
    metrics["classes"] = [name + HOSTILE for name in metrics["classes"]]
    metrics["per_class"] = {name + HOSTILE: found for name, found in metrics["per_class"].items()}
    page = page_of(metrics, tmp_path / "soiled")
    assert page.tags == clean.tags
    page.check_self_contained()
    assert "alert('x')" in page.words
    for name in ("confusion_matrix.svg", "reliability.svg"):
        drawn = ElementTree.fromstring((tmp_path / "soiled" / name).read_text(encoding="utf-8"))
        assert not [part for part in drawn.iter() if part.tag.endswith("script") or part.tag.endswith("img")]


def test_the_plots_hold_what_the_metrics_say(metrics: dict[str, Any], tmp_path: Path) -> None:
    page_of(metrics, tmp_path / "out")
    drawn = ElementTree.fromstring((tmp_path / "out" / "confusion_matrix.svg").read_text(encoding="utf-8"))
    counts = [int(part.text or "") for part in drawn.iter() if part.get("class") == "count"]
    assert counts == [n for row in metrics["confusion_matrix"] for n in row]
    reliability = (tmp_path / "out" / "reliability.svg").read_text(encoding="utf-8")
    assert reliability.count("<circle") == sum(item["n"] > 0 for item in metrics["reliability"])


def test_hard_labels_leave_the_reliability_plot_out(metrics: dict[str, Any], tmp_path: Path) -> None:
    del metrics["reliability"]
    for name in ("top3", "auroc", "ece"):
        metrics[name] = {"value": None, "low": None, "high": None}
    words = page_of(metrics, tmp_path / "out").words
    assert "there is no confidence to check" in words
    assert not (tmp_path / "out" / "reliability.svg").exists()


def test_a_folder_without_metrics_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.json: no such file"):
        write_evaluation(tmp_path)
    (tmp_path / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="is not what dermlab evaluate writes"):
        write_evaluation(tmp_path)
