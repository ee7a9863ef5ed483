"""The page of a paired comparison: who is better in words, every pair with its interval, and no name as markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from as_browser import HOSTILE, Page
from made_up import as_table, simulated

from dermlab.core.errors import InputError
from dermlab.core.files import json_ready
from dermlab.evaluate import compare_predictions, write_predictions
from dermlab.report.comparison import write_comparison

SEEDS = {
    "n": 240,
    "n_groups": 90,
    "unit": "image",
    "group_by": "patient_id",
    "split": "test",
    "level": 0.95,
    "recipes": [
        {
            "name": name,
            "n_seeds": 3,
            "seeds": [1, 2, 3],
            "metrics": {
                "top1": {"value": 0.6, "low": 0.5, "high": 0.7, "sd_runs": 0.017, "sd_seeds": 0.0, "sd_groups": 0.041}
            },
        }
        for name in ("strong", "weak")
    ],
    "comparisons": [
        {
            "a": "strong",
            "b": "weak",
            "metric": "top1",
            "difference": 0.11,
            "low": 0.02,
            "high": 0.2,
            "p_adjusted": 0.01,
            "verdict": "a better",
        }
    ],
    "warnings": ["only three seeds a side"],
}


def compared(folder: Path, **skills: float) -> list[dict[str, Any]]:
    """Compare made-up models that know the same classes more or less well."""
    tables = {}
    for name, skill in skills.items():
        label, _, group = simulated(3, 240, 90)
        path = folder / f"{name}.parquet"
        tables[name] = write_predictions(
            path, as_table(label, simulated(3, 240, 90, skill=skill)[1], group), {"group_by": "patient_id"}
        )
    entries = compare_predictions(tables, metrics=("top1", "auroc"), margin=0.02, n_boot=100, n_permutations=99)
    return json.loads(json.dumps(json_ready(entries)))


def page_of(entries: list[dict[str, Any]], folder: Path, seeds: dict[str, Any] | None = None) -> Page:
    folder.mkdir(exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps(entries), encoding="utf-8")
    if seeds is not None:
        (folder / "seeds.json").write_text(json.dumps(seeds), encoding="utf-8")
    return Page(write_comparison(folder).read_text(encoding="utf-8"))


@pytest.fixture
def entries(tmp_path: Path) -> list[dict[str, Any]]:
    return compared(tmp_path, strong=4.0, weak=0.5, middling=1.5)


def test_every_pair_stands_there_with_effect_interval_and_verdict(entries: list[Any], tmp_path: Path) -> None:
    words = page_of(entries, tmp_path / "out").words
    for entry in entries:
        scale, digits = (100, 1) if entry["metric"] == "top1" else (1, 3)
        for key in ("difference", "low", "high"):
            assert f"{scale * entry[key]:+.{digits}f}".replace("-", "−") in words
    assert "strong is better; strong is not worse by more than 2 points" in words
    assert "strong is not worse by more than 0.02" in words
    assert "240 paired test cases of" in words


def test_two_models_that_are_one_cannot_be_told_apart(tmp_path: Path) -> None:
    page = page_of(compared(tmp_path, one=1.5, other=1.5), tmp_path / "out")
    assert "these data cannot tell one and other apart" in page.words
    assert ("section", "class", "decision cannot-tell") in page.attributes
    assert "equivalent" in page.words


def test_the_axis_holds_zero_and_both_signs(tmp_path: Path) -> None:
    words = page_of(compared(tmp_path, weak=0.5, strong=4.0), tmp_path / "out").words
    assert "weak − strong second better" in words
    assert " 0 " in words[words.index("second better") :]


def test_the_page_stands_alone_and_can_be_read_aloud(entries: list[Any], tmp_path: Path) -> None:
    page = page_of(entries, tmp_path / "out", SEEDS)
    page.check_self_contained()
    page.check_accessible()


def test_training_seeds_have_their_part_where_they_were_compared(entries: list[Any], tmp_path: Path) -> None:
    assert "Training seeds" not in page_of(entries, tmp_path / "without").words
    words = page_of(entries, tmp_path / "with", SEEDS).words
    assert words.index("Only three seeds a side.") < words.index("Top-1 accuracy")
    told = words[words.index("One trained model") :]
    for part in ("+2.0 to +20.0", "1.7", "0.0", "4.1", "strong is better"):
        assert part in told
    assert "by top-1 accuracy strong is better than every other model, and all other pairs differ too." in words


def test_the_recipes_lead_where_there_are_seeds(entries: list[Any], tmp_path: Path) -> None:
    """The interval that allows for another training is the wider one, and what is claimed first."""
    doubtful = json.loads(json.dumps(SEEDS))
    doubtful["comparisons"][0] |= {"low": -0.02, "high": 0.24, "p_adjusted": 0.1, "verdict": "cannot tell apart"}
    page = page_of(entries, tmp_path / "out", doubtful)
    told = (
        "As recipes, over training seeds (strong 3, weak 3), by top-1 accuracy these data cannot tell strong and weak"
    )
    place = page.words.index(told)
    assert "the difference is +11.0 points (−2.0 to +24.0)" in page.words[place:]
    assert place < page.words.index("Of these trained models only, which is a narrower claim: by top-1 accuracy")
    assert page.words.index("One trained model against") < page.words.index("What follows compares these trained")
    assert ("section", "class", "decision cannot-tell") in page.attributes


def test_the_margin_is_drawn_and_its_verdicts_are_not_oversold(entries: list[Any], tmp_path: Path) -> None:
    page = page_of(entries, tmp_path / "out")
    assert "2 points or 0.02; 'not worse' and 'equivalent' hold for each pair and metric by itself" in page.words
    assert sum(value == "edge" for tag, name, value in page.attributes if (tag, name) == ("span", "class")) == 12
    assert "Holm's adjustment is over the 3 pairs of this metric, not over the metrics" in page.words
    assert "these data cannot tell apart. It does not say" not in page.words
    assert "models of different ranks need not differ significantly" in page.words


def test_names_of_users_stay_text(tmp_path: Path) -> None:
    clean = compared(tmp_path, strong=4.0, weak=0.5)
    soiled = json.loads(json.dumps(clean).replace('"strong"', json.dumps(HOSTILE)))
    for entry in soiled:
        entry |= {"group_by": HOSTILE, "warnings": [HOSTILE], "test": HOSTILE}
    for entry in clean:
        entry["warnings"] = ["one"]
    page = page_of(soiled, tmp_path / "soiled")
    assert page.tags == page_of(clean, tmp_path / "clean").tags
    page.check_self_contained()


def test_a_folder_without_pairs_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="holds no compared pairs"):
        write_comparison(tmp_path)
