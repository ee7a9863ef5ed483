"""Whole runs on the synthetic clinic: what is left out, what is left behind, and what a kill cannot change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from tiny_runs import TINY, pretrain

import dermlab
from dermlab.core.config import validate
from dermlab.core.errors import InputError
from dermlab.data.dataset import Dataset
from dermlab.data.splits import split_by_fraction
from dermlab.data.synthetic import make_clinic
from dermlab.models.encoders import create_encoder, save_encoder
from dermlab.pretrain import run as run_module
from dermlab.pretrain.config import PretrainSettings
from dermlab.pretrain.networks import build_backbone
from dermlab.pretrain.photos import gather_photos
from dermlab.pretrain.run import build_method, make_groups, values_at
from dermlab.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.parametrize("method", ["ibot", "simclr", "byol", "panderm"])
def test_each_method_ends_in_an_encoder(clinic: Path, tmp_path: Path, method: str) -> None:
    found = pretrain(clinic, tmp_path / "run", method, epochs=1)
    encoder, _ = create_encoder(str(found.encoder))
    with torch.no_grad():
        assert torch.isfinite(encoder(torch.zeros(1, 3, 32, 32))).all()
    assert (tmp_path / "run" / "views.png").is_file()
    (row,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["history"]
    assert np.isfinite(row["loss"])
    assert row["n_skipped"] == 0


def test_plain_timm_loads_the_encoder_and_gives_its_features(dino_run: Any) -> None:
    ours, preprocess = create_encoder(str(dino_run.encoder))
    theirs = timm.create_model(f"local-dir:{dino_run.encoder}", pretrained=True, num_classes=0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))
    assert preprocess.size_px == 32
    # The teacher's weights of the best epoch, and not random ones.
    best, record = load_checkpoint(dino_run.path / "checkpoints" / "best.safetensors")
    torch.testing.assert_close(theirs.state_dict()["blocks.0.attn.qkv.weight"], best["blocks.0.attn.qkv.weight"])
    assert record["epoch"] == dino_run.best_epoch


def test_the_card_tells_data_and_what_was_left_out(dino_run: Any) -> None:
    card = yaml.safe_load((dino_run.encoder / "card.yaml").read_text())
    assert len(card["trained_on"]) == 1
    assert any("left out, the test part of split 'main'" in text for text in card["cautions"])


def test_the_config_of_a_run_leaves_nothing_open(dino_run: Any) -> None:
    config = yaml.safe_load((dino_run.path / "config.yaml").read_text())["config"]
    open_still = {name for name, value in config.items() if value is None}
    assert open_still == {"from_encoder", "monitor_target"}
    assert [group["name"] for group in config["views"]] == ["global", "global", "local"]


def test_a_run_stopped_within_an_epoch_ends_bit_equal(
    clinic: Path, tmp_path: Path, dino_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = 0

    def save_and_die(*args: Any) -> None:
        nonlocal saves
        save_checkpoint(*args)
        saves += args[0].name == run_module.LAST_FILE
        if saves == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "save_checkpoint", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        pretrain(clinic, tmp_path / "run", "dino", checkpoint_steps=2)
    monkeypatch.undo()
    _, record = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert record["course"]["position"] == 4  # within the first epoch
    found = pretrain(clinic, tmp_path / "run", "dino", checkpoint_steps=2)
    ours, theirs = (
        load_checkpoint(path / "checkpoints" / "last.safetensors")[0] for path in (found.path, dino_run.path)
    )
    assert ours.keys() == theirs.keys()
    assert any("teacher" in name for name in ours)
    assert any("criterion.center" in name for name in ours)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    histories = [json.loads((path / "metrics.json").read_text())["history"] for path in (found.path, dino_run.path)]
    assert histories[0] == histories[1]


def test_a_finished_run_is_read_and_another_config_refused(clinic: Path, dino_run: Any) -> None:
    again = pretrain(clinic, dino_run.path, "dino")
    assert again.seconds == dino_run.seconds
    with pytest.raises(InputError, match="learning_rate"):
        pretrain(clinic, dino_run.path, "dino", learning_rate=1e-2)


# ---------------------------------------------------------------- photos


def test_test_photos_their_patients_and_their_copies_stay_out(clinic: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(clinic)
    settings = PretrainSettings(method="dino")
    photos = gather_photos([dataset, dataset], settings)
    part, groups = dataset.read_split("main")["split"].to_numpy(str), dataset.groups()
    first = photos.rows[photos.rows < len(dataset)]
    assert not set(groups[first]) & set(groups[part == "test"])
    np.testing.assert_array_equal(first + len(dataset), photos.rows[photos.rows >= len(dataset)])
    assert len(photos.rows) + len(photos.withheld) == 2 * len(dataset)
    for one in photos.labelled:
        rows = np.concatenate([one.bank, one.queries]) % len(dataset)
        assert set(part[rows]) == {"train", "val"}
        assert not set(one.bank) & set(one.queries)
    # The same files in a folder without a split: held back by their content.
    contents = [str(row % len(dataset)) for row in range(2 * len(dataset))]
    blind = gather_photos([dataset], settings)
    merged = type(photos)(
        photos.paths, np.r_[blind.rows, len(dataset) + np.arange(len(dataset))], blind.withheld, [], [], []
    )
    kept = merged.without_copies(contents) % len(dataset)
    assert not set(groups[kept]) & set(groups[part == "test"])


def test_folders_without_the_split_are_refused_or_warned_of(tmp_path: Path, clinic: Path) -> None:
    with pytest.raises(InputError, match=r"has no split 'other'.*--split one of folds3, main"):
        gather_photos([Dataset.open(clinic)], PretrainSettings(method="dino", split="other"))
    with pytest.raises(InputError, match="has no fold 7"):
        gather_photos([Dataset.open(clinic)], PretrainSettings(method="dino", split="folds3", fold=7))
    folds = gather_photos([Dataset.open(clinic)], PretrainSettings(method="dino", split="folds3", fold=1))
    assert any("has 3 folds" in text for text in folds.warnings)
    bare = make_clinic(tmp_path / "bare", n=20, size_px=32, seed=1)
    photos = gather_photos([bare], PretrainSettings(method="dino"))
    assert len(photos.rows) == len(bare)
    assert "has no split" in photos.warnings[0]
    assert photos.labelled == []
    bare.write_split("main", split_by_fraction(bare, (0.6, 0.2, 0.2), seed=0))
    all_of_them = gather_photos([bare], PretrainSettings(method="dino", include_test=True))
    assert len(all_of_them.rows) == len(bare)
    assert "test photos" in all_of_them.warnings[0]


# ---------------------------------------------------------------- recipes and schedules


def test_dino_s_defaults_follow_the_number_of_photos() -> None:
    """The steps and ends of lightly-train's defaults."""
    small, middle, large = (PretrainSettings(method="dino").resolved(n) for n in (2_000, 60_000, 1_000_000))
    assert [one.out_dim for one in (small, middle, large)] == [1024, 4096, 65_536]
    assert [one.teacher_temperature for one in (small, large)] == [0.02, 0.07]
    assert [one.momentum for one in (small, large)] == [0.99, 0.996]
    assert small.momentum < middle.momentum < large.momentum  # type: ignore[operator]
    assert [one.epochs for one in (small, middle, large)] == [400, 100, 100]
    kept = PretrainSettings(method="dino", out_dim=77, momentum=0.5, epochs=3).resolved(2_000)
    assert (kept.out_dim, kept.momentum, kept.epochs) == (77, 0.5, 3)
    assert kept.resolved(2_000) == kept


def test_schedules_at_the_start_the_middle_and_the_end() -> None:
    s = PretrainSettings(
        method="dino", epochs=10, momentum=0.99, teacher_temperature=0.07, warmup_teacher_temperature=0.03,
        teacher_temperature_warmup_epochs=4, freeze_last_layer_epochs=1, backbone_warmup_epochs=2,
    ).resolved(1000)  # fmt: skip
    n_steps = 101
    start, middle, end = (values_at(s, step, n_steps, 10) for step in (0, 50, 100))
    assert [v.weight_decay for v in (start, middle, end)] == pytest.approx([0.04, 0.22, 0.4])
    assert [v.momentum for v in (start, middle, end)] == pytest.approx([0.99, 0.995, 1.0])
    assert [v.teacher_temperature for v in (start, values_at(s, 20, n_steps, 10), middle)] == pytest.approx(
        [0.03, 0.05, 0.07]
    )
    assert [values_at(s, step, n_steps, 10).last_layer_frozen for step in (0, 9, 10)] == [True, True, False]
    assert [values_at(s, step, n_steps, 10).backbone_frozen for step in (0, 19, 20)] == [True, True, False]


@pytest.mark.parametrize("method", ["dino", "ibot", "simclr", "byol", "panderm"])
def test_every_trainable_tensor_is_in_the_optimiser_once(method: str) -> None:
    settings = PretrainSettings(method=method, **TINY).resolved(100)  # type: ignore[arg-type]
    model, backbone = build_method(settings)
    groups = make_groups(model, backbone, settings)
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    names = [name for group in groups for name in group["names"]]
    assert any("predictor" in name for name in names) == (method == "byol")
    assert {group["part"] for group in groups} == {"backbone", "head"} | (
        {"last"} if method in ("dino", "ibot") else set()
    )


def test_what_does_not_go_together_is_said(clinic: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "ibot", "network": "resnet18"}, "hides patches"),
        ({"method": "dino", "network": "vit_tiny", "small_stem": True}, "only ResNets"),
        ({"method": "dino", "from": "vit_tiny", "patch_size": 8}, "go with random weights"),
        ({"method": "mae"}, "dino"),
    ]
    for fields, words in cases:
        with pytest.raises(InputError, match=words):
            validate(PretrainSettings, fields, source="test")
    with pytest.raises(InputError, match="is none of vit_tiny"):
        build_method(PretrainSettings(method="dino", network="vit_mega").resolved(100))


def test_a_small_stem_survives_the_folder(tmp_path: Path) -> None:
    made = build_backbone("resnet18", size_px=16, small_stem=True)
    encoder: Any = create_encoder(str(save_encoder(made, tmp_path / "encoder")))[0]
    assert encoder.network.conv1.kernel_size == (3, 3)
    assert encoder.network.conv1.stride == (1, 1)
    assert encoder.fingerprint == made.fingerprint


# ---------------------------------------------------------------- continuing


def test_going_on_from_weights_moves_heads_first_and_ends_no_worse(clinic: Path, tmp_path: Path, dino_run: Any) -> None:
    changes: dict[str, Any] = {"from": str(dino_run.encoder), "patch_size": None, "epochs": 1}
    # By default the first epoch is the heads' alone.
    found = pretrain(clinic, tmp_path / "run", "dino", keep="last", **changes)
    start, end = (create_encoder(str(place))[0].network.state_dict() for place in (dino_run.encoder, found.encoder))
    assert [name for name in start if not torch.equal(start[name], end[name])] == []
    assert found.knn_best >= found.knn_start
    again = pretrain(clinic, tmp_path / "again", "dino", keep="last", **{**changes, "backbone_warmup_epochs": 0})
    moved = create_encoder(str(again.encoder))[0].network.state_dict()
    assert not torch.equal(start["blocks.0.attn.qkv.weight"], moved["blocks.0.attn.qkv.weight"])
    card = yaml.safe_load((found.encoder / "card.yaml").read_text())
    first = yaml.safe_load((dino_run.encoder / "card.yaml").read_text())
    assert card["trained_on"] == first["trained_on"]  # what the first weights were made from, and no path


def test_a_falling_knn_ends_a_run_from_weights(
    clinic: Path, tmp_path: Path, dino_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    monkeypatch.setattr(
        run_module, "look", lambda *args, **kw: {"knn": next(scores), "knn_by_set": {}, "spread": 1.0, "rank": 9.0}
    )
    found = pretrain(
        clinic, tmp_path / "run", "dino", epochs=5, monitor_epochs=1, patch_size=None, **{"from": str(dino_run.encoder)}
    )
    assert found.best_epoch == 0
    start, end = (create_encoder(str(place))[0].network.state_dict() for place in (dino_run.encoder, found.encoder))
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert len(json.loads((tmp_path / "run" / "metrics.json").read_text())["history"]) == 3
    assert "knn-falling" in [alarm["name"] for alarm in found.alarms]


def test_the_public_door_says_what_is_missing() -> None:
    with pytest.raises(InputError, match="method"):
        dermlab.pretrain(data=["x"], out="y")
