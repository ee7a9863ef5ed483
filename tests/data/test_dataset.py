"""The data set folder: what comes back is what went in, and every fault names file, row and column."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dermlab.core.errors import InputError
from dermlab.data.card import Card, MetadataColumn, Target
from dermlab.data.dataset import Dataset

CARD = Card(
    name="clinic",
    targets=(
        Target(column="dx", classes=("bcc", "mel", "nv"), default=True),
        Target(column="signs", kind="multilabel", classes=("crust", "scale")),
    ),
    metadata=(
        MetadataColumn(column="age", kind="numeric", unit="years"),
        MetadataColumn(column="itch", kind="boolean"),
        MetadataColumn(column="where", kind="categorical", values=("arm", "face")),
        MetadataColumn(column="biopsed", kind="boolean"),
    ),
    label_proxies=("biopsed",),
)


def manifest(**changes: object) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "path": ["images/a.jpg", "images/b.jpg", "images/c.jpg", "images/d.png"],
            "patient_id": [7, 7, None, 9],
            "captured_at": ["2024-01-05", None, "2024-02-01T12:30", "2024-02-01T12:30+02:00"],
            "skin_type": [1, None, 6, 3],
            "modality": ["clinical", "dermoscopy", None, "tbp"],
            "dx": ["mel", "nv", None, "bcc"],
            "signs": [["crust"], [], None, ["scale", "crust"]],
            "age": [63, np.nan, 12, 40.5],
            "itch": [True, None, False, True],
            "where": ["arm", None, "face", "arm"],
            "biopsed": [True, False, False, True],
        }
    )
    frame["patient_id"] = frame["patient_id"].astype("Int64")
    return frame.assign(**changes)


def write(tmp_path, card=CARD, **changes):
    return Dataset.write(tmp_path / "set", manifest(**changes), card)


def test_what_is_written_is_what_is_opened(tmp_path):
    written = write(tmp_path)
    opened = Dataset.open(tmp_path / "set")
    pd.testing.assert_frame_equal(opened.manifest, written.manifest)
    assert opened.card == CARD
    assert opened.fingerprint == written.fingerprint
    assert len(opened) == 4
    assert list(opened.image_ids) == ["a", "b", "c", "d"]
    assert opened.paths[3] == (tmp_path / "set" / "images" / "d.png").resolve()
    table = pq.read_table(tmp_path / "set" / "manifest.parquet")
    types = {field.name: field.type for field in table.schema}
    assert types["patient_id"] == pa.string()
    assert types["signs"] == pa.list_(pa.string())
    assert types["captured_at"] == pa.timestamp("us")
    assert types["itch"] == pa.bool_()
    assert table["age"].null_count == table["itch"].null_count == table["dx"].null_count == 1
    assert table.schema.metadata is None  # nothing of the machine that wrote it


def test_columns_come_typed_with_nulls(tmp_path):
    write(tmp_path)
    frame = Dataset.open(tmp_path / "set").manifest
    assert frame["patient_id"].tolist()[:2] == ["7", "7"]
    assert pd.isna(frame["patient_id"][2])
    assert frame["captured_at"][3] == datetime.datetime(2024, 2, 1, 10, 30)  # UTC
    assert str(frame["skin_type"].dtype) == "Int8"
    assert str(frame["itch"].dtype) == "boolean"
    assert frame["age"].dtype == np.float64


def test_labels_are_names_or_a_matrix_with_missing_rows(tmp_path):
    dataset = write(tmp_path)
    assert dataset.labels().tolist() == ["mel", "nv", None, "bcc"]
    np.testing.assert_array_equal(dataset.labels("signs"), [[1, 0], [0, 0], [np.nan, np.nan], [1, 1]])


def test_groups_are_patients_else_lesions_else_images(tmp_path):
    dataset = write(tmp_path)
    assert dataset.group_column() == "patient_id"
    assert dataset.groups().tolist() == ["7", "7", "c", "9"]
    lesions = manifest(lesion_id=["l", None, "l", "m"]).drop(columns="patient_id")
    dataset = Dataset.write(tmp_path / "lesions", lesions, CARD)
    assert dataset.groups().tolist() == ["l", "b", "l", "m"]
    dataset = Dataset.write(tmp_path / "images", lesions.drop(columns="lesion_id"), CARD)
    assert dataset.groups().tolist() == ["a", "b", "c", "d"]
    dataset = Dataset.write(tmp_path / "where", lesions, CARD.model_copy(update={"group_by": "where"}))
    assert dataset.groups().tolist() == ["arm", "b", "face", "arm"]


def test_an_image_without_patient_does_not_join_the_patient_of_its_name(tmp_path):
    dataset = write(tmp_path, patient_id=["c", "c", None, "x"])
    groups = dataset.groups()
    assert groups[2] not in groups[[0, 1, 3]]


def test_units_are_what_the_card_scores(tmp_path):
    card = CARD.model_copy(update={"unit": "lesion"})
    dataset = write(tmp_path, card, lesion_id=["l", "l", None, "m"])
    assert dataset.units().tolist() == ["l", "l", "c", "m"]
    with pytest.raises(InputError, match=r"card\.yaml: unit: scoring by lesion needs the column 'lesion_id'"):
        write(tmp_path, card)


def test_the_questionnaire_leaves_proxies_out(tmp_path):
    dataset = write(tmp_path)
    frame = dataset.questionnaire()
    assert list(frame) == ["age", "itch", "where"]
    assert list(dataset.questionnaire(exclude_proxies=False)) == ["age", "itch", "where", "biopsed"]
    frame["age"] = 0
    assert dataset.manifest["age"][0] == 63  # a copy


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"image_id": ["a", "b", "a", "d"]}, "row 4, column 'image_id'", "'a' stands in row 2 already"),
        ({"image_id": ["a", None, "c", "d"]}, "row 3, column 'image_id'", "is blank"),
        ({"path": ["x", "y", None, "z"]}, "row 4, column 'path'", "is blank"),
        ({"path": ["x", "../y", "v", "z"]}, "row 3, column 'path'", "leaves the folder"),
        ({"path": ["x", "/etc/passwd", "v", "z"]}, "row 3, column 'path'", "leaves the folder"),
        ({"path": ["x", "y", "v\\w", "z"]}, "row 4, column 'path'", "separated by '/'"),
        (
            {"dx": ["mel", "nv", "bbc", "bcc"]},
            "row 4, column 'dx'",
            "label 'bbc' is not one of bcc, mel, nv (image 'c')",
        ),
        ({"dx": ["mel", "nv", "nan", "bcc"]}, "row 4, column 'dx'", "'nan' stands for a missing value"),
        ({"dx": [1.5, 2.0, None, 1.0]}, "row 2, column 'dx'", "must be text"),
        (
            {"signs": [["crust"], ["hair"], None, []]},
            "row 3, column 'signs'",
            "label 'hair' is not one of crust, scale",
        ),
        ({"signs": [["crust", "crust"], [], None, []]}, "row 2, column 'signs'", "listed twice"),
        ({"signs": ["crust", [], None, []]}, "row 2, column 'signs'", "must be a list of class names"),
        ({"patient_id": ["7", "nan", "", "9"]}, "row 3, column 'patient_id'", "'nan' stands for a missing value"),
        ({"skin_type": [1, 7, None, 3]}, "row 3, column 'skin_type'", "7 is not a Fitzpatrick type"),
        ({"modality": ["clinical", "xray", None, None]}, "row 3, column 'modality'", "'xray' is not one of clinical"),
        ({"age": [63, "old", 12, 40]}, "row 3, column 'age'", "must be a number or null, got 'old'"),
        ({"age": [63, np.inf, 12, 40]}, "row 3, column 'age'", "finite"),
        ({"itch": [True, "perhaps", None, False]}, "row 3, column 'itch'", "must be true, false or null"),
        ({"where": ["arm", "leg", None, "face"]}, "row 3, column 'where'", "'leg' is not one of arm, face"),
        ({"captured_at": ["2024-01-05", "5 Jan", None, None]}, "row 3, column 'captured_at'", "must be a date"),
        ({"time_to_event": [1.0, -2, 3, None]}, "row 3, column 'time_to_event'", "-2 is negative"),
    ],
)
def test_a_fault_names_file_row_and_column(tmp_path, changes, place, message):
    with pytest.raises(InputError) as fault:
        write(tmp_path, **changes)
    assert f"manifest.parquet {place}: " in str(fault.value)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_the_number_of_further_faults_is_told(tmp_path):
    with pytest.raises(InputError, match="the same in 2 more rows"):
        write(tmp_path, dx=["mel", "x", "x", "y"])


def test_a_column_that_the_card_names_must_be_there(tmp_path):
    with pytest.raises(InputError, match="column 'dx': is missing"):
        Dataset.write(tmp_path / "set", manifest().drop(columns="dx"), CARD)
    with pytest.raises(InputError, match="column 'age': is missing"):
        Dataset.write(tmp_path / "set", manifest().drop(columns="age"), CARD)
    with pytest.raises(InputError, match=r"card\.yaml: group_by: manifest\.parquet has no column 'room'"):
        write(tmp_path, CARD.model_copy(update={"group_by": "room"}))
    with pytest.raises(InputError, match="holds no image"):
        Dataset.write(tmp_path / "set", manifest()[:0], CARD)


def test_links_may_point_inside_the_folder_only(tmp_path):
    dataset = write(tmp_path)
    images = tmp_path / "set" / "images"
    images.mkdir()
    (images / "a.jpg").write_bytes(b"x")
    (images / "b.jpg").symlink_to(images / "a.jpg")
    assert Dataset.open(dataset.folder).paths[1].name == "b.jpg"
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (images / "c.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(InputError, match=r"row 4, column 'path': images/c\.jpg: leaves the folder"):
        Dataset.open(dataset.folder)
    (images / "c.jpg").unlink()
    elsewhere = tmp_path / "elsewhere"
    images.rename(elsewhere)
    images.symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"row 2, column 'path': images/a\.jpg: leaves the folder"):
        Dataset.open(dataset.folder)


def test_a_folder_that_is_no_data_set_says_how_to_make_one(tmp_path):
    with pytest.raises(InputError, match="no such folder; 'dermlab data import'"):
        Dataset.open(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"not a data set folder \(card\.yaml is missing\)"):
        Dataset.open(tmp_path)
    dataset = write(tmp_path)
    (dataset.folder / "manifest.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match=r"manifest\.parquet: cannot be read as Parquet"):
        Dataset.open(dataset.folder)


def test_the_fingerprint_follows_the_contents_and_nothing_else(tmp_path):
    first = write(tmp_path / "one")
    same = write(tmp_path / "two")
    assert first.fingerprint == same.fingerprint
    columns = list(manifest())
    reordered = Dataset.write(tmp_path / "three", manifest()[columns[:2] + columns[:1:-1]], CARD)
    assert reordered.fingerprint == first.fingerprint
    assert write(tmp_path / "four", age=[63, 0, 12, 40.5]).fingerprint != first.fingerprint
    assert write(tmp_path / "five", signs=[["crust"], [], None, ["crust"]]).fingerprint != first.fingerprint
    assert write(tmp_path / "six", CARD.model_copy(update={"unit": "patient"})).fingerprint != first.fingerprint


def test_columns_that_the_card_does_not_name_are_kept(tmp_path):
    write(tmp_path, room=["r1", "r2", "r2", None], weight=[1, 2, 3, 4])
    frame = Dataset.open(tmp_path / "set").manifest
    assert frame["room"].tolist()[:3] == ["r1", "r2", "r2"]
    assert frame["weight"].tolist() == [1, 2, 3, 4]


# --- splits as files ---


def split(parts: str, fold: int = 0, ids: str = "abcd") -> pd.DataFrame:
    names = {"t": "train", "v": "val", "x": "test"}
    return pd.DataFrame({"image_id": list(ids), "split": [names.get(p, p) for p in parts], "fold": fold, "repeat": 0})


def test_a_split_comes_back_in_manifest_order(tmp_path):
    dataset = write(tmp_path)
    shuffled = pd.concat([split("xttv", fold=1), split("tvxt", fold=0)]).iloc[::-1]
    dataset.write_split("folds2", shuffled)
    back = Dataset.open(dataset.folder).read_split("folds2")
    assert dataset.split_names() == ["folds2"]
    assert back["image_id"].tolist() == list("abcdabcd")
    assert back["split"].tolist() == ["train", "val", "test", "train", "test", "train", "train", "val"]
    assert back["fold"].tolist() == [0] * 4 + [1] * 4


def test_fold_and_repeat_may_be_left_out(tmp_path):
    dataset = write(tmp_path)
    dataset.write_split("mine", split("tvxt")[["image_id", "split"]])
    assert dataset.read_split("mine")["fold"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (split("tvxz"), "row 5, column 'split': 'z' is not one of train, val, test"),
        (split("tvxt", ids="abcz"), "row 5, column 'image_id': 'z' is not an image of manifest.parquet"),
        (split("tvxt", ids="abcc"), "image 'c' stands 2 times in fold 0 of repeat 0"),
        (split("tvx", ids="abc"), "1 images are in no part, the first is 'd' in fold 0 of repeat 0"),
        (
            pd.concat([split("tvxt"), split("tv", fold=1, ids="ab")]),
            "2 images are in no part, the first is 'c' in fold 1",
        ),
        (split("tvxt").assign(fold=-1), "column 'fold': -1.0 is not 0, 1, 2"),
        (split("tvxt").drop(columns="split"), "column 'split': is missing"),
        (split("", ids=""), "the split is empty"),
    ],
)
def test_an_incomplete_split_is_refused(tmp_path, frame, message):
    with pytest.raises(InputError) as fault:
        write(tmp_path).write_split("bad", frame)
    assert message in str(fault.value)


def test_an_unknown_split_says_which_there_are(tmp_path):
    dataset = write(tmp_path)
    with pytest.raises(InputError, match=r"no split 'main' \(there is none yet\)"):
        dataset.read_split("main")
    dataset.write_split("other", split("tvxt"))
    with pytest.raises(InputError, match=r"no split 'main' \(there is other\)"):
        dataset.read_split("main")
    with pytest.raises(InputError, match="cannot be a split's name"):
        dataset.read_split("../../etc/passwd")


def test_opening_50_000_rows_takes_seconds_not_minutes(tmp_path):
    import time

    n = 50_000
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(n)],
            "path": [f"images/i{k}.jpg" for k in range(n)],
            "patient_id": rng.integers(0, 20_000, n),
            "dx": rng.choice(["a", "b"], n),
        }
    )
    Dataset.write(tmp_path / "big", frame, Card(name="big", targets=(Target(column="dx", classes=("a", "b")),)))
    start = time.process_time()
    dataset = Dataset.open(tmp_path / "big")
    dataset.groups(), dataset.labels(), dataset.paths, dataset.fingerprint
    assert time.process_time() - start < 10


def test_a_link_is_known_by_every_name_that_some_file_system_finds_it_by(tmp_path):
    from dermlab.data.manifest import _linked_rows

    (tmp_path / "Nävus.jpg").symlink_to("/etc/passwd")
    (tmp_path / "plain.jpg").touch()
    names = {"nävus.JPG": [0], "na\u0308vus.jpg": [1, 3], "Nävus.jpg": [2], "plain.jpg": [4]}
    assert sorted(_linked_rows(tmp_path, "", names)) == [0, 1, 2, 3]
