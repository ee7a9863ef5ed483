"""``dermlab data check``: what a person and a script get, and the exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from dermlab.cli import main
from dermlab.commands.data_check import DataCheckConfig, run
from dermlab.data.dataset import Dataset


@pytest.fixture(scope="module")
def leaky(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clinic with a split that deals out photos, not patients."""
    folder = tmp_path_factory.mktemp("check") / "leaky"
    shutil.copytree(clinic, folder)
    dataset = Dataset.open(folder)
    parts = ["train" if i % 3 else "test" for i in range(len(dataset))]
    dataset.write_split("leaky", pd.DataFrame({"image_id": dataset.image_ids, "split": parts, "fold": 0, "repeat": 0}))
    return folder


def test_a_clean_data_set_passes(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(clinic)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{clinic}: 0 errors, ")


def test_an_error_is_exit_status_1_and_says_what_resolves_it(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(leaky)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("ERROR   ")
    assert "ERROR   group-overlap\n" in out
    assert "waive: [group-overlap]" in " ".join(out.split())
    n_errors = out.count("ERROR   ")
    assert f": {n_errors} error{'s' if n_errors > 1 else ''}, " in out.splitlines()[-1]


def test_waived_errors_pass_and_stay_in_sight(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Two photos of one lesion may be near-identical too, and the split deals them out.
    assert main(["data", "check", str(leaky), "--waive", "group-overlap,near-duplicates"]) == 0
    out = capsys.readouterr().out
    assert "WAIVED  group-overlap\n" in out
    assert out.splitlines()[-1].endswith(f", {out.count('WAIVED  ')} waived")


def test_json_is_one_list_of_findings(leaky: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(leaky), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert "group-overlap" in [finding["code"] for finding in findings if finding["severity"] == "error"]
    assert set(findings[0]) == {"code", "severity", "message", "evidence", "remedy", "waived"}


def test_one_split_may_be_checked_alone(leaky: Path) -> None:
    assert main(["data", "check", str(leaky), "--split", "main"]) == 0


def test_out_holds_every_case_in_tables(leaky: Path, tmp_path: Path) -> None:
    result = run(DataCheckConfig(folders=(leaky,), out=tmp_path))
    assert set(result.written) == set(tmp_path.iterdir())
    table = pd.read_csv(tmp_path / "group-overlap.csv")
    (overlap,) = [finding for finding in result.findings if finding.code == "group-overlap"]
    assert table["id"].nunique() == overlap.evidence["n"]
    entries = {entry["code"]: entry for entry in json.loads((tmp_path / "findings.json").read_text())}
    assert entries["group-overlap"]["table"] == "group-overlap.csv"
    assert entries["group-overlap"]["folders"] == [str(leaky)]
    assert (tmp_path / "check.html").read_text().startswith("<!doctype html>")


def test_a_pretraining_folder_is_one_of_those_checked(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(clinic), "--pretraining", str(tmp_path)]) == 2
    assert "not among the folders" in capsys.readouterr().err


def test_two_folders_with_the_same_photos_contaminate_each_other(
    clinic: Path, leaky: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(clinic), str(leaky), "--split", "main", "--json"]) == 1
    codes = [finding["code"] for finding in json.loads(capsys.readouterr().out) if finding["severity"] == "error"]
    assert codes == ["contamination"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--waive", "dupes"], "'dupes' is not a finding that can be waived"),
        (["--split", "holdout"], "no split 'holdout'"),
        (["--target", "dx"], "no target 'dx'"),
    ],
)
def test_a_wrong_name_is_one_line_and_exit_status_2(
    clinic: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert main(["data", "check", str(clinic), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


def test_a_folder_named_twice_is_refused(clinic: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(clinic), str(clinic)]) == 2
    assert "named twice" in capsys.readouterr().err
