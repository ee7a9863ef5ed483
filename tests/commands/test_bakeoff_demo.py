"""``dermlab bakeoff`` and ``dermlab demo`` as a person types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from dermlab.cli import main
from dermlab.commands import demo


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "bakeoff.yaml"
    fields = {"data": "elsewhere", "encoders": ["histogram"], "heads": ["knn"], "n_boot": 100, "seed": 3}
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def out(recipe: Path, clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished bake-off."""
    folder = tmp_path_factory.mktemp("cli") / "out"
    assert main(["bakeoff", str(recipe), "--data", str(clinic), "--out", str(folder)]) == 0
    return folder


def test_it_prints_the_table_the_decision_and_where_the_report_is(
    out: Path, recipe: Path, clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bakeoff", str(recipe), "--data", str(clinic), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert {"val", "rank", "licence"} <= set(lines[0].split())
    assert any(line.startswith("majority") and line.endswith("floor") for line in lines)
    assert any(line.startswith("WINNER: ") for line in lines)
    assert lines[-1] == f"report: {out / 'report.html'}"
    assert "done before" in printed.err
    assert "candidate 1 of" in printed.err


def test_json_is_one_object_with_the_leaderboard(
    out: Path, recipe: Path, clinic: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bakeoff", str(recipe), "--data", str(clinic), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"decision", "leaderboard", "files"}
    assert found["decision"]["word"] == "WINNER"
    assert [row["candidate"] for row in found["leaderboard"] if row["winner"]] == [found["decision"]["winner"]]
    assert isinstance(found["leaderboard"][0]["val_score"], float)


def test_the_report_shows_photos_of_the_data_set_without_their_exif(out: Path) -> None:
    import base64
    import io
    import re

    from PIL import Image

    page = (out / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page.replace("&#43;", "+"))
    assert len(pictures) > 20
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert image.size == (176, 176)
            assert not image.getexif()


def test_without_photos_there_are_none(out: Path, recipe: Path, clinic: Path) -> None:
    words = ["bakeoff", str(recipe), "--data", str(clinic), "--out", str(out), "--no-photos"]
    assert main(words) == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "data:image" not in page
    assert "It holds patients" not in page


def test_the_command_line_beats_the_recipe(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bakeoff", str(recipe), "--out", str(tmp_path), "--seed", "5", "--print_config"]
    assert main(words) == 0
    resolved = yaml.safe_load(capsys.readouterr().out)
    assert (resolved["seed"], resolved["data"], resolved["n_boot"]) == (5, "elsewhere", 100)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"candidates": [{"encoder": "histogram", "head": {"kind": "forest"}}]}, "candidates.0.head.kind: "),
        ({"metric": "accuracy"}, "metric: "),
        ({"data": "nowhere"}, "nowhere: no such folder"),
        ({"heads": []}, "no candidate"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_exit_2(
    change: dict[str, Any], told: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = yaml.safe_load(recipe.read_text(encoding="utf-8")) | change
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(yaml.safe_dump(fields), encoding="utf-8")
    assert main(["bakeoff", str(wrong), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


def test_the_demo_ends_with_the_winner_its_interval_and_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = {"encoders": ["histogram"], "heads": ["knn", "linear"], "candidates": [], "n_boot": 100}
    monkeypatch.setattr(demo, "RECIPE", {**demo.RECIPE, **quick})
    words = ["demo", "--out", str(tmp_path / "demo"), "--n", "200", "--size", "64"]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    (winner,) = [line for line in lines if line.startswith("winner: ")]
    assert "95% interval" in winner
    assert "it had not seen" in winner
    (report,) = [line.removeprefix("report: ") for line in lines if line.startswith("report: ")]
    assert Path(report).is_file()
    made = (tmp_path / "demo" / "clinic" / "manifest.parquet").stat().st_mtime_ns
    assert main(words) == 0  # what is there is used again
    assert (tmp_path / "demo" / "clinic" / "manifest.parquet").stat().st_mtime_ns == made
    assert "done before" in capsys.readouterr().err


def test_the_demo_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PACKAGE", ("no_such_package", "no-such-package"))
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    error = capsys.readouterr().err
    assert "pip install 'dermlab[demo]'" in error
    assert not (tmp_path / "demo").exists()


def test_the_winner_is_assessed_and_has_its_checklist_and_card(out: Path) -> None:
    record = json.loads((out / "bakeoff.json").read_text(encoding="utf-8"))
    winner = next(item for item in record["candidates"] if item["winner"])
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (out / "assessment").glob("*.json")}
    assert {"subgroups", "calibration", "referral", "selective", "conformal", "frequency", "hierarchy"} <= set(found)
    assert found["subgroups"]["n"] == winner["metrics"]["n"]
    assert "sex" in found["subgroups"]["columns"]
    assert sum(item["n_train"] for item in found["frequency"]["classes"].values()) > 0
    page = (out / "report.html").read_text(encoding="utf-8")
    for section in ("subgroups", "calibration", "referral", "conformal", "checklists"):
        assert f'id="{section}"' in page
    card = (out / winner["run"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: dermlab\n")
    assert f"{100 * winner['metrics']['top1']['value']:.1f}%" in card
    assert "## CLAIM (2024 update)" in (out / "checklist.md").read_text(encoding="utf-8")


def test_the_report_can_be_drawn_again_with_what_was_measured_since(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(out, folder)
    part = {"skipped": "the photos are elsewhere"}
    (folder / "robustness").mkdir()
    (folder / "robustness" / "robustness.json").write_text(json.dumps(part), encoding="utf-8")
    (folder / "report.html").unlink()
    assert main(["report", str(folder), "--no_photos", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "robustness" in told["parts"]
    assert "Not computed: the photos are elsewhere." in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(tmp_path)]) == 2
    assert "bakeoff.json: no such file" in capsys.readouterr().err
