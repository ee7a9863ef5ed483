"""The card of a run and of an encoder: read back as the Hub reads it, complete, and safe with what users wrote."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from as_browser import HOSTILE

from dermlab.core.errors import InputError
from dermlab.core.files import read_json, write_json
from dermlab.report.model_card import describe_run, folder_card, without_places, write_model_card

SECTIONS = ("Warnings", "Intended use and limits", "Data", "Licences and lineage", "How to make it again")
FINETUNE = {
    "size_px": 32,
    "frozen_epochs": 1,
    "finetune_epochs": 0,
    "batch_size": 32,
    "max_train_samples": 32,
    "precision": "fp32",
    "n_boot": 100,
}


def read(text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter and the body of a card."""
    assert text.startswith("---\n")
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(front), body


def copy_of(run: Path, folder: Path, **lineage: Any) -> Path:
    copy = Path(shutil.copytree(run, folder))
    sidecar = read_json(copy / "predictions.parquet.json")
    sidecar["lineage"] |= lineage
    write_json(copy / "predictions.parquet.json", sidecar)
    return copy


@pytest.fixture(scope="module")
def finetuned(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.adapt.finetune.run import run_finetune
    from dermlab.data.dataset import Dataset
    from dermlab.models import create_encoder
    from dermlab.pretrain.export import export_encoder

    folder = tmp_path_factory.mktemp("finetuned")
    encoder, _ = create_encoder("timm:test_resnet+random", size_px=32)
    said = {"name": "own", "made_from": ["synthetic-clinic"], "cautions": (), "told": ""}
    recipe = FINETUNE | {"encoder": str(export_encoder(encoder, folder / "encoder", **said))}
    data = Dataset.open(clinic)
    data = Dataset(clinic, data.card.model_copy(update={"licence_card": "synthetic-clinic"}), data.manifest)
    return run_finetune(data, FinetuneSettings.model_validate(recipe), folder / "run").path


def test_a_runs_card_has_every_section_and_each_figure_with_n_and_interval(histogram_run: Path) -> None:
    from huggingface_hub import ModelCard

    text = folder_card(histogram_run)
    front, body = read(text)
    metrics = read_json(histogram_run / "metrics.json")
    for heading in (*SECTIONS, "How good it is"):
        assert f"## {heading}" in body
    groups = f"{metrics['n']} photos of {metrics['n_groups']} patients"
    assert groups in body
    top1 = metrics["top1"]
    assert f"{100 * top1['value']:.1f}% | {100 * top1['low']:.1f}–{100 * top1['high']:.1f}" in body
    for name, found in metrics["per_class"].items():
        assert f"| {name} | {found['n']} |" in body
    found = {one.metric_type: one.metric_value for one in ModelCard(text).data.eval_results or []}
    assert found["accuracy"] == pytest.approx(top1["value"], abs=1e-6)
    assert front["library_name"] == "dermlab"
    assert front["datasets"] == ["synthetic-clinic"]
    assert "base_model" not in front  # a histogram is nobody's weights
    assert "no weights of others" in body or "histogram" in body


def test_the_card_after_a_run_tells_for_whom_and_how_sure(histogram_run: Path, tmp_path: Path) -> None:
    run = copy_of(histogram_run, tmp_path / "run")
    _, body = read(describe_run(run, n_boot=100).read_text(encoding="utf-8"))
    assert "### For whom it works less well" in body
    assert "### Calibration, before and after correction" in body
    assert body == read(write_model_card(run).read_text(encoding="utf-8"))[1]


def test_whom_to_name_and_what_each_use_asks_for_stand_in_the_card(histogram_run: Path, tmp_path: Path) -> None:
    run = copy_of(histogram_run, tmp_path / "run", cards=["ham10000-classifier"], data_card=None)
    _, body = read(folder_card(run))
    assert "| ham10000-classifier | MIT |" in body
    row = next(line for line in body.splitlines() if line.startswith("| ham10000-classifier"))
    assert row.count("blocked") == 2
    assert "HAM10000: no commercial use (CC-BY-NC-4.0) (ham10000-classifier ← ham10000)" in body
    assert "Tschandl" in body.split("Name:")[1]


def test_a_model_that_knows_its_test_photos_warns_before_anything_is_said_of_it(
    histogram_run: Path, tmp_path: Path
) -> None:
    own = {"name": "pad", "licence": "CC-BY-4.0", "licence_card": "pad-ufes-20"}
    run = copy_of(histogram_run, tmp_path / "run", cards=["medsiglip"], data_card=own)
    _, body = read(folder_card(run))
    assert "medsiglip: contaminated: it was pretrained on PAD-UFES-20" in body
    assert body.index("contaminated") < body.index("## Intended use")


def test_a_finetuned_runs_card_says_how_photos_are_prepared_and_on_how_many_it_was_fitted(finetuned: Path) -> None:
    front, body = read(folder_card(finetuned))
    report = read_json(next(finetuned.glob("checkpoints/*/model.json")))["report"]
    assert f"Fitted on {report['n_train']:,} photos and chosen on {report['n_val']:,}" in body
    assert "size_px: 32" in body.replace("\\", "")
    assert "base_model" not in front  # weights that the Hub does not have
    for heading in SECTIONS:
        assert f"## {heading}" in body
    assert str(finetuned.parent) not in body
    (told,) = [text for text in read_json(finetuned / "metrics.json")["warnings"] if text.startswith("contaminated")]
    assert "was pretrained on" in told
    assert "- contaminated: encoder was pretrained on" in body.replace("\\", "")


def test_an_encoders_card_names_what_it_was_trained_on_and_how_it_loads(own_encoder: Path) -> None:
    front, body = read(folder_card(own_encoder))
    assert front["library_name"] == "timm"
    assert front["pipeline_tag"] == "image-feature-extraction"
    assert front["datasets"] == ["ham10000"]
    assert "model-index" not in front
    assert body.startswith("\n# own weights\n")
    assert "Trained on: HAM10000." in body
    assert "timm.create_model(" in body
    assert "no commercial use" in body
    for heading in SECTIONS[:-1]:
        assert f"## {heading}" in body


def test_a_probe_on_weights_made_here_tells_what_those_were_made_from(encoder_run: Path, own_encoder: Path) -> None:
    card = yaml.safe_load((own_encoder / "card.yaml").read_text(encoding="utf-8"))
    _, body = read(folder_card(encoder_run))
    row = next(line for line in body.splitlines() if line.startswith(f"| {card['id']}"))
    assert row.count("blocked") == 2
    assert "pretrained on" not in body.split("## Intended use")[0]  # the clinic itself is not HAM10000
    assert str(own_encoder.parent) not in body


def test_what_users_wrote_cannot_leave_its_place(histogram_run: Path, own_encoder: Path, tmp_path: Path) -> None:
    hostile = f"{HOSTILE}\n---\nlicense: mit\n# heading [a](javascript:x) | cell"
    own = {"name": hostile, "licence": hostile, "citation": hostile}
    run = copy_of(histogram_run, tmp_path / "run", dataset=hostile, data_card=own)
    metrics = read_json(run / "metrics.json")
    write_json(run / "metrics.json", {**metrics, "warnings": [hostile]})
    encoder = Path(shutil.copytree(own_encoder, tmp_path / "encoder"))
    card = yaml.safe_load((encoder / "card.yaml").read_text(encoding="utf-8"))
    card |= {"name": hostile, "trained_on": [hostile]}
    (encoder / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    for folder in (run, encoder):
        front, body = read(folder_card(folder))
        assert front["license"] == "other"
        assert "<script" not in body
        assert "[a](" not in body
        assert "\n# heading" not in body
        assert "\n---\n" not in body


def test_the_examples_in_warnings_are_left_out(histogram_run: Path, tmp_path: Path) -> None:
    run = copy_of(histogram_run, tmp_path / "run")
    metrics = read_json(run / "metrics.json")
    told = "clinic: 1 photo has two labels (for one, PAT_1_2 (left) MEL and PAT_3_4 NEV)."
    write_json(run / "metrics.json", {**metrics, "warnings": [told]})
    body = folder_card(run)
    assert "- clinic: 1 photo has two labels.\n" in body
    assert "PAT" not in body


def test_a_folder_without_either_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds neither a finished run"):
        folder_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/home/anna/My photos/encoder", "encoder"),
        ("/home/anna/encoder + linear", "encoder + linear"),
        ("~/clinic/card.yaml", "card.yaml"),
        ("fitted on /home/anna/clinic, see https://example.org/a/b", "fitted on clinic, see https://example.org/a/b"),
        ("and/or 3/4, hf:owner/name, runs/best/head.json", "and/or 3/4, hf:owner/name, runs/best/head.json"),
    ],
)
def test_a_path_of_this_machine_is_cut_to_its_last_name(text: str, told: str) -> None:
    assert without_places({"a": [text]}) == {"a": [told]}
