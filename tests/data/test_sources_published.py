"""Published data sets: made-up files in each upstream layout, and the real photos where they are at hand."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermlab.core.errors import DermlabError, InputError, MissingExtraError
from dermlab.data.dataset import Dataset
from dermlab.data.ingest import import_source
from dermlab.data.sources import medmnist, read_source
from dermlab.data.sources.pad_ufes_20 import COLUMNS
from dermlab.data.splits import balance, linked_groups, split_by_folds
from dermlab.licensing import cards


def photo(path: Path, size=(8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (120, 80, 60)).save(path)


# --- PAD-UFES-20 ---

PAD_ROW = {
    "patient_id": "PAT_1",
    "lesion_id": "7",
    "smoke": "False",
    "drink": "",
    "background_father": "ITALY",
    "background_mother": "UNK",
    "age": "63",
    "pesticide": "True",
    "gender": "MALE",
    "skin_cancer_history": "",
    "cancer_history": "False",
    "has_piped_water": "True",
    "has_sewage_system": "",
    "fitspatrick": "3.0",
    "region": "FACE",
    "diameter_1": "10.0",
    "diameter_2": "",
    "diagnostic": "BCC",
    "itch": "UNK",
    "grew": "True",
    "hurt": "False",
    "changed": "UNK",
    "bleed": "False",
    "elevation": "True",
    "img_id": "PAT_1_7_100.png",
    "biopsed": "True",
}


def pad(root: Path, *changes: dict[str, str], extension: str = ".png") -> Path:
    """PAD-UFES-20 as published: metadata.csv, photos in three parts; one row per mapping of changes."""
    rows = []
    for k, change in enumerate(changes or ({},)):
        row = PAD_ROW | {"img_id": f"PAT_1_7_{100 + k}.png"} | change
        rows.append(row)
        photo(root / "images" / f"imgs_part_{k % 3 + 1}" / (Path(row["img_id"]).stem + extension))
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root


def test_pad_is_read_from_its_parts(tmp_path):
    root = pad(tmp_path, {}, {"diagnostic": "NEV", "patient_id": "PAT_2", "biopsed": "False", "fitspatrick": ""}, {})
    source = read_source("pad-ufes-20", root)
    frame, card = source.manifest, source.card
    assert [Path(path).parent.name for path in frame["source_path"]] == ["imgs_part_1", "imgs_part_2", "imgs_part_3"]
    assert frame["image_id"].tolist() == ["PAT_1_7_100", "PAT_1_7_101", "PAT_1_7_102"]
    assert frame["lesion_id"].tolist() == ["PAT_1/7", "PAT_2/7", "PAT_1/7"]
    assert frame["diagnostic"].tolist() == ["BCC", "NEV", "BCC"]
    assert frame["itch"].isna().all()  # UNK
    assert frame["background_mother"].isna().all()
    assert frame["drink"].isna().all()
    assert frame["pesticide"].tolist() == [True, True, True]
    dataset = import_source(source, tmp_path / "set").dataset
    assert dataset.manifest["skin_type"].tolist() == [3, pd.NA, 3]
    assert dataset.manifest["fitspatrick"].tolist()[0] == 3.0
    assert (dataset.manifest["modality"] == "clinical").all()
    assert len(card.metadata) == len(COLUMNS) - 4  # all but the ids, the file and the diagnosis
    assert card.label_proxies == ("biopsed",)
    assert "biopsed" not in dataset.questionnaire()
    units = {column.column: column.unit for column in card.metadata if column.unit}
    assert units == {"age": "years", "diameter_1": "mm", "diameter_2": "mm"}
    assert (card.licence, card.licence_card, card.unit) == ("CC-BY-4.0", "pad-ufes-20", "image")
    assert card.target().hierarchy == {"malignant": ("BCC", "MEL", "SCC"), "benign": ("ACK", "NEV", "SEK")}


def test_pad_files_may_be_jpeg_and_a_missing_one_is_listed(tmp_path):
    root = pad(tmp_path, {}, {}, extension=".jpg")
    (root / "images" / "imgs_part_2" / "PAT_1_7_101.jpg").unlink()
    source = read_source("pad-ufes-20", root)
    assert len(source.manifest) == 1
    assert source.quarantined == [("PAT_1_7_101.png", "no such file")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"diagnostic": "BBC"}, "metadata.csv row 3, column 'diagnostic': label 'BBC' is not one of ACK, BCC, MEL"),
        ({"diagnostic": ""}, "row 3, column 'diagnostic': is blank"),
        ({"patient_id": ""}, "row 3, column 'patient_id': is blank"),
        ({"age": "old"}, "row 3, column 'age': 'old' is not a number"),
        ({"itch": "maybe"}, "row 3, column 'itch': 'maybe' is neither True nor False"),
        ({"fitspatrick": "8.0"}, "row 3, column 'fitspatrick': '8.0' is not a Fitzpatrick type"),
        ({"img_id": "PAT_1_7_100.png"}, "row 3, column 'img_id': 'PAT_1_7_100.png' stands in an earlier row"),
        ({"img_id": ""}, "row 3, column 'img_id': is blank"),
    ],
)
def test_a_wrong_row_of_pad_is_one_line(tmp_path, change, message):
    root = pad(tmp_path, {}, {})
    frame = pd.read_csv(root / "metadata.csv", dtype=str, keep_default_na=False)
    for column, value in change.items():
        frame.loc[1, column] = value
    frame.to_csv(root / "metadata.csv", index=False)
    with pytest.raises(InputError) as fault:
        read_source("pad-ufes-20", root)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_what_is_not_pad_says_so(tmp_path):
    with pytest.raises(InputError, match=r"holds no metadata\.csv"):
        read_source("pad-ufes-20", tmp_path)
    (tmp_path / "metadata.csv").write_text("img_id,diagnostic\na,b\n")
    with pytest.raises(InputError, match="not the published table, it lacks patient_id, lesion_id, smoke"):
        read_source("pad-ufes-20", tmp_path)


def test_the_real_pad(shared_data, tmp_path):
    dataset = import_source(
        read_source("pad-ufes-20", shared_data / "pad-ufes-20"), tmp_path / "set", images="copy"
    ).dataset
    frame = dataset.manifest
    assert len(dataset) == 842
    assert len(np.unique(dataset.groups())) == frame["patient_id"].nunique() == 657
    assert len(np.unique(linked_groups(dataset))) == 657  # lesion numbers recur, and tie no two patients together
    counts = frame["diagnostic"].value_counts().to_dict()
    assert counts == {"BCC": 242, "NEV": 216, "ACK": 164, "SEK": 141, "MEL": 44, "SCC": 35}
    assert frame["smoke"].isna().sum() == frame["diameter_1"].isna().sum() == frame["skin_type"].isna().sum() == 331
    assert (frame["skin_type"] >= 4).sum() == 34
    assert frame["grew"].isna().sum() == 140
    assert dataset.quarantine.empty
    again = Dataset.open(tmp_path / "set")
    assert again.fingerprint == dataset.fingerprint
    split = split_by_folds(dataset, 5)
    table = balance(split, dataset.labels(), dataset.groups())
    assert table.loc[table["split"] == "test", "worst_deviation"].abs().max() < 0.01


# --- HAM10000 ---

HAM = """lesion_id,image_id,dx,dx_type,age,sex,localization
HAM_1,ISIC_1,mel,histo,45.0,female,face
HAM_1,ISIC_2,mel,histo,45.0,female,face
HAM_2,ISIC_3,nv,follow_up,0.0,unknown,unknown
HAM_3,ISIC_4,bkl,consensus,,male,back
"""


def ham(root: Path, text: str = HAM) -> Path:
    (root / "HAM10000_metadata.csv").write_text(text)
    for k in range(1, 5):
        photo(root / f"HAM10000_images_part_{1 + k % 2}" / f"ISIC_{k}.jpg")
    return root


def test_ham_is_read_from_its_parts_and_unknown_is_null(tmp_path):
    source = read_source("ham10000", ham(tmp_path))
    frame, card = source.manifest, source.card
    assert frame["lesion_id"].tolist() == ["HAM_1", "HAM_1", "HAM_2", "HAM_3"]
    assert frame["age"].isna().tolist() == [False, False, True, True]
    assert frame["sex"].isna().tolist() == [False, False, True, False]
    assert pd.isna(frame["localization"][2])
    assert card.label_proxies == ("dx_type",)
    assert (card.licence, card.licence_card) == ("CC-BY-NC-4.0", "ham10000")
    assert source.official is None
    dataset = import_source(source, tmp_path / "set").dataset
    assert dataset.groups().tolist() == ["HAM_1", "HAM_1", "HAM_2", "HAM_3"]
    assert list(dataset.questionnaire()) == ["age", "sex", "localization"]


def test_the_isic_2018_test_set_beside_it_is_the_official_test_part(tmp_path):
    root = ham(tmp_path)
    text = (
        "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\nHAM_9,ISIC_9,df,histo,30.0,male,arm,vidir_modern\n"
    )
    (root / "ISIC2018_Task3_Test_GroundTruth.csv").write_text(text)
    photo(root / "ISIC2018_Task3_Test_Images" / "ISIC_9.jpg")
    source = read_source("ham10000", root)
    assert source.official.tolist() == ["train"] * 4 + ["test"]
    assert source.manifest["site"].tolist()[-1] == "vidir_modern"


def test_the_masks_of_ham_come_along_where_they_are(tmp_path):
    root = ham(tmp_path)
    assert "source_mask_path" not in read_source("ham10000", root).manifest
    photo(root / "HAM10000_segmentations_lesion_tschandl" / "ISIC_3_segmentation.png")
    masks = read_source("ham10000", root).manifest["source_mask_path"]
    assert masks.notna().tolist() == [False, False, True, False]


def test_a_wrong_row_of_ham_is_one_line(tmp_path):
    with pytest.raises(
        InputError, match=r"HAM10000_metadata\.csv row 4, column 'dx': label 'nevus' is not one of akiec"
    ):
        read_source("ham10000", ham(tmp_path, HAM.replace(",nv,", ",nevus,")))
    with pytest.raises(InputError, match=r"row 5: has 6 values where the header has 7 columns"):
        read_source("ham10000", ham(tmp_path, HAM.replace("bkl,", "")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no HAM10000_metadata\.csv"):
        read_source("ham10000", tmp_path / "empty")


def test_the_real_ham(shared_data):
    source = read_source("ham10000", shared_data / "ham10000")
    assert len(source.manifest) == 1824
    assert source.manifest["lesion_id"].nunique() == 1717
    assert source.manifest["dx"].value_counts()["nv"] == 1347
    assert source.quarantined == []


def test_a_real_export_needs_no_options(shared_data):
    source = read_source("csv", shared_data / "pad-ufes-20", missing_values=("UNK",))
    assert len(source.manifest) == 842
    assert source.manifest["patient_id"].nunique() == 657
    assert source.card.target().column == "diagnostic"
    kinds = {column.column: column.kind for column in source.card.metadata}
    assert kinds["age"] == kinds["diameter_1"] == "numeric"
    assert kinds["itch"] == kinds["biopsed"] == "boolean"
    assert kinds["region"] == "categorical"


def test_the_real_blood_cells(shared_data):
    source = read_source("folder", shared_data / "pbc-blood" / "images")
    assert len(source.manifest) == 1200
    assert len(source.card.target().classes) == 8
    source = read_source("npz", shared_data / "pbc-blood" / "pbc_28px.npz")
    assert len(source.manifest) == 17_075
    assert source.card.target().classes[0] == "basophil"
    start, block = next(source.arrays.blocks())
    assert (start, block.shape[1:]) == (0, (28, 28, 3))


# --- MedMNIST ---


# The package's own import takes torch along: whether it is there is asked without it.
needs_medmnist = pytest.mark.skipif(importlib.util.find_spec("medmnist") is None, reason="medmnist is not installed")


def medmnist_file(folder: Path, name: str, label: np.ndarray, size: int = 28) -> Path:
    arrays = {}
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.random.default_rng(0).integers(
            0, 256, (len(label), size, size, 3), dtype=np.uint8
        )
        arrays[f"{part}_labels"] = label
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder / f"{name}.npz"


@needs_medmnist
def test_medmnist_knows_classes_task_and_licence(tmp_path):
    source = read_source("medmnist", medmnist_file(tmp_path, "bloodmnist_64", np.arange(8)[:, None], 64))
    target = source.card.target()
    assert target.classes[:4] == ("basophil", "eosinophil", "erythroblast", "immature granulocytes")
    assert target.names["immature granulocytes"].startswith("immature granulocytes(myelocytes")
    assert (source.card.name, source.card.licence, source.card.licence_card) == (
        "bloodmnist_64",
        "CC-BY-4.0",
        "bloodmnist",
    )
    assert source.official.tolist() == ["train"] * 8 + ["val"] * 8 + ["test"] * 8
    dataset = import_source(source, tmp_path / "set").dataset
    assert dataset.labels()[:8].tolist() == list(target.classes)

    source = read_source("medmnist", medmnist_file(tmp_path, "dermamnist", np.arange(7)[:, None]))
    assert source.card.target().classes == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert source.card.licence == "CC-BY-NC-4.0"
    assert (source.manifest["modality"] == "dermoscopy").all()
    source = read_source("medmnist", medmnist_file(tmp_path, "retinamnist", np.arange(5)[:, None]))
    assert source.card.target().kind == "ordinal"
    source = read_source("medmnist", medmnist_file(tmp_path, "chestmnist", np.eye(14, dtype=int)))
    assert source.card.target().kind == "multilabel"
    assert source.manifest["label"][1] == [source.card.target().classes[1]]
    source = read_source("medmnist", medmnist_file(tmp_path, "breastmnist", np.arange(2)[:, None]))
    assert source.card.target().kind == "binary"


@needs_medmnist
@pytest.mark.parametrize("size", medmnist.SIZES)
def test_all_twelve_sets_import_at_every_size(tmp_path, size):
    info = {flag: entry for flag, entry in medmnist._info().items() if not flag.endswith("3d")}
    assert len(info) == 12
    for flag, entry in info.items():
        n_classes = len(entry["label"])
        is_multilabel = entry["task"].startswith("multi-label")
        label = np.eye(n_classes, dtype=int) if is_multilabel else np.arange(n_classes)[:, None]
        shape = (n_classes, size, size) + ((3,) if entry["n_channels"] == 3 else ())
        arrays: dict[str, np.ndarray] = {}
        for part in ("train", "val", "test"):
            arrays[f"{part}_images"] = np.zeros(shape, dtype=np.uint8)
            arrays[f"{part}_labels"] = label
        name = flag if size == 28 else f"{flag}_{size}"
        np.savez_compressed(tmp_path / f"{name}.npz", **arrays)
        source = read_source("medmnist", tmp_path / f"{name}.npz")
        target = source.card.target()
        assert (source.card.name, len(source.manifest)) == (name, 3 * n_classes)
        assert target.kind == {"ordinal-regression": "ordinal", "binary-class": "binary"}.get(
            entry["task"], "multilabel" if is_multilabel else "multiclass"
        )
        assert len(target.classes) == n_classes
        first = source.manifest["label"].tolist()[:n_classes]
        assert first == [[name] for name in target.classes] if is_multilabel else first == list(target.classes)
        assert next(iter(source.arrays.blocks()))[1].shape == shape
        assert source.card.licence_card in cards()


@needs_medmnist
def test_an_image_of_chestmnist_without_a_finding_has_an_empty_list(tmp_path):
    marks = np.zeros((3, 14), dtype=int)
    marks[1, [0, 13]] = 1
    source = read_source("medmnist", medmnist_file(tmp_path, "chestmnist", marks))
    classes = source.card.target().classes
    assert source.manifest["label"].tolist()[:3] == [[], [classes[0], classes[13]], []]


@needs_medmnist
def test_the_dermamnist_classes_are_ham10000s_in_the_same_order():
    info = medmnist._info()
    names = [info["dermamnist"]["label"][str(k)] for k in range(7)]
    first_words = [name.split()[0] for name in names]
    ours = medmnist._target("dermamnist", info["dermamnist"]).names
    assert [ours[name].split()[0][:5] for name in ours] == [word[:5] for word in first_words]


@needs_medmnist
def test_medmnist_files_are_found_where_the_package_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".medmnist").mkdir()
    medmnist_file(tmp_path / ".medmnist", "bloodmnist", np.arange(8)[:, None])
    assert len(read_source("medmnist", "bloodmnist").manifest) == 24


@needs_medmnist
def test_medmnist_without_network_or_with_a_wrong_wish_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def no_network(*args, **kwargs):
        raise RuntimeError("\n  Automatic download failed!\n  more lines\n") from OSError("Name or service not known")

    package = types.ModuleType("medmnist")
    package.__spec__ = importlib.util.find_spec("medmnist")
    package.BloodMNIST = no_network
    monkeypatch.setitem(sys.modules, "medmnist", package)
    with pytest.raises(
        DermlabError, match=r"bloodmnist_64\.npz could not be downloaded .*; fetch it and pass its path"
    ) as fault:
        read_source("medmnist", "bloodmnist", size=64)
    assert "\n" not in str(fault.value)
    with pytest.raises(InputError, match="not a MedMNIST file or flag; the flags are pathmnist, chestmnist"):
        read_source("medmnist", "skinmnist")
    with pytest.raises(InputError, match="3D volumes"):
        read_source("medmnist", "organmnist3d")
    with pytest.raises(InputError, match="size: 32 is not one of 28, 64, 128, 224"):
        read_source("medmnist", "bloodmnist", size=32)
    path = medmnist_file(tmp_path, "bloodmnist_64", np.arange(8)[:, None], 64)
    with pytest.raises(InputError, match="is of 64 px, --size asks for 28"):
        read_source("medmnist", path, size=28)
    with pytest.raises(InputError, match="no such file; give the flag 'bloodmnist' alone"):
        read_source("medmnist", tmp_path / "bloodmnist_128.npz")
    monkeypatch.setattr(medmnist.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'dermlab\[medmnist\]'"):
        read_source("medmnist", "bloodmnist")
