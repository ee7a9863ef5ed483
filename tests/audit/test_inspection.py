"""The whole audit: a clean clinic passes, every planted trap is found, two data sets that share photos are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermlab.audit import Finding, audit
from dermlab.core.errors import InputError
from dermlab.data.card import Card, MetadataColumn, Target
from dermlab.data.dataset import Dataset


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dermlab.data.synthetic import make_clinic

    folder = tmp_path_factory.mktemp("trapped") / "clinic"
    make_clinic(folder, n=160, size_px=64, seed=7, traps=True)
    return folder


@pytest.fixture(scope="module")
def traps(trapped: Path) -> dict[str, Any]:
    return json.loads((trapped / "traps.json").read_text())


@pytest.fixture(scope="module")
def findings(trapped: Path) -> list[Finding]:
    return audit(Dataset.open(trapped))


def of(findings: list[Finding], code: str) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


def test_a_clean_clinic_has_no_error(clinic: Path) -> None:
    assert [finding.code for finding in audit(Dataset.open(clinic)) if finding.severity == "error"] == []


def test_every_planted_copy_is_found_and_nothing_else(findings: list[Finding], traps: dict[str, Any]) -> None:
    planted = {
        frozenset((trap["image_id"], trap["copy_of"]))
        for kind in ("exact_duplicates", "near_duplicates", "label_conflicts")
        for trap in traps[kind]
    }
    found = set()
    for finding in of(findings, "duplicates") + of(findings, "near-duplicates"):
        assert finding.table is not None
        found |= {frozenset(pair) for pair in finding.table[["image_id", "copy"]].to_numpy()}
    assert found == planted


def test_every_planted_label_conflict_is_found(findings: list[Finding], traps: dict[str, Any]) -> None:
    (finding,) = of(findings, "label-conflict")
    assert finding.severity == "error"
    assert finding.table is not None
    by_photo = {frozenset(block["image_id"]): set(block["label"]) for _, block in finding.table.groupby("photo")}
    for trap in traps["label_conflicts"]:
        assert by_photo[frozenset((trap["image_id"], trap["copy_of"]))] == set(trap["labels"])
    assert len(by_photo) == len(traps["label_conflicts"])


def test_planted_columns_patients_and_broken_files_are_found(findings: list[Finding], traps: dict[str, Any]) -> None:
    errors = {finding.code for finding in findings if finding.severity == "error"}
    assert errors == {"label-conflict", "duplicates", "near-duplicates", "group-overlap", "proxy:biopsed"}
    (blank,) = of(findings, "missingness")
    assert blank.evidence["columns"] == [traps["leaking_blank"]["column"]]
    (overlap,) = of(findings, "group-overlap")
    assert overlap.table is not None
    assert sorted(overlap.table["id"]) == traps["leaking_group"]["patients"]
    (unreadable,) = of(findings, "unreadable")
    assert {row["image_id"] for row in unreadable.evidence["examples"]} == {t["image_id"] for t in traps["unreadable"]}


def test_findings_come_worst_first_and_go_to_json(findings: list[Finding]) -> None:
    ranks = [("error", "warning", "info").index(finding.severity) for finding in findings]
    assert ranks == sorted(ranks)
    for finding in findings:
        assert json.loads(json.dumps(finding.to_json()))["message"] == finding.message


def test_remedies_name_the_folder(findings: list[Finding], trapped: Path) -> None:
    (overlap,) = of(findings, "group-overlap")
    assert f"dermlab data split {trapped} --by patient_id --name leaky" in overlap.remedy
    assert not any("FOLDER" in finding.remedy for finding in findings)


def test_one_named_split_is_checked_alone(clinic: Path, trapped: Path) -> None:
    with pytest.raises(InputError, match="no split 'holdout'"):
        audit(Dataset.open(clinic), split="holdout")
    codes = {finding.code for finding in audit(Dataset.open(clinic), split="folds3")}
    assert "group-overlap" not in codes


def test_photos_shared_by_two_data_sets_are_contamination(clinic: Path, tmp_path: Path) -> None:
    whole = Dataset.open(clinic)
    part = whole.manifest.iloc[:12].drop(columns="mask_path").reset_index(drop=True)
    part["image_id"] = "other-" + part["image_id"].astype("string[pyarrow]")
    part["path"] = [f"{i}.jpg" for i in range(12)]
    for name, original in zip(part["path"], whole.paths, strict=False):
        (tmp_path / name).write_bytes(original.read_bytes())
    other = Dataset.write(tmp_path, part, whole.card.model_copy(update={"name": "other"}))
    (finding,) = of(audit([whole, other]), "contamination")
    assert finding.severity == "error"
    assert finding.evidence["n_of_second"] == 12
    tested = whole.read_split("main")["split"][:12].eq("test").sum()
    assert f"{tested:,} in the test part of {whole.card.name}, split 'main'" in finding.message
    assert finding.table is not None
    assert set(finding.table["other"]) == set(part["image_id"])


def shared_with(clinic: Path, folder: Path, rows: np.ndarray) -> Dataset:
    """Write a data set of some of the clinic's photos, without labels."""
    whole = Dataset.open(clinic)
    manifest = pd.DataFrame({"image_id": [f"other-{row}" for row in rows], "path": [f"{row}.jpg" for row in rows]})
    folder.mkdir()
    for row in rows.tolist():
        (folder / f"{row}.jpg").write_bytes(whole.paths[row].read_bytes())
    return Dataset.write(folder, manifest, Card(name="unlabelled"))


@pytest.mark.parametrize(("part", "severity"), [("test", "error"), ("train", "warning")])
def test_a_pretraining_set_stops_a_run_where_it_holds_test_photos(
    clinic: Path, tmp_path: Path, part: str, severity: str
) -> None:
    whole = Dataset.open(clinic)
    rows = np.flatnonzero(whole.read_split("main")["split"] == part)[:6]
    other = shared_with(clinic, tmp_path / "pretraining", rows)
    (finding,) = of(audit([other, whole], split="main", pretraining=[other.folder]), "contamination")
    assert finding.severity == severity
    assert f"6 photos of {whole.card.name} are in the pretraining photos unlabelled" in finding.message
    assert bool(finding.evidence["in_test"]) == (part == "test")


def test_a_close_look_adds_warnings_and_never_an_error(clinic: Path) -> None:
    pytest.importorskip("cleanlab")
    pytest.importorskip("skimage")
    dataset = Dataset.open(clinic)
    quick = {(finding.code, finding.severity) for finding in audit(dataset)}
    close = {(finding.code, finding.severity) for finding in audit(dataset, closely=True)}
    assert quick <= close
    assert {severity for _, severity in close - quick} <= {"warning", "info"}
    assert "label-errors" in {code for code, _ in close}


def test_an_encoder_is_a_second_net(findings: list[Finding], trapped: Path) -> None:
    found = audit(Dataset.open(trapped), encoder="histogram")
    assert {f.code for f in found if f.severity == "error"} == {f.code for f in findings if f.severity == "error"}


def make(folder: Path, card: Card, **columns: object) -> Dataset:
    """Write a data set of 40 photos of noise."""
    from PIL import Image

    from dermlab.core.randomness import generator

    manifest = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(40)], "path": [f"{i}.png" for i in range(40)], **columns}
    )
    for i, path in enumerate(manifest["path"]):
        Image.fromarray(generator(i, "photo").integers(0, 255, (40, 40, 3)).astype(np.uint8)).save(folder / path)
    return Dataset.write(folder, manifest, card)


def test_a_data_set_without_labels_or_questionnaire_is_audited_too(tmp_path: Path) -> None:
    found = audit(make(tmp_path, Card(name="bare")))
    assert {finding.severity for finding in found} <= {"info", "warning"}


def test_several_labels_are_tested_one_by_one(tmp_path: Path) -> None:
    lists = [["a"] if i % 2 else ["b", "c"] for i in range(40)]
    card = Card(
        name="many",
        targets=(Target(column="findings", kind="multilabel", classes=("a", "b", "c")),),
        metadata=(MetadataColumn(column="leak", kind="boolean"),),
    )
    found = audit(make(tmp_path, card, findings=lists, leak=[bool(i % 2) for i in range(40)]))
    assert of(found, "proxy:leak")[0].severity == "error"


def test_an_unknown_target_and_an_unclear_one_are_input_errors(clinic: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no target 'dx'"):
        audit(Dataset.open(clinic), target="dx")
    card = Card(name="two", targets=tuple(Target(column=name, classes=("a", "b")) for name in ("x", "y")))
    with pytest.raises(InputError, match="which target"):
        audit(make(tmp_path, card, x=["a", "b"] * 20, y=["a", "b"] * 20))


def test_who_groups_by_lesion_divides_patients_on_purpose(clinic: Path, tmp_path: Path) -> None:
    dataset = make(
        tmp_path, Card(name="lesions", group_by="lesion_id"), patient_id=["p"] * 40, lesion_id=list(map(str, range(40)))
    )
    parts = np.where(np.arange(40) % 2, "train", "test")
    dataset.write_split("main", pd.DataFrame({"image_id": dataset.image_ids, "split": parts, "fold": 0, "repeat": 0}))
    (finding,) = of(audit(dataset), "group-overlap")
    assert finding.severity == "warning"


def test_a_data_set_without_labels_is_not_passed_as_clean(clinic: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(clinic, tmp_path / "bare"))
    dataset = Dataset.open(folder)
    bare = Dataset.write(folder, dataset.manifest, dataset.card.model_copy(update={"targets": ()}))
    (finding,) = of(audit(bare), "no-target")
    assert finding.severity == "warning"
    assert "no leak was looked for" in finding.message
    assert "--label_column" in finding.remedy
    assert of(audit(dataset), "no-target") == []
