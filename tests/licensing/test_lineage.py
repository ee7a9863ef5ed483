"""Whatever dermlab writes says what it was made from: ``dermlab triage`` on real folders, made by the commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from dermlab.cli import main
from dermlab.core.files import write_json
from dermlab.licensing import contaminated, contamination_warning, find_cards

ARTEFACTS = (
    "probe",
    "probe/predictions.parquet",
    "probe/MODEL_CARD.md",
    "probe/checkpoints/repeat0-fold0",
    "encoder",
    "robustness",
    "unseen",
    "label-efficiency",
    "table.parquet",
    "evaluation",
    "comparison",
    "bakeoff",
)


@pytest.fixture(scope="module")
def made(clinic: Path, own_encoder: Path, encoder_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one artefact of each kind, all of weights that have seen HAM10000."""
    from dermlab.report.model_card import write_model_card

    folder = tmp_path_factory.mktemp("artefacts")
    for run in (folder / "probe", folder / "bakeoff" / "runs" / "best"):
        write_model_card(shutil.copytree(encoder_run, run))
    write_json(folder / "bakeoff" / "bakeoff.json", {"format": 1})
    shutil.copytree(own_encoder, folder / "encoder")
    encoder, data, few = str(own_encoder), str(clinic), ["--n_boot", "100"]
    curves = ["--heads", "knn", "--per_class", "2", "--percent", "50", "--repeats", "2", "--metrics", "top1"]
    table = str(folder / "table.parquet")
    for words in (
        ["robustness", str(encoder_run), data, "--corruptions", "darker", "--severities", "1", *few],
        ["unseen", data, "--encoder", encoder, "--classes", "NEV", *few],
        ["label-efficiency", data, "--encoder", encoder, *curves, *few],
    ):
        assert main([*words, "--out", str(folder / words[0])]) == 0
    assert main(["predict", str(encoder_run), data, "--out", table]) == 0
    assert main(["evaluate", table, "--out", str(folder / "evaluation"), *few]) == 0
    both = [str(encoder_run), table]
    assert main(["compare", *both, "--names", "a,b", "--out", str(folder / "comparison"), *few]) == 0
    return folder


@pytest.mark.parametrize("name", ARTEFACTS)
def test_triage_walks_from_every_artefact_to_what_its_weights_have_seen(
    made: Path, own_encoder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["triage", str(made / name), "--use", "commercial", "--json"]) == 1
    verdicts = {one["id"]: one for one in json.loads(capsys.readouterr().out)}
    own = yaml.safe_load((own_encoder / "card.yaml").read_text(encoding="utf-8"))["id"]
    assert verdicts[own]["verdict"] == "blocked"
    assert [own, "ham10000"] in [reason["chain"] for reason in verdicts[own]["reasons"]]
    others = {"synthetic-clinic"} if name != "encoder" else set()
    assert set(verdicts) == {own} | others
    for other in others:
        assert verdicts[other]["verdict"] == "viable"


def test_a_finetuned_run_and_a_bare_one_tell_only_what_they_stand_on(histogram_run: Path) -> None:
    ids, own = find_cards(histogram_run)
    assert ids == ["synthetic-clinic"]
    assert not contaminated(ids, own)


def test_weights_made_here_are_known_to_have_seen_what_they_were_made_from(own_encoder: Path) -> None:
    card = str(own_encoder / "card.yaml")
    told = contamination_warning("own", [card], "ham10000")
    assert told is not None
    assert told.startswith("contaminated: own was pretrained on HAM10000")
    assert contamination_warning("own", [card], "pad-ufes-20") is None
    assert contamination_warning("own", [None], "ham10000") is None
    assert contamination_warning("own", [card], None) is None


def test_a_run_that_lost_its_encoder_still_tells_its_terms(encoder_run: Path, tmp_path: Path) -> None:
    """The card of weights made here comes along; where they lay is not asked again."""
    run = Path(shutil.copytree(encoder_run, tmp_path / "run"))
    file = run / "predictions.parquet.json"
    sidecar = json.loads(file.read_text(encoding="utf-8"))
    sidecar["lineage"]["own_cards"][0]["trained_on"] = ["dermnet"]
    write_json(file, sidecar)
    ids, own = find_cards(run)
    assert own[ids[0]].trained_on == ("dermnet",)
