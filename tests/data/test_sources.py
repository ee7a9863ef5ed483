"""The formats: folders, tables, image folders and arrays, as people have them and as they get them wrong."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermlab.core.errors import InputError
from dermlab.data.ingest import import_source
from dermlab.data.sources import SOURCES, SourceData, read_source
from dermlab.data.sources.files import Matcher, find_images


def photos(root: Path, *names: str) -> Path:
    for k, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), (k * 7 % 256, 90, 200 - k)).save(path)
    return root


def table(root: Path, text: str, name: str = "table.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root


def files_of(source: SourceData) -> list[str]:
    return [str(Path(path).relative_to(source.root)) for path in source.manifest["source_path"]]


def test_an_unknown_source_or_option_names_what_there_is(tmp_path):
    with pytest.raises(InputError, match="no source 'pad_ufes'; did you mean 'pad-ufes-20'"):
        read_source("pad_ufes", tmp_path)
    with pytest.raises(InputError, match="the source 'folder' takes no --patient_column; it takes --name, --levels"):
        read_source("folder", tmp_path, patient_column="x")
    for name in SOURCES:
        with pytest.raises(InputError, match=r"expected|not a MedMNIST"):
            read_source(name, tmp_path / "nothing here")


# --- folder ---


def test_class_folders_are_labels(tmp_path):
    root = photos(
        tmp_path / "skin", "nv/a.jpg", "mel/b.jpg", "mel/deep/er/c.png", "stray.jpg", ".hidden/x.jpg", "nv/.y.jpg"
    )
    table(root, "x", "notes.txt")
    source = read_source("folder", root)
    assert files_of(source) == ["mel/b.jpg", "mel/deep/er/c.png", "nv/a.jpg", "stray.jpg"]
    assert source.manifest["image_id"].tolist() == ["b", "c", "a", "stray"]
    assert source.manifest["label"].tolist()[:3] == ["mel", "mel", "nv"]
    assert pd.isna(source.manifest["label"][3])
    assert source.card.name == "skin"
    assert (source.card.target().classes, source.card.target().kind) == (("mel", "nv"), "binary")
    assert any("1 photos lie in no class folder" in note for note in source.notes)
    assert any(".txt 1" in note for note in source.notes)


def test_a_flat_folder_has_no_target_and_names_that_recur_become_paths(tmp_path):
    assert read_source("folder", photos(tmp_path / "flat", "a.jpg", "b.jpg")).card.targets == ()
    source = read_source("folder", photos(tmp_path / "twice", "x/1.jpg", "y/1.jpg", "y/1.png"))
    assert source.manifest["image_id"].tolist() == ["x/1.jpg", "y/1.jpg", "y/1.png"]


def test_levels_of_folders_may_mean_patients(tmp_path):
    root = photos(tmp_path / "skin", "mel/p1/l1/a.jpg", "mel/p2/l1/b.jpg", "nv/p1/l2/c.jpg")
    frame = read_source("folder", root, levels="label/patient/lesion").manifest
    assert frame["patient_id"].tolist() == ["p1", "p2", "p1"]
    assert frame["lesion_id"].nunique() == 3
    assert "label" not in read_source("folder", root, levels="-/patient").manifest
    with pytest.raises(InputError, match="levels: 'person' is not one of label, patient"):
        read_source("folder", root, levels="label/person")


def test_the_order_and_kind_of_classes_can_be_given(tmp_path):
    root = photos(tmp_path / "skin", "mild/a.jpg", "none/b.jpg", "severe/c.jpg")
    target = read_source("folder", root, classes=("none", "mild", "severe"), kind="ordinal").card.target()
    assert (target.classes, target.kind) == (("none", "mild", "severe"), "ordinal")
    with pytest.raises(InputError, match="the folder 'severe' is not one of the classes none, mild"):
        read_source("folder", root, classes=("none", "mild"))


def test_part_folders_are_sent_to_the_right_source(tmp_path):
    root = photos(tmp_path / "skin", "train/mel/a.jpg", "test/mel/b.jpg")
    with pytest.raises(InputError, match="has folders for train and test; import it with the source 'imagefolder'"):
        read_source("folder", root)


def test_a_folder_without_photos_says_what_it_holds(tmp_path):
    with pytest.raises(InputError, match=r"holds no photo; .*\.csv 1"):
        read_source("folder", table(tmp_path / "x", "a,b\n1,2\n"))


# --- csv ---

CLINIC = """Image;Patient ID;Lesion;Diagnosis;Age;Smoker;Body region;Fitzpatrick;Date;Hospital;Patient name;Remark
IMG_1;12.0;1;melanoma;63;yes;arm;II;31.05.2023;Graz;E. Mustermann;grew a lot since spring
IMG_2.png;12.0;1;melanoma;63;yes;arm;2;01.06.2023;Graz;E. Mustermann;second photo of it
sub/IMG_3.jpg;13.0;1;nevus;;no;face;NA;02.06.2023;Lyon;F. Beispiel;no change at all
C:\\photos\\IMG_4.JPG;14.0;2;;41,5;no;face;VI;03.06.2023;Lyon;G. Muster;patient unsure
IMG_5;14.0;3;nevus;41,5;no;back;3;03.06.2023;Lyon;G. Muster;lost the film
"""


@pytest.fixture
def clinic(tmp_path) -> Path:
    root = table(tmp_path / "clinic", CLINIC)
    return photos(root, "IMG_1.jpg", "IMG_2.jpg", "sub/IMG_3.jpg", "img_4.jpg", "unlisted.jpg")


def test_a_clinics_export_is_understood_without_options(clinic):
    source = read_source("csv", clinic)
    frame, card = source.manifest, source.card
    assert files_of(source) == ["IMG_1.jpg", "IMG_2.jpg", "sub/IMG_3.jpg", "img_4.jpg"]
    assert frame["image_id"].tolist() == ["IMG_1", "IMG_2", "IMG_3", "img_4"]
    assert frame["patient_id"].tolist() == ["12", "12", "13", "14"]
    assert frame["lesion_id"].tolist() == ["12/1", "12/1", "13/1", "14/2"]
    assert frame["skin_type"].tolist()[:2] == [2, 2]
    assert frame["captured_at"][0] == pd.Timestamp("2023-05-31")
    assert frame["site"].tolist() == ["Graz", "Graz", "Lyon", "Lyon"]
    target = card.target()
    assert (target.column, target.classes, target.kind) == ("Diagnosis", ("melanoma", "nevus"), "binary")
    assert pd.isna(frame["Diagnosis"][3])
    assert {column.column: column.kind for column in card.metadata} == {
        "Age": "numeric",
        "Smoker": "boolean",
        "Body region": "categorical",
    }
    np.testing.assert_array_equal(frame["Age"], [63, 63, np.nan, 41.5])
    assert source.quarantined == [("IMG_5", "no such file")]
    notes = "\n".join(source.notes)
    assert "1 image under clinic is in no row of table.csv" in notes
    assert "left out (may identify a person): Patient name" in notes
    assert "1 values of Lesion stand under several patients" in notes


def test_the_imported_export_is_a_valid_data_set(clinic, tmp_path):
    dataset = import_source(read_source("csv", clinic / "table.csv"), tmp_path / "set").dataset
    assert len(dataset) == 4
    assert dataset.quarantine.to_dict("records") == [{"path": "IMG_5", "reason": "no such file"}]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file())
    assert b"Mustermann" not in everything


def test_every_column_can_be_named_or_denied(tmp_path):
    root = table(tmp_path / "x", "file,code,what,who,age\na,1,p,A,3\nb,2,q,B,4\n")
    photos(root / "pics", "a.jpg", "b.jpg")
    source = read_source(
        "csv",
        root,
        image_folder=root / "pics",
        label_column=("what", "code"),
        patient_column="WHO",
        metadata_columns=("age",),
        name="mine",
    )
    assert [target.column for target in source.card.targets] == ["what", "code"]
    assert source.card.target().column == "what"
    assert source.manifest["patient_id"].tolist() == ["A", "B"]
    assert [column.column for column in source.card.metadata] == ["age"]
    assert source.card.name == "mine"
    with pytest.raises(InputError, match=r"table\.csv: no column 'whom'; there is file, code, what, who, age"):
        read_source("csv", root, patient_column="whom")
    root = photos(table(tmp_path / "y", "file,label,patient\na,1,A\nb,2,B\n"), "a.jpg", "b.jpg")
    source = read_source("csv", root, label_column=("-",), patient_column="-")
    assert source.card.targets == ()
    assert "patient_id" not in source.manifest
    assert [column.column for column in source.card.metadata] == ["label", "patient"]


def test_lesions_may_be_unique_or_numbered_for_each_patient(tmp_path):
    root = photos(table(tmp_path / "x", "file,patient,lesion\na,A,1\nb,B,1\nc,B,2\n"), "a.jpg", "b.jpg", "c.jpg")
    assert read_source("csv", root).manifest["lesion_id"].tolist() == ["A/1", "B/1", "B/2"]
    assert read_source("csv", root, lesion_ids="unique").manifest["lesion_id"].tolist() == ["1", "1", "2"]


def test_one_hot_tables_of_the_isic_challenges(tmp_path):
    text = "image,MEL,NV,BCC\nISIC_1,1.0,0.0,0.0\nISIC_2,0.0,1.0,0.0\nISIC_3,0.0,0.0,1.0\n"
    root = photos(table(tmp_path / "x", text), "ISIC_1.jpg", "ISIC_2.jpg", "ISIC_3.jpg")
    source = read_source("csv", root)
    assert source.manifest["label"].tolist() == ["MEL", "NV", "BCC"]
    assert source.card.target().classes == ("MEL", "NV", "BCC")


def test_several_labels_of_one_image(tmp_path):
    root = photos(table(tmp_path / "x", "file,label,m1,m2\na,p|q,1,1\nb,,0,1\nc,q,0,0\n"), "a.jpg", "b.jpg", "c.jpg")
    source = read_source("csv", root, label_separator="|")
    assert source.card.target().kind == "multilabel"
    assert source.manifest["label"].tolist() == [["p", "q"], None, ["q"]]
    source = read_source("csv", root, onehot_columns=("m1", "m2"))
    assert source.card.target().kind == "multilabel"
    assert source.manifest["label"].tolist() == [["m1", "m2"], ["m2"], []]


def test_a_site_on_the_body_is_no_clinic(tmp_path):
    root = photos(table(tmp_path / "x", "file,site,label\na,upper extremity,p\nb,torso,q\n"), "a.jpg", "b.jpg")
    source = read_source("csv", root)
    assert "site" not in source.manifest
    assert [column.column for column in source.card.metadata] == ["anatomical_site"]


def test_answers_that_may_mean_missing_are_pointed_out(tmp_path):
    rows = "".join(
        f"{k},{label},{itch}\n" for k, (label, itch) in enumerate([("p", "True"), ("q", "False"), ("p", "UNK")] * 4)
    )
    root = photos(table(tmp_path / "x", "file,label,itch\n" + rows), *(f"{k}.jpg" for k in range(12)))
    source = read_source("csv", root)
    assert source.card.metadata[0].kind == "categorical"
    assert any("--missing_values UNK" in note for note in source.notes)
    assert read_source("csv", root, missing_values=("UNK",)).card.metadata[0].kind == "boolean"


def test_rows_that_repeat_word_for_word_are_left_out(tmp_path):
    root = photos(table(tmp_path / "x", "file,label\na,p\nb,q\na,p\n"), "a.jpg", "b.jpg")
    source = read_source("csv", root)
    assert len(source.manifest) == 2
    assert any("1 rows of table.csv repeat an earlier row" in note for note in source.notes)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("file,label\na,p\n,q\n", {}, "table.csv row 3, column 'file': is blank"),
        ("file,label\na,p\na.jpg,q\n", {}, "row 3, column 'file': 'a.jpg' is the image of row 2 already"),
        ("file,label\na,p\nb,q\n", {"classes": ("p",)}, "row 3, column 'label': label 'q' is not one of p"),
        ("file,d\na,1/2/2020\nb,3/4/2020\n", {"date_column": "d"}, "column 'd': day and month cannot be told apart"),
        ("file,d\na,2020-01-31\nb,soon\n", {"date_column": "d"}, "row 3, column 'd': 'soon' is not a date"),
        ("file,m\na,1\nb,2\n", {"onehot_columns": ("m",)}, "row 3, column 'm': '2' is neither 0 nor 1"),
        ("file,event,time to event\na,1,2\nb,x,3\n", {}, "column 'event': must be true or false"),
        ("x,label\nc,p\nd,q\n", {}, "no column names files under"),
    ],
)
def test_a_wrong_table_is_one_line_with_its_row(tmp_path, text, options, message):
    root = photos(table(tmp_path / "x", text), "a.jpg", "b.jpg")
    with pytest.raises(InputError) as fault:
        read_source("csv", root, **options)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_label_that_never_recurs_is_free_text(tmp_path):
    rows = "".join(f"{k}.jpg,seen on {k}\n" for k in range(40))
    root = photos(table(tmp_path / "x", "file,diagnosis\n" + rows), *(f"{k}.jpg" for k in range(40)))
    with pytest.raises(InputError, match="column 'diagnosis': has 40 different values in 40 rows"):
        read_source("csv", root)


def test_which_table_must_be_clear(tmp_path):
    root = table(table(tmp_path / "x", "a,b\n1,2\n"), "a,b\n1,2\n", "other.tsv")
    with pytest.raises(InputError, match=r"holds several tables; name the one to import: other\.tsv, table\.csv"):
        read_source("csv", root)
    with pytest.raises(InputError, match="holds no table"):
        read_source("csv", photos(tmp_path / "y", "a.jpg"))


def test_no_entry_of_a_table_leads_out_of_the_folder(tmp_path):
    photos(tmp_path, "secret.jpg")
    root = photos(table(tmp_path / "x", "file,label\na.jpg,p\n../secret.jpg,q\n/etc/passwd,p\n"), "a.jpg", "b.jpg")
    source = read_source("csv", root)
    assert files_of(source) == ["a.jpg"]
    assert [path for path, _ in source.quarantined] == ["../secret.jpg", "/etc/passwd"]


def test_files_are_found_by_path_name_and_stem_and_ambiguity_is_told(tmp_path):
    root = photos(tmp_path / "x", "p1/a.jpg", "p2/a.jpg", "p2/IMG.001.png", "b.jpg")
    matcher = Matcher(find_images(root))
    assert matcher.find("p1/a.jpg") == ["p1/a.jpg"]
    assert matcher.find("/mnt/other/p2/A.JPG") == ["p2/a.jpg"]
    assert matcher.find("a") == ["p1/a.jpg", "p2/a.jpg"]
    assert matcher.find("p1\\a.png") == ["p1/a.jpg"]
    assert matcher.find("IMG.001") == ["p2/IMG.001.png"]
    assert matcher.find("b.tiff") == ["b.jpg"]
    assert matcher.find("c") == []
    table(root, "file,label\na,p\nb,q\n")
    assert read_source("csv", root).quarantined == [("a", "2 files may be meant, as p1/a.jpg and p2/a.jpg")]


# --- imagefolder ---


def test_class_folders_in_parts_keep_their_split(tmp_path):
    root = photos(tmp_path / "hf", "train/cat/1.jpg", "train/dog/2.jpg", "validation/cat/3.jpg", "test/dog/4.jpg")
    source = read_source("imagefolder", root)
    assert files_of(source) == ["test/dog/4.jpg", "train/cat/1.jpg", "train/dog/2.jpg", "validation/cat/3.jpg"]
    assert source.official.tolist() == ["test", "train", "train", "val"]
    assert source.manifest["label"].tolist() == ["dog", "cat", "dog", "cat"]
    dataset = import_source(source, tmp_path / "set").dataset
    assert dataset.read_split("official")["split"].tolist() == ["test", "train", "train", "val"]


def test_metadata_tables_in_parts(tmp_path):
    root = photos(tmp_path / "hf", "train/1.jpg", "train/2.jpg", "test/1.jpg", "test/x/4.jpg")
    table(root / "train", "file_name,label,age\n1.jpg,mel,50\n2.jpg,nv,60\n", "metadata.csv")
    lines = [{"file_name": "1.jpg", "label": "nv", "age": 70}, {"file_name": "x/4.jpg", "label": "mel", "age": None}]
    table(root / "test", "\n".join(json.dumps(line) for line in lines), "metadata.jsonl")
    source = read_source("imagefolder", root)
    assert dict(zip(files_of(source), source.official, strict=True)) == {
        "test/1.jpg": "test",
        "test/x/4.jpg": "test",
        "train/1.jpg": "train",
        "train/2.jpg": "train",
    }
    labels = dict(zip(files_of(source), source.manifest["label"], strict=True))
    assert labels == {"test/1.jpg": "nv", "test/x/4.jpg": "mel", "train/1.jpg": "mel", "train/2.jpg": "nv"}
    assert source.card.metadata[0].column == "age"
    table(root / "test", '{"file_name": "1.jpg", "label": "nv"}\n{"label": "mel"}\n', "metadata.jsonl")
    with pytest.raises(InputError, match=r"test/metadata\.jsonl row 2, column 'file_name': is blank"):
        read_source("imagefolder", root)
    table(root / "test", '{"image": "1.jpg"}\n', "metadata.jsonl")
    with pytest.raises(InputError, match=r"metadata\.jsonl column 'file_name': is missing"):
        read_source("imagefolder", root)


def test_an_image_folder_without_parts_has_no_official_split(tmp_path):
    source = read_source("imagefolder", photos(tmp_path / "hf", "cat/1.jpg", "dog/2.jpg"))
    assert source.official is None
    assert source.card.target().classes == ("cat", "dog")
    photos(tmp_path / "mix", "train/cat/1.jpg", "dog/2.jpg")
    with pytest.raises(InputError, match="1 images lie outside the folders of train, validation and test"):
        read_source("imagefolder", tmp_path / "mix")


# --- npz ---

RNG = np.random.default_rng(0)


def array(n: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, *shape), dtype=np.uint8)


def npz(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def test_medmnists_keys_give_the_official_split(tmp_path):
    parts = {"train": 5, "val": 3, "test": 4}
    arrays = {f"{part}_images": array(n, 8, 8) for part, n in parts.items()}
    arrays |= {f"{part}_labels": (np.arange(n) % 3)[:, None] for part, n in parts.items()}
    dataset = import_source(read_source("npz", npz(tmp_path, **arrays)), tmp_path / "set").dataset
    assert dataset.read_split("official")["split"].value_counts().to_dict() == {"train": 5, "test": 4, "val": 3}
    assert dataset.labels().tolist() == [str(k % 3) for n in parts.values() for k in range(n)]
    assert dataset.image_ids[5] == "val_000000"
    np.testing.assert_array_equal(np.asarray(Image.open(dataset.paths[5])), arrays["val_images"][0])


def test_plain_keys_with_names_files_and_patients(tmp_path):
    path = npz(
        tmp_path,
        images=array(3, 8, 8, 3),
        labels=np.array([1, 0, 1]),
        class_names=np.array(["nv", "mel"]),
        filenames=np.array(["x/1.jpg", "x/2.jpg", "3.jpg"]),
        patient_ids=np.array(["A", "", "A"]),
    )
    source = read_source("npz", path)
    assert source.manifest["image_id"].tolist() == ["1", "2", "3"]
    assert source.manifest["label"].tolist() == ["mel", "nv", "mel"]
    assert source.card.target().classes == ("nv", "mel")
    assert source.manifest["patient_id"].isna().tolist() == [False, True, False]
    assert source.official is None


def test_multilabel_ordinal_text_and_no_labels(tmp_path):
    marks = np.array([[1, 0, 1], [0, 0, 0]])
    source = read_source("npz", npz(tmp_path, images=array(2, 8, 8), labels=marks))
    assert source.card.target().kind == "multilabel"
    assert source.manifest["label"].tolist() == [["0", "2"], []]
    source = read_source("npz", npz(tmp_path, images=array(3, 8, 8), labels=np.arange(3)), kind="ordinal")
    assert source.card.target().kind == "ordinal"
    source = read_source("npz", npz(tmp_path, images=array(2, 8, 8), labels=np.array(["b", "a"])))
    assert source.manifest["label"].tolist() == ["b", "a"]
    assert read_source("npz", npz(tmp_path, images=array(2, 8, 8))).card.targets == ()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "holds x; expected train_images"),
        ({"images": array(2, 3, 8, 8)}, r"channels come last: images.transpose(0, 2, 3, 1)"),
        ({"images": array(2, 8, 8, 5)}, "must be (N, H, W) or (N, H, W, 3), got (2, 8, 8, 5)"),
        ({"images": array(2, 8)}, "must be (N, H, W)"),
        ({"images": array(0, 8, 8)}, "must be (N, H, W)"),
        ({"images": np.zeros((2, 8, 8), np.float32)}, "images must be uint8, 0 to 255; got float32"),
        ({"images": np.array([object(), 1])}, "pickled objects are refused"),
        ({"images": np.asfortranarray(array(4, 6, 5))}, "np.ascontiguousarray"),
        ({"images": array(3, 8, 8), "labels": np.array([0, 1])}, "labels has 2 labels for 3 images"),
        (
            {"images": array(2, 8, 8), "labels": np.array([0.5, 1])},
            "labels must be whole numbers or names, got float64",
        ),
        ({"images": array(2, 8, 8), "labels": np.array(["a", None])}, "labels holds pickled objects"),
        ({"images": array(2, 8, 8), "labels": np.array([[0, 2], [1, 0]])}, "must be 0/1 marks"),
        ({"images": array(2, 8, 8), "labels": np.array([0, 5]), "class_names": np.array(["a", "b"])}, "labels[1] is 5"),
        ({"images": array(2, 8, 8), "labels": np.array([0, -1])}, "labels[1] is -1"),
        ({"images": array(2, 8, 8), "filenames": np.array(["a"])}, "filenames has the shape (1,); expected (2,)"),
        ({"train_images": array(2, 8, 8), "test_images": array(2, 9, 9)}, "differ in size"),
        (
            {"train_images": array(1, 8, 8), "test_images": array(1, 8, 8), "train_labels": np.zeros(1, int)},
            "test_labels",
        ),
        ({"train_images": array(1, 8, 8), "images": array(1, 8, 8)}, "has both images and train_images"),
    ],
)
def test_a_wrong_archive_is_one_clear_line(tmp_path, arrays, message):
    with pytest.raises(InputError) as fault:
        read_source("npz", npz(tmp_path, **arrays))
    assert message in str(fault.value)
    assert "a.npz" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_file_that_is_no_archive_or_a_cut_one_is_one_line(tmp_path):
    path = npz(tmp_path, images=array(50, 8, 8, 3))
    data = path.read_bytes()
    path.write_bytes(data[:2000])
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as \.npz"):
        read_source("npz", path)
    damaged = bytearray(data)
    damaged[3000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.npz: images is damaged"):
        import_source(read_source("npz", path), tmp_path / "set")


def test_arrays_that_are_not_asked_for_are_not_read_and_huge_images_are_refused(tmp_path):
    # A pickled array stands for any array beside images and labels: gigabytes of features, say.
    path = npz(tmp_path, images=array(2, 8, 8), labels=np.array([0, 1]), features=np.array([object(), 1]))
    assert len(read_source("npz", path).manifest) == 2
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive, archive.open("images.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (1, 100_000, 100_000, 3)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(InputError, match="pixels at most"):
        read_source("npz", tmp_path / "huge.npz")


# --- what a newcomer's table holds ---


@pytest.mark.parametrize("name", ["Diagnose", "Befund", "Klasse", "diagnostico", "Diagnóstico", "Classe", "étiquette"])
def test_labels_are_known_in_other_languages(name, tmp_path):
    root = photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table(root, f"Bild,{name}\na.jpg,nv\nb.jpg,mel\nc.jpg,nv\n")
    assert [target.column for target in read_source("csv", root).card.targets] == [name]


def test_where_no_labels_are_found_the_likeliest_column_is_named(tmp_path):
    root = photos(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    table(root, "file,side,age,tumortyp\na.jpg,left,40,nv\nb.jpg,right,50,mel\nc.jpg,left,60,nv\n")
    assert any("did you mean --label_column tumortyp?" in note for note in read_source("csv", root).notes)


def test_odd_cells_are_set_aside_one_by_one(tmp_path):
    root = photos(tmp_path / "fotos", "a.jpg", "b.jpg", "extra.jpg", "more.jpg")
    photos(tmp_path, "outside.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    odd = ["../outside.jpg", "link.jpg", "http://nowhere.example/c.jpg", "file:///etc/passwd", "gone.jpg"]
    table(root, "file,dx\na.jpg,nv\nb.jpg,mel\n" + "".join(f"{name},nv\n" for name in odd))
    source = read_source("csv", root)
    reasons = dict(source.quarantined)
    assert len(source.quarantined) == len(odd)
    assert reasons["../outside.jpg"] == "leads out of the folder"
    assert reasons["link.jpg"] == "a link that leaves the folder"
    assert "'nowhere.example' is not allowed; to allow it set" in reasons["http://nowhere.example/c.jpg"]
    assert "protocol 'file' is not opened" in reasons["file:///etc/passwd"]
    assert reasons["gone.jpg"] == "no such file"
    assert any("2 images under fotos are in no row of table.csv: extra.jpg, more.jpg" in note for note in source.notes)
    (root / "more.jpg").unlink()
    assert any("1 image under fotos is in no row" in note for note in read_source("csv", root).notes)
