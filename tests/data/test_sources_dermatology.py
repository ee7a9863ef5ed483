"""The dermatology sets of the suites: made-up files in each upstream layout, right and wrong, through the command."""

# ruff: noqa: E501 - the tables are as wide as the published ones

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermlab.cli import main
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.data.ingest import import_source
from dermlab.data.sources import SOURCES, read_source
from dermlab.data.splits import linked_groups
from dermlab.licensing import cards

FORMATS = ("folder", "csv", "imagefolder", "npz", "medmnist")


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (120, 80, sum(path.name.encode()) % 200)).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(6, 8, dtype=np.uint8) * 255).save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# --- the layouts ----------------------------------------------------------------------------------------------------


def med_node(root: Path) -> None:
    for k in range(3):
        photo(root / "complete_mednode_dataset" / "melanoma" / f"{k}.jpg")
        photo(root / "complete_mednode_dataset" / "naevus" / f"{k + 10}.jpg")


PH2 = """|| Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | Streaks |
|| IMD003 ||              ||   0 ||  0  |  T   |  A  |  A   |   A   |   A   ||  4   ||
|| IMD002 ||              ||   1 ||  1  |  AT  |  T  |  P   |   A   |   A   ||  3  4  ||
|| IMD058 || Melanoma     ||   2 ||  2  |  AT  |  AT |  P   |   P   |   P   ||  1  4  5  6  ||

Legend: 0 - Common Nevus
"""


def ph2(root: Path) -> None:
    write(root / "PH2Dataset" / "PH2_dataset.txt", PH2)
    for name in ("IMD002", "IMD003", "IMD058"):
        folder = root / "PH2Dataset" / "PH2 Dataset images" / name
        photo(folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp")
        mask(folder / f"{name}_lesion" / f"{name}_lesion.bmp")
        mask(folder / f"{name}_roi" / f"{name}_R1_Label4.bmp")


DDI = """,DDI_ID,DDI_file,skin_tone,malignant,disease
0,1,000001.png,56,True,melanoma-in-situ
1,2,000002.png,12,False,melanocytic-nevi
2,3,000003.png,34,False,epidermal-cyst
3,4,000004.png,34,True,basal-cell-carcinoma
"""


def ddi(root: Path) -> None:
    write(root / "ddi_metadata.csv", DDI)
    for k in range(1, 5):
        photo(root / f"{k:06d}.png")


DERM7PT = """case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,management,clinic,derm,case_id,notes
1,basal cell carcinoma,0,absent,absent,absent,absent,absent,absent,arborizing,medium,nodular,abdomen,female,excision,NEL/NEL027.JPG,NEL/NEL028.jpg,,
2,melanoma (less than 0.76 mm),4,atypical,irregular,diffuse irregular,blue areas,irregular,present,absent,high,palpable,back,male,excision,FCL/Fcl068.jpg,FCL/Fcl069.jpg,,
3,clark nevus,1,typical,absent,diffuse regular,absent,regular,absent,absent,low,flat,back,male,clinical follow up,FCL/Fcl068.jpg,FCL/Fcl071.jpg,,
4,seborrheic keratosis,0,absent,absent,absent,absent,absent,absent,comma,low,palpable,lower limbs,,no further examination,NGL/Ngl001.jpg,NGL/Ngl002.jpg,,
"""


def derm7pt(root: Path) -> None:
    root = root / "release_v0"
    write(root / "meta" / "meta.csv", DERM7PT)
    for file, indexes in (("train", "0\n3"), ("valid", "1"), ("test", "2")):
        write(root / "meta" / f"{file}_indexes.csv", f"indexes\n{indexes}\n")
    for name in pd.read_csv(root / "meta" / "meta.csv")[["clinic", "derm"]].to_numpy().ravel():
        photo(root / "images" / name)


def sd_198(root: Path) -> None:
    for k in range(20):
        photo(root / "sd-198" / "images" / "Acne_Vulgaris" / f"{k:03d}.jpg")
        photo(root / "sd-198" / "images" / "Beau's_Lines" / f"{k + 100:03d}.jpg")
    photo(root / "sd-198" / "images" / "Wound_Infection" / "300.jpg")
    write(root / "sd-198" / "classes.txt", "1 Acne_Vulgaris\n")


PASSION = """subject_id,country,age,sex,fitzpatrick,body_loc,impetig,conditions_PASSION
AA001,Malawi,3,m,5,arm;leg,1.0,Scabies
AA002,Malawi,41,f,6,head,,Eczema
BA003,Tanzania,,f,4,None,0.0,Fungal
"""


def passion(root: Path) -> None:
    write(root / "label.csv", PASSION)
    write(root / "PASSION_split.csv", "subject_id,Split\nAA001,TRAIN\nAA002,TEST\nBA003,TRAIN\n")
    for name in ("AA001_1", "AA001_2", "AA002_1", "BA003_1"):
        photo(root / "images" / f"{name}.jpg")


FITZPATRICK = """md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url,url_alphanum
5e82a45b,3,3,psoriasis,inflammatory,non-neoplastic,,https://a/1.jpg,httpsa1jpg.jpg
fa2911a9,-1,1,melanoma,malignant melanoma,malignant,1 Diagnostic,https://a/2.jpg,httpsa2jpg.jpg
d2bac3c9,2,-1,dermatofibroma,benign dermal,benign,3 Wrongly labelled,https://a/3.jpg,httpsa3jpg.jpg
0a94359e,1,1,psoriasis,inflammatory,non-neoplastic,,https://a/4.jpg,httpsa4jpg.jpg
"""


def fitzpatrick17k(root: Path) -> None:
    write(root / "fitzpatrick17k.csv", FITZPATRICK)
    for name in ("5e82a45b", "fa2911a9", "httpsa3jpg", "0a94359e"):
        photo(root / "images" / f"{name}.jpg")


def isic_2018(root: Path) -> None:
    marks = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n"
    for part, rows in (
        ("Training", "ISIC_01,0.0,1.0,0.0,0.0,0.0,0.0,0.0\nISIC_02,0.0,1.0,0.0,0.0,0.0,0.0,0.0\n"),
        ("Validation", "ISIC_03,1.0,0.0,0.0,0.0,0.0,0.0,0.0\n"),
        ("Test", "ISIC_04,0.0,0.0,0.0,1.0,0.0,0.0,0.0\n"),
    ):
        stem = f"ISIC2018_Task3_{part}_GroundTruth"
        write(root / stem / f"{stem}.csv", marks + rows)
        for row in rows.split():
            photo(root / f"ISIC2018_Task3_{part}_Input" / f"{row.split(',')[0]}.jpg")
    lesions = "image,lesion_id,diagnosis_confirm_type\nISIC_01,HAM_1,histopathology\nISIC_02,HAM_1,histopathology\n"
    write(root / "ISIC2018_Task3_Training_LesionGroupings.csv", lesions)


def isic_2018_segmentation(root: Path) -> None:
    for part, k in (("Training", 1), ("Validation", 2), ("Test", 3)):
        photo(root / f"ISIC2018_Task1-2_{part}_Input" / f"ISIC_0{k}.jpg")
        mask(root / f"ISIC2018_Task1-2_{part}_Input" / f"ISIC_0{k}_superpixels.png")
        mask(root / f"ISIC2018_Task1_{part}_GroundTruth" / f"ISIC_0{k}_segmentation.png")


def isic_2019(root: Path) -> None:
    marks = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
    write(
        root / "ISIC_2019_Training_GroundTruth.csv",
        marks
        + "ISIC_01,0,1,0,0,0,0,0,0,0\nISIC_02_downsampled,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0\nISIC_03,0,0,0,0,0,0,0,1,0\n",
    )
    answers = "image,age_approx,anatom_site_general,lesion_id,sex\n"
    write(
        root / "ISIC_2019_Training_Metadata.csv",
        answers
        + "ISIC_01,55.0,anterior torso,HAM_0000118,female\nISIC_02_downsampled,30,,MSK4_0011169,male\nISIC_03,,,,\n",
    )
    write(root / "ISIC_2019_Test_GroundTruth.csv", marks + "ISIC_04,0,0,0,0,0,0,0,0,1\n")
    write(root / "ISIC_2019_Test_Metadata.csv", answers.replace("lesion_id,", "") + "ISIC_04,70,head/neck,male\n")
    for name in ("ISIC_01", "ISIC_02_downsampled", "ISIC_03"):
        photo(root / "ISIC_2019_Training_Input" / f"{name}.jpg")
    photo(root / "ISIC_2019_Test_Input" / "ISIC_04.jpg")


ISIC_2020 = """image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target
ISIC_01,IP_1,IL_1,male,45.0,head/neck,unknown,benign,0
ISIC_02,IP_1,IL_2,male,45.0,upper extremity,nevus,benign,0
ISIC_03,IP_2,IL_3,female,,,melanoma,malignant,1
"""


def isic_2020(root: Path) -> None:
    write(root / "ISIC_2020_Training_GroundTruth_v2.csv", ISIC_2020)
    write(root / "ISIC_2020_Training_Duplicates.csv", "image_name_1,image_name_2\nISIC_01,ISIC_02\n")
    for k in range(1, 4):
        photo(root / "train" / f"ISIC_0{k}.jpg")


BCN = """bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split
BCN_01.jpg,55.0,anterior torso,MEL,BCN_0003884,2012-05-16,male,train
BCN_02.jpg,75.0,head/neck,SCC,BCN_0000019,2015-07-09,female,train
BCN_03.jpg,,,NV,BCN_0000019,,,train
"""


def bcn20000(root: Path) -> None:
    write(root / "bcn_20k_train.csv", BCN)
    test = "bcn_filename,age_approx,anatom_site_general,lesion_id,capture_date,sex,split\n"
    write(root / "bcn_20k_test.csv", test + "BCN_04.jpg,30.0,,BCN_0000077,2016-01-01,male,test\n")
    for k in range(1, 4):
        photo(root / "bcn_20k_train" / f"BCN_0{k}.jpg")
    photo(root / "bcn_20k_test" / "BCN_04.jpg")


EXPORT = """isic_id,attribution,copyright_license,age_approx,anatom_site_general,concomitant_biopsy,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_confirm_type,family_hx_mm,fitzpatrick_skin_type,image_type,lesion_id,mel_thick_mm,patient_id,sex
ISIC_01,Anonymous,CC-BY,55,head/neck,True,Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma,histopathology,False,II,dermoscopic,IL_1,0.8,IP_1,female
ISIC_02,Anonymous,CC-BY,55,head/neck,True,Malignant,Malignant melanocytic proliferations (Melanoma),Melanoma,histopathology,,II,clinical: close-up,IL_1,0.8,IP_1,female
ISIC_03,Anonymous,CC-0,40,,False,Benign,Benign melanocytic proliferations,Nevus,single image expert consensus,,,TBP tile: close-up,IL_2,,IP_2,male
ISIC_04,Anonymous,CC-0,40,,,Indeterminate,Indeterminate melanocytic proliferations,,,,,dermoscopic,IL_3,,,
"""


def export(root: Path) -> None:
    write(root / "metadata.csv", EXPORT)
    for k in range(1, 5):
        photo(root / f"ISIC_0{k}.jpg")


def dermnet(root: Path) -> None:
    for part in ("train", "test"):
        photo(root / part / "Acne and Rosacea Photos" / f"acne-{part}-1.jpg")
        photo(root / part / "Psoriasis pictures Lichen Planus and related diseases" / f"psoriasis-{part}-1.jpg")


def patch16(root: Path) -> None:
    lines = ["file,class,set"]
    for tissue, name, part in (
        ("nontumor_skin_dermis_dermis", "ws_44_1", "Train"),
        ("nontumor_skin_dermis_dermis", "ws_44_5", "Train"),
        ("tumor_skin_epithelial_bcc", "ws_44_2", "Train"),
        ("tumor_skin_naevus_naevus", "ws_7_1", "Test"),
    ):
        file = f"tiles/{tissue}/{tissue}_{name}.jpg"
        photo(root / "data" / file)
        lines.append(f"data/{file},{tissue},{part}")
    write(root / "data" / "tiles-v2.csv", "\n".join(lines) + "\n")


SCIN_CASES = """case_id,age_group,sex_at_birth,fitzpatrick_skin_type,race_ethnicity_white,race_ethnicity_asian,textures_flat,textures_raised_or_bumpy,condition_symptoms_itching,related_category,condition_duration,image_1_path,image_2_path,image_3_path,image_1_shot_type,image_2_shot_type,image_3_shot_type
-100,AGE_30_TO_39,FEMALE,FST3,YES,,YES,,YES,RASH,ONE_TO_FOUR_WEEKS,dataset/images/1.png,dataset/images/2.png,,CLOSE_UP,AT_DISTANCE,
200,AGE_50_TO_59,OTHER_OR_UNSPECIFIED,NONE_SELECTED,,,,,,ACNE,UNKNOWN,dataset/images/3.png,,,AT_AN_ANGLE,,
300,,MALE,,,YES,,YES,,,,dataset/images/4.png,,,,,
"""
SCIN_LABELS = """case_id,dermatologist_skin_condition_on_label_name,weighted_skin_condition_label,monk_skin_tone_label_us
-100,"['Eczema', 'Psoriasis']","{'Eczema': 0.67, 'Psoriasis': 0.33}",4
200,"['Acne', 'Rosacea']","{'Acne': 0.5, 'Rosacea': 0.5}",2
300,[],{},
"""


def scin(root: Path) -> None:
    write(root / "dataset" / "scin_cases.csv", SCIN_CASES)
    write(root / "dataset" / "scin_labels.csv", SCIN_LABELS)
    for k in range(1, 5):
        photo(root / "dataset" / "images" / f"{k}.png")


# source -> who writes its layout, images, images that count as groups, default target and how many labels it has
LAYOUTS: dict[str, tuple[Callable[[Path], None], int, int, str | None, int]] = {
    "med-node": (med_node, 6, 6, "diagnosis", 6),
    "ph2": (ph2, 3, 3, "diagnosis", 3),
    "ddi": (ddi, 4, 4, "malignant", 4),
    "derm7pt": (derm7pt, 8, 3, "diagnosis_group", 8),
    "sd-198": (sd_198, 41, 41, "diagnosis", 41),
    "sd-128": (sd_198, 40, 40, "diagnosis", 40),
    "passion": (passion, 4, 3, "conditions", 4),
    "fitzpatrick17k": (fitzpatrick17k, 4, 4, "three_partition_label", 4),
    "isic-2018": (isic_2018, 4, 3, "dx", 4),
    "isic-2018-segmentation": (isic_2018_segmentation, 3, 3, None, 0),
    "isic-2019": (isic_2019, 4, 4, "diagnosis", 4),
    "isic-2020": (isic_2020, 3, 2, "benign_malignant", 3),
    "bcn20000": (bcn20000, 4, 3, "diagnosis", 3),
    "isic-archive": (export, 4, 3, "malignancy", 3),
    "mskcc": (export, 4, 3, "malignancy", 3),
    "hiba": (export, 4, 3, "malignancy", 3),
    "dermnet": (dermnet, 4, 4, "diagnosis", 4),
    "patch16": (patch16, 4, 2, "tissue", 4),
    "scin": (scin, 4, 3, "conditions", 3),
}


def test_every_published_source_is_tried_here():
    assert set(LAYOUTS) == set(SOURCES) - {*FORMATS, "pad-ufes-20", "ham10000"}


@pytest.fixture
def world(tmp_path) -> Callable[[str], Path]:
    def make(source: str) -> Path:
        root = tmp_path / "upstream"
        LAYOUTS[source][0](root)
        return root

    return make


def imported(source: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Dataset, dict[str, Any]]:
    """Import through the command and open what it wrote."""
    assert main(["data", "import", source, str(root), "--out", str(out), "--threads", "1", "--json"]) == 0
    return Dataset.open(out), json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_published_layout_imports_whole(source, world, tmp_path, capsys):
    dataset, found = imported(source, world(source), tmp_path / "set", capsys)
    _, n_images, n_groups, target, n_labels = LAYOUTS[source]
    assert len(dataset) == found["n_images"] == n_images
    assert found["n_quarantined"] == 0
    assert len(np.unique(linked_groups(dataset))) == n_groups
    card = dataset.card
    if target is None:
        assert card.targets == ()
    else:
        assert card.target().column == target
        assert dataset.manifest[target].notna().sum() == n_labels
    assert (card.name, card.licence_card in cards()) == (source, True)
    assert card.citation
    assert card.source
    assert card.description
    for column in card.metadata:
        assert column.kind != "categorical" or column.values or dataset.manifest[column.column].isna().all()


@pytest.mark.parametrize("source", LAYOUTS)
def test_another_folder_is_one_line_that_says_what_was_expected(source, tmp_path):
    photo(tmp_path / "holiday" / "beach" / "1.jpg")
    write(tmp_path / "holiday" / "notes.txt", "sun and sand\n")
    if source in ("sd-198", "sd-128"):  # any class folders will do
        (tmp_path / "holiday" / "beach" / "1.jpg").unlink()
    with pytest.raises(InputError) as fault:
        read_source(source, tmp_path / "holiday")
    assert "\n" not in str(fault.value)
    assert "holds no" in str(fault.value)
    with pytest.raises(InputError, match="is a file; expected"):
        read_source(source, tmp_path / "holiday" / "notes.txt")


@pytest.mark.parametrize(
    ("source", "lost", "entry"),
    [
        ("ph2", "PH2Dataset/PH2 Dataset images/IMD002/IMD002_Dermoscopic_Image/IMD002.bmp", "IMD002"),
        ("ddi", "000002.png", "000002"),
        ("derm7pt", "release_v0/images/NGL/Ngl002.jpg", "4_derm"),
        ("fitzpatrick17k", "images/fa2911a9.jpg", "fa2911a9"),
        ("isic-2018", "ISIC2018_Task3_Test_Input/ISIC_04.jpg", "ISIC_04"),
        ("isic-2019", "ISIC_2019_Training_Input/ISIC_01.jpg", "ISIC_01"),
        ("isic-2020", "train/ISIC_03.jpg", "ISIC_03"),
        ("bcn20000", "bcn_20k_train/BCN_03.jpg", "BCN_03"),
        ("hiba", "ISIC_02.jpg", "ISIC_02"),
        (
            "patch16",
            "data/tiles/tumor_skin_naevus_naevus/tumor_skin_naevus_naevus_ws_7_1.jpg",
            "tumor_skin_naevus_naevus_ws_7_1",
        ),
        ("scin", "dataset/images/2.png", "-100_2"),
    ],
)
def test_a_missing_photo_is_listed_and_stops_nothing(source, lost, entry, world):
    root = world(source)
    (root / lost).unlink()
    found = read_source(source, root)
    assert len(found.manifest) == LAYOUTS[source][1] - 1
    assert found.quarantined == [(entry, "no such file")]


@pytest.mark.parametrize(
    ("source", "file", "old", "new", "place", "reason"),
    [
        (
            "ph2",
            "PH2Dataset/PH2_dataset.txt",
            "1 ||  1",
            "7 ||  1",
            "PH2_dataset.txt row 3",
            "diagnosis '7' is not",
        ),
        ("ph2", "PH2Dataset/PH2_dataset.txt", "|  P   |", "|  P ", "PH2_dataset.txt row 3", "has 5 dermoscopic"),
        ("ddi", "ddi_metadata.csv", "12,False", "99,False", "ddi_metadata.csv row 3", "'99' is not one of 12, 34, 56"),
        ("ddi", "ddi_metadata.csv", "12,False", "12,perhaps", "ddi_metadata.csv row 3", "'perhaps' is not one of"),
        (
            "ddi",
            "ddi_metadata.csv",
            "12,False,",
            "12,",
            "ddi_metadata.csv row 3",
            "has 5 values where the header has 6",
        ),
        (
            "derm7pt",
            "release_v0/meta/meta.csv",
            "clark nevus",
            "a mole",
            "meta.csv row 4",
            "label 'a mole' is not one of",
        ),
        ("derm7pt", "release_v0/meta/meta.csv", "nevus,1", "nevus,low", "meta.csv row 4", "'low' is not a number"),
        ("passion", "label.csv", "41,f,6", "41,f,9", "label.csv row 3", "'9' is not a Fitzpatrick type"),
        ("passion", "label.csv", "AA002", "AA001", "label.csv row 3", "'AA001' stands in an earlier row"),
        ("fitzpatrick17k", "fitzpatrick17k.csv", ",2,-1,", ",8,-1,", "fitzpatrick17k.csv row 4", "'8' is not a Fitz"),
        ("fitzpatrick17k", "fitzpatrick17k.csv", "benign dermal", "", "fitzpatrick17k.csv row 4", "is blank"),
        (
            "isic-2018",
            "ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv",
            "ISIC_02,0.0,1.0",
            "ISIC_02,1.0,1.0",
            "ISIC2018_Task3_Training_GroundTruth.csv row 3",
            "must be 0 but for one 1",
        ),
        (
            "isic-2019",
            "ISIC_2019_Training_GroundTruth.csv",
            "ISIC_01,0,1",
            "ISIC_01,0,x",
            "ISIC_2019_Training_GroundTruth.csv row 2",
            "column 'NV' 'x' is not a number",
        ),
        (
            "isic-2020",
            "ISIC_2020_Training_GroundTruth_v2.csv",
            "male,45.0,upper",
            "male,old,upper",
            "ISIC_2020_Training_GroundTruth_v2.csv row 3",
            "'old' is not a number",
        ),
        ("bcn20000", "bcn_20k_train.csv", "SCC", "CANCER", "bcn_20k_train.csv row 3", "'CANCER' is not one of MEL"),
        ("bcn20000", "bcn_20k_train.csv", "2015-07-09", "last year", "bcn_20k_train.csv row 3", "is not a date like"),
        ("hiba", "metadata.csv", "TBP tile: close-up", "RCM", "metadata.csv row 4", "'RCM' is none of dermoscopic"),
        ("mskcc", "metadata.csv", "ISIC_03", "", "metadata.csv row 4", "is blank"),
        ("patch16", "data/tiles-v2.csv", "naevus,Test", "naevus,Exam", "tiles-v2.csv row 5", "'Exam' is not one of"),
        ("scin", "dataset/scin_cases.csv", "FST3", "FST9", "scin_cases.csv row 2", "'FST9' is not a Fitzpatrick"),
    ],
)
def test_a_malformed_row_is_one_line_of_the_quarantine(source, file, old, new, place, reason, world, tmp_path, capsys):
    root = world(source)
    text = (root / file).read_text(encoding="utf-8")
    assert old in text
    (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    dataset, _ = imported(source, root, tmp_path / "set", capsys)
    lines = dataset.quarantine[dataset.quarantine["path"] == place]
    assert len(lines) == 1
    assert reason in lines["reason"].iloc[0]
    assert len(dataset) < LAYOUTS[source][1]


def test_a_table_without_one_usable_row_says_why(tmp_path):
    ddi(tmp_path)
    write(tmp_path / "ddi_metadata.csv", DDI.replace("True", "?").replace("False", "?"))
    with pytest.raises(
        InputError, match=r"holds no usable photo .* ddi_metadata\.csv row 2: column 'malignant' label '\?'"
    ):
        read_source("ddi", tmp_path)
    write(tmp_path / "ddi_metadata.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match="not the published table, it lacks DDI_file, skin_tone, malignant, disease"):
        read_source("ddi", tmp_path)


# --- what is particular to each -------------------------------------------------------------------------------------


def test_ph2_has_masks_criteria_and_a_proxy(world, tmp_path):
    dataset = import_source(read_source("ph2", world("ph2")), tmp_path / "set").dataset
    frame = dataset.manifest.set_index("image_id")
    assert frame["mask_path"].notna().all()
    assert np.array(Image.open(tmp_path / "set" / frame.loc["IMD003", "mask_path"])).max() == 255
    assert frame["diagnosis"].to_dict() == {"IMD003": "common nevus", "IMD002": "atypical nevus", "IMD058": "melanoma"}
    assert frame.loc["IMD058", "asymmetry"] == "asymmetric in two axes"
    assert frame.loc["IMD002", ["colour_light_brown", "colour_dark_brown", "colour_red"]].tolist() == [
        True,
        True,
        False,
    ]
    assert dataset.card.label_proxies == ("histological_diagnosis",)
    assert "histological_diagnosis" not in dataset.questionnaire()


def test_ddi_maps_its_groups_of_skin_types(world):
    source = read_source("ddi", world("ddi"))
    assert source.manifest["skin_tone"].tolist() == ["V-VI", "I-II", "III-IV", "III-IV"]
    assert source.manifest["skin_type"].tolist() == [5, 1, 3, 3]
    assert source.manifest["malignant"].tolist() == ["malignant", "benign", "benign", "malignant"]
    assert source.card.target("disease").hierarchy["malignant"] == ("basal-cell-carcinoma", "melanoma-in-situ")
    assert any("lower type" in note for note in source.notes)


def test_derm7pt_pairs_a_clinical_and_a_dermoscopic_photo(world, tmp_path):
    source = read_source("derm7pt", world("derm7pt"))
    frame = source.manifest.set_index("image_id")
    assert frame.loc["1_clinic", "modality"] == "clinical"
    assert frame.loc["1_derm", "modality"] == "dermoscopy"
    assert Path(frame.loc["1_clinic", "source_path"]).name == "NEL027.JPG"
    assert (frame["lesion_id"].value_counts() == 2).all()
    assert frame.loc["2_derm", ["diagnosis", "diagnosis_group", "streaks"]].tolist() == ["melanoma", "MEL", "irregular"]
    assert dict(zip(frame["lesion_id"], source.official, strict=True)) == {
        "1": "train",
        "2": "val",
        "3": "test",
        "4": "train",
    }
    assert len(source.card.targets) == 9
    assert source.card.target("diagnosis").hierarchy["MEL"] == ("melanoma",)
    # Cases 2 and 3 share their clinical photo: one patient, whatever the case numbers say.
    assert source.card.group_by == "photo_group"
    assert (
        frame.loc["2_derm", "photo_group"] == frame.loc["3_clinic", "photo_group"] != frame.loc["1_derm", "photo_group"]
    )
    dataset = import_source(source, tmp_path / "set").dataset
    assert list(dataset.questionnaire()) == ["sex", "location", "elevation"]


def test_derm7pts_indexes_count_rows_that_were_set_aside_too(world):
    root = world("derm7pt")
    file = root / "release_v0" / "meta" / "meta.csv"
    file.write_text(file.read_text().replace("\n1,basal cell carcinoma,", "\n1,"))
    source = read_source("derm7pt", root)
    parts = dict(zip(source.manifest["lesion_id"], source.official, strict=True))
    assert parts == {"2": "val", "3": "test", "4": "train"}
    assert source.quarantined == [("meta.csv row 2", "has 18 values where the header has 19 columns")]


def test_derm7pt_without_its_indexes_has_no_official_split(world):
    root = world("derm7pt")
    (root / "release_v0" / "meta" / "test_indexes.csv").write_text("indexes\n9\n")
    source = read_source("derm7pt", root)
    assert source.official is None
    assert any("test_indexes.csv row 2: column 'indexes' '9' is not in 0 to 3" in note for note in source.notes)
    (root / "release_v0" / "meta" / "test_indexes.csv").unlink()
    assert any("test_indexes.csv is not beside meta.csv" in note for note in read_source("derm7pt", root).notes)


def test_sd_128_leaves_out_the_rare_classes_of_sd_198(world):
    root = world("sd-128")
    assert len(read_source("sd-198", root).card.target().classes) == 3
    source = read_source("sd-128", root)
    assert source.card.target().classes == ("acne vulgaris", "beau's lines")
    assert source.card.target().names["acne vulgaris"] == "Acne Vulgaris"
    assert any("1 classes with fewer than 20 photos were left out, 1 photos" in note for note in source.notes)
    assert "2 classes are here; as published there are 128" in source.notes


def test_passion_is_by_patient_and_its_split_is_official(world):
    source = read_source("passion", world("passion"))
    frame = source.manifest.set_index("image_id")
    assert frame["patient_id"].to_dict() == {
        "AA001_1": "AA001",
        "AA001_2": "AA001",
        "AA002_1": "AA002",
        "BA003_1": "BA003",
    }
    assert source.official.tolist() == ["train", "train", "test", "train"]
    assert frame["impetigo"].tolist() == ["impetigo", "impetigo", "no impetigo", "no impetigo"]
    assert frame["site"].tolist()[-1] == "Tanzania"
    assert frame["body_leg"].tolist()[:3] == [True, True, False]
    assert pd.isna(frame.loc["BA003_1", "body_leg"])  # 'None' says nothing about the leg
    assert frame["skin_type"].tolist() == [5, 5, 6, 4]


def test_a_photo_or_patient_of_passion_without_the_other_is_listed(world):
    root = world("passion")
    photo(root / "images" / "ZZ009_1.jpg")
    (root / "images" / "AA002_1.jpg").unlink()
    source = read_source("passion", root)
    assert ("images/ZZ009_1.jpg", "label.csv has no patient of that name") in source.quarantined
    assert ("label.csv row 3", "column 'subject_id' 'AA002' has no photo") in source.quarantined
    (root / "PASSION_split.csv").write_text("subject_id,Split\nAA001,TRAIN\n")
    source = read_source("passion", root)
    assert source.official is None
    assert any("it does not name 1 of the photos" in note for note in source.notes)


def test_fitzpatrick17k_has_three_levels_and_no_sentinels(world):
    source = read_source("fitzpatrick17k", world("fitzpatrick17k"))
    frame, card = source.manifest.set_index("image_id"), source.card
    assert [target.column for target in card.targets] == ["three_partition_label", "nine_partition_label", "label"]
    assert card.target("label").hierarchy == {
        "benign": ("dermatofibroma",),
        "malignant": ("melanoma",),
        "non-neoplastic": ("psoriasis",),
    }
    assert pd.isna(frame.loc["fa2911a9", "skin_type"])
    assert pd.isna(frame.loc["d2bac3c9", "fitzpatrick_centaur"])
    assert not (frame[["skin_type", "fitzpatrick_centaur"]] == -1).any(axis=None)
    assert card.label_proxies == ("qc",)
    assert any("4 of 4 photos are here" in note for note in source.notes)
    assert any("calls 1 labels wrong" in note for note in source.notes)


def test_isic_2018_takes_ham10000s_classes_and_lesions(world):
    root = world("isic-2018")
    source = read_source("isic-2018", root)
    frame = source.manifest.set_index("image_id")
    assert frame["dx"].tolist() == ["nv", "nv", "mel", "akiec"]
    assert source.official.tolist() == ["train", "train", "val", "test"]
    assert source.card.target() == read_ham_target()
    assert source.card.label_proxies == ("diagnosis_confirm_type",)
    # The test set as HAM10000's page publishes it has other columns, and lesions.
    file = root / "ISIC2018_Task3_Test_GroundTruth" / "ISIC2018_Task3_Test_GroundTruth.csv"
    file.write_text(
        "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\nHAM_9,ISIC_04,df,histo,30,male,arm,v\n"
    )
    again = read_source("isic-2018", root).manifest.set_index("image_id")
    assert again.loc["ISIC_04", ["dx", "lesion_id"]].tolist() == ["df", "HAM_9"]


def read_ham_target():
    from dermlab.data.sources.ham10000 import TARGET

    return TARGET


def test_isic_2018s_masks_come_along(world, tmp_path):
    root = world("isic-2018-segmentation")
    source = read_source("isic-2018-segmentation", root)
    assert source.official.tolist() == ["train", "val", "test"]
    dataset = import_source(source, tmp_path / "set").dataset
    assert dataset.manifest["mask_path"].tolist() == ["masks/ISIC_01.png", "masks/ISIC_02.png", "masks/ISIC_03.png"]
    (root / "ISIC2018_Task1_Test_GroundTruth" / "ISIC_03_segmentation.png").unlink()
    assert "1 images have no mask" in read_source("isic-2018-segmentation", root).notes


def test_isic_2019_knows_its_parts_and_collections(world):
    source = read_source("isic-2019", world("isic-2019"))
    frame = source.manifest.set_index("image_id")
    assert frame["diagnosis"].tolist() == ["NV", "MEL", "SCC", "UNK"]
    assert source.card.target().classes[-1] == "UNK"
    assert frame["site"].tolist()[:2] == ["HAM", "MSK"]
    assert pd.isna(frame.loc["ISIC_03", "site"])
    assert frame["age_approx"].tolist()[:2] == [55, 30]
    assert source.official.tolist() == ["train"] * 3 + ["test"]


def test_isic_2020_is_by_patient_and_unknown_is_null(world):
    source = read_source("isic-2020", world("isic-2020"))
    assert source.manifest["patient_id"].tolist() == ["IP_1", "IP_1", "IP_2"]
    assert source.manifest["diagnosis"].isna().tolist() == [True, False, False]
    assert source.card.target("diagnosis").classes == ("melanoma", "nevus")
    assert any("lists 1 pairs of duplicates" in note for note in source.notes)


def test_bcn20000_has_dates_and_an_unlabelled_test_part(world, tmp_path):
    root = world("bcn20000")
    source = read_source("bcn20000", root)
    assert source.official.tolist() == ["train"] * 3 + ["test"]
    assert source.manifest["captured_at"].isna().tolist() == [False, False, True, False]
    assert pd.isna(source.manifest["diagnosis"].iloc[3])
    assert "OTHER" not in source.card.target().classes
    export(tmp_path / "archive")
    card = read_source("bcn20000", tmp_path / "archive").card
    assert (card.licence_card, card.target().column) == ("bcn20000", "diagnosis")


def test_an_archives_export_knows_modalities_licences_and_proxies(world):
    root = world("isic-archive")
    source = read_source("isic-archive", root)
    frame, card = source.manifest.set_index("image_id"), source.card
    assert frame["modality"].tolist() == ["dermoscopy", "clinical", "tbp", "dermoscopy"]
    assert frame["malignancy"].tolist()[:3] == ["malignant", "malignant", "benign"]
    assert pd.isna(frame.loc["ISIC_04", "malignancy"])
    assert frame.loc["ISIC_04", "diagnosis"] == "Indeterminate melanocytic proliferations"
    assert frame["skin_type"].tolist()[0] == 2
    assert set(card.label_proxies) == {"diagnosis_confirm_type", "concomitant_biopsy", "mel_thick_mm"}
    assert (card.licence, card.licence_card) == ("CC-0 and CC-BY", "isic-cc0-ccby")
    (root / "metadata.csv").write_text(EXPORT.replace("CC-0,40,,False", "CC-BY-NC,40,,False"))
    assert read_source("isic-archive", root).card.licence_card == "isic-cc-by-nc"
    (root / "metadata.csv").rename(root / "hiba.csv")
    assert read_source("hiba", root).card.licence_card == "hiba"


def test_dermnets_folders_are_its_classes_and_its_split(world):
    root = world("dermnet")
    photo(root / "train" / "Selfies" / "me.jpg")
    source = read_source("dermnet", root)
    assert len(source.card.target().classes) == 23
    assert set(source.manifest["diagnosis"]) == {"Acne and Rosacea", "Psoriasis Lichen Planus and related diseases"}
    assert sorted(source.official) == ["test", "test", "train", "train"]
    assert source.quarantined == [("train/Selfies/me.jpg", "lies in no class folder")]


def test_patch16_groups_tiles_by_slide(world):
    source = read_source("patch16", world("patch16"))
    assert source.manifest["lesion_id"].tolist() == ["ws_44", "ws_44", "ws_44", "ws_7"]
    assert source.manifest["tissue"].tolist() == ["dermis", "dermis", "basal cell carcinoma", "naevus"]
    assert len(source.card.target().classes) == 16
    assert source.official.tolist() == ["train", "train", "train", "test"]


def test_scin_keeps_the_whole_differential_of_a_case(world, tmp_path, capsys):
    root = world("scin")
    dataset, _ = imported("scin", root, tmp_path / "set", capsys)
    frame = dataset.manifest.set_index("image_id")
    assert frame.index.tolist() == ["-100_1", "-100_2", "200_1", "300_1"]
    assert frame.loc["-100_2", "lesion_id"] == "-100"
    assert list(frame.loc["-100_1", "conditions"]) == ["Eczema", "Psoriasis"]
    assert frame.loc["300_1", "conditions"] is None
    assert frame["top_condition"].tolist()[0] == "Eczema"
    assert frame["top_condition"].isna().tolist() == [False, False, True, True]  # a tie, and no label
    assert json.loads(frame.loc["-100_1", "condition_weights"]) == {"Eczema": 0.67, "Psoriasis": 0.33}
    assert dataset.card.target().kind == "multilabel"
    assert dataset.card.unit == "lesion"
    assert frame["shot_type"].tolist()[:2] == ["CLOSE_UP", "AT_DISTANCE"]
    # Itching was answered by the first case alone; it says nothing about the others.
    assert frame.loc["-100_1", ["textures_flat", "textures_raised_or_bumpy"]].tolist() == [True, False]
    assert frame.loc["200_1", ["textures_flat", "condition_symptoms_itching"]].isna().all()
    assert frame["skin_type"].isna().tolist() == [False, False, True, True]
    assert pd.isna(frame.loc["200_1", "sex_at_birth"])
    assert not any(column.startswith(("race", "condition_weights")) for column in dataset.questionnaire())
    assert frame["race_ethnicity_white"].tolist()[0] is True


def test_a_label_of_scin_that_is_no_differential_leaves_the_case_without_one(world):
    root = world("scin")
    (root / "dataset" / "scin_labels.csv").write_text(SCIN_LABELS.replace("{'Acne': 0.5, 'Rosacea': 0.5}", "acne!"))
    source = read_source("scin", root)
    assert len(source.manifest) == 4
    assert source.manifest.set_index("image_id").loc["200_1", "conditions"] is None
    assert [path for path, _ in source.quarantined] == ["scin_labels.csv row 3"]
