"""How fast fine-tuning is: dermlab's loop against a bare PyTorch loop and against timm's own, in one run, medians.

    python benchmarks/finetune.py
    python benchmarks/finetune.py --photos FOLDER_OF_CLASS_FOLDERS --rounds 3

"bare" is the shortest loop there is over tensors in memory: same network, precision, batch and optimiser, channels
last, no loading. "timm" is the loop of timm's train.py from timm's own parts at its defaults (ImageDataset,
create_loader with its 4 workers, random resized crops of scale 0.08-1, flips, colour jitter 0.4, random interpolation,
label smoothing 0.1, SGD 0.05, cosine, fp32), on the same JPEGs, network and batch; dermlab runs as it does by default,
with its light views, in the precision it chooses. Each round runs all of them in turn: a busy machine slows all.
Then: time and memory of epochs over n and 10 n photos from the warm cache.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.datasets import ImageFolder

from training_batches import make_photos

THREADS = 2
CASES = {
    "resnet18 at 28 px": ("timm:resnet18+random", 28, 128),
    "lite0 at 224 px": ("efficientnet_lite0+random", 224, 32),
}


def settings_of(encoder: str, size_px: int, batch: int, **changes: Any) -> Any:
    """Return the recipe of one network: one finetuning epoch, no averaging."""
    from dermlab.adapt.finetune.config import FinetuneSettings

    fields = {"encoder": encoder, "size_px": size_px, "batch_size": batch, "frozen_epochs": 0, "finetune_epochs": 1}
    return FinetuneSettings(**{**fields, "small_stem": size_px < 64, "augmentation": "none", **changes})


class Ours:
    """dermlab's step: batches from the warm cache, the loop's Stepper."""

    def __init__(self, paths: list[Path], labels: np.ndarray, settings: Any, n_classes: int) -> None:
        from dermlab.adapt.finetune.network import build_network, freeze, train_mode
        from dermlab.core.device import resolve
        from dermlab.data.augment import preset
        from dermlab.data.pixel_cache import open_pixels
        from dermlab.training.loop import Stepper, make_fabric
        from dermlab.training.optimiser import make_optimiser, parameter_groups

        self.settings, self.labels, self.runtime = settings, labels, resolve()
        self.network = build_network(settings, n_classes, 0).to(self.runtime.device)
        freeze(self.network, None, whole_backbone=False)
        train_mode(self.network)
        self.preprocess = self.network.backbone.preprocess
        self.pixels = open_pixels(paths, self.preprocess.recipe(), threads=THREADS)
        self.pixels.fill()
        self.augment = None
        if settings.augmentation != "none":
            self.augment = preset(settings.augmentation, self.preprocess.size_px)
        groups = parameter_groups(self.network, 1e-4, weight_decay=0.05)
        optimiser = make_optimiser("adamw", groups)
        self.stepper = Stepper(make_fabric(self.runtime), self.network, optimiser, lambda step: 1.0, 0, clip_norm=None)

    def epoch(self, number: int, n: int | None = None) -> int:
        """Train over ``n`` photos (None: all) and return the steps."""
        from torch.nn.functional import cross_entropy

        from dermlab.data.loader import batches, epoch_order

        rows = epoch_order(n or len(self.pixels), seed=0, epoch=number)
        rows = rows[: len(rows) // self.settings.batch_size * self.settings.batch_size]
        options: dict[str, Any] = {"mean": self.preprocess.mean, "std": self.preprocess.std, "threads": THREADS}
        made = batches(
            self.pixels, rows, self.settings.batch_size, augment=self.augment, seed=0, epoch=number, **options
        )
        steps = 0
        for images, chosen in made:
            labels = torch.from_numpy(self.labels[chosen])

            def part(forward: nn.Module, images: Any = images, labels: Any = labels) -> tuple[torch.Tensor, int]:
                return cross_entropy(forward(images).float(), labels), len(labels)

            self.stepper.take([part])
            steps += 1
        return steps


def bare(ours: Ours, n_classes: int) -> Callable[[int], int]:
    """Return the shortest loop: the same network and precision, tensors in memory."""
    from torch.nn.functional import cross_entropy

    from dermlab.adapt.finetune.network import build_network

    settings, size, batch = ours.settings, ours.preprocess.size_px, ours.settings.batch_size
    network = build_network(settings, n_classes, 0).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)
    images = torch.randn(4, batch, 3, size, size)
    images = [one.contiguous(memory_format=torch.channels_last) for one in images]
    labels = torch.arange(batch) % n_classes
    n_steps = len(ours.pixels) // batch

    def epoch(number: int) -> int:
        for step in range(n_steps):
            optimiser.zero_grad(set_to_none=True)
            with ours.runtime.autocast():
                loss = cross_entropy(network(images[step % 4]), labels)
            loss.backward()
            optimiser.step()
        return n_steps

    return epoch


def timm_loop(folder: Path, architecture: str, size: int, batch: int, n_classes: int) -> Callable[[int], int]:
    """Return an epoch of timm's train.py at its defaults, from timm's own parts."""
    import timm
    from timm.data import ImageDataset, create_loader, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import AverageMeter

    model = timm.create_model(architecture, pretrained=False, num_classes=n_classes).train()
    config = resolve_data_config({"input_size": (3, size, size)}, model=model)
    loader = create_loader(
        ImageDataset(str(folder)),
        input_size=config["input_size"],
        batch_size=batch,
        is_training=True,
        use_prefetcher=True,
        scale=[0.08, 1.0],
        ratio=[3 / 4, 4 / 3],
        hflip=0.5,
        color_jitter=0.4,
        interpolation="random",
        mean=config["mean"],
        std=config["std"],
        num_workers=4,
        device=torch.device("cpu"),
    )
    optimiser = create_optimizer_v2(model, opt="sgd", lr=0.05, weight_decay=2e-5, momentum=0.9)
    scheduler = CosineLRScheduler(optimiser, t_initial=300, lr_min=1e-6, warmup_t=3, warmup_lr_init=1e-4)
    smooth, losses = LabelSmoothingCrossEntropy(0.1), AverageMeter()

    def epoch(number: int) -> int:
        steps = 0
        for images, labels in loader:
            loss = smooth(model(images), labels)
            losses.update(loss.item(), images.size(0))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            scheduler.step_update(num_updates=number * len(loader) + steps)
            steps += 1
        scheduler.step(number + 1)
        return steps

    return epoch


def rates(epochs: dict[str, Callable[[int], int]], rounds: int) -> dict[str, float]:
    """Return the median steps a second of each after one epoch to warm up."""
    found: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            steps = epoch(number)
            if number:
                found[name].append(steps / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def resident_mb() -> float:
    """Return the anonymous memory of this process now, in MB; the largest so far where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Make or find the photos, run every loop in turn, print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=640, help="synthetic photos of 1200 × 900")
    parser.add_argument("--photos", type=Path, help="a folder of class folders of JPEGs instead")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6, help="epochs over which memory is watched")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    work = Path(tempfile.mkdtemp(prefix="dermlab-benchmark-"))
    os.environ["DERMLAB_CACHE"] = str(work / "cache")
    result: dict[str, Any] = {"rounds": options.rounds, "threads": THREADS, "steps_per_second": {}, "ratios": {}}
    try:
        folder = options.photos
        if folder is None:
            folder = work / "photos"
            make_photos(folder, options.images)
        samples = ImageFolder(folder).samples
        paths, labels = [Path(path) for path, _ in samples], np.array([label for _, label in samples])
        n_classes = max(2, len(set(labels.tolist())))
        for name, (encoder, size, batch) in CASES.items():
            batch = min(batch, max(2, len(paths) // 4))
            ours = Ours(paths, labels, settings_of(encoder, size, batch), n_classes)
            found = rates({"dermlab": ours.epoch, "bare": bare(ours, n_classes)}, options.rounds)
            result["steps_per_second"][name] = found
            result["ratios"][f"{name}: dermlab against a bare loop on tensors"] = found["dermlab"] / found["bare"]
            del ours
        encoder, size, batch = CASES["lite0 at 224 px"]
        batch = min(batch, max(2, len(paths) // 4))
        ours = Ours(paths, labels, settings_of(encoder, size, batch, augmentation="light"), n_classes)
        theirs = timm_loop(folder, "tf_efficientnet_lite0", size, batch, n_classes)
        found = rates({"dermlab, light views": ours.epoch, "timm's loop": theirs}, options.rounds)
        result["steps_per_second"]["lite0 at 224 px, from JPEGs"] = found
        result["ratios"]["dermlab against timm's loop at its defaults"] = (
            found["dermlab, light views"] / found["timm's loop"]
        )
        memory = []
        for number in range(options.epochs):
            ours.epoch(number, 4 * batch)
            memory.append(round(resident_mb()))
        result["memory_mb_by_epoch"] = memory
        del ours
        small = len(paths) // 10
        tenfold = Ours(paths, labels, settings_of("timm:resnet18+random", 28, max(2, min(32, small // 2))), n_classes)
        seconds: dict[int, list[float]] = {small: [], 10 * small: []}
        for number in range(options.rounds + 1):
            for n, kept in seconds.items():
                start = time.perf_counter()
                steps = tenfold.epoch(number, n)
                if number:  # per step done: a last part of a batch is left out of both
                    kept.append((time.perf_counter() - start) / (steps * tenfold.settings.batch_size) * n)
        result["ratios"]["time of 10 × the photos"] = statistics.median(seconds[10 * small]) / statistics.median(
            seconds[small]
        )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    for name, values in result["steps_per_second"].items():
        for loop, rate in values.items():
            print(f"  {name + ', ' + loop:<58}{rate:>9.2f} steps/s")
    for name, ratio in result["ratios"].items():
        print(f"  {name:<58}{ratio:>9.2f} ×")
    print(f"  memory after each epoch: {', '.join(map(str, result['memory_mb_by_epoch']))} MB")
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
