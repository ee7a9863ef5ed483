"""Tables from anyone are read alike; what cannot be scored honestly is refused with file, row and column."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import CLASSES, as_table, simulated

from dermlab.core.errors import InputError
from dermlab.evaluate import Columns, pool_units, read_predictions, summarise, write_predictions
from dermlab.evaluate.predictions import sidecar_path

ENDS = ("value", "low", "high")
META = {
    "run_id": "r1",
    "model": "m",
    "target": "dx",
    "classes": list(CLASSES),
    "group_by": "patient_id",
    "lineage": {"a": 1},
}


def frame(seed: int = 0, n: int = 40, **columns: Any) -> pd.DataFrame:
    return as_table(*simulated(seed, n=n, n_groups=20)).assign(**columns)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_table_comes_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    written = write_predictions(path, frame(site="north", age=np.arange(40)), META)
    read = read_predictions(path)
    assert read.classes == CLASSES
    assert read.frame.columns.tolist() == written.frame.columns.tolist()
    np.testing.assert_allclose(read.probabilities(), written.probabilities(), rtol=0, atol=1e-15)
    assert (read.truth() == written.truth()).all()
    assert read.frame["age"].tolist() == list(range(40))
    assert {key: read.meta[key] for key in META} == META
    assert json.loads(sidecar_path(path).read_text())["group_by"] == "patient_id"
    assert "source" not in json.loads(sidecar_path(path).read_text())


def test_a_run_folder_stands_for_its_table(tmp_path: Path) -> None:
    write_predictions(tmp_path / "run" / "predictions.parquet", frame(), META)
    assert len(read_predictions(tmp_path / "run")) == 40


def test_probabilities_keep_their_bits(tmp_path: Path) -> None:
    table = frame()
    single = table[[f"p:{name}" for name in CLASSES]].to_numpy(np.float32)
    table[[f"p:{name}" for name in CLASSES]] = single
    written = write_predictions(tmp_path / "t.parquet", table, META)
    assert (written.probabilities() == single.astype(np.float64)).all()


def test_names_of_another_tool(tmp_path: Path) -> None:
    """Other column names, another order of classes, a group column: the same figures."""
    ours = write_predictions(tmp_path / "ours.parquet", frame(), META)
    other = frame().rename(columns={"image_id": "isic", "label": "dx", "group": "patient"})
    other.columns = [name.replace("p:", "prob_") for name in other]
    other[["isic", "dx", "patient", "prob_NEV", "prob_MEL", "prob_BCC", "prob_ACK"]].to_csv(
        tmp_path / "t.csv", index=False
    )
    columns = Columns(id="isic", label="dx", group="patient", probability_prefix="prob_")
    theirs = read_predictions(tmp_path / "t.csv", columns)
    assert theirs.classes == ("NEV", "MEL", "BCC", "ACK")
    assert theirs.meta["group_by"] == "patient"
    found, wanted = summarise(theirs, n_boot=100), summarise(ours, n_boot=100)
    for name in ("top1", "auroc", "macro_f1"):
        assert {key: found[name][key] for key in ENDS} == pytest.approx({key: wanted[name][key] for key in ENDS})


def test_classes_name_columns_that_have_no_prefix(tmp_path: Path) -> None:
    table = frame()
    table.columns = [name.removeprefix("p:") for name in table]
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_predictions(tmp_path / "t.csv", Columns(classes=CLASSES))
    assert read.has_probabilities
    np.testing.assert_allclose(read.probabilities(), frame()[[f"p:{name}" for name in CLASSES]])


def test_logits_are_turned_into_probabilities(tmp_path: Path) -> None:
    table = frame()
    columns = [f"p:{name}" for name in CLASSES]
    expected = table[columns].to_numpy()
    table[columns] = np.log(expected) + 700.0
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_predictions(tmp_path / "t.csv", Columns(scores="logits"))
    np.testing.assert_allclose(read.probabilities(), expected, rtol=1e-9)
    with pytest.raises(InputError, match=r"row 2: the score .* say --scores logits"):
        read_predictions(tmp_path / "t.csv")


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "cp1252"), (";", "utf-8-sig"), ("\t", "utf-16")])
def test_a_table_from_a_spreadsheet_is_read_as_in_an_import(tmp_path: Path, delimiter: str, encoding: str) -> None:
    plain = frame(place="Köln", size=np.arange(40) + 0.5)
    text = plain.to_csv(index=False, sep=delimiter, decimal=",")
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    read = read_predictions(tmp_path / "t.csv")
    plain.to_csv(tmp_path / "plain.csv", index=False)
    expected = read_predictions(tmp_path / "plain.csv")
    np.testing.assert_array_equal(read.probabilities(), expected.probabilities())
    assert read.frame["size"].tolist() == (np.arange(40) + 0.5).tolist()
    assert set(read.frame["place"]) == {"Köln"}


def test_percent_are_not_taken_for_logits(tmp_path: Path) -> None:
    table = frame()
    columns = [name for name in table if name.startswith("p:")]
    table.assign(**{name: table[name] * 100 for name in columns}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="are these percent") as told:
        read_predictions(tmp_path / "t.csv")
    assert "logits" not in str(told.value)


def test_one_column_for_the_positive_class(tmp_path: Path) -> None:
    table = pd.DataFrame({"image_id": list("abcd"), "label": [0, 1, 1, 0], "malignant": [0.1, 0.9, 0.4, 0.3]})
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_predictions(tmp_path / "t.csv", Columns(probability="malignant"))
    assert read.classes == ("0", "1")
    assert read.kind == "binary"
    np.testing.assert_allclose(read.probabilities()[:, 1], table["malignant"])
    assert summarise(read, n_boot=100)["auroc"]["value"] == 1.0
    other = read_predictions(tmp_path / "t.csv", Columns(probability="malignant", classes=("1", "0")))
    assert other.classes == ("1", "0")
    assert summarise(other, n_boot=100)["auroc"]["value"] == 0.0


def test_hard_labels(tmp_path: Path) -> None:
    table = pd.DataFrame({"image_id": list("abcd"), "label": ["x", "y", "x", "y"], "prediction": ["x", "y", "y", "z"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_predictions(tmp_path / "t.csv", Columns(classes=("x", "y", "z")))
    assert read.classes == ("x", "y", "z")
    metrics = summarise(read, n_boot=100)
    assert metrics["top1"]["value"] == 0.5
    assert metrics["auroc"] == {"value": None, "low": None, "high": None}
    assert any("hard labels only" in text for text in metrics["warnings"])


def test_a_misspelt_prediction_is_no_silent_error(tmp_path: Path) -> None:
    table = pd.DataFrame({"image_id": list("abc"), "label": ["MEL", "NEV", "MEL"], "prediction": ["MEL", "NEV", "Mel"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"row 4.*'Mel' is predicted.*did you mean 'MEL'\?.*--classes"):
        read_predictions(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"'Mel' is not one of MEL, NEV; did you mean 'MEL'\?"):
        read_predictions(tmp_path / "t.csv", Columns(classes=("MEL", "NEV")))


@pytest.mark.parametrize("column", ["benign", "p_benign", "p:benign", "Benign"])
def test_a_column_named_after_a_class_is_that_class(tmp_path: Path, column: str) -> None:
    """Sorted, benign comes first and would be the negative class: its column is not read as that of malignant."""
    table = pd.DataFrame({"image_id": list("abc"), "label": ["benign", "malignant", "benign"], column: [0.9, 0.2, 0.6]})
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_predictions(tmp_path / "t.csv", Columns(probability=column))
    np.testing.assert_allclose(read.probabilities()[:, read.classes.index("benign")], table[column])
    assert summarise(read, n_boot=100)["top1"]["value"] == 1.0
    with pytest.raises(InputError, match=r"has the name of the first class.*--classes malignant,benign"):
        read_predictions(tmp_path / "t.csv", Columns(probability=column, classes=("benign", "malignant")))
    named = read_predictions(tmp_path / "t.csv", Columns(probability=column, classes=("malignant", "benign")))
    np.testing.assert_allclose(named.probabilities()[:, 1], table[column])


def test_labels_that_look_like_nothing_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image_id,label,p:NA,p:None,p:01\n1,NA,1,0,0\n2, None ,0,1,0\n3,01,0,0,1\n")
    read = read_predictions(tmp_path / "t.csv")
    assert read.frame["label"].tolist() == ["NA", "None", "01"]
    assert read.frame["image_id"].tolist() == ["1", "2", "3"]


def test_whole_numbers_of_a_column_with_blanks_are_no_fractions(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"image_id": [1, 2, 3], "label": [0.0, 1.0, None], "p:0": [0.6, 0.4, 0.5], "p:1": [0.4, 0.6, 0.5]}
    )
    table.to_parquet(tmp_path / "t.parquet")
    read = read_predictions(tmp_path / "t.parquet")
    assert read.frame["label"].tolist()[:2] == ["0", "1"]
    assert read.truth().tolist() == [0, 1, -1]
    metrics = summarise(read, n_boot=100)
    assert metrics["n"] == 2
    assert "1 of 3 rows have no label and are left out" in metrics["warnings"]


def put(column: str, row: int, value: Any) -> Any:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("p:MEL", 3, np.nan), r"t.csv row 5, column 'p:MEL': is empty"),
        (put("p:MEL", 3, "nan"), r"t.csv row 5, column 'p:MEL': 'nan' is not a finite number"),
        (put("p:MEL", 0, "0,5"), r"t.csv row 2, column 'p:MEL': '0,5' is not a finite number"),
        (put("p:MEL", 3, 1.5), r"t.csv row 5: the score 1.5 is not within 0 and 1"),
        (put("p:MEL", 3, -0.5), r"t.csv row 5: the score -0.5 is not within 0 and 1"),
        (put("label", 7, "BBC"), r"t.csv row 9, column 'label': 'BBC' is not one of ACK, BCC, MEL, NEV"),
        (put("image_id", 7, "im2"), r"t.csv row 9, column 'image_id': 'im2' occurs twice"),
        (put("image_id", 7, ""), r"t.csv row 9, column 'image_id': is empty"),
        (lambda table: table.assign(fold="first"), r"row 2, column 'fold': 'first' is not a finite number"),
        (lambda table: table.assign(fold=0.5), r"row 2, column 'fold': 0.5 is not a whole number"),
        (
            lambda table: table.drop(columns="image_id"),
            r"no column 'image_id'; name it with --id \(columns: group, label",
        ),
        (lambda table: table.drop(columns="label"), r"no column 'label'; name it with --label"),
        (lambda table: table[["image_id", "label"]], r"no column 'prediction' of hard labels|of hard labels"),
        (lambda table: table.head(0), r"t.csv: has no rows"),
        (
            lambda table: table.drop(columns=["p:ACK", "p:BCC", "p:NEV"]).assign(**{"p:MEL": 1.0, "label": "MEL"}),
            "only one class",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    (tmp_path / "t.csv").write_text(change(frame()).to_csv(index=False))
    with pytest.raises(InputError, match=message) as error:
        read_predictions(tmp_path / "t.csv")
    assert "\n" not in str(error.value)


def test_probabilities_off_a_sum_of_one(tmp_path: Path) -> None:
    table, columns = frame(), [f"p:{name}" for name in CLASSES]
    table[columns] = table[columns].round(2)
    read = write_predictions(tmp_path / "t.parquet", table, META)
    np.testing.assert_allclose(read.probabilities().sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert re.search(r"rows of probabilities were off a sum of 1 by up to 0.0\d+", " ".join(read.warnings))
    table.loc[5, columns] = 0.3
    with pytest.raises(InputError, match=r"row 7: the 4 class probabilities sum to 1.2, not to 1"):
        write_predictions(tmp_path / "t.parquet", table, META)


def test_a_group_or_unit_that_is_two_is_refused(tmp_path: Path) -> None:
    table = frame(unit="lesion1", group=["P1", "P2"] * 20)
    with pytest.raises(InputError, match=r"unit 'lesion1' belongs to two groups \(P1, P2\)"):
        write_predictions(tmp_path / "t.parquet", table, META)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.parquet", "no parquet", "cannot be read as a table"),
        ("t.xlsx", "x", r"not a .csv, .tsv or .parquet"),
        ("t.csv", "a,b\n1,2\n1,2,3,4\n", "row 3: has 4 values where the header has 2 columns"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_predictions(tmp_path / name)


def test_a_missing_file_and_a_broken_sidecar(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a_run: no such file or folder"):
        read_predictions(tmp_path / "a_run")
    with pytest.raises(InputError, match="no such file"):
        read_predictions(tmp_path / "absent.csv")
    frame().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "t.csv.json").write_text("[1]")
    with pytest.raises(InputError, match="must hold a JSON object"):
        read_predictions(tmp_path / "t.csv")


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    read = write_predictions(tmp_path / "t.parquet", frame(split=["val", "test"] * 20), META)
    assert len(read.test()) == 20
    with pytest.raises(InputError, match="no rows of split 'train'; there are val, test"):
        read.part("train")


def test_truth_from_elsewhere_is_joined_by_id(tmp_path: Path) -> None:
    table = frame()
    truth = table[["image_id", "label"]].assign(group=table["group"], skin_type=3).sample(frac=1, random_state=0)
    table.drop(columns=["label", "group"]).to_csv(tmp_path / "t.csv", index=False)
    read = read_predictions(tmp_path / "t.csv", truth=truth)
    assert read.frame["label"].tolist() == table["label"].tolist()
    assert read.frame["group"].tolist() == table["group"].tolist()
    assert (read.frame["skin_type"] == 3).all()
    with pytest.raises(InputError, match=r"row 2, column 'image_id': .* \(and 38 more\) is not among"):
        read_predictions(tmp_path / "t.csv", truth=truth[truth["image_id"].isin(["im3"])])


def lesions() -> pd.DataFrame:
    """Two lesions of two photos and one of one."""
    return pd.DataFrame(
        {
            "image_id": list("abcde"),
            "unit": ["L1", "L1", "L2", "L2", "L3"],
            "group": ["P1", "P1", "P1", "P1", "P2"],
            "label": ["x", "x", "y", "y", "x"],
            "p:x": [0.9, 0.3, 0.2, 0.6, 0.5],
            "p:y": [0.1, 0.7, 0.8, 0.4, 0.5],
            "site": [None, "north", "south", "south", None],
        }
    )


def test_the_images_of_a_lesion_are_pooled(tmp_path: Path) -> None:
    meta = {"classes": ["x", "y"], "unit": "lesion", "group_by": "patient_id"}
    mean = pool_units(write_predictions(tmp_path / "t.parquet", lesions(), {**meta, "pooling": "mean"}))
    assert mean.frame["unit"].tolist() == ["L1", "L2", "L3"]
    assert mean.frame["n_images"].tolist() == [2, 2, 1]
    np.testing.assert_allclose(mean.probabilities()[:, 0], [0.6, 0.4, 0.5])
    assert mean.frame["site"].tolist()[:2] == ["north", "south"]
    largest = pool_units(write_predictions(tmp_path / "t.parquet", lesions(), {**meta, "pooling": "max"}))
    np.testing.assert_allclose(largest.probabilities()[:, 0], [0.9 / 1.6, 0.6 / 1.4, 0.5])
    assert pool_units(mean) is mean
    metrics = summarise(mean, n_boot=100)
    assert (metrics["n"], metrics["n_groups"], metrics["unit"], metrics["n_images"]) == (3, 2, "lesion", 3)
    with pytest.raises(InputError, match="pooling 'median' is not one of mean, max"):
        pool_units(write_predictions(tmp_path / "t.parquet", lesions(), {**meta, "pooling": "median"}))


def test_a_lesion_of_two_diagnoses_cannot_be_pooled(tmp_path: Path) -> None:
    table = lesions().assign(label=["x", "y", "y", "y", "x"])
    predictions = write_predictions(tmp_path / "t.parquet", table, {"classes": ["x", "y"]})
    with pytest.raises(InputError, match=r"unit 'L1' has images of several classes \(x, y\)"):
        pool_units(predictions)


def test_hard_labels_are_pooled_by_vote(tmp_path: Path) -> None:
    table = lesions().drop(columns=["p:x", "p:y"]).assign(prediction=["y", "y", "x", "y", "y"])
    pooled = pool_units(write_predictions(tmp_path / "t.parquet", table, {"classes": ["x", "y"]}))
    assert pooled.frame["prediction"].tolist() == ["y", "x", "y"]  # L2 ties: the first class


def test_folds_of_a_unit_are_not_pooled_together(tmp_path: Path) -> None:
    table = pd.concat([lesions().assign(fold=0), lesions().assign(fold=1)])
    pooled = pool_units(write_predictions(tmp_path / "t.parquet", table, {"classes": ["x", "y"]}))
    assert len(pooled) == 6


def test_multilabel_tables(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    truth = (random.random((60, 2)) < 0.4).astype(float)
    table = pd.DataFrame({"image_id": [f"im{k}" for k in range(60)]})
    table[["y:red", "y:blue"]] = truth
    table[["p:red", "p:blue"]] = np.clip(0.3 * truth + 0.6 * random.random((60, 2)), 0, 1)
    table.loc[0, "y:red"] = None
    read = write_predictions(tmp_path / "t.parquet", table, {"classes": ["red", "blue"], "kind": "multilabel"})
    metrics = summarise(read, n_boot=100)
    assert metrics["kind"] == "multilabel"
    assert metrics["top1"]["value"] is None
    assert 0.5 < metrics["auroc"]["low"] < metrics["auroc"]["value"] <= 1
    assert metrics["per_class"]["red"]["n"] == np.nansum(truth[1:, 0])
    table.loc[4, "y:blue"] = 2
    with pytest.raises(InputError, match=r"row 6, column 'y:blue': '2.0' is not 0, 1 or empty"):
        write_predictions(tmp_path / "t.parquet", table, {"classes": ["red", "blue"], "kind": "multilabel"})
