"""What a leak was worth: nothing where nothing leaks, its share of the accuracy where something does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dermlab.audit import audit
from dermlab.bench.bakeoff import run_bakeoff
from dermlab.bench.config import BakeoffConfig
from dermlab.bench.leak import find_leak, measure_leak
from dermlab.core.config import validate
from dermlab.data.dataset import Dataset
from dermlab.data.splits import split_by_folds, split_by_fraction


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The trapped clinic with its leaking column declared, and a split by patient."""
    from dermlab.data.synthetic import make_clinic

    folder = tmp_path_factory.mktemp("leak") / "clinic"
    make_clinic(folder, n=200, size_px=64, seed=3, traps=True)
    dataset = Dataset.open(folder)
    dataset = Dataset.write(folder, dataset.manifest, dataset.card.model_copy(update={"label_proxies": ("biopsed",)}))
    dataset.write_split("main", split_by_fraction(dataset, seed=0))
    dataset.write_split("folds", split_by_folds(dataset, 3, seed=0))
    return dataset


@pytest.fixture(scope="module")
def measured(leaky: Dataset) -> dict[str, Any]:
    leak = find_leak(audit(leaky, split="main", target="malignant"), leaky)
    assert leak.proxies == ("biopsed",)
    assert leak.blanks == ("report_days",)
    assert leak.admitted == ()
    return measure_leak(leaky, "malignant", leaky.read_split("folds"), leak, n_boot=200)


def test_a_clean_data_set_has_no_leak(clinic: Path) -> None:
    dataset = Dataset.open(clinic)
    assert not find_leak(audit(dataset, split="main"), dataset)


def test_the_leak_is_the_paired_difference(measured: dict[str, Any]) -> None:
    clean, proxies, blanks = measured["steps"]
    assert [step["inputs"] for step in measured["steps"]] == ["clean", "with proxies", "with proxies and blanks"]
    assert set(blanks["columns"]) - set(proxies["columns"]) == {"report_days"}
    assert set(proxies["columns"]) - set(clean["columns"]) == {"biopsed"}
    for pair in measured["differences"]:
        assert pair["b"] == "clean"
        step = next(step for step in measured["steps"] if step["inputs"] == pair["a"])
        gained = step["metrics"][pair["metric"]]["value"] - clean["metrics"][pair["metric"]]["value"]
        assert pair["difference"] == pytest.approx(gained, abs=1e-9)
        assert pair["low"] <= pair["difference"] <= pair["high"]
    (auroc,) = [p for p in measured["differences"] if p["metric"] == "auroc" and p["a"] == "with proxies and blanks"]
    assert auroc["verdict"] == "a better"
    assert auroc["difference"] > 0.05
    json.dumps(measured)


def test_every_leaking_column_has_its_reason(measured: dict[str, Any]) -> None:
    kinds = {row["column"]: row["kind"] for row in measured["columns"]}
    assert kinds == {"biopsed": "value", "report_days": "missingness"}
    assert all(row["reason"] for row in measured["columns"])


def test_an_admitted_proxy_is_an_error_until_waived_and_then_measured(leaky: Dataset, tmp_path: Path) -> None:
    asked = {
        "data": leaky.folder,
        "target": "malignant",
        "split": "main",
        "candidates": [{"encoder": "histogram", "head": {"kind": "linear", "with_questionnaire": True}}],
        "ensemble": False,
        "include_columns": ["biopsed"],
        "n_boot": 100,
    }
    from dermlab.core.errors import InputError

    with pytest.raises(InputError, match="proxy:biopsed"):
        run_bakeoff(validate(BakeoffConfig, asked), tmp_path / "refused")
    codes = {
        f.code for f in audit(leaky, split="main", target="malignant", inputs=("biopsed",)) if f.severity == "error"
    }
    assert "proxy:biopsed" in codes
    result = run_bakeoff(validate(BakeoffConfig, {**asked, "waive": sorted(codes)}), tmp_path / "out")
    record = json.loads((result.folder / "bakeoff.json").read_text())
    assert any("biopsed" in line and "gives the label away" in line for line in record["waivers"])
    assert record["leak"]["admitted"] == ["biopsed"]
    names = [model["name"] for model in record["leak"]["models"]]
    assert names[0] == "questionnaire"
    winner = next(item["name"] for item in record["candidates"] if item["winner"])
    assert names[1:] == ([winner] if winner.startswith("histogram-linear") else [])
