"""Tables as clinics send them: any delimiter, encoding, way to say yes; what is malformed is one line with its row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dermlab.core.errors import InputError
from dermlab.data.sources.tables import class_order, convert, infer_kind, names_a_person, read_table

ROWS = "file,dx,age\na.jpg,mel,63\nb.jpg,nv,NA\n"


def write(tmp_path, content, name="t.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_delimiters_encodings_and_line_ends_are_found(tmp_path, encoding, delimiter, newline):
    rows = [["file", "diagnosis", "note"], ["a.jpg", "Nävus", f"with {delimiter} inside"], ["b.jpg", "", "x"]]
    text = newline.join(delimiter.join(f'"{v}"' if delimiter in v else v for v in row) for row in rows) + newline
    table = read_table(write(tmp_path, text, encoding=encoding))
    assert table.columns == ["file", "diagnosis", "note"]
    assert table.frame["diagnosis"][0] == "Nävus"
    assert pd.isna(table.frame["diagnosis"][1])
    assert table.frame["note"][0] == f"with {delimiter} inside"
    assert (table.notes != ()) == (encoding == "cp1252")


def test_only_unambiguous_words_are_missing_unless_the_user_says_more(tmp_path):
    values = ["", "NA", "nan", "NULL", "unknown", "none", "-1", "UNK", " spaced "]
    path = write(tmp_path, "file,x\n" + "".join(f"{k}.jpg,{value}\n" for k, value in enumerate(values)))
    assert read_table(path).frame["x"].isna().tolist() == [True] * 4 + [False] * 5
    assert read_table(path).frame["x"].iloc[-1] == "spaced"
    more = read_table(path, missing_values=("UNK", "unknown")).frame["x"]
    assert more.isna().tolist() == [True] * 5 + [False, False, True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("a,b\n", "no row below its header"),
        ("a,b\n1,2\n1,2,3\n", "row 3: has 3 values where the header has 2 columns"),
        ("a,b\n1,2\n\n1\n", "row 4: has 1 values where the header has 2 columns"),
        ('a,b\n1,"x\ny"\n3\n', "row 4: has 1 values"),
        ("a,b,a\n1,2,3\n", "row 1, column 'a': stands twice"),
        ('a,b\n1,"open\n', "not a line of delimited text"),
        (b"PK\x03\x04\x00\x00\xff\xff\x00\x81", "is not a text file"),
    ],
)
def test_a_malformed_table_is_one_line_with_its_row(tmp_path, text, message):
    with pytest.raises(InputError) as fault:
        read_table(write(tmp_path, text))
    assert message in str(fault.value)
    assert "t.csv" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_trailing_delimiters_and_index_columns_are_forgiven(tmp_path):
    table = read_table(write(tmp_path, ",file,dx,\n0,a.jpg,mel,\n1,b.jpg,nv,,\n"))
    assert table.columns == ["file", "dx"]
    assert table.notes == ("columns of t.csv without a name were left out",)
    assert table.lines.tolist() == [2, 3]


def test_other_formats_give_the_same_table(tmp_path):
    csv = read_table(write(tmp_path, ROWS)).frame
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "dx": ["mel", "nv"], "age": [63.0, None]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in ("t.parquet", "t.jsonl"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name).frame, csv)
    pytest.importorskip("openpyxl")
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.xlsx").frame, csv)


def test_broken_files_of_other_formats_are_one_line(tmp_path):
    with pytest.raises(InputError, match=r"t\.jsonl row 2: not JSON"):
        read_table(write(tmp_path, '{"a": 1}\n{"a": \n', "t.jsonl"))
    with pytest.raises(InputError, match=r"t\.jsonl row 1: must be one JSON object"):
        read_table(write(tmp_path, "[1, 2]\n", "t.jsonl"))
    with pytest.raises(InputError, match=r"t\.parquet: cannot be read as Parquet"):
        read_table(write(tmp_path, "no", "t.parquet"))
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["True", "false", None], "boolean"),
        (["yes", "no", "No"], "boolean"),
        (["yes", "yes"], "boolean"),
        (["0", "1", "1"], "boolean"),
        (["1.0", "0.0"], "boolean"),
        (["1", "1"], "numeric"),
        (["f", "f"], "categorical"),  # all of one sex, not all false
        (["f", "m"], "categorical"),
        (["12", "-3.5", "1e3", None], "numeric"),
        (["12,5", "3"], "numeric"),
        (["1,000", "2,500"], "categorical"),  # thousands or thousandths: nobody can tell
        (["007", "012"], "categorical"),
        (["inf", "1"], "categorical"),
        (["2024-05-31", "2024-06-01"], "date"),
        (["31.05.2024"], "date"),
        ([None, None], "empty"),
        (["arm", "leg"] * 20, "categorical"),
        (["ja", "Nein", None], "boolean"),
        (["oui", "non"], "boolean"),
        (["Sí", "no"], "boolean"),
        (["sim", "não"], "boolean"),
        (["wahr", "falsch"], "boolean"),
        (["ja", "vielleicht"], "categorical"),
        (["ja", "ja"], "categorical"),
        (["links", "rechts"], "categorical"),
        (["m", "w"], "categorical"),
        ([f"patient says {k}" for k in range(30)], "text"),
        ([f"code {k % 300}" for k in range(9000)], "text"),
    ],
)
def test_types_are_told_from_values(values, kind):
    assert infer_kind(pd.Series(values, dtype="str")) == kind


def test_values_are_converted_and_blanks_stay_blank():
    truth = convert(pd.Series(["Yes", None, "no"], dtype="str"), "boolean")
    assert truth.tolist() == [True, pd.NA, False]
    numbers = convert(pd.Series(["12,5", None, "3"], dtype="str"), "numeric")
    np.testing.assert_array_equal(numbers, [12.5, np.nan, 3])


def test_classes_come_in_natural_order():
    assert class_order(["10", "9", "b", "a", "9"]) == ("9", "10", "a", "b")


def test_columns_that_name_a_person_are_recognised():
    for name in ("Name", "First Name", "surname", "E-Mail", "date_of_birth", "DOB", "Street", "mrn", "patient_name"):
        assert names_a_person(name), name
    for name in ("age", "image_name", "file name", "region", "hemorrhage", "renamed"):
        assert not names_a_person(name), name


@pytest.mark.parametrize("words", ["ja nein", "oui non", "Sí no", "sim não", "wahr falsch"])
def test_booleans_in_other_languages_are_true_and_false(words):
    assert convert(pd.Series(words.split(), dtype="str"), "boolean").tolist() == [True, False]
