"""The commands on encoders, features and licences, as a person types them."""

import json

import numpy as np
import pytest

from dermlab.cli import main
from dermlab.models.names import ALIASES


@pytest.fixture(autouse=True)
def _no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("DERMLAB_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_encoders_lists_every_alias_and_the_floor(capsys):
    assert main(["encoders", "--use", "commercial", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == {*ALIASES, "histogram"}
    assert rows["convnextv2_tiny"]["verdict"] == "blocked"
    assert main(["encoders"]) == 0
    text = capsys.readouterr().out
    assert "resnet50" in text
    assert "not here" in text


def test_a_check_says_what_stops_an_encoder_and_what_to_do(capsys):
    assert main(["encoders", "--check", "medsiglip", "--use", "commercial-medical"]) == 1
    text = capsys.readouterr().out
    assert "WARN  gating: its terms have to be accepted at https://" in text
    assert "WARN  licence: viable with conditions" in text
    assert "FAIL  weights" in text
    assert main(["encoders", "--check", "nonsense"]) == 1
    assert "FAIL  name" in capsys.readouterr().out


def test_a_check_passes_where_nothing_is_in_the_way(capsys):
    assert main(["encoders", "--check", "timm:test_resnet+random"]) == 0
    text = capsys.readouterr().out
    assert "PASS  network" in text
    assert "PASS  memory" in text


def test_triage_gives_reasons_and_exits_1_on_what_may_not_ship(capsys, tmp_path):
    assert main(["triage", "medsiglip", "--use", "commercial-medical"]) == 0
    assert "obtain the health regulatory authorisation" in capsys.readouterr().out
    assert main(["triage", "convnextv2_tiny", "hf-hub:suinleelab/monet", "--use", "commercial", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["id"], one["verdict"]) for one in found] == [("convnextv2-fcmae", "blocked"), ("monet", "blocked")]
    assert main(["triage", ""]) == 2  # a script's unset variable: not the folder that one stands in
    assert "empty name" in capsys.readouterr().err
    (tmp_path / "weights.pth").write_bytes(b"x")
    assert main(["triage", str(tmp_path / "weights.pth"), "--use", "research"]) == 1
    assert "unknown" in capsys.readouterr().out


def test_triage_without_names_is_the_seeds_table_and_no_alarm(capsys):
    assert main(["triage", "--use", "commercial-medical"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines if line and not line.startswith(" ")}
    for name in ("medsiglip", "derm-foundation", "isic-cc0-ccby"):
        assert "viable with conditions" in rows[name]
    for name in ("panderm", "monet", "ham10000-classifier", "dermnet-classifier", "fitzpatrick17k-classifier"):
        assert "blocked" in rows[name]
    assert "CPU only" in rows["derm-foundation"]
    assert "domain mismatch" in lines[lines.index(rows["isic-cc0-ccby"]) + 1]
    assert "health regulatory authorisation" in lines[lines.index(rows["medsiglip"]) + 1]
    assert "dinov3" not in rows


def test_triage_of_all_is_every_card(capsys):
    from dermlab.licensing import cards

    assert main(["triage", "--all", "--use", "research", "--json"]) == 0
    assert {one["id"] for one in json.loads(capsys.readouterr().out)} == set(cards())


def test_triage_of_a_run_walks_its_lineage_and_marks_what_is_contaminated(capsys, tmp_path):
    lineage = {"cards": ["medsiglip"], "data_card": {"name": "pad", "licence_card": "pad-ufes-20"}}
    (tmp_path / "predictions.parquet.json").write_text(json.dumps({"lineage": lineage}))
    assert main(["triage", str(tmp_path), "--use", "commercial"]) == 0
    assert "contaminated: it was pretrained on PAD-UFES-20" in capsys.readouterr().out
    lineage["data_card"] = {"name": "our photos"}
    (tmp_path / "predictions.parquet.json").write_text(json.dumps({"lineage": lineage}))
    assert main(["triage", str(tmp_path), "--use", "research"]) == 1
    text = capsys.readouterr().out
    assert "unknown" in text
    assert "no licence is stated" in text
    assert "contaminated: it" not in text


def test_embed_fills_the_store_once(clinic, capsys, tmp_path):
    out = tmp_path / "features.npz"
    command = ["embed", str(clinic), "--encoder", "timm:test_resnet+random", "--precision", "fp32", "--seed", "5"]
    assert main([*command, "--json", "--out", str(out)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["n_computed"] == first["n_valid"] == 160
    with np.load(out, allow_pickle=False) as saved:
        assert saved["features"].shape == (160, first["encoder"]["dim"])
        assert saved["valid"].all()
    assert main(command) == 0
    assert "0 computed now, 160 known" in capsys.readouterr().out


def test_embed_without_weights_is_one_line(clinic, capsys):
    assert main(["embed", str(clinic), "--encoder", "resnet50"]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: encoder resnet50: its weights are not on this machine")
    assert "\n" not in line


def test_a_check_holds_the_download_against_the_free_disk(capsys, monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
    assert main(["encoders", "--check", "medsiglip"]) == 1
    text = capsys.readouterr().out
    assert "FAIL  disk: the weights are at least 1.7 GB to fetch, 1.0 GB are free" in text
    assert "FAIL  weights" not in text  # nothing is fetched onto a disk that cannot hold it


def test_the_cost_of_an_encoder_is_told_before_it_is_run(capsys):
    assert main(["encoders", "--cost", "medsiglip", "--images", "293000", "--images_per_second", "1.3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hours"] == pytest.approx(62.6, abs=0.1)
    assert told["measured"] is None
    assert main(["encoders", "--cost", "timm:test_vit", "--train", "--images", "1000", "--price_per_hour", "3.29"]) == 0
    text = capsys.readouterr().out
    assert "measured on cpu" in text
    assert "price:" in text
    assert "memory:" in text
