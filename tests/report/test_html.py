"""The page: its structure, its words, and that no text of a user becomes markup."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from as_browser import HOSTILE, Page

from dermlab.core.errors import InputError
from dermlab.report.html import render, write_report
from dermlab.report.view import view

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def test_the_page_has_every_section_and_links_to_them(record: dict[str, Any]) -> None:
    page = Page(render(record, {}))
    sections = ["asked", "leaderboard", "differences", "winner", "data", "licences", "cost", "reproduce", "words"]
    assert [name for name in page.ids if name in sections] == sections
    for _, name, value in page.attributes:
        if name == "href":
            assert value.removeprefix("#") in page.ids


def test_the_decision_stands_first_with_its_numbers_and_n(record: dict[str, Any]) -> None:
    words = Page(render(record, {})).words
    decision = words.index("Ship clip-fusion instead of gen2a")
    assert words.index("✓ GO") < decision < words.index("What was asked")
    for part in ("842 photos", "of 657 patients", "+7.1 points", "viable with conditions", "2 conditions to meet"):
        assert part in words[: decision + 1500]


def test_worst_news_come_first_and_info_is_not_among_them(record: dict[str, Any]) -> None:
    record["waivers"] = ["waived group-overlap: 3 patients stand in two parts"]
    page = render(record, {})
    notes = page[page.index("Read this before") : page.index("<nav")]
    order = [
        notes.index(part)
        for part in ("3 patients stand in two parts", "medsiglip-linear failed", "Label proxy", "did not converge")
    ]
    assert order == sorted(order)
    assert "12 photos look blurred" not in notes


def test_every_number_of_the_leaderboard_has_its_interval_and_n(record: dict[str, Any]) -> None:
    words = Page(render(record, {})).words
    for item in record["candidates"]:
        if item["status"] == "ok":
            top1 = item["metrics"]["top1"]
            assert f"{100 * top1['value']:.1f}%" in words
            assert f"{100 * top1['low']:.1f}–{100 * top1['high']:.1f}" in words
    assert "n = 35" in words


def test_pairs_that_cannot_be_told_apart_are_said_to_be_so(record: dict[str, Any]) -> None:
    words = Page(render(record, {})).words
    assert "these data cannot tell them apart" in words
    assert words.count("≈ ") >= 2 * sum(pair["verdict"] == "cannot tell apart" for pair in record["comparison"])


def test_the_matrix_of_pairs_turns_signs_for_the_lower_half(record: dict[str, Any]) -> None:
    record["candidates"] = record["candidates"][1:3]
    (pair,) = [p for p in record["comparison"] if {p["a"], p["b"]} == {"clip-fusion", "clip-linear"}]
    pair.update(difference=0.05, low=0.01, high=0.09, verdict="a better")
    page = render(record, {})
    matrix = page[page.index('id="differences"') :]
    assert "▲ +5.0" in matrix
    assert "▼ −5.0" in matrix
    assert "clip-linear − clip-fusion: −5.0 (−9.0 to −1.0)" in matrix


def test_floors_failures_and_what_may_not_ship_are_marked(record: dict[str, Any]) -> None:
    page = render(record, {})
    table = page[page.index('id="leaderboard"') : page.index('id="differences"')]
    for name, tag in (
        ("majority", "floor"),
        ("medsiglip-linear", "failed"),
        ("panderm-linear", "may not ship"),
        ("clip-fusion", "winner"),
        ("lite0-linear", "not ranked"),
    ):
        assert re.search(
            rf"<strong>{name}</strong>(?:\s*<span[^>]*>[^<]*</span>)*?\s*<span[^>]*>{tag}</span>", table
        ), (name, tag)


def test_it_loads_nothing_from_anywhere(record: dict[str, Any]) -> None:
    text = render(record, {record["candidates"][1]["mistakes"][0]["image_id"]: PIXEL})
    page = Page(text)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "srcset", "data", "poster", "action"):
            assert value.startswith(("data:image/", "#")), (tag, name, value)
    assert page.tags.count("script") == 1
    assert not {"link", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert "@import" not in text
    assert "url(" not in text
    policy = next(value for tag, name, value in page.attributes if tag == "meta" and value.startswith("default-src"))
    assert "default-src 'none'" in policy


def test_the_policy_names_the_hash_of_the_one_script(record: dict[str, Any]) -> None:
    import base64
    import hashlib

    text = render(record, {})
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text.replace("&#39;", "'").replace("&#43;", "+")


def test_text_of_users_is_escaped_everywhere(record: dict[str, Any]) -> None:
    clean = Page(render(record, {}))
    kept = ("status", "kind", "severity", "word", "verdict", "unit", "metric", "use", "classes")
    soiled = _soil(record, kept)
    text = render(soiled, {})
    page = Page(text)
    assert page.tags == clean.tags  # no text became a tag
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert "alert('x')" in page.words  # and none was lost


def _soil(record: dict[str, Any], kept: tuple[str, ...]) -> dict[str, Any]:
    """Put markup into every text of the record, class names too, but for the words of the format."""

    def soil(value: Any) -> Any:
        if isinstance(value, dict):
            named = value.keys() <= set(record["data"]["classes"])
            return {
                (key + HOSTILE if named else key): (item if key in kept and not isinstance(item, list) else soil(item))
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [soil(item) for item in value]
        return value + HOSTILE if isinstance(value, str) else value

    return soil(record)


def test_a_record_without_winner_baseline_pairs_or_photos_is_a_page_too(record: dict[str, Any]) -> None:
    record["candidates"] = [record["candidates"][-1]]
    record["baseline"] = None
    record["comparison"] = []
    record["decision"] = {
        "word": "NO WINNER",
        "sentence": "No candidate has a result.",
        "winner": None,
        "against": None,
        "fallback": None,
        "change": [],
    }
    record["data"] |= {"missing": [], "dropped": [], "quarantine": [], "samples": {}, "balance": [], "group_by": None}
    words = Page(render(record, {})).words
    assert "NO WINNER" in words
    assert "No candidate has a result" in words
    assert "nothing to compare" in words


def test_metrics_that_could_not_be_computed_are_said_to_be_absent(record: dict[str, Any]) -> None:
    metrics = record["candidates"][1]["metrics"]
    metrics["auroc"] = {"value": None, "low": None, "high": None}
    metrics["top1"] |= {"low": None, "high": None}
    metrics["per_class"]["SCC"] = {"n": 0, "recall": {"value": None, "low": None, "high": None}}
    words = Page(render(record, {})).words
    assert "n/a" in words
    assert "no interval" in words


def test_differences_without_an_interval_have_none_anywhere_on_the_page(record: dict[str, Any]) -> None:
    """Where all bootstrap replicates are alike both ends are null; no dash may stand for one."""
    for pair in [*record["comparison"], record["decision"]["against"]]:
        pair.update(low=None, high=None)
    page = render(record, {})
    assert "no interval" in Page(page).words
    assert "– to –" not in page
    assert "None" not in Page(page).words


def test_the_same_record_gives_the_same_bytes(record: dict[str, Any]) -> None:
    assert render(record, {}) == render(json.loads(json.dumps(record)), {})


def test_write_report_reads_the_folder_only(record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bakeoff.json").write_text(json.dumps(record), encoding="utf-8")
    path = write_report(tmp_path, photos=False)
    assert path == tmp_path / "report.html"
    assert path.read_text(encoding="utf-8") == render(record, {})


@pytest.mark.parametrize("content", ["{}", "[1]", '{"format": 99}', "not json"])
def test_a_folder_that_is_no_bakeoff_is_one_clear_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "bakeoff.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"bakeoff\.json"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        write_report(tmp_path / "nowhere")


def tiles_of(record: dict[str, Any]) -> str:
    return " ".join(
        " ".join(str(tile[key]) for key in ("label", "value", "note")) for tile in view(record, {}, {})["tiles"]
    )


def test_the_class_it_misses_most_stands_among_the_first_figures(record: dict[str, Any]) -> None:
    recall = {"value": 9 / 35, "low": 0.142, "high": 0.43}
    record["decision"]["weakest"] = [{"class": "SCC", "malignant": True, "n": 35, "n_found": 9, "recall": recall}]
    assert "of SCC it finds 26% 9 of 35; 95% interval 14–43" in tiles_of(record)
    del record["decision"]["weakest"]  # a record of an earlier version: by the winner's own figures
    per_class = next(item for item in record["candidates"] if item["winner"])["metrics"]["per_class"]
    worst = min(per_class, key=lambda name: per_class[name]["recall"]["value"])
    assert f"of {worst} it finds" in tiles_of(record)


def test_photos_that_training_may_have_held_are_not_called_unseen(record: dict[str, Any]) -> None:
    assert "none of them seen in training" in tiles_of(record)
    finding = {"code": "near-duplicates", "severity": "error", "message": "4 pairs.", "remedy": "", "waived": True}
    record["findings"].append(finding)
    assert "none of them seen in training" not in tiles_of(record)


def test_figures_of_fold_models_are_said_to_be_theirs(record: dict[str, Any]) -> None:
    told = "are those of 5 models, one for each fold"
    assert told in Page(render(record, {})).words
    assert "by 5 models" in tiles_of(record)
    record["data"]["split"] |= {"n_folds": 1}
    assert told not in Page(render(record, {})).words


def test_members_of_no_weight_are_left_out_of_the_ensembles_line(record: dict[str, Any]) -> None:
    record["candidates"][0]["weights"] = {"clip-fusion": 0.62, "lite0-fusion": 0.3795, "clip-knn": 0.0005}
    words = Page(render(record, {})).words
    assert "0.62 clip-fusion + 0.38 lite0-fusion" in words
    assert "0.00 clip-knn" not in words


def test_of_three_classes_no_top_3_is_shown(record: dict[str, Any]) -> None:
    assert "top3" in [column["key"] for column in view(record, {}, {})["columns"]]
    record["data"]["classes"] = record["data"]["classes"][:3]
    assert "top3" not in [column["key"] for column in view(record, {}, {})["columns"]]
