"""LoRA, colour constancy, crops from larger photos, alarms under way, loggers, balanced val, speed options."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import timm
import torch

from dermlab.adapt.finetune import fit
from dermlab.adapt.finetune.config import FinetuneSettings
from dermlab.adapt.finetune.network import build_network, freeze
from dermlab.adapt.finetune.run import FittedFinetune, balanced, crop_source_px, load_network, run_finetune
from dermlab.adapt.probe import ProbeResult
from dermlab.bench.config import Metric as BakeoffMetric
from dermlab.commands.probe import ProbeResult as Told
from dermlab.core.errors import InputError, MissingExtraError
from dermlab.core.files import read_json
from dermlab.data.augment import illuminant_gains, rebalance
from dermlab.data.dataset import Dataset
from dermlab.data.loader import photo_gains
from dermlab.data.pixel_cache import PixelRecipe, open_pixels
from dermlab.evaluate.metrics import higher_is_better
from dermlab.models.preprocess import Preprocess
from dermlab.training import loop
from dermlab.training.checkpoint import load_checkpoint
from dermlab.training.loggers import make_logger
from dermlab.training.optimiser import make_optimiser, parameter_groups
from dermlab.training.speed import checkpoint_gradients

TINY: dict[str, Any] = {
    "encoder": "timm:test_resnet+random",
    "size_px": 32,
    "frozen_epochs": 0,
    "finetune_epochs": 1,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "max_train_samples": 70,
    "precision": "fp32",
    "device": "cpu",
    "n_boot": 100,
}


def train(clinic: Path, out: Path, **changes: Any) -> ProbeResult:
    return run_finetune(Dataset.open(clinic), FinetuneSettings(**{**TINY, **changes}), out)


def fold(result: ProbeResult) -> Path:
    return result.path / "checkpoints" / "repeat0-fold0"


# ---------------------------------------------------------------- LoRA


def test_lora_trains_adapters_and_the_base_does_not_move(clinic: Path, tmp_path: Path) -> None:
    recipe = {"encoder": "timm:test_vit+random", "lora": {"rank": 2, "alpha": 4, "targets": ["qkv"]}}
    result = train(clinic, tmp_path / "run", **recipe, frozen_epochs=1, finetune_epochs=1)
    first = build_network(
        FinetuneSettings(**{**TINY, **recipe}), len(Dataset.open(clinic).card.target(None).classes), 0
    )
    after, _ = load_checkpoint(fold(result) / "last.safetensors")
    moved = {name for name, old in first.state_dict().items() if not torch.equal(old, after[f"network/{name}"])}
    adapters = {name for name in first.state_dict() if "lora_" in name}
    assert moved == adapters | {"head.weight", "head.bias"}
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in adapters} == {"qkv"}
    phases = read_json(fold(result) / "model.json")["report"]["phases"]
    assert "LoRA's adapters" in phases[1]["trains"]
    network, _ = load_network(fold(result))
    best, _ = load_checkpoint(fold(result) / "best.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in network.state_dict().items())
    frame = result.predictions().frame
    probabilities, _ = FittedFinetune.open(result.path).predict(Dataset.open(clinic))
    assert len(probabilities) >= len(frame)


def test_untrained_adapters_change_nothing_and_all_linear_layers_are_the_default() -> None:
    plain = build_network(FinetuneSettings(**{**TINY, "encoder": "timm:test_vit+random"}), 3, 0).eval()
    adapted = build_network(FinetuneSettings(**{**TINY, "encoder": "timm:test_vit+random", "lora": {}}), 3, 0).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(adapted.backbone(images), plain.backbone(images), atol=1e-6, rtol=1e-6)
    frozen = freeze(adapted, None, whole_backbone=False)
    n_linear = sum(isinstance(module, torch.nn.Linear) for module in plain.backbone.network.modules())
    trained = [name for name, value in adapted.backbone.network.named_parameters() if value.requires_grad]
    assert len(trained) == 2 * n_linear
    assert len(frozen) == len(list(plain.backbone.network.parameters()))


def test_lora_that_fits_nothing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"lora.targets: timm:test_vit\+random"):
        build_network(
            FinetuneSettings(**{**TINY, "encoder": "timm:test_vit+random", "lora": {"targets": ["no_such"]}}), 3, 0
        )
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"dermlab\[lora\]"):
        build_network(FinetuneSettings(**{**TINY, "lora": {}}), 3, 0)


# ---------------------------------------------------------------- colours and crops


@pytest.mark.parametrize("p", [1.0, 6.0])
def test_colour_constancy_is_the_minkowski_means_closed_form(p: float) -> None:
    image = np.random.default_rng(0).integers(0, 200, (7, 9, 3), dtype=np.uint8)
    light = ((image / 255.0) ** p).mean((0, 1)) ** (1 / p)
    expected = np.linalg.norm(light) / np.sqrt(3) / light
    gains = illuminant_gains(image, p)
    np.testing.assert_allclose(gains, expected, rtol=1e-12)
    np.testing.assert_array_equal(rebalance(image, gains), np.rint(image * expected).clip(0, 255))
    # A grey photo under coloured light comes back grey, and a grey photo stays as it is.
    grey = np.repeat(np.arange(0, 200, 5, dtype=np.uint8)[None, :, None], 3, 2)
    np.testing.assert_array_equal(rebalance(grey, illuminant_gains(grey, p)), grey)
    made = rebalance((grey * np.array([0.5, 1.0, 0.75])).astype(np.uint8), illuminant_gains((grey * np.array([0.5, 1.0, 0.75])).astype(np.uint8), p))  # noqa: E501  # fmt: skip
    assert np.ptp(made.astype(int), axis=2).max() <= 4


def test_colour_constancy_is_the_same_at_train_and_test_and_travels(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = fit.batches
    monkeypatch.setattr(fit, "batches", lambda *a, **k: seen.append(k["gains"]) or real(*a, **k))  # type: ignore[func-returns-value]
    result = train(clinic, tmp_path / "run", colour_constancy="shades_of_grey", augmentation="none")
    dataset = Dataset.open(clinic)
    pixels = open_pixels(dataset.paths, load_network(fold(result))[0].backbone.preprocess.recipe())
    expected = photo_gains(pixels, np.arange(len(dataset)), "shades_of_grey")
    assert np.ptp(expected) > 0.01
    assert len(seen) >= 3
    assert all(np.array_equal(gains, expected) for gains in seen)
    frame = result.predictions().frame
    probabilities, _ = FittedFinetune.open(result.path).predict(dataset)
    rows = [dataset.image_ids.tolist().index(name) for name in frame["image_id"]]
    columns = [name for name in frame if name.startswith("p:")]
    np.testing.assert_allclose(probabilities[rows], frame[columns].to_numpy(), atol=1e-5)


def test_crops_come_from_larger_photos_where_views_crop() -> None:
    def side(fit: str = "crop", size_px: int = 224, **changes: Any) -> int | None:
        return crop_source_px(FinetuneSettings(**{**TINY, **changes}), Preprocess(size_px, fit=fit))

    assert side() == 256
    assert side(size_px=448) == 512
    assert side(augmentation="none") is None
    assert side(fit="pad") is None
    assert side(size_px=28) is None
    assert side(crop_from_px=320) == 320
    assert side(crop_from_px=224) is None


def test_training_views_are_cut_from_the_short_cache_and_val_is_not(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes: list[tuple[bool, PixelRecipe]] = []
    real = fit.batches

    def watched(pixels: Any, *arguments: Any, **options: Any) -> Any:
        recipes.append((options.get("augment") is not None, pixels.recipe))
        return real(pixels, *arguments, **options)

    monkeypatch.setattr(fit, "batches", watched)
    train(clinic, tmp_path / "run", crop_from_px=48)
    assert {(recipe.fit, recipe.size_px) for views, recipe in recipes if views} == {("short", 48)}
    assert {recipe.size_px for views, recipe in recipes if not views} == {32}


# ---------------------------------------------------------------- val and alarms


def test_a_balanced_val_holds_as_many_of_each_class() -> None:
    codes = np.repeat([0, 1, 2], [600, 390, 10])
    for most, each in ((None, 10), (12, 4), (1000, 10)):
        rows = balanced(np.arange(1000), codes, most, np.random.default_rng(0))
        assert np.bincount(codes[rows]).tolist() == [each] * 3
        assert (np.diff(rows) > 0).all()


def test_the_val_score_is_the_named_metric(clinic: Path, tmp_path: Path) -> None:
    result = train(clinic, tmp_path / "run", metric="log_loss", val_sampling="balanced")
    frame = result.predictions().frame
    frame = frame[(frame["split"] == "val") & frame["label"].notna()]
    columns = [name for name in frame if name.startswith("p:")]
    picked = frame[columns].to_numpy()[np.arange(len(frame)), [columns.index(f"p:{name}") for name in frame["label"]]]
    assert result.val_score == pytest.approx(-np.log(picked).mean(), rel=1e-4)
    assert read_json(result.path / "done.json")["val_metric"] == result.val_metric == "log_loss"
    # Lower is better there, so a reader has to be told which metric it is.
    assert f"val log loss {result.val_score:.3f}" in "\n".join(Told(result).lines())
    assert Told(result).to_json()["val_metric"] == "log_loss"
    # A bake-off ranks by its own metric on val, of which the higher is always the better.
    assert all(higher_is_better(name) for name in get_args(BakeoffMetric))
    assert not higher_is_better("log_loss")


def test_a_divergence_is_told_at_once_ends_the_training_and_its_frozen_epoch_does_not_win(
    clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = iter([0.09, 10.6, 5.0, 5.0, 5.0])
    real = fit._Training._judge
    monkeypatch.setattr(fit._Training, "_judge", lambda self: {**real(self), "val_loss": next(losses)})
    result = train(clinic, tmp_path / "run", frozen_epochs=1, finetune_epochs=4, stop_on=["diverged"])
    report = read_json(fold(result) / "model.json")["report"]
    assert len(report["history"]) == 2
    assert report["best_epoch"] == 1
    assert not result.converged
    said = capsys.readouterr().err
    assert said.index("diverged: epoch 2") < said.index("stop_on names diverged")


# ---------------------------------------------------------------- speed


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=0, img_size=32)
    images = torch.randn(2, 3, 32, 32)
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            assert checkpoint_gradients(network)
            assert network.grad_checkpointing
        network.zero_grad()
        network(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    assert not checkpoint_gradients(torch.nn.Linear(1, 1))


def steps(network: torch.nn.Module, n: int = 4, **options: Any) -> list[float]:
    from dermlab.core.device import Runtime

    runtime = Runtime("cpu", "fp32", "")
    stepper = loop.Stepper(
        fabric=loop.make_fabric(runtime),
        network=network,
        optimiser=make_optimiser("sgd", parameter_groups(network, 0.1, weight_decay=0.0)),
        rate=lambda step: 1.0,
        seed=0,
        **options,
    )
    images = torch.randn(n, 6, 4, generator=torch.Generator().manual_seed(0))
    return [stepper.take([lambda net, x=x: (net(x).square().mean(), len(x))]) for x in images]


def linear() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


def test_a_compiled_network_trains_alike_and_one_that_cannot_be_compiled_is_trained_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = steps(linear())
    compile_eagerly = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    assert steps(linear(), compiled=True) == pytest.approx(expected, rel=1e-5)

    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", functools.partial(compile_eagerly.func, backend=broken))
    assert steps(linear(), compiled=True) == pytest.approx(expected, rel=1e-6)
    assert capsys.readouterr().err.count("torch.compile fails here") == 1


# ---------------------------------------------------------------- loggers


def test_tensorboard_holds_the_curves(clinic: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(clinic, tmp_path / "run", finetune_epochs=2, logger="tensorboard")
    events = EventAccumulator(str(fold(result) / "tensorboard"))
    events.Reload()
    history = read_json(fold(result) / "model.json")["report"]["history"]
    assert [event.step for event in events.Scalars("val_loss")] == [1, 2]
    assert [event.value for event in events.Scalars("val_loss")] == pytest.approx([row["val_loss"] for row in history])


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow", "wandb"])
def test_a_logger_that_is_not_installed_is_one_line(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingExtraError, match=rf"dermlab\[{kind}\]"):
        make_logger(kind, tmp_path, name="run")
