"""``dermlab evaluate`` and ``dermlab compare``, as a person or a script uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dermlab
from dermlab.cli import main

CLASSES = ["ACK", "BCC", "MEL"]


def foreign(path: Path, skill: float, seed: int = 0) -> Path:
    """A CSV as another tool would write it: own column names, rows in no order, patients, three classes."""
    shared, random = np.random.default_rng(0), np.random.default_rng([1, seed])
    label = shared.choice(3, 150, p=[0.5, 0.3, 0.2])
    scores = random.normal(size=(150, 3))
    scores[np.arange(150), label] += skill
    powers = np.exp(scores)
    frame = pd.DataFrame(powers / powers.sum(axis=1, keepdims=True), columns=[f"score_{name}" for name in CLASSES])
    frame.insert(0, "isic_id", [f"ISIC_{row:03d}" for row in range(150)])
    frame["dx"] = [CLASSES[code] for code in label]
    frame["patient"] = np.arange(150) // 3
    frame.sample(frac=1, random_state=seed).to_csv(path, index=False)
    return path


OPTIONS = ["--id", "isic_id", "--label", "dx", "--probability-prefix", "score_", "--group", "patient"]


def test_a_table_of_another_tool_is_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = foreign(tmp_path / "theirs.csv", 1.5)
    assert main(["evaluate", str(table), *OPTIONS, "--out", str(tmp_path / "out"), "--n_boot", "200"]) == 0
    out = capsys.readouterr().out
    assert "theirs: 150 photos of 50 groups (patient), target dx, split test" in out
    assert "top-1 accuracy" in out
    assert "bootstrap over groups (patient)" in out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (metrics["n"], metrics["n_groups"], metrics["classes"]) == (150, 50, CLASSES)
    assert f"{100 * metrics['top1']['value']:.1f}%" in out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"evaluation.html", "confusion_matrix.svg", "reliability.svg", "selective.json"} <= written


def test_what_evaluate_wrote_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table in dermlab's form needs no options any more, beside one that still does."""
    first, second = foreign(tmp_path / "weak.csv", 0.8), foreign(tmp_path / "strong.csv", 3.0, seed=1)
    assert main(["evaluate", str(first), *OPTIONS, "--out", str(tmp_path / "weak"), "--n_boot", "100"]) == 0
    capsys.readouterr()
    words = ["compare", str(tmp_path / "weak"), str(second), *OPTIONS, "--out", str(tmp_path / "cmp")]
    assert main([*words, "--n_boot", "200", "--n_permutations", "499", "--margin", "0.02"]) == 0
    out = capsys.readouterr().out
    assert "150 units of 50 groups (patient), paired" in out
    assert "strong better (strong is not worse by more than 2 points)" in out
    assert "one margin for all metrics: 2 points or 0.02" in out
    assert "rank: strong 1, weak 2" in out
    comparison = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    promised = {"a", "b", "metric", "n", "n_groups", "difference", "low", "high", "p", "p_adjusted", "test"}
    assert promised | {"discordant", "verdict", "margin"} <= set(comparison[0])
    assert (comparison[0]["a"], comparison[0]["b"], comparison[0]["verdict"]) == ("weak", "strong", "b better")


def test_json_is_one_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = foreign(tmp_path / "theirs.csv", 1.5)
    assert main(["evaluate", str(table), *OPTIONS, "--json", "--n_boot", "100"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 150
    other = foreign(tmp_path / "other.csv", 1.0, seed=2)
    quick = ["--n_boot", "100", "--n_permutations", "99", "--metrics", "top1,recall:MEL"]
    assert main(["compare", str(table), str(other), *OPTIONS, "--json", *quick]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["metric"] for entry in found] == ["top1", "recall:MEL"]


def test_the_python_verbs_do_the_same(tmp_path: Path) -> None:
    table = foreign(tmp_path / "theirs.csv", 1.5)
    names: dict[str, Any] = {"id": "isic_id", "label": "dx", "probability_prefix": "score_", "group": "patient"}
    result = dermlab.evaluate(table, n_boot=100, **names)
    assert result.to_json()["n_groups"] == 50
    other = foreign(tmp_path / "other.csv", 1.0, seed=2)
    compared = dermlab.compare((table, other), n_boot=100, n_permutations=99, metrics=("top1",), **names)
    assert compared.to_json()[0]["n"] == 150


def test_labels_come_from_a_table_of_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(foreign(tmp_path / "full.csv", 1.5))
    table[["isic_id", "dx", "patient"]].to_csv(tmp_path / "truth.csv", index=False)
    table.drop(columns=["dx", "patient"]).to_csv(tmp_path / "scores.csv", index=False)
    words = ["evaluate", str(tmp_path / "scores.csv"), *OPTIONS, "--n_boot", "100", "--json"]
    assert main(words) == 2
    assert "no column 'dx'; name it with --label (or give --truth)" in capsys.readouterr().err
    assert main([*words, "--truth", str(tmp_path / "truth.csv")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(tmp_path / "full.csv"), *OPTIONS, "--n_boot", "100", "--json"]) == 0
    full = json.loads(capsys.readouterr().out)
    for key in ("top1", "n_groups", "group_by", "target"):
        assert found[key] == full[key]


def test_labels_and_patients_come_from_a_data_set_folder(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dermlab.data.dataset import Dataset

    dataset = Dataset.open(clinic)
    classes = dataset.card.target().classes
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        random.dirichlet(np.ones(len(classes)), len(dataset)), columns=[f"p:{name}" for name in classes]
    )
    table.insert(0, "image_id", dataset.image_ids)
    table.to_csv(tmp_path / "scores.csv", index=False)
    assert main(["evaluate", str(tmp_path / "scores.csv"), "--truth", str(clinic), "--n_boot", "100", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["target"] == dataset.card.target().column
    assert metrics["group_by"] == dataset.group_column()
    assert metrics["n_groups"] == len(set(dataset.groups()))
    assert metrics["unit"] == dataset.card.unit


def test_calibration_is_fitted_on_val_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(foreign(tmp_path / "full.csv", 1.5))
    scores = [f"score_{name}" for name in CLASSES]
    sharp = table[scores].to_numpy() ** 4
    table[scores] = sharp / sharp.sum(axis=1, keepdims=True)
    table["part"] = np.where(np.arange(150) < 75, "val", "test")
    table.to_csv(tmp_path / "sharp.csv", index=False)
    words = ["evaluate", str(tmp_path / "sharp.csv"), *OPTIONS, "--split_column", "part", "--n_boot", "100", "--json"]
    assert main(words) == 0
    before = json.loads(capsys.readouterr().out)
    assert main([*words, "--calibrate", "temperature", "--out", str(tmp_path / "out")]) == 0
    after = json.loads(capsys.readouterr().out)
    assert after["ece"]["value"] < before["ece"]["value"]
    assert after["top1"] == before["top1"]
    assert after["calibration"]["temperatures"][0]["temperature"] > 1.5
    assert "--calibrate" not in json.dumps(after)
    sidecar = json.loads((tmp_path / "out" / "predictions.parquet.json").read_text())
    assert sidecar["calibration"] == after["calibration"]


def test_a_run_folder_is_not_overwritten_by_its_calibrated_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.read_csv(foreign(tmp_path / "full.csv", 1.5)).assign(part=["val", "test"] * 75)
    table.to_csv(tmp_path / "full.csv", index=False)
    run = str(tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "full.csv"), *OPTIONS, "--split_column", "part", "--out", run]) == 0
    written = (tmp_path / "run" / "predictions.parquet").read_bytes()
    assert main(["evaluate", run, "--out", run, "--n_boot", "100"]) == 0
    assert main(["evaluate", run, "--out", run, "--calibrate", "temperature"]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (tmp_path / "run" / "predictions.parquet").read_bytes() == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate"], "PREDICTIONS required"),
        (["evaluate", "absent.csv"], "absent.csv: no such file"),
        (["evaluate", "{a}"], "no column 'image_id'; name it with --id"),
        (["evaluate", "{a}", *OPTIONS, "--split", "val"], "no rows of split 'val', all are of 'test'"),
        (["evaluate", "{a}", *OPTIONS, "--n_boot", "3"], "n_boot"),
        (["evaluate", "{a}", *OPTIONS, "--scores", "odds"], "scores"),
        (["compare", "{a}"], "needs at least two predictions tables"),
        (["compare", "{a}", "{a}", *OPTIONS], "--names gives each its own name"),
        (["compare", "{a}", "{b}", *OPTIONS, "--names", "x"], "needs 2 different names"),
        (["compare", "{a}", "{b}", *OPTIONS, "--metrics", "accuracy"], "metric 'accuracy' is none of top1"),
        (["compare", "{a}", "{b}", *OPTIONS, "--metrics", "recall:XXX"], "'XXX' is not one of ACK, BCC, MEL"),
        (["compare", "{a}", "{b}", *OPTIONS, "--margin", "0"], "margin"),
    ],
)
def test_a_wrong_turn_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    places = {"a": foreign(tmp_path / "a.csv", 1.0), "b": foreign(tmp_path / "b.csv", 1.2, seed=3)}
    assert main([word.format(**places) for word in words]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_different_images_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = foreign(tmp_path / "a.csv", 1.0), foreign(tmp_path / "b.csv", 1.2, seed=3)
    pd.read_csv(second).head(140).to_csv(second, index=False)
    assert main(["compare", str(first), str(second), *OPTIONS]) == 2
    assert "140 in both, 10 only in a, 0 only in b" in capsys.readouterr().err


def other_form(table: Path, path: Path, form: str) -> list[str]:
    """Write the same answers as another tool might, and return the options that explain them."""
    frame = pd.read_csv(table)
    scores = frame[[f"score_{name}" for name in CLASSES]].to_numpy()
    kept = frame[["isic_id", "dx", "patient"]]
    names = ["--id", "isic_id", "--label", "dx", "--group", "patient"]
    if form == "logits":
        kept = kept.join(pd.DataFrame(np.log(scores) + 3.0, columns=[f"z_{name}" for name in CLASSES]))
        names += ["--probability_prefix", "z_", "--scores", "logits"]
    elif form == "plain class names":
        kept = kept.join(pd.DataFrame(scores, columns=CLASSES))
        names += ["--classes", ",".join(CLASSES)]
    elif form == "hard labels":
        kept = kept.assign(said=[CLASSES[code] for code in scores.argmax(axis=1)])
        names += ["--prediction", "said"]
    elif form == "one probability":
        kept = kept.assign(dx=kept["dx"].where(kept["dx"] == "MEL", "other"), p_mel=scores[:, 2])
        names += ["--probability", "p_mel", "--classes", "other,MEL"]
    kept.to_parquet(path) if path.suffix == ".parquet" else kept.to_csv(path, index=False)
    return [str(path), *names]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("form", ["logits", "plain class names", "hard labels", "one probability"])
def test_each_kind_of_table_becomes_the_same_page(
    form: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = foreign(tmp_path / "theirs.csv", 1.5)
    words = other_form(reference, tmp_path / f"other{suffix}", form)
    out = tmp_path / "out"
    skip = ["--skip", "calibration,referral,conformal,seeds"]
    assert main(["evaluate", *words, *skip, "--out", str(out), "--n_boot", "100"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(reference), *OPTIONS, "--n_boot", "100", "--json"]) == 0
    expected, found = json.loads(capsys.readouterr().out), json.loads((out / "metrics.json").read_text())
    if form == "one probability":
        assert found["kind"] == "binary"
        assert found["auroc"]["value"] == pytest.approx(expected["per_class"]["MEL"]["auroc"]["value"])
    else:
        for name in ("top1", "macro_f1") + ("auroc",) * (form != "hard labels"):
            assert found[name]["value"] == pytest.approx(expected[name]["value"]), name
    selective = json.loads((out / "selective.json").read_text())
    assert ("skipped" in selective) == (form == "hard labels")
    assert ("Not computed" in (out / "evaluation.html").read_text()) >= (form == "hard labels")


def test_a_data_set_gives_subgroups_hierarchy_and_referral(
    clinic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dermlab.data.dataset import Dataset

    dataset = Dataset.open(clinic)
    classes, labels = dataset.card.target().classes, dataset.labels()
    random = np.random.default_rng(0)
    scores = random.dirichlet(np.ones(len(classes)), len(dataset))
    scores[np.arange(len(dataset)), [classes.index(label) for label in labels]] += 0.5
    table = pd.DataFrame(scores / scores.sum(axis=1, keepdims=True), columns=[f"p:{name}" for name in classes])
    table.insert(0, "image_id", dataset.image_ids)
    table["split"] = ["val", "test"] * (len(table) // 2) + ["test"] * (len(table) % 2)
    parts = pd.Series(table["split"].to_numpy(), index=dataset.groups()).groupby(level=0).first()
    table["split"] = parts.loc[dataset.groups()].to_numpy()
    table.to_csv(tmp_path / "scores.csv", index=False)
    words = ["evaluate", str(tmp_path / "scores.csv"), "--truth", str(clinic), "--n_boot", "100"]
    rule = f"{classes[-1]}>=0.8 and error<=0.3"
    asked = ["--subgroups", "sex,skin_type", "--refer", rule, "--coverage", "0.8", "--min_n", "5"]
    assert main([*words, *asked, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "for whom it works less well:" in told
    read = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")}
    assert {"sex", "skin_type"} <= {name.partition(" (")[0] for name in read["subgroups"]["columns"]}
    assert read["referral"]["rules"][0]["rule"] == rule
    assert {one["kind"] for one in read["referral"]["rules"][0]["promises"]} == {"error", "sensitivity"}
    assert read["conformal"]["coverage_aimed"] == 0.8
    assert set(read["hierarchy"]["branches"]) == set(dataset.card.target().hierarchy or {})
    sets = pd.read_csv(tmp_path / "out" / "differential.csv")
    assert sets["covered"].mean() == pytest.approx(read["conformal"]["coverage"]["value"])
    assert main([*words, "--subgroups", "shoe_size"]) == 2
    assert "shoe_size" in capsys.readouterr().err
    assert main([*words, "--refer", "XYZ>=0.9"]) == 2
    assert "XYZ" in capsys.readouterr().err
    assert main([*words, "--refer", "be careful"]) == 2
    assert "is no rule of referral" in capsys.readouterr().err


def test_a_label_map_tests_a_model_on_data_of_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(foreign(tmp_path / "full.csv", 1.5))
    theirs = {"ACK": "harmless", "BCC": "cancer", "MEL": "cancer"}
    truth = table[["isic_id", "patient"]].assign(dx=table["dx"].map(theirs))
    truth.to_csv(tmp_path / "truth.csv", index=False)
    table.drop(columns=["dx", "patient"]).to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "map.yaml").write_text(
        "classes: {ACK: benign, BCC: malignant, MEL: malignant}\nlabels: {harmless: benign, cancer: malignant}\n"
    )
    words = ["evaluate", str(tmp_path / "scores.csv"), *OPTIONS, "--truth", str(tmp_path / "truth.csv")]
    words += ["--label_map", str(tmp_path / "map.yaml"), "--n_boot", "100", "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["classes"], found["n"]) == ("binary", ["benign", "malignant"], 150)
    malignant = table["score_BCC"] + table["score_MEL"]
    right = (malignant > 0.5) == (table["dx"] != "ACK")
    assert found["top1"]["value"] == pytest.approx(right.mean())


def test_a_stated_prevalence_and_further_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(foreign(tmp_path / "full.csv", 1.5)).assign(
        part=["val", "val", "val", "test"] * 37 + ["test"] * 2
    )
    table["part"] = table.groupby("patient")["part"].transform("first")
    table.to_csv(tmp_path / "full.csv", index=False)
    words = ["evaluate", str(tmp_path / "full.csv"), *OPTIONS, "--split_column", "part", "--n_boot", "100"]
    asked = ["--prevalence", "{ACK: 0.9, BCC: 0.08, MEL: 0.02}", "--metrics", "sens@spec=0.9:MEL"]
    assert main([*words, *asked, "--out", str(tmp_path / "out")]) == 0
    assert "at another prevalence:" in capsys.readouterr().out
    shift = json.loads((tmp_path / "out" / "prior_shift.json").read_text())
    assert shift["used"] == pytest.approx({"ACK": 0.9, "BCC": 0.08, "MEL": 0.02})
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 <= metrics["further"]["sens@spec=0.9:MEL"]["value"] <= 1
    assert main([*words, "--prevalence", "{XXX: 1.0}"]) == 2
    assert "XXX" in capsys.readouterr().err


def test_training_seeds_stand_on_the_page_of_a_comparison(tmp_path: Path) -> None:
    words = []
    for model, skill in (("strong", 3.0), ("weak", 0.8)):
        for seed in (1, 2, 3):
            frame = pd.read_csv(foreign(tmp_path / "one.csv", skill, seed=seed)).assign(seed=seed)
            path = tmp_path / f"{model}{seed}.csv"
            frame.to_csv(path, index=False)
            out = tmp_path / f"{model}{seed}"
            assert main(["evaluate", str(path), *OPTIONS, "--out", str(out), "--n_boot", "100", "--skip", SKIPPED]) == 0
            sidecar = out / "predictions.parquet.json"
            sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"recipe": model}))
            words.append(str(out))
    asked = ["--metrics", "top1", "--n_boot", "100", "--n_permutations", "99", "--out", str(tmp_path / "cmp")]
    assert main(["compare", *words, *asked]) == 0
    assert (tmp_path / "cmp" / "seeds.json").exists()
    page = (tmp_path / "cmp" / "comparison.html").read_text()
    assert "Training seeds" in page[page.index('<h2 id="seeds">') :]
    assert main(["compare", words[0], words[3], *asked]) == 0
    assert "Training seeds" not in (tmp_path / "cmp" / "comparison.html").read_text()


SKIPPED = "calibration,selective,referral,conformal,subgroups"


def test_a_page_says_where_its_figures_come_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.read_csv(foreign(tmp_path / "full.csv", 1.5))
    table["part"] = np.where(np.arange(150) < 75, "val", "test")
    table.to_csv(tmp_path / "full.csv", index=False)
    words = ["evaluate", str(tmp_path / "full.csv"), *OPTIONS, "--split_column", "part", "--n_boot", "100"]
    words += ["--calibrate", "temperature", "--metrics", "recall:MEL", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr().out
    n = int((table["dx"][75:] == "MEL").sum())
    assert f"recall:MEL (n = {n} of 75): " in told
    assert "the probabilities calibrated on val before scoring (temperature, temperature " in told
    assert not [
        line for line in told.splitlines() if line.startswith("top-3 accuracy")
    ]  # of three classes the first three are all
    page = (tmp_path / "out" / "evaluation.html").read_text()
    origin = page[page.index('<h2 id="provenance">') :]
    assert f"dermlab evaluate {tmp_path / 'full.csv'}" in origin
    assert "--calibrate temperature" in origin
    assert "150 photos in the table; which data set it was made on the table does not tell" in origin
    assert page.index("The probabilities calibrated on val before scoring") < page.index('id="metrics"')
    assert "what is called before here is the table so calibrated" in page
    assert f"recall:MEL (n = {n} of 75)" in page
    assert "Top-3" not in page[page.index('id="metrics"') : page.index('id="classes"')]
    frame = tmp_path / "out" / "predictions.parquet"
    sidecar = frame.with_name("predictions.parquet.json")
    lineage = {"dataset": "clinic", "data_fingerprint": "abc123", "split": "folds5"}
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | {"lineage": lineage}))
    asked = ["--names", "x,y", "--n_boot", "100", "--n_permutations", "99", "--out", str(tmp_path / "cmp")]
    other = tmp_path / "other.csv"
    foreign(other, 0.5)
    pd.read_csv(other).assign(part=table["part"]).to_csv(other, index=False)
    assert main(["evaluate", str(other), *words[2 : words.index("--calibrate")], "--out", str(tmp_path / "o2")]) == 0
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "o2"), *asked]) == 0
    page = (tmp_path / "cmp" / "comparison.html").read_text()
    assert "data set clinic (fingerprint abc123)" in page
    assert "of split folds5" in page
    assert "dermlab compare" in page
