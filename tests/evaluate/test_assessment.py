"""One call for everything: each part is the analysis itself; what cannot be computed says why; rules are strict."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import as_table, simulated

from dermlab.core.errors import InputError
from dermlab.evaluate import write_predictions
from dermlab.evaluate.assessment import PARTS, Assessment, Known, assess, promises, write_parts
from dermlab.evaluate.calibration import calibration_report
from dermlab.evaluate.selective import referral
from dermlab.evaluate.subgroups import subgroups

HOW = {"n_boot": 100, "seed": 3}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    """A table with val rows and a column that describes patients, changed as asked."""

    def make(change: Callable[[Any], Any] = lambda table: table) -> Any:
        label, probabilities, group = simulated(5, 400, 130, skill=2.0)
        table = as_table(label, probabilities, group)
        table["split"] = np.where(group < 60, "val", "test")
        table["sex"] = np.where(group % 2, "female", "male")
        return write_predictions(tmp_path / "p.parquet", change(table), {"group_by": "patient_id"})

    return make


def test_each_part_is_what_its_own_function_returns(made: Callable[..., Any]) -> None:
    table = made()
    found = assess(table, **HOW).parts
    assert found["calibration"] == calibration_report(table, **HOW)
    assert found["subgroups"] == subgroups(table, **HOW)
    rule = dict(found["referral"]["rules"][0])
    assert rule.pop("rule") == "error<=0.1"
    assert rule == referral(table, max_error=0.1, **HOW)


def test_what_nothing_asks_for_is_absent_and_what_is_switched_off_too(made: Callable[..., Any]) -> None:
    found = assess(made(), Assessment(skip=("calibration", "subgroups")), **HOW)
    assert set(found.parts) == {"selective", "referral", "conformal"} == set(found.seconds)
    assert assess(made(), Assessment(skip=PARTS), **HOW).parts == {}


def test_without_val_rows_the_rest_is_computed_and_the_reason_said(made: Callable[..., Any]) -> None:
    found = assess(made(lambda table: table.assign(split="test")), **HOW).parts
    assert {name for name, part in found.items() if "skipped" in part} == {"calibration", "referral", "conformal"}
    assert "val" in found["calibration"]["skipped"]
    assert "p.parquet" not in found["calibration"]["skipped"]  # the page is about that file anyway


def test_hard_labels_leave_the_subgroups(made: Callable[..., Any]) -> None:
    def hard(table: Any) -> Any:
        scores = [name for name in table if name.startswith("p:")]
        said = [name.removeprefix("p:") for name in table[scores].idxmax(axis=1)]
        return table.drop(columns=scores).assign(prediction=said)

    found = assess(made(hard), **HOW).parts
    assert [name for name, part in found.items() if "skipped" not in part] == ["subgroups"]


def test_a_branch_stands_for_its_classes(made: Callable[..., Any]) -> None:
    table = made()
    known = Known(hierarchy={"malignant": ("BCC", "MEL"), "benign": ("ACK", "NEV")})
    by_branch = assess(table, Assessment(refer=("malignant>=0.8",)), known, **HOW).parts["referral"]["rules"][0]
    by_name = assess(table, Assessment(refer=("BCC+MEL>=0.8",)), **HOW).parts["referral"]["rules"][0]
    assert by_branch["promises"] == by_name["promises"]
    default = assess(table, None, known, **HOW).parts["referral"]
    assert [rule["rule"] for rule in default["rules"]] == ["error<=0.1", "malignant>=0.95"]


def test_what_is_named_must_exist_where_strict_and_is_skipped_else(made: Callable[..., Any]) -> None:
    for settings, name in (
        (Assessment(subgroups=("shoe_size",)), "subgroups"),
        (Assessment(refer=("XYZ>=0.9",)), "referral"),
        (Assessment(prevalence={"XYZ": 1.0}), "prior_shift"),
        (Assessment(train_counts={"XYZ": 3}), "frequency"),
    ):
        assert "skipped" in assess(made(), settings, **HOW).parts[name]
        with pytest.raises(InputError, match=r"XYZ|shoe_size"):
            assess(made(), settings, strict=True, **HOW)


def test_several_seeds_have_a_part_of_their_own(made: Callable[..., Any]) -> None:
    import pandas as pd

    found = assess(made(lambda table: pd.concat([table.assign(seed=0), table.assign(seed=1)])), **HOW).parts
    assert found["seeds"]["recipes"][0]["n_seeds"] == 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("error<=0.1", (0.1, {})),
        (" MEL >= .95 ", (None, {"MEL": 0.95})),
        ("BCC+MEL>=0.9 and error<=0.05", (0.05, {"BCC+MEL": 0.9})),
        ("a and b>=0.9", None),
        ("error>=0.1", None),
        ("MEL<=0.9", None),
        ("MEL>=1.5", None),
        ("error<=0.1 and error<=0.2", None),
        ("", None),
    ],
)
def test_rules_are_read_strictly(rule: str, expected: Any) -> None:
    if expected is None:
        with pytest.raises(ValueError, match=r"rule of referral|kept|between"):
            promises(rule)
        with pytest.raises(ValueError, match="refer"):
            Assessment(refer=(rule,))
    else:
        assert promises(rule) == expected


def test_files_of_an_earlier_assessment_are_removed(made: Callable[..., Any], tmp_path: Path) -> None:
    written = write_parts(tmp_path / "out", assess(made(), **HOW))
    assert {path.name for path in written} == {
        *("calibration.json", "selective.json", "referral.json", "conformal.json", "subgroups.json"),
        "differential.csv",
    }
    write_parts(tmp_path / "out", assess(made(), Assessment(skip=("conformal",)), **HOW))
    assert not (tmp_path / "out" / "differential.csv").exists()
    assert not (tmp_path / "out" / "conformal.json").exists()


def test_columns_left_out_of_the_subgroups_asked_for_are_known(made: Callable[..., Any]) -> None:
    table = made()
    odd = table.frame["group"].astype(str).str[-1].isin(list("13579"))
    table = table.with_frame(table.frame.assign(sex=odd.map({True: "female", False: "male"}), age=50.0))
    found = assess(table, Assessment(subgroups=("sex",)), **HOW).parts["subgroups"]
    assert "age" in found["not_looked_at"]
    assert "sex" not in found["not_looked_at"]
    assert "not_looked_at" not in assess(table, **HOW).parts["subgroups"]
