from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dermlab.bench.config import BakeoffConfig, folder_name, short_encoder
from dermlab.commands.demo import RECIPE
from dermlab.core.config import validate
from dermlab.core.errors import InputError

RECIPES = Path(__file__).parents[2] / "configs" / "bakeoff"


def made(**fields: Any) -> BakeoffConfig:
    return validate(BakeoffConfig, {"data": "clinic", **fields})


def test_encoders_and_heads_are_crossed_and_candidates_follow() -> None:
    config = made(
        encoders=["resnet50", "timm:vit_tiny"],
        heads=["linear", {"kind": "knn", "k": [5]}],
        candidates=[{"name": "questions only", "head": {"kind": "questionnaire"}}],
    )
    names = [candidate.label for candidate in config.everything()]
    assert names == ["resnet50-linear", "resnet50-knn", "vit_tiny-linear", "vit_tiny-knn", "questions only"]
    assert config.everything()[1].head.k == (5,)


@pytest.mark.parametrize(
    ("fields", "place", "told"),
    [
        ({"candidates": [{"encoder": "resnet50", "head": {"kind": "forest"}}]}, "candidates.0.head.kind", "'forest'"),
        ({"candidates": [{"encoder": "resnet50", "head": "forest"}]}, "candidates.0.head.kind", "'forest'"),
        ({"candidates": [{"encoder": "resnet50"}]}, "candidates.0", "head is required"),
        ({"candidates": [{"head": "linear"}]}, "candidates.0", "encoder is required"),
        ({"candidates": [{"encoder": "resnet50", "head": "majority"}]}, "candidates.0", "looks at no photo"),
        ({"encoders": ["a"], "heads": ["linear", "questionnaire"]}, "heads.1", "floors"),
        ({"encoders": ["a"], "metric": "accuracy"}, "metric", "'top1'"),
        ({"encoders": ["a"], "use": "comercial"}, "use", "'commercial'"),
        ({"encoders": ["a"], "folds": 1}, "folds", "greater than or equal to 2"),
        ({"encoders": ["a"], "margin": 0.1}, "margin", "baseline"),
        ({"encoders": ["a"], "margin": 2, "baseline": "b.csv"}, "margin", "less than 1"),
        ({"encoders": ["a"], "repeats": 2}, "repeats", "folds"),
        ({"encoders": ["a"], "encoder": "b"}, "encoder", "no such field"),
        ({}, "", "no candidate"),
        ({"encoders": ["a", "a"]}, "candidates", "'a-linear' and 'a-linear' have the same name"),
        ({"candidates": [{"name": "ensemble", "encoder": "a", "head": "knn"}]}, "candidates", "same name"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(fields: dict[str, Any], place: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        made(**fields)
    assert place in str(caught.value)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_split_says_how_it_was_made() -> None:
    assert made(encoders=["a"]).split_name == "main"
    assert made(encoders=["a"], folds=5, seed=17).split_name == "folds5-seed17"
    assert made(encoders=["a"], folds=5, repeats=3).split_name == "folds5x3-seed0"
    assert made(encoders=["a"], folds=5, split="official").split_name == "official"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("resnet50", "resnet50"),
        ("timm:convnextv2_tiny.fcmae_ft_in22k_in1k", "convnextv2_tiny.fcmae_ft_in22k_in1k"),
        ("hf:google/medsiglip-448", "medsiglip-448"),
        ("efficientnet_lite0+random", "efficientnet_lite0+random"),
        ("runs/dino-7/encoder", "dino-7"),
        ("weights/panderm.safetensors", "panderm"),
        ("timm:vit_tiny@weights/own.safetensors", "own"),
    ],
)
def test_encoders_get_short_names(name: str, short: str) -> None:
    assert short_encoder(name) == short


@pytest.mark.parametrize("label", ["../../etc", "a/b", "  ", "<script>", "naïve model", "C:\\x", "..."])
def test_a_candidate_cannot_leave_its_folder(label: str) -> None:
    folder = folder_name(label)
    assert folder
    assert Path("runs", folder).resolve().parent == Path("runs").resolve()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_are_valid_and_fit_on_a_page(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (40 if "finetune:" in text else 20)
    config = validate(BakeoffConfig, {"data": "somewhere", **yaml.safe_load(text)}, source=str(path))
    assert config.everything()


def test_the_demo_runs_the_recipe_that_is_written_down() -> None:
    assert yaml.safe_load((RECIPES / "demo.yaml").read_text(encoding="utf-8")) == RECIPE
