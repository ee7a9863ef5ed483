"""What a bake-off's dry run measures: each recipe as it is, or it says what it left out. Tiny random networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dermlab.bench.config import BakeoffConfig
from dermlab.bench.planning import lines, plan_costs
from dermlab.core.config import validate
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset

RECIPE: dict[str, Any] = {
    "encoder": "timm:resnet18+random",
    "channels": [8, 8, 8, 8],
    "size_px": 32,
    "frozen_epochs": 1,
    "finetune_epochs": 2,
    "batch_size": 8,
    "augmentation": "none",
}


def config(data: Path, *changes: dict[str, Any], **over: Any) -> BakeoffConfig:
    candidates = [{"name": f"r{place}", "finetune": RECIPE, "changes": change} for place, change in enumerate(changes)]
    return validate(
        BakeoffConfig, {"data": data, "device": "cpu", "precision": "fp32", "candidates": candidates, **over}
    )


def test_steps_are_of_photos_of_cases_and_of_all_devices(clinic: Path) -> None:
    lesions = {"case": "lesion", "case_photos": 2, "mixup": 0.0}
    several = {"devices": 2, "compile": True}
    photos, cases, two = plan_costs(config(clinic, {}, lesions, several, price_per_hour=2.0))
    dataset = Dataset.open(clinic)
    part = dataset.read_split("main").set_index("image_id")["split"]
    train = dataset.manifest[(part == "train").loc[dataset.manifest["image_id"]].to_numpy()]
    assert [phase.steps for phase in photos.phases] == [len(train) // 8, 2 * (len(train) // 8)]
    assert [phase.steps for phase in cases.phases] == [n * (train["lesion_id"].nunique() // 8) for n in (1, 2)]
    assert two.phases[0].steps == len(train) // 16
    assert photos.not_measured == cases.not_measured == ()
    assert len(two.not_measured) == 2
    for item in (photos, cases, two):
        assert not item.error
        assert all(phase.seconds_per_step > 0 for phase in item.phases)
        assert item.hours is not None
        assert item.price == pytest.approx(2 * item.hours)
    told = lines([photos, two])
    assert any("r2: not in it: torch.compile" in line for line in told)
    assert not any("r0: not in it" in line for line in told)


@pytest.mark.parametrize("target", ["signs", "severity"])
def test_other_targets_are_measured_by_their_own_loss(clinic: Path, target: str) -> None:
    changes = {"loss": "ordinal"} if target == "severity" else {"head": "fusion"}
    (found,) = plan_costs(config(clinic, {**changes, "frozen_epochs": 0}, target=target))
    assert not found.error
    assert [phase.name for phase in found.phases] == ["finetune"]
    assert found.phases[0].memory_gb > 0


def test_a_recipe_that_cannot_be_measured_says_why(clinic: Path) -> None:
    (found,) = plan_costs(config(clinic, {"loss": "ordinal"}, target="diagnosis"))
    assert "loss: ordinal" in found.error
    with pytest.raises(InputError, match="there is none"):
        plan_costs(validate(BakeoffConfig, {"data": clinic, "encoders": ["histogram"]}))
