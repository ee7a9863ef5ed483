"""Fine-tuning on tiny networks: what is frozen stays, what is trained moves, what is saved is what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from dermlab.adapt.finetune import fit
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.adapt.finetune.network import build_network, freeze, train_mode
from dermlab.adapt.finetune.run import FittedFinetune, run_finetune, stratified
from dermlab.adapt.probe import ProbeResult
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import read_json
from dermlab.data.dataset import Dataset
from dermlab.training import loop
from dermlab.training.checkpoint import load_checkpoint

TINY: dict[str, Any] = {
    "encoder": "timm:test_resnet+random",
    "size_px": 32,
    "frozen_epochs": 1,
    "finetune_epochs": 2,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "max_train_samples": 70,
    "precision": "fp32",
    "device": "cpu",
    "n_boot": 100,
}


def settings(**changes: Any) -> FinetuneSettings:
    return FinetuneSettings(**{**TINY, **changes})


def train(clinic: Path, out: Path, **changes: Any) -> ProbeResult:
    return run_finetune(Dataset.open(clinic), settings(**changes), out)


def fold(result: ProbeResult) -> Path:
    return result.path / "checkpoints" / "repeat0-fold0"


FULL = {"ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0, "head": "fusion", "dropout": 0.2, "checkpoint_steps": 1}


@pytest.fixture(scope="module")
def whole(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    return train(clinic, tmp_path_factory.mktemp("whole") / "run", **FULL)


def test_the_run_folder_is_a_probes(whole: ProbeResult) -> None:
    for name in ("config.yaml", "environment.json", "log.jsonl", "metrics.json", "predictions.parquet", "done.json"):
        assert (whole.path / name).is_file(), name
    for name in ("best.safetensors", "last.safetensors", "curves.png", "curves.svg", "model.json", "seen.json"):
        assert (fold(whole) / name).is_file(), name
    frame = whole.predictions().frame
    assert set(frame["split"]) == {"val", "test"}
    assert whole.metrics["n"] == (frame["split"] == "test").sum()
    report = read_json(fold(whole) / "model.json")["report"]
    assert [phase["name"] for phase in report["phases"]] == ["frozen", "finetune"]
    assert [row["phase"] for row in report["history"]] == ["frozen", "finetune", "finetune"]


def test_the_saved_network_predicts_what_the_run_wrote(whole: ProbeResult, clinic: Path) -> None:
    dataset = Dataset.open(clinic)
    model = FittedFinetune.open(whole.path)
    probabilities, seen = model.predict(dataset)
    frame = whole.predictions().frame
    rows = pd.Index(dataset.image_ids).get_indexer(frame["image_id"])
    written = frame[[f"p:{name}" for name in model.classes]].to_numpy()
    np.testing.assert_allclose(probabilities[rows], written, atol=1e-5)
    assert not seen[rows[(frame["split"] == "test").to_numpy()]].any()
    assert seen[rows[(frame["split"] == "val").to_numpy()]].all()


def test_what_is_frozen_does_not_move_and_what_is_trained_does(clinic: Path, tmp_path: Path) -> None:
    first = build_network(settings(), len(Dataset.open(clinic).card.target(None).classes), 0).state_dict()
    frozen = train(clinic, tmp_path / "frozen", frozen_epochs=1, finetune_epochs=0)
    after, _ = load_checkpoint(fold(frozen) / "last.safetensors")
    after = {name.removeprefix("network/"): value for name, value in after.items()}
    moved = {name for name, value in first.items() if not torch.equal(value, after[name])}
    assert moved == {"head.weight", "head.bias"}
    part = train(clinic, tmp_path / "part", frozen_epochs=0, finetune_epochs=1, train_from="layer4")
    after, _ = load_checkpoint(fold(part) / "last.safetensors")
    after = {name.removeprefix("network/"): value for name, value in after.items()}
    moved = {name for name, value in first.items() if not torch.equal(value, after[name])}
    assert moved == {name for name in first if name.startswith(("backbone.network.layer4", "head"))}
    whole = train(clinic, tmp_path / "whole", frozen_epochs=0, finetune_epochs=1)
    after, _ = load_checkpoint(fold(whole) / "last.safetensors")
    assert not [name for name, value in first.items() if torch.equal(value, after[f"network/{name}"])]


def test_a_frozen_weight_that_moves_stops_the_run(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.Stepper.take

    def meddles(self: loop.Stepper, *arguments: Any) -> float:
        with torch.no_grad():
            next(self.network.backbone.parameters()).add_(1e-6)  # type: ignore[operator]
        return real(self, *arguments)

    monkeypatch.setattr(loop.Stepper, "take", meddles)
    with pytest.raises(DermlabError, match="frozen have moved"):
        train(clinic, tmp_path / "run", finetune_epochs=0)


def test_frozen_blocks_stay_in_eval_mode() -> None:
    network = build_network(settings(dropout=0.5), 3, 0)
    freeze(network, "layer3", whole_backbone=False)
    train_mode(network)
    inner: Any = network.backbone.network
    assert not inner.layer2.training
    assert not inner.bn1.training
    assert inner.layer3[0].bn1.training
    assert network.dropout.training


def test_an_unknown_block_is_one_line_with_the_names() -> None:
    with pytest.raises(InputError, match=r"no block 'layer9'; there are .*layer1\.0"):
        freeze(build_network(settings(), 3, 0), "layer9", whole_backbone=False)


def test_sixteen_photos_are_learnt_by_heart(clinic: Path, tmp_path: Path) -> None:
    changes = {"frozen_epochs": 0, "finetune_epochs": 30, "augmentation": "none", "max_train_samples": 16}
    result = train(clinic, tmp_path / "run", **changes, batch_size=16, learning_rate=3e-3, metric="top1")
    losses = [row["train_loss"] for row in read_json(fold(result) / "model.json")["report"]["history"]]
    assert losses[-1] < 0.05 < losses[0]


def test_a_batch_of_photos_that_are_gone_is_one_line(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fit.batches

    def gone(pixels: Any, *arguments: Any, **options: Any) -> Any:
        for images, chosen in real(pixels, *arguments, **options):
            pixels.failures.update({int(row): "no such file" for row in chosen})
            yield images[:0], chosen[:0]

    monkeypatch.setattr(fit, "batches", gone)
    with pytest.raises(DermlabError, match=r"no photo of a batch can be read any more \(no such file\)"):
        train(clinic, tmp_path / "run")


def test_permuted_test_labels_change_nothing(clinic: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(clinic)
    column = dataset.card.target(None).column
    split = dataset.read_split("main")
    manifest = dataset.manifest.copy()
    rows = np.flatnonzero(split["split"] == "test")
    manifest.loc[rows, column] = manifest.loc[np.random.default_rng(0).permutation(rows), column].to_numpy()
    other = Dataset.write(tmp_path / "clinic", manifest, dataset.card)
    (tmp_path / "clinic" / "images").mkdir(exist_ok=True)
    for path, there in zip(dataset.paths, other.paths, strict=True):
        there.parent.mkdir(parents=True, exist_ok=True)
        there.symlink_to(path) if not there.exists() else None
    other.write_split("main", split)
    a = train(clinic, tmp_path / "a", frozen_epochs=0, finetune_epochs=1)
    b = run_finetune(other, settings(frozen_epochs=0, finetune_epochs=1), tmp_path / "b")
    one, _ = load_checkpoint(fold(a) / "best.safetensors")
    two, _ = load_checkpoint(fold(b) / "best.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert a.val_score == b.val_score


def test_a_rate_far_too_high_is_named_and_does_not_rank(clinic: Path, tmp_path: Path) -> None:
    result = train(
        clinic, tmp_path / "run", optimiser="sgd", learning_rate=1e4, clip_norm=None, finetune_epochs=2, batch_size=16
    )
    assert not result.converged
    alarms = read_json(result.path / "done.json")["alarms"]
    assert {alarm["name"] for alarm in alarms} & {"diverged", "non-finite"}
    assert any("try learning_rate: 1000" in text for text in result.warnings)
    events = [json.loads(line) for line in (result.path / "log.jsonl").read_text().splitlines()]
    assert any(event["event"] == "alarm" and "sgd" in event["says"] for event in events)


def test_folds_balanced_sampling_and_accumulation(clinic: Path, tmp_path: Path) -> None:
    result = train(
        clinic,
        tmp_path / "run",
        split="folds3",
        frozen_epochs=0,
        finetune_epochs=1,
        sampling="balanced",
        accumulate=2,
        class_weight="balanced",
        loss="focal",
        tta="dihedral",
        encoder="timm:test_vit+random",
        drop_path=0.1,
        layer_decay=0.8,
        optimiser="lion",
        schedule="one_cycle",
    )
    assert result.metrics["folds"] == 3
    assert len(list((result.path / "checkpoints").iterdir())) == 3


def test_a_finished_run_is_read_and_another_config_refused(whole: ProbeResult, clinic: Path) -> None:
    assert train(clinic, whole.path, **FULL).metrics == whole.metrics
    with pytest.raises(InputError, match="differs in mixup"):
        train(clinic, whole.path, **{**FULL, "mixup": 0.3})


def test_patience_ends_a_phase(clinic: Path, tmp_path: Path) -> None:
    result = train(clinic, tmp_path / "run", frozen_epochs=0, finetune_epochs=8, learning_rate=1e-9, patience=2)
    history = read_json(fold(result) / "model.json")["report"]["history"]
    best = read_json(fold(result) / "model.json")["report"]["best_epoch"]
    assert len(history) in (best + 2, 8)
    assert len(history) < 8


def test_a_stratified_sample_keeps_the_shares_and_the_rare() -> None:
    codes = np.repeat([0, 1, 2], [600, 390, 10])
    rows = stratified(np.arange(1000), codes, 100, np.random.default_rng(0))
    assert len(rows) == len(set(rows.tolist())) == 100
    counts = np.bincount(codes[rows])
    assert abs(counts - [60, 39, 1]).max() <= 1
    assert (np.bincount(codes[stratified(np.arange(1000), codes, 3, np.random.default_rng(1))]) == 1).all()


def test_settings_that_do_not_go_together_are_refused() -> None:
    for changes, message in (
        ({"frozen_epochs": 0, "finetune_epochs": 0}, "nothing would be trained"),
        ({"encoder": "resnet50", "small_stem": True}, "need an encoder with"),
        ({"augmentation_changes": {"flip": 1}}, "flip"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(**changes)
