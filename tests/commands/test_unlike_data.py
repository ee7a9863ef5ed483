"""A model on data unlike its own: other classes, skin types that nobody recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

import dermlab
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset

THEIRS = {"NEV": "nv", "SEK": "bkl", "ACK": "akiec", "BCC": "bcc", "SCC": "scc", "MEL": "mel"}


@pytest.fixture(scope="module")
def run(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unlike") / "run"
    dermlab.probe(clinic, encoder="histogram", head="knn", split="main", out=out, n_boot=100)
    return out


@pytest.fixture
def elsewhere(clinic: Path, tmp_path: Path) -> Path:
    """The same photos as another hospital would send them: its own words for the classes, no skin types."""
    dataset = Dataset.open(clinic)
    manifest = dataset.manifest.copy()
    manifest["diagnosis"] = manifest["diagnosis"].map(THEIRS)
    targets = [
        item.model_copy(update={"classes": tuple(THEIRS.values()), "names": {}, "hierarchy": None, "cost_matrix": None})
        for item in dataset.card.targets
        if item.column == "diagnosis"
    ]
    card = dataset.card.model_copy(update={"targets": tuple(targets), "name": "elsewhere"})
    folder = tmp_path / "elsewhere"
    shutil.copytree(clinic / "images", folder / "images")
    manifest = manifest.drop(columns=["mask_path", "skin_type", "malignant"])
    Dataset.write(folder, manifest, card)
    return folder


def test_other_classes_are_scored_through_a_label_map(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    table, mapping = tmp_path / "external.parquet", tmp_path / "map.yaml"
    with pytest.raises(InputError, match="--no_labels"):
        dermlab.predict(run, elsewhere, out=table)
    dermlab.predict(run, elsewhere, out=table, labels=False)
    assert pd.read_parquet(table)["label"].isna().all()
    ours = "{NEV: benign, SEK: benign, ACK: benign, BCC: malignant, SCC: malignant, MEL: malignant}"
    theirs = "{nv: benign, bkl: benign, bcc: malignant, scc: malignant, mel: malignant, akiec: null}"
    mapping.write_text(f"classes: {ours}\nlabels: {theirs}\n")
    dermlab.evaluate(table, truth=elsewhere, label_map=mapping, out=tmp_path / "out", n_boot=100)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    known = Dataset.open(elsewhere).manifest["diagnosis"] != "akiec"
    known &= ~pd.read_parquet(table)["seen_in_training"]  # the same photos lie there
    assert metrics["classes"] == ["benign", "malignant"]
    assert metrics["n"] == known.sum()
    assert any("akiec" in text for text in metrics["warnings"])


def test_skin_tone_is_estimated_where_it_is_asked_for(run: Path, elsewhere: Path, tmp_path: Path) -> None:
    table = tmp_path / "external.parquet"
    dermlab.predict(run, elsewhere, out=table, labels=False)
    labels = Dataset.open(elsewhere).manifest[["image_id", "diagnosis"]]
    words = {theirs: ours for ours, theirs in THEIRS.items()}
    truth = tmp_path / "truth.csv"
    labels.assign(label=labels["diagnosis"].map(words))[["image_id", "label"]].to_csv(truth, index=False)
    options = {"truth": truth, "data": elsewhere, "n_boot": 100}
    dermlab.evaluate(table, subgroups=("ita_band",), out=tmp_path / "out", **options)
    found = json.loads((tmp_path / "out" / "subgroups.json").read_text())
    assert found["columns"]["ita_band"]["estimated"]
    n_scored = (~pd.read_parquet(table)["seen_in_training"]).sum()
    assert sum(one["n"] for one in found["columns"]["ita_band"]["levels"]) == n_scored


def test_the_questionnaire_reaches_the_table(run: Path, clinic: Path) -> None:
    frame = pd.read_parquet(run / "predictions.parquet")
    dataset = Dataset.open(clinic)
    asked = {item.column for item in dataset.card.metadata} - set(dataset.card.label_proxies)
    assert asked <= set(frame)
    assert {"skin_type", "site", "modality"} <= set(frame)
    assert not set(dataset.card.label_proxies) & set(frame)
