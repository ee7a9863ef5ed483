"""What pages and terminal say of referral, the promise and its interval first, and of the spread over seeds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import as_table, simulated

from dermlab.evaluate import write_predictions
from dermlab.evaluate.selective import referral
from dermlab.report import parts

RULES: dict[str, dict[str, Any]] = {
    "error<=0.2": {"max_error": 0.2},
    "MEL>=0.8": {"sensitivity": {"MEL": 0.8}},
    "error<=0.001": {"max_error": 0.001},
}


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    label, probabilities, group = simulated(5, 500, 160, skill=2.0)
    table = as_table(label, probabilities, group).assign(split=np.where(group < 70, "val", "test"))
    path: Path = tmp_path_factory.mktemp("p") / "p.parquet"
    predictions = write_predictions(path, table, {"group_by": "patient_id"})
    rules = [{"rule": rule, **referral(predictions, **promise, n_boot=100)} for rule, promise in RULES.items()]
    return {**rules[0], "rules": rules, "warnings": []}


def test_every_rule_leads_with_what_it_promised(part: dict[str, Any]) -> None:
    (told,) = parts.lines({"referral": part})
    promise = part["rules"][1]["promises"][0]
    reached = parts.percent(promise["found"])
    assert f"MEL ≥ 0.8 refers {reached} of MEL (n = {promise['n']}; 80% promised, " in told
    assert told.index(reached) < told.index("of 100 cases in all; of those kept")
    assert f"keeps cases of which {parts.percent(part['rules'][0]['promises'][0]['found'])} are wrong" in told


def test_a_rule_that_refers_everybody_says_so(part: dict[str, Any]) -> None:
    (shown,) = parts.view({"referral": part})
    assert "error ≤ 0.001 refers everybody, so it decides nothing" in shown["sentence"]
    assert "n/a" not in shown["sentence"]
    assert not re.search(r"wrong among the kept.*n/a", str(shown["blocks"]))


def test_the_plain_spread_over_seeds_is_shown_beside_the_part_cut_at_zero() -> None:
    metric = {"value": 0.6, "low": 0.5, "high": 0.7, "sd_runs": 0.0072, "sd_seeds": 0.0, "sd_groups": 0.02}
    recipe = {"name": "a", "n_seeds": 3, "seeds": [1, 2, 3], "metrics": {"macro_f1": metric}}
    (shown,) = parts.view({"seeds": {"recipes": [recipe], "warnings": []}})
    (block,) = shown["blocks"]
    assert [cell["text"] for cell in block["rows"][0]] == ["macro-F1", "0.600 (0.500–0.700)", "0.007", "0.000", "0.020"]
