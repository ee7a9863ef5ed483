"""One fold's training: two phases over one network, judged on val after each epoch, from wherever it stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dermlab.adapt.finetune.cases import Bags, case_batches
from dermlab.adapt.finetune.health import Alarm, examine
from dermlab.adapt.finetune.losses import Objective, mixed
from dermlab.adapt.finetune.network import (
    FinetuneNetwork,
    build_network,
    freeze,
    frozen_hash,
    train_mode,
    trainable_words,
)
from dermlab.core.errors import DermlabError
from dermlab.core.progress import note, progress, warn
from dermlab.core.randomness import generator
from dermlab.core.words import metric_words
from dermlab.data.augment import preset
from dermlab.data.loader import batches, epoch_order
from dermlab.evaluate.metrics import higher_is_better
from dermlab.training.checkpoint import load_checkpoint, save_checkpoint
from dermlab.training.loggers import make_logger
from dermlab.training.loop import Stepper, Sums, make_fabric, quiet_randomness
from dermlab.training.optimiser import AveragedWeights, make_optimiser, parameter_groups, rate_factor
from dermlab.training.speed import checkpoint_gradients

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from dermlab.adapt.finetune.config import FinetuneSettings
    from dermlab.core.device import Runtime
    from dermlab.data.pixel_cache import Pixels

LAST_FILE, BEST_FILE = "last.safetensors", "best.safetensors"
ONE_CYCLE_WARMUP = 0.3
ALARMS_OF_THE_END = ("no-better-than-majority",)


@dataclass(frozen=True)
class FoldData:
    """What one fold is trained on; arrays run over all N photos of the data set, or over the cases of ``bags``.

    Attributes:
        pixels: the photos under the encoder's recipe, all decoded.
        codes: int64 (N,), -1 where there is no label; of a multi-label target float64 (N, C) of 0, 1 and NaN.
        train: int64, rows that fit.
        val: int64, rows that choose.
        n_classes: of the target.
        questionnaire: float32 (N, Q), encoded, or None.
        present: bool (N,), whether anything of it was filled in.
        blank: float32 (Q,), a questionnaire nobody filled in.
        views: the photos as random crops are cut from them; None: from ``pixels``.
        gains: float64 (N, 3), colour constancy's factors of the channels, or None.
        objective: what is trained for; None: cross-entropy over the classes.
        bags: the photos of each case; None: each photo is a case. ``gains`` runs over photos all the same.
    """

    pixels: Pixels
    codes: np.ndarray
    train: np.ndarray
    val: np.ndarray
    n_classes: int
    questionnaire: np.ndarray | None = None
    present: np.ndarray | None = None
    blank: np.ndarray | None = None
    views: Pixels | None = None
    gains: np.ndarray | None = None
    objective: Objective | None = None
    bags: Bags | None = None

    @property
    def aim(self) -> Objective:
        """What the network is trained for."""
        return self.objective or Objective(self.n_classes)

    @property
    def n_questionnaire(self) -> int:
        """Features of the questionnaire, 0 without."""
        return 0 if self.questionnaire is None else self.questionnaire.shape[1]

    def answers(
        self, rows: np.ndarray, device: torch.device | str, gone: np.ndarray | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return questionnaires and their presence, nothing where there are none; those of ``gone`` are blanked."""
        if self.questionnaire is None or self.present is None or self.blank is None:
            return ()
        values, present = self.questionnaire[rows], self.present[rows].copy()
        if gone is not None:
            values[gone] = self.blank
            present &= ~gone
        return torch.from_numpy(values).to(device), torch.from_numpy(present).to(device)

    def batches(
        self, rows: np.ndarray, sizes: Sequence[int], *, dropout: float = 0.0, **options: Any
    ) -> Iterator[tuple[torch.Tensor, np.ndarray, dict[str, Any]]]:
        """Yield batches of photos or cases, their numbers, and of cases what the network's pooling wants to know.

        Args:
            rows: int64, which photos or cases, in this order.
            sizes: of each batch in turn.
            dropout: share of the photos of a case that is left out.
            options: of :func:`dermlab.data.loader.batches`; with an ``augment`` photos come from ``views``.
        """
        pixels = self.pixels if options.get("augment") is None else self.views or self.pixels
        if self.bags is not None:
            yield from case_batches(pixels, self.bags, rows, sizes, dropout=dropout, gains=self.gains, **options)
            return
        for images, chosen in batches(pixels, rows, sizes, gains=self.gains, **options):
            if len(chosen):
                yield images, chosen, {}
            elif options.get("seed") is not None:  # one of many may be broken, but all of a training batch?
                why = next(reversed(pixels.failures.values()))
                raise DermlabError(
                    f"no photo of a batch can be read any more ({why}); is the data folder still there? The same "
                    "command goes on from the last checkpoint"
                )


@dataclass
class Course:
    """How far a training has come and what it found; everything but the tensors of a checkpoint.

    Attributes:
        history: a dictionary an epoch.
        phases: a dictionary a phase begun: name, what is trained, hash of what is not.
        phase: the phase under way, by number.
        epoch: epochs finished, over all phases.
        position: batches done of the epoch under way.
        best_epoch: whose weights are kept; 0: none yet.
        best_score: its choosing metric on val, higher is better.
        phase_start: epochs finished when the phase began.
        done: whether all phases are over.
        stopped_by: the alarm of ``stop_on`` that ended the training; "": none.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)
    phase: int = 0
    epoch: int = 0
    position: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    phase_start: int = 0
    done: bool = False
    stopped_by: str = ""


@dataclass(frozen=True)
class _Phase:
    name: str
    n_epochs: int
    whole_backbone_frozen: bool


def phases_of(settings: FinetuneSettings) -> list[_Phase]:
    """Return the phases that have epochs."""
    both = [_Phase("frozen", settings.frozen_epochs, True), _Phase("finetune", settings.finetune_epochs, False)]
    return [phase for phase in both if phase.n_epochs]


def fit_fold(
    data: FoldData,
    settings: FinetuneSettings,
    place: Path,
    *,
    runtime: Runtime,
    seed: int,
    log: Callable[..., None],
    fabric: Fabric | None = None,
) -> tuple[FinetuneNetwork, Course, list[Alarm]]:
    """Train one fold to its end, from its last checkpoint where there is one.

    Args:
        data: photos, labels, rows.
        settings: the recipe.
        place: the fold's folder, for ``last.safetensors`` and ``best.safetensors``.
        runtime: device and precision.
        seed: of order, views, dropout and mixing.
        log: writes an event into the run's log.
        fabric: launched, of one or several processes, all of which call this; None: of the runtime's one device.

    Returns:
        The network with the weights of the best epoch in eval mode, the course, and the alarms.

    Raises:
        DermlabError: what was frozen has moved, or no epoch gave a finite val.
    """
    with quiet_randomness():
        training = _Training(data, settings, place, runtime, seed, log, fabric or make_fabric(runtime))
        training.run()
    return training.finished()


class _Training:
    """The state of :func:`fit_fold`."""

    def __init__(
        self,
        data: FoldData,
        settings: FinetuneSettings,
        place: Path,
        runtime: Runtime,
        seed: int,
        log: Callable[..., None],
        fabric: Fabric,
    ) -> None:
        self.data, self.settings, self.place = data, settings, place
        self.runtime, self.seed, self.log = runtime, seed, log
        self.fabric = fabric
        self.network = build_network(settings, data.aim.n_outputs, data.n_questionnaire).to(runtime.device)
        self.average = AveragedWeights(self.network, settings.ema_decay) if settings.ema_decay else None
        preprocess = self.network.backbone.preprocess
        self.statistics: dict[str, Any] = {"mean": preprocess.mean, "std": preprocess.std, "device": runtime.device}
        towers = [encoder.network for _, encoder in self.network.encoders()]
        if settings.gradient_checkpointing and not all(map(checkpoint_gradients, towers)):
            note(f"gradient_checkpointing: {settings.encoder} has none; its activations are kept")
        self.augment = None
        if settings.augmentation != "none" or settings.augmentation_changes:
            self.augment = preset(settings.augmentation, preprocess.size_px, **settings.augmentation_changes)
        self.class_weights = self._class_weights()
        self.course = Course()
        self.saved: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
        if (place / LAST_FILE).exists():
            self.saved = load_checkpoint(place / LAST_FILE)
            self.course = Course(**self.saved[1]["course"])
        self.logger = None
        if settings.logger is not None and fabric.is_global_zero:
            name = f"{settings.encoder} {place.name}"
            self.logger = make_logger(
                settings.logger, place / settings.logger, name=name, online=settings.logger_online
            )
            self.logger.log_hyperparams(settings.model_dump(mode="json"))

    def _class_weights(self) -> torch.Tensor | None:
        if self.settings.class_weight is None:
            return None
        return self.data.aim.class_weights(self.data.codes[self.data.train]).to(self.runtime.device)

    @property
    def judged(self) -> FinetuneNetwork:
        """The network whose weights val judges: the average where there is one."""
        if self.average is None:
            return self.network
        network = self.average.network
        assert isinstance(network, FinetuneNetwork)
        return network

    # ------------------------------------------------------------ phases and epochs

    def run(self) -> None:
        phases = phases_of(self.settings)
        while not self.course.done:
            self._run_phase(phases[self.course.phase])
            if self.course.phase + 1 < len(phases) and not self.course.stopped_by:
                self.course.phase += 1
                self.course.phase_start = self.course.epoch
            else:
                self.course.done = True
            # The next phase's optimiser begins empty: the state of this one is of no more use.
            self._save({f"network/{k}": v for k, v in self.network.state_dict().items()} | self._averaged(), {})

    def _averaged(self) -> dict[str, torch.Tensor]:
        if self.average is None:
            return {}
        return {f"average/{name}": value for name, value in self.average.network.state_dict().items()}

    def _run_phase(self, phase: _Phase) -> None:
        settings, course = self.settings, self.course
        tensors, record = self.saved if self.saved is not None else ({}, {})
        self.saved = None
        if tensors and "stepper" not in record:  # saved between two phases
            self._load_weights(tensors, record)
        frozen = freeze(self.network, settings.train_from, whole_backbone=phase.whole_backbone_frozen)
        n_steps = self._steps_an_epoch() * phase.n_epochs
        stepper = Stepper(
            fabric=self.fabric,
            network=self.network,
            optimiser=self._optimiser(phase),
            rate=lambda step: rate_factor(step, n_steps, **self._schedule(n_steps)),
            seed=self.seed,
            clip_norm=settings.clip_norm,
            accumulate=settings.accumulate,
            average=self.average,
            compiled=settings.compile,
            offset=course.phase_start << 32,
        )
        if "stepper" in record:
            stepper.restore(tensors, record["stepper"])
            note(f"going on from epoch {course.epoch + 1}, batch {course.position}")
        begun = len(course.phases) > course.phase
        if not begun:
            said = trainable_words(self.network, frozen)
            note(f"{phase.name}: {said}")
            if self.fabric.world_size > 1:
                note(self._effective_batch())
            course.phases.append(
                {"name": phase.name, "trains": said, "frozen": frozen, "frozen_hash": frozen_hash(self.network)}
            )
            self.log("phase", **{key: value for key, value in course.phases[-1].items() if key != "frozen"})
        last = course.phase_start + phase.n_epochs
        while course.epoch < last and not self._out_of_patience() and not course.stopped_by:
            self._run_epoch(stepper, phase)
        if frozen_hash(self.network) != course.phases[course.phase]["frozen_hash"]:
            raise DermlabError(f"{phase.name}: weights or statistics that were frozen have moved; please report this")

    def _load_weights(self, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
        self.network.load_state_dict(
            {name[len("network/") :]: value for name, value in tensors.items() if name.startswith("network/")}
        )
        if self.average is not None:
            self.average.network.load_state_dict(
                {name[len("average/") :]: value for name, value in tensors.items() if name.startswith("average/")}
            )
            self.average.n_updates = record["n_updates"]

    def _schedule(self, n_steps: int) -> dict[str, Any]:
        if self.settings.schedule == "one_cycle":
            return {"schedule": "cosine", "warmup_steps": round(ONE_CYCLE_WARMUP * n_steps)}
        return {"schedule": self.settings.schedule, "warmup_steps": self.settings.warmup_steps}

    def _optimiser(self, phase: _Phase) -> torch.optim.Optimizer:
        settings = self.settings
        rate = settings.frozen_learning_rate
        groups: list[dict[str, Any]] = []
        if not phase.whole_backbone_frozen:
            rate = settings.head_learning_rate or settings.learning_rate
            for prefix, encoder in self.network.encoders():
                groups += parameter_groups(
                    encoder.network,
                    settings.learning_rate,
                    weight_decay=settings.weight_decay,
                    layer_decay=settings.layer_decay,
                    prefix=prefix,
                )
        for name in ("pool", "head"):
            if hasattr(self.network, name):
                part = getattr(self.network, name)
                groups += parameter_groups(part, rate, weight_decay=settings.weight_decay, prefix=f"{name}.")
        for group in groups:
            group["base_lr"] *= self._rate_factor()
        return make_optimiser(settings.optimiser, groups, momentum=settings.momentum)

    def _out_of_patience(self) -> bool:
        patience, course = self.settings.patience, self.course
        since = course.epoch - max(course.best_epoch, course.phase_start)
        return patience is not None and since >= patience

    def _rate_factor(self) -> float:
        n = self.fabric.world_size
        return {"none": 1.0, "linear": float(n), "sqrt": math.sqrt(n)}[self.settings.rate_scaling]

    def _effective_batch(self) -> str:
        """Say what several devices make of batch and rates, and of BatchNorm."""
        settings, n = self.settings, self.fabric.world_size
        effective = n * settings.batch_size * settings.accumulate
        said = (
            f"{n} devices × {settings.batch_size} × {settings.accumulate} accumulated: {effective} photos or cases a "
            f"step; rates × {self._rate_factor():g} (rate_scaling: {settings.rate_scaling})"
        )
        kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
        norms = [module for module in self.network.modules() if isinstance(module, kinds)]
        if any(parameter.requires_grad for norm in norms for parameter in norm.parameters()):
            said += "; BatchNorm's statistics are of each device's own part, the first device's are kept"
        return said

    def _n_batches(self) -> int:
        world = self.fabric.world_size
        n, size = len(self.data.train), self.settings.batch_size * world
        # One photo alone has no batch statistics.
        return max(1, n // size + (n % size >= 2 * world))

    def _own_parts(self) -> list[tuple[int, int, int, int]]:
        """Return where each batch begins and ends in an epoch's order, and this process's own part of it."""
        world, rank, n = self.fabric.world_size, self.fabric.global_rank, len(self.data.train)
        size = self.settings.batch_size * world
        parts = []
        for begin in range(0, self._n_batches() * size, size):
            end = min(begin + size, n)
            edges = [begin + ((end - begin) * place + world - 1) // world for place in (rank, rank + 1)]
            parts.append((begin, end, edges[0], edges[1]))
        return parts

    def _steps_an_epoch(self) -> int:
        return math.ceil(self._n_batches() / self.settings.accumulate)

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the rows of an epoch in order, and which view of its photo each takes."""
        train, codes = self.data.train, self.data.codes
        if self.settings.sampling == "natural":
            return train[epoch_order(len(train), seed=self.seed, epoch=epoch)], None
        own = codes[train]
        weights = 1.0 / np.bincount(own)[own]
        rows = generator(self.seed, "balanced", epoch).choice(train, len(train), p=weights / weights.sum())
        sorted_places = np.argsort(rows, kind="stable")
        first = np.searchsorted(rows[sorted_places], rows[sorted_places])
        occurrences = np.empty(len(rows), np.int64)
        occurrences[sorted_places] = np.arange(len(rows)) - first
        return rows, occurrences

    def _run_epoch(self, stepper: Stepper, phase: _Phase) -> None:
        settings, course = self.settings, self.course
        epoch, begin = course.epoch + 1, time.monotonic()
        if not course.position:
            stepper.sums = Sums()
        rows, occurrences = self._order(epoch)
        parts = self._own_parts()
        own = np.concatenate([np.arange(begin, end) for *_, begin, end in parts[course.position :]])
        rate = stepper.rate_at(stepper.step - stepper.sums.n_steps)
        train_mode(self.network)
        made = self.data.batches(
            rows[own],
            [end - begin for *_, begin, end in parts[course.position :]],
            dropout=settings.photo_dropout,
            augment=self.augment,
            seed=self.seed,
            epoch=epoch,
            occurrences=None if occurrences is None else occurrences[own],
            **self.statistics,
        )
        unit = "images" if self.data.bags is None else "cases"
        with progress(f"epoch {epoch} ({phase.name})", parts[-1][1], unit) as advance:
            advance(parts[course.position][0])
            for group in _in_groups(made, settings.accumulate):
                places = range(course.position, course.position + len(group))
                taken = [self._part(epoch, p, parts[p], *one) for p, one in zip(places, group, strict=True)]
                stepper.take([loss for loss, _ in taken], [weight for _, weight in taken])
                course.position += len(group)
                advance(sum(parts[p][1] - parts[p][0] for p in places))
                if stepper.sums.n_steps % settings.checkpoint_steps == 0 and course.position < self._n_batches():
                    self._save_with(stepper)
        self._end_epoch(stepper, phase, rate, time.monotonic() - begin)

    def _part(
        self,
        epoch: int,
        place: int,
        part: tuple[int, int, int, int],
        images: torch.Tensor,
        chosen: np.ndarray,
        belongs: dict[str, Any],
    ) -> tuple[Callable[[torch.nn.Module], tuple[torch.Tensor, int]], float]:
        """Return the function that gives one batch's loss, and what that loss counts."""
        settings, data = self.settings, self.data
        device = images.device
        labels = data.aim.labels(data.codes[chosen], device)
        random = generator(self.seed, "batch", epoch, place)
        begin, end, first, _ = part
        gone = (random.random(end - begin) < settings.questionnaire_dropout)[first - begin :][: len(chosen)]
        if self.fabric.global_rank:  # each process mixes its own part
            random = generator(self.seed, "batch", epoch, place, "rank", self.fabric.global_rank)
        answers = data.answers(chosen, device, gone)
        images, labels = mixed(images, labels, random, mixup=settings.mixup, cutmix=settings.cutmix)

        def loss(network: torch.nn.Module) -> tuple[torch.Tensor, int]:
            value = data.aim(network(images, *answers, **belongs), labels, self.class_weights)
            return value, len(chosen)

        return loss, data.aim.weight(labels, self.class_weights)

    def _end_epoch(self, stepper: Stepper, phase: _Phase, rate: float, seconds: float) -> None:
        course, sums = self.course, stepper.sums
        course.epoch, course.position = course.epoch + 1, 0
        found = self._judge()
        row = {
            "epoch": course.epoch,
            "phase": phase.name,
            "train_loss": sums.mean_loss,
            "learning_rate": rate,
            "gradient_norm": sums.gradient_norm,
            "n_steps": sums.n_steps,
            "n_skipped": sums.n_skipped,
            **found,
        }
        course.history.append(row)
        shown = "auroc" if self.data.aim.multilabel else "top1"
        speed = sums.n / max(seconds, 1e-9)
        self.log("epoch", seconds=seconds, images_per_second=speed, **row)
        if self.logger is not None:
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "epoch"}
            self.logger.log_metrics(numbers, step=course.epoch)
        n_left = sum(one.n_epochs for one in phases_of(self.settings)[course.phase :])
        n_left -= course.epoch - course.phase_start
        note(
            f"epoch {course.epoch} ({phase.name}): train loss {sums.mean_loss:.4f}, val loss {found['val_loss']:.4f}, "
            f"{metric_words(shown)[0]} {found[f'val_{shown}']:.4f}, rate {rate:.2g}; "
            f"{speed:,.1f}/s" + (f", at most {n_left * seconds / 60:,.1f} min of training left" if n_left else "")
        )
        self._tell_new_alarms()
        chosen = found[f"val_{self.settings.metric}"] if self.settings.metric != "log_loss" else found["val_loss"]
        better = -chosen if self.settings.metric == "log_loss" or not higher_is_better(self.settings.metric) else chosen
        if math.isfinite(better) and (course.best_score is None or better > course.best_score):
            course.best_score, course.best_epoch = better, course.epoch
            if self.fabric.is_global_zero:
                save_checkpoint(self.place / BEST_FILE, self.judged.state_dict(), {"epoch": course.epoch})
        self._save_with(stepper)

    def _judge(self) -> dict[str, Any]:
        """Return the metrics on val after an epoch."""
        rows, codes = self.data.val, self.data.codes[self.data.val]
        if self.fabric.world_size > 1:  # running statistics are each process's own: the first one's are saved
            for buffer in self.judged.buffers():
                buffer.copy_(self.fabric.broadcast(buffer))
        probabilities = predict_rows(
            self.judged,
            self.data,
            rows,
            runtime=self.runtime,
            batch_size=self.settings.batch_size,
            fabric=self.fabric,
        )
        return self.data.aim.judged(probabilities, codes)

    # ------------------------------------------------------------ saving and the end

    def _save_with(self, stepper: Stepper) -> None:
        tensors, record = stepper.tensors()
        self._save(tensors, {"stepper": record})

    def _save(self, tensors: dict[str, torch.Tensor], record: dict[str, Any]) -> None:
        n_updates = None if self.average is None else self.average.n_updates
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.place / LAST_FILE, tensors, {"course": vars(self.course), "n_updates": n_updates, **record}
            )
        self.fabric.barrier()

    def finished(self) -> tuple[FinetuneNetwork, Course, list[Alarm]]:
        course, settings = self.course, self.settings
        if not course.best_epoch:
            raise DermlabError(
                f"{self.place}: no epoch gave a finite val {settings.metric}; likely learning_rate: "
                f"{settings.learning_rate:g} under {settings.optimiser} is too high; try a tenth"
            )
        weights, _ = load_checkpoint(self.place / BEST_FILE)
        self.network.load_state_dict(weights)
        if self.logger is not None:
            self.logger.finalize("success")
        alarms = self._examine(course.history)
        for alarm in alarms:
            if alarm.name in ALARMS_OF_THE_END:
                warn(f"{alarm.name}: {alarm.says}")
                self.log("alarm", **alarm.to_dict())
        return self.network.eval(), course, alarms

    def _examine(self, history: list[dict[str, Any]]) -> list[Alarm]:
        data, settings = self.data, self.settings
        history = [{key: math.nan if value is None else value for key, value in row.items()} for row in history]
        rates: dict[str, Any] = {"optimiser": settings.optimiser, "learning_rate": settings.learning_rate}
        if data.aim.multilabel:  # guessing is yes or no, and there is no one class to fall back on
            return examine(history, n_classes=2, majority_share=0.0, **rates)
        majority = np.bincount(data.codes[data.train], minlength=data.n_classes).argmax()
        return examine(
            history,
            n_classes=data.n_classes,
            majority_share=float((data.codes[data.val] == majority).mean()),
            **rates,
            n_classes_true=len(np.unique(data.codes[data.val])),
        )

    def _tell_new_alarms(self) -> None:
        """Warn of what the last epoch's curves show and those before did not; end the training where asked to."""
        course = self.course
        known = {alarm.name for alarm in self._examine(course.history[:-1])}
        for alarm in self._examine(course.history):
            if alarm.name in known or alarm.name in ALARMS_OF_THE_END:
                continue
            warn(f"{alarm.name}: {alarm.says}")
            self.log("alarm", **alarm.to_dict())
            if alarm.disqualifies and alarm.name in self.settings.stop_on:
                course.stopped_by = alarm.name
                note(f"the training ends here, because stop_on names {alarm.name}")


_Batch = tuple[torch.Tensor, np.ndarray, dict[str, Any]]


def _in_groups(made: Iterator[_Batch], size: int) -> Iterator[list[_Batch]]:
    group: list[_Batch] = []
    for one in made:
        group.append(one)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def positions(images: torch.Tensor, kind: str) -> Iterator[torch.Tensor]:
    """Yield the views of a batch (B, 3, S, S) whose predictions are averaged: 1, the 4 flips, or all 8 positions."""
    turned = [images, images.transpose(2, 3)] if kind == "dihedral" else [images]
    for one in turned:
        yield one
        if kind != "none":
            yield one.flip(2)
            yield one.flip(3)
            yield one.flip(2, 3)


@torch.no_grad()
def predict_rows(
    network: FinetuneNetwork,
    data: FoldData,
    rows: np.ndarray,
    *,
    runtime: Runtime,
    batch_size: int,
    tta: str = "none",
    fabric: Fabric | None = None,
) -> np.ndarray:
    """Return probabilities float64 (len(rows), C) of some photos or cases; NaN where a photo cannot be read.

    Args:
        network: put into eval mode.
        data: pixels and questionnaire.
        rows: which photos or cases.
        runtime: device and precision.
        batch_size: photos or cases at a time.
        tta: see :func:`positions`.
        fabric: whose processes share the work, all calling this; None: this one does all of it.
    """
    network.eval()
    preprocess = network.backbone.preprocess
    result = np.full((len(data.codes), data.n_classes), np.nan)
    several = fabric is not None and fabric.world_size > 1
    mine = rows[fabric.global_rank :: fabric.world_size] if fabric is not None else rows
    sizes = [len(part) for part in np.split(mine, range(batch_size, len(mine), batch_size))] if len(mine) else []
    made = data.batches(mine, sizes, mean=preprocess.mean, std=preprocess.std, device=runtime.device)
    for images, chosen, belongs in made:
        answers = data.answers(chosen, runtime.device)
        views = []
        for view in positions(images, tta):
            with runtime.autocast():
                logits = network(view.contiguous(memory_format=torch.channels_last), *answers, **belongs)
            views.append(data.aim.probabilities(logits))
        result[chosen] = torch.stack(views).mean(dim=0).cpu().numpy()
    if several and fabric is not None:
        # Each row is one process's; the sum with others' zeros is it, to the last bit.
        others = np.setdiff1d(rows, mine)
        result[others] = 0.0
        whole: Any = fabric.all_reduce(torch.from_numpy(result[rows]).to(fabric.device), reduce_op="sum")
        return np.asarray(whole.cpu())
    return result[rows]
