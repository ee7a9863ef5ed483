"""A pretraining run from data set folders to an encoder folder; what is done is read and not repeated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dermlab.core.device import resolve
from dermlab.core.errors import DermlabError, InputError
from dermlab.core.files import read_json, write_json
from dermlab.core.fingerprint import hash_json
from dermlab.core.progress import note, progress, set_quiet, warn
from dermlab.core.randomness import generator
from dermlab.core.runs import DONE_FILE, RunFolder
from dermlab.data.loader import epoch_order
from dermlab.data.pixel_cache import PixelRecipe, open_pixels
from dermlab.models.surgery import set_drop_path
from dermlab.models.towers import seeded
from dermlab.pretrain.export import data_cards, export_encoder
from dermlab.pretrain.monitor import examine, look
from dermlab.pretrain.networks import build_backbone, check_masks, grid_of, load_backbone
from dermlab.pretrain.photos import Photos, gather_photos
from dermlab.pretrain.schedules import cosine, linear_warmup
from dermlab.pretrain.targets import Step, Values
from dermlab.pretrain.views import draw_views, view_batches
from dermlab.training.checkpoint import load_checkpoint, save_checkpoint
from dermlab.training.loop import Stepper, Sums, make_fabric, quiet_randomness
from dermlab.training.optimiser import make_optimiser, parameter_groups, rate_factor

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from dermlab.core.device import Runtime
    from dermlab.data.dataset import Dataset
    from dermlab.data.pixel_cache import Pixels
    from dermlab.models.encoders import Encoder
    from dermlab.pretrain.config import PretrainSettings

KIND = "pretrain"
LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"
N_PICTURED = 8
N_SPREAD = 500
ROLLBACK_LOOKS = 3


@dataclass(frozen=True)
class PretrainRun:
    """A finished run: its folder, the encoder in it, what it cost and what its kNN came to."""

    path: Path
    encoder: Path
    knn_start: float | None
    knn_best: float | None
    best_epoch: int
    knn_last: float | None
    seconds: float
    images_per_second: float
    alarms: list[dict[str, Any]]
    warnings: list[str]


@dataclass
class Course:
    """How far a run has come and what it found; everything but the tensors of a checkpoint.

    Attributes:
        history: a dictionary an epoch.
        looks: a dictionary a look of the monitor; epoch 0 is the start.
        epoch: epochs finished.
        position: batches done of the epoch under way.
        seen: sums of what the steps of this epoch told.
        best_epoch: whose weights ``best`` holds; -1: none yet.
        best_knn: their kNN.
        seconds: of training so far.
        images: trained on so far.
        done: whether the run is over.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    position: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    best_epoch: int = -1
    best_knn: float | None = None
    seconds: float = 0.0
    images: int = 0
    done: bool = False


def values_at(settings: PretrainSettings, step: int, n_steps: int, steps_an_epoch: int) -> Values:
    """Return what the schedules of a resolved recipe say of a step; they depend on its number alone.

    Args:
        settings: of :meth:`PretrainSettings.resolved`.
        step: 0 to ``n_steps - 1``.
        n_steps: of the run.
        steps_an_epoch: of one pass.
    """
    s = settings
    assert s.final_weight_decay is not None
    assert s.momentum is not None
    assert s.teacher_temperature is not None
    assert s.warmup_teacher_temperature is not None
    assert s.teacher_temperature_warmup_epochs is not None
    assert s.backbone_warmup_epochs is not None
    n_warm = round(s.teacher_temperature_warmup_epochs * steps_an_epoch)
    low = s.warmup_teacher_temperature
    return Values(
        weight_decay=cosine(step, n_steps, s.weight_decay, s.final_weight_decay),
        momentum=cosine(step, n_steps, s.momentum, s.final_momentum),
        teacher_temperature=linear_warmup(step, n_warm, low, s.teacher_temperature),
        patch_teacher_temperature=linear_warmup(step, n_warm, low, s.patch_teacher_temperature),
        last_layer_frozen=step < round(s.freeze_last_layer_epochs * steps_an_epoch),
        backbone_frozen=step < s.backbone_warmup_epochs * steps_an_epoch,
    )


def build_method(settings: PretrainSettings) -> tuple[Any, Encoder]:
    """Return a resolved recipe's module with its first weights, on the CPU, and the student's encoder within it.

    Raises:
        InputError: the network will not do for the method.
        MissingWeightsError: weights asked for are not here.
    """
    s = settings
    if s.from_encoder is not None:
        backbone = load_backbone(s.from_encoder, size_px=s.size_px)
    else:
        backbone = build_backbone(
            s.network,
            size_px=s.size_px,
            patch_size=s.patch_size,
            small_stem=s.small_stem,
            pool_patches=s.method == "panderm",
            seed=s.seed,
        )
    dim = backbone.dim
    if s.method in ("ibot", "panderm"):
        check_masks(backbone.network, s.from_encoder or s.network)
        grid_of(backbone.network, s.size_px)
    with seeded(int(generator(s.seed, "heads").integers(2**62))):
        model = _module(s, backbone, dim)
    if s.drop_path:  # the student's alone: its twin was made before
        set_drop_path(backbone.network, s.drop_path, s.from_encoder or s.network)
    return model, backbone


def _module(s: PretrainSettings, backbone: Encoder, dim: int) -> Any:
    shared: dict[str, Any] = {
        "out_dim": s.out_dim,
        "hidden_dim": s.hidden_dim,
        "bottleneck_dim": s.bottleneck_dim,
        "norm_last_layer": s.norm_last_layer,
        "student_temperature": s.student_temperature,
        "center_momentum": s.center_momentum,
    }
    projection: dict[str, Any] = {
        "out_dim": s.out_dim,
        "hidden_dim": s.hidden_dim,
        "batch_norm": s.head_batch_norm,
    }
    if s.method == "dino":
        from dermlab.pretrain.dino import DINO

        return DINO(backbone, dim, **shared)
    if s.method == "ibot":
        from dermlab.pretrain.ibot import IBOT

        masks: dict[str, Any] = {
            "patch_out_dim": s.patch_out_dim,
            "shared_head": s.shared_head,
            "mask_ratios": s.mask_ratios,
            "class_weight": s.class_weight,
            "patch_weight": s.patch_weight,
        }
        return IBOT(backbone, dim, **shared, **masks)
    if s.method == "simclr":
        from dermlab.pretrain.simclr import SimCLR

        return SimCLR(backbone, dim, temperature=s.temperature, **projection)
    if s.method == "byol":
        from dermlab.pretrain.byol import BYOL

        return BYOL(backbone, dim, **projection)
    from dermlab.pretrain.panderm import ClipTeacher, PanDerm

    grid = grid_of(backbone.network, s.size_px)[0]
    own = backbone.preprocess
    teacher = ClipTeacher(s.teacher, grid, mean=own.mean, std=own.std)
    return PanDerm(backbone, dim, teacher, depth=s.regressor_depth, mask_ratio=s.mask_ratio)


def make_groups(model: nn.Module, backbone: Encoder, settings: PretrainSettings) -> list[dict[str, Any]]:
    """Return the optimiser's groups: the backbone by layers, heads, and last layers, each with what its rate is.

    Beyond :func:`dermlab.training.optimiser.parameter_groups`' keys: ``full_lr`` (the rate when nothing stands still),
    ``part`` (``backbone``, ``head`` or ``last``), ``decays``.
    """
    assert settings.learning_rate is not None
    assert settings.layer_decay is not None
    groups = parameter_groups(
        backbone.network,
        settings.learning_rate,
        weight_decay=1.0,
        layer_decay=settings.layer_decay,
        prefix="backbone.",
    )
    for group in groups:
        group["part"] = "backbone"
    own = {id(parameter) for parameter in backbone.network.parameters()}
    others: dict[tuple[str, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in own:
            continue
        part = "last" if "last_layer" in name else "head"
        decay = 0.0 if parameter.ndim <= 1 or name.endswith("mask_token") else 1.0
        empty = {"params": [], "weight_decay": decay, "base_lr": settings.learning_rate, "names": [], "part": part}
        group = others.setdefault((part, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    groups += others.values()
    for group in groups:
        group |= {"full_lr": group["base_lr"], "decays": group["weight_decay"] > 0}
        group["weight_decay"] *= settings.weight_decay
    return groups


def run_pretrain(datasets: Sequence[Dataset], settings: PretrainSettings, out: str | Path) -> PretrainRun:
    """Pretrain on the photos of some folders and write the run folder, or go on with it.

    Args:
        datasets: the folders.
        settings: the recipe; what it leaves open is filled in by the number of photos.
        out: the run folder.

    Raises:
        InputError: split, network, encoder or views will not do, or ``out`` holds another run.
        DermlabError: no step was finite.
    """
    photos = gather_photos(datasets, settings)
    settings = settings.resolved(len(photos.rows))
    runtime = resolve(settings.device, settings.precision)
    fabric = make_fabric(runtime, devices=settings.devices, nodes=settings.nodes)
    if fabric.world_size > 1:
        runtime = replace(runtime, device=str(fabric.device))
        set_quiet(not fabric.is_global_zero)
    with fabric.rank_zero_first():  # what the first process makes, the others find
        folder = RunFolder.create(out, settings, KIND)
        made_with = hash_json([[one.fingerprint for one in datasets], photos.rows.tolist()])
        _refuse_other_data(folder, made_with)
        done = folder.done
    fabric.barrier()
    if done:
        return read_pretrain(folder.path)
    note(f"{runtime.device}, {runtime.precision}: {runtime.reason}")
    for text in photos.told:
        note(text)
    for text in photos.warnings:
        warn(text)
    with quiet_randomness():
        with fabric.rank_zero_first():  # photos are decoded once
            training = _Training(photos, settings, folder, runtime, fabric)
        training.begin()
        training.run()
        if fabric.is_global_zero:
            training.finish(datasets)
        fabric.barrier()
    return read_pretrain(folder.path)


def read_pretrain(path: str | Path) -> PretrainRun:
    """Return a finished run from its folder. Raises :class:`InputError` where it is none."""
    path = Path(path)
    done = read_json(path / DONE_FILE)
    return PretrainRun(path=path, encoder=path / "encoder", **done)


def _refuse_other_data(folder: RunFolder, made_with: str) -> None:
    file = folder.path / "data.json"
    if not file.exists():
        write_json(file, {"photos": made_with})
    elif read_json(file)["photos"] != made_with:
        raise InputError(f"{folder.path}: was begun with other photos or another split; choose another --out")


class _Training:
    """The state of :func:`run_pretrain`."""

    def __init__(
        self, photos: Photos, settings: PretrainSettings, folder: RunFolder, runtime: Runtime, fabric: Fabric
    ) -> None:
        self.photos, self.settings, self.folder, self.runtime = photos, settings, folder, runtime
        self.fabric = fabric
        self.place = folder.path / "checkpoints"
        self.model, self.backbone = build_method(settings)
        # As the views lie in memory. With filters of another layout, several processes' gradients of a patch embedding
        # came out permuted (torch 2.14, gloo); test_devices.py holds it.
        self.model = self.model.to(runtime.device, memory_format=torch.channels_last)
        self.init_lineage = list(self.backbone.lineage)
        assert settings.cache_px is not None
        recipes = [PixelRecipe(size_px=settings.cache_px, fit="short"), self.backbone.preprocess.recipe()]
        self.pixels: Pixels
        self.judged: Pixels
        self.pixels, self.judged = open_pixels(photos.paths, recipes)
        self.pixels.fill()
        rows = photos.without_copies(self.pixels.content_hashes)
        if len(rows) < len(photos.rows):
            text = f"{len(photos.rows) - len(rows):,} photos left out that are byte for byte copies of withheld ones"
            photos.told.append(text)
            note(text)
        readable = np.array([row not in self.pixels.failures for row in rows.tolist()], bool)
        if not readable.all():
            photos.warnings.append(f"{int((~readable).sum()):,} photos cannot be read and are left out")
        self.rows = rows[readable]
        world = fabric.world_size
        self.n_batches = len(self.rows) // (settings.batch_size * world)
        if not self.n_batches:
            raise InputError(
                f"batch_size: {settings.batch_size}{f' on each of {world} devices' if world > 1 else ''}, but there "
                f"are {len(self.rows)} photos to pretrain on"
            )
        assert settings.epochs is not None
        self.steps_an_epoch = math.ceil(self.n_batches / settings.accumulate)
        self.n_steps = self.steps_an_epoch * settings.epochs
        spread = generator(settings.seed, "spread").permutation(self.rows)[:N_SPREAD]
        self.spread_rows = np.sort(spread)
        self.course = Course()
        self.told: set[str] = set()

    def begin(self) -> None:
        """Make the optimiser and go on from the last checkpoint where there is one; all processes together."""
        self.stepper = self._stepper()
        self._take_up()

    def _stepper(self) -> Stepper:
        settings = self.settings
        assert settings.warmup_epochs is not None
        warmup = round(settings.warmup_epochs * self.steps_an_epoch)
        return Stepper(
            fabric=self.fabric,
            network=self.model,
            optimiser=make_optimiser(settings.optimiser, make_groups(self.model, self.backbone, settings)),
            rate=lambda step: rate_factor(step, self.n_steps, warmup_steps=warmup, floor=settings.final_learning_rate),
            seed=settings.seed,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
        )

    def _take_up(self) -> None:
        """Go on from the last checkpoint where there is one."""
        if not (self.place / LAST_FILE).exists():
            return
        tensors, record = load_checkpoint(self.place / LAST_FILE)
        self.course = Course(**record["course"])
        self.stepper.restore(tensors, record["stepper"])
        if not self.course.done:
            note(f"going on from epoch {self.course.epoch + 1}, batch {self.course.position}")

    # ------------------------------------------------------------ epochs

    def run(self) -> None:
        settings, course = self.settings, self.course
        assert settings.epochs is not None
        assert settings.views is not None
        picture = self.folder.path / "views.png"
        if self.fabric.is_global_zero and not picture.exists():
            draw_views(self.pixels, self.rows[:N_PICTURED], settings.views, picture, seed=settings.seed)
        if not course.looks:
            moving = sum(p.numel() for group in self.stepper.optimiser.param_groups for p in group["params"])
            total = sum(p.numel() for p in self.model.parameters())
            note(
                f"{settings.method}: {len(self.rows):,} photos, {self.n_batches:,} batches an epoch, {settings.epochs} "
                f"epochs; {moving:,} of {total:,} parameters are trained, the others follow"
            )
            self._look()
        while course.epoch < settings.epochs and not course.done:
            self._run_epoch()
        course.done = True
        self._save()

    def _run_epoch(self) -> None:
        settings, course, stepper = self.settings, self.course, self.stepper
        assert settings.views is not None
        epoch, begin = course.epoch + 1, time.monotonic()
        if not course.position:
            stepper.sums, course.seen = Sums(), {}
        order = self.rows[epoch_order(len(self.rows), seed=settings.seed, epoch=epoch)]
        # Each process takes its part of every batch: together they see what one would see in a larger batch.
        whole = order[: self.n_batches * settings.batch_size * self.fabric.world_size]
        order = whole.reshape(self.n_batches, self.fabric.world_size, -1)[:, self.fabric.global_rank].ravel()
        start = course.position * settings.batch_size
        own = self.backbone.preprocess
        made = view_batches(
            self.pixels,
            order[start:],
            settings.batch_size,
            settings.views,
            mean=own.mean,
            std=own.std,
            seed=settings.seed,
            epoch=epoch,
            device=self.runtime.device,
        )
        group: list[tuple[list[torch.Tensor], np.ndarray]] = []
        with progress(f"epoch {epoch} of {settings.epochs}", len(order)) as advance:
            advance(start)
            for batch in made:
                group.append(batch)
                course.position += 1
                if len(group) < settings.accumulate and course.position < self.n_batches:
                    continue
                self._step(group, epoch)
                n = sum(len(chosen) for _, chosen in group)
                course.images += n * self.fabric.world_size
                advance(n)
                group = []
                if stepper.sums.n_steps % settings.checkpoint_steps == 0 and course.position < self.n_batches:
                    course.seconds += time.monotonic() - begin
                    begin = time.monotonic()
                    self._save()
        course.seconds += time.monotonic() - begin
        self._end_epoch(time.monotonic() - begin)

    def _step(self, group: list[tuple[list[torch.Tensor], np.ndarray]], epoch: int) -> None:
        stepper, seen = self.stepper, self.course.seen
        values = values_at(self.settings, stepper.step, self.n_steps, self.steps_an_epoch)
        for one in stepper.optimiser.param_groups:
            still = values.backbone_frozen if one["part"] == "backbone" else values.last_layer_frozen
            one["base_lr"] = 0.0 if still and one["part"] != "head" else one["full_lr"]
            if one["decays"]:
                one["weight_decay"] = values.weight_decay
        self.model.train()
        if values.backbone_frozen:
            self.backbone.eval()  # BatchNorm's statistics stand still too
        steps: list[Step] = []

        def part(views: list[torch.Tensor], chosen: np.ndarray) -> Callable[[nn.Module], tuple[torch.Tensor, int]]:
            extra = self._masks(chosen, epoch)

            def loss(network: nn.Module) -> tuple[torch.Tensor, int]:
                step = network(views, values, **extra)
                steps.append(step)
                return step.loss, len(chosen)

            return loss

        skipped = stepper.sums.n_skipped
        stepper.take([part(views, chosen) for views, chosen in group])
        if stepper.sums.n_skipped > skipped:
            return
        self.model.after_step(values.momentum)
        for step in steps:
            for name, value in step.seen.items():
                seen[name] = seen.get(name, 0.0) + float(value) / len(steps)

    def _masks(self, chosen: np.ndarray, epoch: int) -> dict[str, Any]:
        if not hasattr(self.model, "draw_masks"):
            return {}
        settings = self.settings
        grid = grid_of(self.backbone.network, settings.size_px)
        drawn = self.model.draw_masks(grid, chosen, seed=settings.seed, epoch=epoch, n_global=2)
        return {"masks": [mask.to(self.runtime.device) for mask in drawn]}

    def _end_epoch(self, seconds: float) -> None:
        settings, course, stepper = self.settings, self.course, self.stepper
        assert settings.monitor_epochs is not None
        course.epoch, course.position = course.epoch + 1, 0
        sums = stepper.sums
        done = max(1, sums.n_steps - sums.n_skipped)
        if sums.n_skipped == sums.n_steps:
            raise DermlabError(
                f"epoch {course.epoch}: no step had a finite loss and gradient; lower learning_rate (now "
                f"{settings.learning_rate:g}) or write precision: fp32"
            )
        values = values_at(settings, stepper.step - 1, self.n_steps, self.steps_an_epoch)
        row: dict[str, Any] = {
            "epoch": course.epoch,
            **{name: value / done for name, value in course.seen.items()},
            "learning_rate": stepper.rate_at(stepper.step - 1),
            "weight_decay": values.weight_decay,
            "momentum": values.momentum,
            "teacher_temperature": values.teacher_temperature,
            "gradient_norm": sums.gradient_norm,
            "target_movement": self._target_movement(values.momentum, done),
            "n_steps": sums.n_steps,
            "n_skipped": sums.n_skipped,
        }
        course.history.append(row)
        self._log("epoch", seconds=seconds, images_per_second=sums.n / max(seconds, 1e-9), **row)
        last = course.epoch == settings.epochs
        if last or course.epoch % settings.monitor_epochs == 0:
            self._look()
            self._guard()
        self._alarm()
        self._save()

    def _target_movement(self, momentum: float, n_steps: int) -> float:
        """Return about how far the target went in an epoch, as a share of its length; 0 without one."""
        target = getattr(self.model, "teacher", getattr(self.model, "target", None))
        if target is None:
            return 0.0
        own = dict(self.model.student.named_parameters())
        pairs = [(p, own[name]) for name, p in target.named_parameters() if name in own]
        with torch.no_grad():
            gap = torch.stack([(a - b).square().sum() for a, b in pairs]).sum().sqrt()
            length = torch.stack([a.square().sum() for a, _ in pairs]).sum().sqrt()
        # The gap is of after the step, momentum⁻¹ of it before; near enough for telling moving from not.
        return float(gap / length) * (1 - momentum) * n_steps

    # ------------------------------------------------------------ the monitor

    def _look(self) -> None:
        course, photos = self.course, self.photos
        encoder: Encoder = self.model.encoder
        mode = encoder.training
        found = look(
            encoder.eval(),
            self.judged,
            photos.labelled,
            self.spread_rows,
            runtime=self.runtime,
            k=self.settings.monitor_k,
        )
        encoder.train(mode)
        self.judged.flush()
        course.looks.append({"epoch": course.epoch, **found})
        self._log("look", **course.looks[-1])
        knn = found["knn"]
        loss = f", loss {course.history[-1]['loss']:.4f}" if course.history else ""
        words = f"kNN on val {knn:.4f}" if knn is not None else "no labels for a kNN"
        note(f"epoch {course.epoch}{loss}: {words}, spread {found['spread']:.3f}, effective rank {found['rank']:.1f}")
        # Random weights are no candidate; public ones are, so that going on from them cannot end below them.
        candidate = course.epoch > 0 or self.settings.from_encoder is not None
        if candidate and knn is not None and (course.best_knn is None or knn > course.best_knn):
            course.best_knn, course.best_epoch = knn, course.epoch
            if self.fabric.is_global_zero:
                record = {"epoch": course.epoch, "knn": knn}
                save_checkpoint(self.place / BEST_FILE, encoder.network.state_dict(), record)

    def _guard(self) -> None:
        """End a run that goes on from public weights and only makes them worse."""
        settings, course = self.settings, self.course
        scores = [one["knn"] for one in course.looks if one["knn"] is not None]
        if settings.from_encoder is None or course.best_knn is None or len(scores) <= ROLLBACK_LOOKS:
            return
        floor = course.best_knn - settings.rollback_drop
        if all(one < floor for one in scores[-ROLLBACK_LOOKS:]):
            warn(
                f"kNN on val has been below {floor:.3f} for {ROLLBACK_LOOKS} looks: the run ends and goes back to "
                f"epoch {course.best_epoch} ({course.best_knn:.3f}); lower learning_rate or layer_decay"
            )
            self._log("rollback", epoch=course.epoch, to=course.best_epoch)
            course.done = True

    def _alarm(self) -> None:
        for alarm in self._alarms():
            if alarm["name"] not in self.told:
                self.told.add(alarm["name"])
                warn(f"{alarm['name']}: {alarm['says']}")
                self._log("alarm", **alarm)

    def _alarms(self) -> list[dict[str, Any]]:
        course, settings = self.course, self.settings
        assert settings.epochs is not None
        found = examine(
            course.history,
            course.looks,
            n_outputs=self.model.n_outputs,
            n_epochs=settings.epochs,
            method=settings.method,
        )
        return [alarm.to_dict() for alarm in found]

    # ------------------------------------------------------------ saving and the end

    def _save(self) -> None:
        tensors, record = self.stepper.tensors()
        if self.fabric.is_global_zero:
            save_checkpoint(self.place / LAST_FILE, tensors, {"course": vars(self.course), "stepper": record})
        self.fabric.barrier()

    def _log(self, event: str, **fields: Any) -> None:
        if self.fabric.is_global_zero:
            self.folder.log(event, **fields)

    def finish(self, datasets: Sequence[Dataset]) -> None:
        """Write the encoder folder, metrics.json and, last of all, done.json."""
        settings, course, photos = self.settings, self.course, self.photos
        encoder: Encoder = self.model.encoder
        epoch = course.epoch
        if settings.keep == "best" and course.best_epoch >= 0:
            weights, record = load_checkpoint(self.place / BEST_FILE)
            encoder.network.load_state_dict(weights)
            epoch = record["epoch"]
        made_from = data_cards(datasets)
        if settings.from_encoder is not None:
            made_from += self.init_lineage or [settings.from_encoder]
        if settings.method == "panderm":
            made_from.append(self.model._teacher[0].card or settings.teacher)
        start = settings.from_encoder or f"{settings.network}, random weights"
        export_encoder(
            encoder.cpu(),
            self.folder.path / "encoder",
            name=f"{settings.method} from {start}",
            made_from=made_from,
            cautions=[*photos.told, *photos.warnings],
            told=f"{settings.method}, epoch {epoch} of {settings.epochs}, {len(self.rows):,} photos, from {start}",
        )
        knn = [one["knn"] for one in course.looks]
        alarms = self._alarms()
        result = {
            "knn_start": knn[0],
            "knn_best": course.best_knn,
            "best_epoch": epoch,
            "knn_last": knn[-1],
            "seconds": course.seconds,
            "images_per_second": course.images / max(course.seconds, 1e-9),
            "alarms": alarms,
            "warnings": [*photos.warnings, *(f"{alarm['name']}: {alarm['says']}" for alarm in alarms)],
        }
        write_json(self.folder.path / "metrics.json", {**result, "looks": course.looks, "history": course.history})
        self.folder.finish(**result)
