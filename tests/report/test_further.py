"""The analyses beyond the leaderboard: on the page, in the checklist and in the model card, in words and escaped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from as_browser import HOSTILE, Page
from made_up import CLASSES, as_table, simulated

from dermlab.core.files import json_ready
from dermlab.evaluate import write_predictions
from dermlab.evaluate.assessment import PARTS, Assessment, Known, assess
from dermlab.report import checklist, parts
from dermlab.report.html import render, write_report
from dermlab.report.model_card import model_card

HIERARCHY = {"malignant": ("BCC", "MEL"), "benign": ("ACK", "NEV")}
COSTS = ((0, 1, 1, 1), (5, 0, 1, 5), (20, 2, 0, 20), (1, 1, 1, 0))


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every part that one table can give, computed on made-up answers, and the parts that come from other commands."""
    label, probabilities, group = simulated(5, 500, 160, skill=2.0)
    table = as_table(label, probabilities, group)
    table["split"] = np.where(group < 70, "val", "test")
    table["sex"] = np.where(group % 2, "female", "male")
    table["skin_type"] = group % 6 + 1
    predictions = write_predictions(tmp_path_factory.mktemp("p") / "p.parquet", table, {"group_by": "patient_id"})
    settings = Assessment(prevalence={"ACK": 0.7, "BCC": 0.1, "MEL": 0.1, "NEV": 0.1})
    known = Known(HIERARCHY, COSTS, {"ACK": 10, "BCC": 50, "MEL": 200, "NEV": 400})
    found = assess(predictions, settings, known, n_boot=100)
    assert set(found.parts) == set(PARTS) - {"seeds"}
    assert not [name for name, part in found.parts.items() if "skipped" in part]
    return json.loads(json.dumps(json_ready(found.parts))) | json.loads(json.dumps(OTHERS))


def estimate(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


GAIN = {"difference": 0.15, "low": 0.1, "high": 0.2}
MEASURED = {"n": 200, "n_groups": 150, "unit": "image", "group_by": "patient_id", "warnings": ["a caution"]}
OTHERS: dict[str, Any] = {
    "robustness": {
        **MEASURED,
        "model": "lite0-fusion",
        "metric": "top1",
        "clean": {"top1": estimate(0.8)},
        "corruptions": [
            {
                "name": name,
                "title": title,
                "mean": {"drop": estimate(drop, 0.05), "relative": estimate(1 - drop)},
                "p_adjusted": 0.001,
                "verdict": verdict,
                "severities": [
                    {"severity": step, "level": step / 10, "top1": estimate(0.8 - drop * step / 5)}
                    for step in (1, 3, 5)
                ],
            }
            for name, title, drop, verdict in (
                ("hair", "hair", 0.2, "worse"),
                ("blur", "blur", 0.01, "cannot tell apart"),
            )
        ],
    },
    "unseen": {
        **MEASURED,
        "encoder": "lite0",
        "head": "linear",
        "scores": {"max_softmax": "1 minus the highest probability", "knn": "distance to the neighbours"},
        "classes": {
            name: {
                "n_unseen": 40,
                "called": {"NEV": 0.7, "SEK": 0.3},
                "scores": {
                    score: {"auroc": estimate(0.6), "flagged_unseen": estimate(share, 0.05)}
                    for score in ("max_softmax", "knn")
                },
            }
            for name, share in (("MEL", 0.12), ("BCC", 0.4))
        },
        "mean_auroc": {"max_softmax": estimate(0.6), "knn": estimate(0.9)},
    },
    "label_efficiency": {
        **MEASURED,
        "metric": "macro_f1",
        "curves": [
            {
                "encoder": encoder,
                "head": "linear",
                "points": [
                    {"size": size, "labels": labels, "macro_f1": estimate(0.2 + 0.1 * step + gain)}
                    for step, (size, labels) in enumerate((("1 per class", 6), ("10%", 60), ("all", 600)))
                ],
            }
            for encoder, gain in (("clip", 0.1), ("lite0", 0.0))
        ],
        "ratios": [
            {
                "a": "clip",
                "b": "lite0",
                "head": "linear",
                "design": "per_class",
                "score": 0.4,
                "headline": True,
                "ratio": {"value": 0.4, "low": 0.3, "high": None},
                "verdict": "a needs fewer",
            }
        ],
    },
    "leak": {
        "admitted": ["biopsed"],
        "models": [
            {
                **MEASURED,
                "name": "questionnaire",
                "columns": [{"column": "biopsed", "kind": "value", "reason": "known only with the diagnosis"}],
                "steps": [
                    {"inputs": "clean", "columns": [], "metrics": {"top1": estimate(0.6)}},
                    {"inputs": "with proxies", "columns": ["biopsed"], "metrics": {"top1": estimate(0.75)}},
                ],
                "differences": [{"a": "with proxies", "b": "clean", "metric": "top1", "verdict": "a better", **GAIN}],
            }
        ],
    },
    "screening": {
        "metric": "top1",
        "seed": 3,
        "budget": {"max_train_samples": 300, "max_val_samples": None, "frozen_epochs": 1, "finetune_epochs": 2},
        "rows": [
            {"candidate": "lite0-tuned", "val_score": 0.6, "goes_on": True, "why": "number 1 on val"},
            {"candidate": "clip-tuned", "val_score": None, "goes_on": False, "why": "it failed"},
        ],
        "warnings": [],
    },
    "recipes": {
        "group_by": "patient_id",
        "recipes": [
            {"name": name, "n_seeds": 2, "metrics": {"top1": {**estimate(value), "by_seed": [value, value]}}}
            for name, value in (("lite0-tuned", 0.6), ("clip-tuned", 0.5))
        ],
        "comparisons": [
            {
                **{"a": "lite0-tuned", "b": "clip-tuned", "metric": "top1", "difference": 0.1, "low": 0.02},
                **{"high": 0.18, "p_adjusted": 0.01, "verdict": "a better"},
            }
        ],
    },
    "decomposition": {
        **MEASURED,
        "metric": "top1",
        "baseline": {"candidate": "plain", "value": 0.5},
        "total": {"difference": 0.1, "low": 0.05, "high": 0.15, "verdict": "gain"},
        "steps": [
            {
                **{"factor": "augmentation", "candidate": "augmented", "value": 0.6, "difference": 0.1, "low": 0.05},
                **{"high": 0.15, "p_adjusted": 0.01, "over": "patients", "verdict": "gain"},
            }
        ],
        "shapley": None,
        "runs": [
            {"factors": [], "candidate": "plain", "n_seeds": 1, **estimate(0.5)},
            {"factors": ["augmentation"], "candidate": "augmented", "n_seeds": 1, **estimate(0.6)},
        ],
    },
    "training": {
        "metric": "top1",
        "runs": [
            {
                **{"candidate": "lite0-tuned", "stage": "full", "seed": seed, "repeat": 0, "fold": 0, "best_epoch": 2},
                "history": [
                    {"train_loss": 1.0 / step, "val_loss": 1.2 / step, "val_top1": 0.3 * step} for step in (1, 2)
                ],
                "alarms": [{"name": "nan-loss", "epoch": 2, "disqualifies": True}] if seed else [],
            }
            for seed in (0, 1)
        ],
    },
}


def test_every_part_has_its_section_a_sentence_and_a_line_at_the_terminal(
    record: dict[str, Any], further: dict[str, Any]
) -> None:
    page = Page(render(record, {}, further))
    for name in set(parts.TITLES) - {"seeds"}:
        assert name.replace("_", "-") in page.ids
    assert len(parts.lines(further)) == len(further)
    page.check_self_contained()
    page.check_accessible()
    for told in (
        "lite0-tuned went on to the full budget",
        "1 pair of those below can be told apart",
        "From plain to augmented top-1 accuracy changed by +10.0 (+5.0 to +15.0) points",
        "2 trainings, each with its curves. 1 went wrong (lite0-tuned)",
    ):
        assert told in page.words


def test_the_leak_that_was_waived_stands_first_with_its_interval(
    record: dict[str, Any], further: dict[str, Any]
) -> None:
    page = Page(render(record, {}, further)).words
    told = page.index("+15.0 (+10.0 to +20.0) points of the 75.0% of top-1 accuracy are the leak")
    assert page.index("Read this before you trust it") < told < page.index("What was asked")
    assert "it reads biopsed" in page[told : told + 200]


def test_what_the_blanks_would_have_given_is_not_laid_to_what_was_waived(further: dict[str, Any]) -> None:
    leak = json.loads(json.dumps(further["leak"]))
    more = {"a": "with proxies and blanks", "b": "clean", "metric": "top1", "verdict": "a better"}
    leak["models"][0]["differences"].append(more | {"difference": 0.3, "low": 0.2, "high": 0.4})
    assert "+15.0 (+10.0 to +20.0) points" in parts.view({"leak": leak})[0]["sentence"]
    leak["models"][0]["differences"][0] |= {"low": -0.01, "verdict": "cannot tell apart"}
    assert "which is within chance" in parts.view({"leak": leak})[0]["sentence"]


def test_a_leak_that_was_kept_out_is_no_bad_news_and_stands_with_the_data(
    record: dict[str, Any], further: dict[str, Any]
) -> None:
    further = further | {"leak": further["leak"] | {"admitted": []}}
    page = Page(render(record, {}, further)).words
    told = page.index("its top-1 accuracy would have looked +15.0 (+10.0 to +20.0) points higher")
    assert told > page.index("Photos per class")


def test_what_harms_most_is_told_with_the_model_it_was_measured_on(
    record: dict[str, Any], further: dict[str, Any]
) -> None:
    told = (
        "Measured with lite0-fusion on 200 photos of 150 patients: hair harms most: top-1 accuracy falls by 20.0 "
        "(15.0 to 25.0) points"
    )
    page = Page(render(record, {}, further)).words
    assert "Least of all MEL: 12.0% (7.0–17.0) of its photos are flagged" in page
    assert "clip needs fewer labels than lite0 for macro-F1 0.4 (linear head)" in page
    assert "divided by those that lite0 needs: 0.40 (0.30 to open)." in page
    # Another model's weakness is no bad news about the winner, and is told as another's.
    assert page.index(told) > page.index("In brief")
    assert "clip-fusion itself was not measured" in page
    own = {"robustness": further["robustness"] | {"model": "clip + fusion", "n_groups": 23}}
    next(item for item in record["candidates"] if item["winner"])["metrics"]["model"] = "clip + fusion"
    page = Page(render(record, {}, own)).words
    assert page.index("Read this before you trust it") < page.index("Measured with clip + fusion on 200 photos of 23")
    assert "patients too few for much" in page
    assert "itself was not measured" not in page


def conformal_of(further: dict[str, Any], **over: Any) -> dict[str, Any]:
    part = json.loads(json.dumps(further["conformal"])) | over
    return next(item for item in parts.view({"conformal": part}) if item["name"] == "conformal")


def test_the_differential_leads_with_the_class_it_fails(further: dict[str, Any]) -> None:
    per_class = json.loads(json.dumps(further["conformal"]["per_class"]))
    for item in per_class.values():
        item |= {"coverage": {"value": 0.9, "low": 0.85, "high": 0.95}, "verdict": "cannot tell"}
    per_class["MEL"] |= {"coverage": {"value": 0.75, "low": 0.567, "high": 0.873}, "n": 44}
    per_class["BCC"]["verdict"] = "too few"
    total = {"value": 0.891, "low": 0.86, "high": 0.915}
    over = {"per_class": per_class, "coverage_of_groups": total, "verdict": "cannot tell", "coverage_aimed": 0.9}
    shown = conformal_of(further, **over)
    words = shown["sentence"]
    assert words.index("MEL in 75.0% (56.7–87.3), n = 44") < words.index("89.1%")
    assert "NEV in" not in words
    rows = next(block for block in shown["blocks"] if block["kind"] == "forest")["rows"]
    assert [row["label"] for row in rows if row["tags"]] == ["BCC"]
    assert any("the 98.75% one for classes" in block.get("text", "") for block in shown["blocks"])  # 5% over 4
    per_class["MEL"]["verdict"] = "broken"
    assert conformal_of(further, **over)["tone"] == "bad"


def test_cases_without_a_record_that_carry_the_coverage_are_named(further: dict[str, Any]) -> None:
    def level(name: str, n: int, value: float) -> dict[str, Any]:
        return {"level": name, "n": n, "coverage": estimate(value, 0.03), "mean_size": None, "verdict": "cannot tell"}

    levels = {"gender": [level("FEMALE", 283, 0.845), level("MALE", 228, 0.86), level("not recorded", 331, 0.946)]}
    words = conformal_of(further, subgroups=levels, coverage_aimed=0.9)["sentence"]
    assert "carried by the 331 cases whose gender is not recorded (94.6%); for the 511 others it is 85.2%" in words
    levels["gender"] = levels["gender"][:2]
    assert "not recorded" not in conformal_of(further, subgroups=levels)["sentence"]


def test_columns_that_nobody_asked_for_are_named_beside_the_all_clear(further: dict[str, Any]) -> None:
    part = further["subgroups"] | {"worse": [], "not_looked_at": ["age", "skin_type"]}
    assert "Not looked at: age, skin_type." in parts.view({"subgroups": part})[0]["sentence"]


def test_one_class_held_out_is_no_average(further: dict[str, Any]) -> None:
    one = {"classes": {"MEL": further["unseen"]["classes"]["MEL"]}}
    words = parts.view({"unseen": further["unseen"] | one})[0]["sentence"]
    assert "One class held out" in words
    assert "average" not in words
    assert "Of MEL, 12.0%" in words
    assert "on average" in parts.view({"unseen": further["unseen"]})[0]["sentence"]


def test_a_part_that_could_not_be_computed_says_why(record: dict[str, Any]) -> None:
    page = Page(render(record, {}, {"calibration": {"skipped": "holds hard labels"}}))
    assert "Not computed: holds hard labels." in page.words


def test_levels_are_listed_worst_first_with_n(further: dict[str, Any]) -> None:
    shown = next(part for part in parts.view(further) if part["name"] == "subgroups")
    drawn = [block for block in shown["blocks"] if block["kind"] == "forest"]
    values = [row["metric"]["value"] for row in drawn[0]["rows"] if row["metric"]]
    assert values == sorted(values)
    assert all(re.match(r"n = \d+", row["note"]) for row in drawn[0]["rows"])


def test_names_in_the_parts_stay_text(record: dict[str, Any], further: dict[str, Any]) -> None:
    text = json.dumps(further)
    for name in (*CLASSES, "female", "male", "biopsed", "lite0", "a caution"):
        text = text.replace(json.dumps(name), json.dumps(name + HOSTILE))
    page = Page(render(record, {}, json.loads(text)))
    page.check_self_contained()
    assert page.tags.count("img") == Page(render(record, {}, further)).tags.count("img")
    assert "alert('x')" in page.words


def test_the_checklists_hold_every_number_once_in_order(record: dict[str, Any]) -> None:
    rows = checklist.fill(record, {})
    tripod = [row["number"] for row in rows if row["standard"] == "TRIPOD+AI"]
    assert [int(number.rstrip("abcdefg")) for number in tripod] == sorted(int(n.rstrip("abcdefg")) for n in tripod)
    assert {int(number.rstrip("abcdefg")) for number in tripod} == set(range(1, 28))
    assert len(set(tripod)) == len(tripod)
    assert [row["number"] for row in rows if row["standard"] == "CLAIM"] == [str(n) for n in range(1, 45)]
    assert {item.fact for item in checklist.items() if item.fact} == set(checklist.FACTS)


def test_an_item_is_open_exactly_where_the_run_knows_nothing(record: dict[str, Any], further: dict[str, Any]) -> None:
    for row in checklist.fill(record, {}):
        assert (row["status"] == "open") == (not row["answer"])
        assert (row["status"] == "answered") == (bool(row["answer"]) and not row["left"])
    rows = {(row["standard"], row["number"]): row for row in checklist.fill(record, further)}
    assert "69" in rows["CLAIM", "37"]["answer"] or "%" in rows["CLAIM", "37"]["answer"]
    assert rows["CLAIM", "30"]["status"] == "partly"  # measured with another model than the winner
    assert rows["TRIPOD+AI", "17"]["status"] == "open"  # ethics: no run knows
    assert "sex" in rows["TRIPOD+AI", "14"]["answer"]


def test_the_checklist_is_markdown_without_the_markup_of_users(record: dict[str, Any], tmp_path: Path) -> None:
    record["data"]["description"] = f"{HOSTILE}\n# heading\n[link](javascript:alert(1)) | cell"
    (tmp_path / "bakeoff.json").write_text(json.dumps(record), encoding="utf-8")
    write_report(tmp_path, photos=False)
    text = (tmp_path / "checklist.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "[link](" not in text
    assert "\n# heading" not in text
    assert text.count("- [") == len(checklist.items())


def test_the_model_card_is_read_by_the_hub_library(record: dict[str, Any], further: dict[str, Any]) -> None:
    from huggingface_hub import ModelCard

    text = model_card(record, further)
    assert text is not None
    card = ModelCard(text)
    found = {result.metric_type: result.metric_value for result in card.data.eval_results or []}
    winner = next(item for item in record["candidates"] if item["winner"])
    assert found["accuracy"] == pytest.approx(winner["metrics"]["top1"]["value"])
    assert card.data.pipeline_tag == "image-classification"
    for heading in ("Warnings", "Intended use and limits", "Data", "Licences and lineage", "How good it is"):
        assert f"## {heading}" in text
    top1 = winner["metrics"]["top1"]
    assert f"{100 * top1['low']:.1f}–{100 * top1['high']:.1f}" in text
    assert "viable with conditions" in text
    assert "### For whom it works less well" in text


def test_the_model_card_escapes_what_users_wrote(record: dict[str, Any]) -> None:
    winner = next(item for item in record["candidates"] if item["winner"])
    record["data"] |= {"name": f"{HOSTILE}\n---\nlicense: mit", "description": "[a](javascript:x) **b** <b>c</b>"}
    record["reproduce"]["config_yaml"] = "data: x\n```\n# out of the fence\n"
    winner["name"] = f"a: b {HOSTILE} # c"
    text = model_card(record, {})
    assert text is not None
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    data = yaml.safe_load(front)
    assert data["license"] == "other"
    assert data["model-index"][0]["name"] == winner["name"]
    assert "<script" not in body
    assert "[a](" not in body
    assert "<b>" not in body
    assert "\n---\n" not in body
    assert "\n````yaml\n" in body
    assert "&lt;script" in body


def test_no_winner_no_card(record: dict[str, Any]) -> None:
    for item in record["candidates"]:
        item["winner"] = False
    assert model_card(record, {}) is None


def test_the_winners_run_folder_gets_the_card(record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bakeoff.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "assessment").mkdir()
    (tmp_path / "assessment" / "selective.json").write_text(json.dumps({"skipped": "hard labels"}), encoding="utf-8")
    page = write_report(tmp_path, photos=False).read_text(encoding="utf-8")
    assert "Not computed: hard labels." in page
    winner = next(item for item in record["candidates"] if item["winner"])
    assert (tmp_path / winner["run"] / "MODEL_CARD.md").read_text(encoding="utf-8") == model_card(
        record, {"selective": {"skipped": "hard labels"}}
    )


def item_of(record: dict[str, Any], parts: dict[str, Any], standard: str, number: str) -> dict[str, Any]:
    rows = {(row["standard"], row["number"]): row for row in checklist.fill(record, parts)}
    return rows[standard, number]


def test_the_checklist_names_the_inputs_that_the_fitted_plans_hold(record: dict[str, Any]) -> None:
    winner = next(item for item in record["candidates"] if item["winner"])
    record["data"]["missing"].append({"column": "biopsed", "share": 0.0})
    winner["questionnaire"] = ["age", "itch"]
    answer = item_of(record, {}, "TRIPOD+AI", "9a")["answer"]
    given, _, kept_out = answer.partition("never given to the model:")
    assert "the photo and the questionnaire's age, itch" in given
    assert "biopsed" not in given
    assert "biopsed" in kept_out
    del winner["questionnaire"]  # a record of an earlier version
    unknown = item_of(record, {}, "TRIPOD+AI", "9a")
    assert unknown["status"] == "partly"
    assert "biopsed" not in unknown["answer"]


def test_robustness_is_told_as_it_was_measured(record: dict[str, Any], further: dict[str, Any]) -> None:
    other = item_of(record, further, "CLAIM", "30")
    assert other["status"] == "partly"
    assert "clip-fusion itself" in other["left"]
    assert "200 of 842" in other["left"]
    assert "lite0-fusion on 200 photos of 150 patients: 2 corruptions (hair, blur), severity 1, 3, 5" in other["answer"]
    own = {"robustness": further["robustness"] | {"model": "clip-fusion", "n": 842}}
    assert item_of(record, own, "CLAIM", "30")["status"] == "answered"
    skipped = {"robustness": {"skipped": "looks at no photo"}}
    assert item_of(record, skipped, "CLAIM", "30")["status"] == "open"


def test_what_nobody_measured_is_not_ticked(record: dict[str, Any], further: dict[str, Any]) -> None:
    assert item_of(record, {}, "TRIPOD+AI", "23a")["status"] == "partly"
    assert item_of(record, further, "TRIPOD+AI", "23a")["status"] == "answered"
    region = {"subgroups": {"columns": {"region": {}}}}
    assert (
        item_of(record, region, "TRIPOD+AI", "23a")["status"] == "partly"
    )  # a place of the body is no group of people
    for number in ("12f", "24"):
        assert item_of(record, further, "TRIPOD+AI", number)["status"] == "open"


def test_waived_overlap_is_not_called_unseen(record: dict[str, Any]) -> None:
    assert item_of(record, {}, "CLAIM", "20")["status"] == "answered"
    finding = {"code": "group-overlap", "severity": "error", "message": "3 patients stand in two parts.", "remedy": ""}
    record["findings"].append(finding | {"waived": True})
    assert item_of(record, {}, "CLAIM", "20")["status"] == "partly"
    assert "3 patients stand in two parts" in item_of(record, {}, "CLAIM", "32")["answer"]


def test_a_prevalence_that_hides_the_ill_leads_with_what_is_lost(further: dict[str, Any]) -> None:
    part = json.loads(json.dumps(further["prior_shift"]))
    part["top1"] = {
        "before": estimate(0.914, 0.01),
        "after": estimate(0.968, 0.01),
        "difference": estimate(0.054, 0.01),
    }
    part["majority"] = {"class": "ACK", "top1": 0.97}
    part["per_class"]["MEL"]["recall"] = {
        "before": estimate(0.816, 0.05),
        "after": estimate(0.492, 0.05),
        "difference": estimate(-0.324, 0.05),
    }
    shown = next(item for item in parts.view({"prior_shift": part}) if item["name"] == "prior_shift")
    words = shown["sentence"]
    assert words.index("49.2%") < words.index("96.8%")
    assert "81.6%" in words
    assert "always answering ACK would be right in 97.0%" in words
    assert shown["tone"] == "bad"
    heads = [cell["text"] for block in shown["blocks"] if block["kind"] == "table" for cell in block["head"]]
    assert "Corrected from (val)" in heads
    assert not [head for head in heads if "training" in head]


def test_columns_that_leak_for_one_reason_are_told_with_it_once(further: dict[str, Any]) -> None:
    part = json.loads(json.dumps(further["leak"]))
    reason = "blank in the same 331 photos"
    part["models"][0]["columns"] = [{"column": name, "kind": "blank", "reason": reason} for name in ("smoke", "drink")]
    assert json.dumps(parts.view({"leak": part})).count(reason) == 1
    assert "smoke, drink: blank" in json.dumps(parts.view({"leak": part}))
