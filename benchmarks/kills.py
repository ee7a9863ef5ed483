"""Fine-tuning killed by SIGKILL at random moments, again and again: does it end bit-equal to a run never killed?

The real command, at toy size on a synthetic clinic. Each round starts it, kills it after a random time or at once when
a checkpoint is being written, starts it again, and so on until it ends by itself.

    python benchmarks/kills.py [--rounds 5] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from dermlab.core.files import read_json
from dermlab.data.splits import split_by_fraction
from dermlab.data.synthetic import make_clinic
from dermlab.training.checkpoint import load_checkpoint

TOY = {"encoder": "timm:test_resnet+random", "size_px": 32, "frozen_epochs": 1, "finetune_epochs": 4, "batch_size": 16}
TOY |= {"checkpoint_steps": 1, "precision": "fp32", "device": "cpu", "n_boot": 100, "patience": 3}
RECIPES = {
    "average, mixing, questionnaire": {"ema_decay": 0.9, "mixup": 0.2, "cutmix": 1.0, "head": "fusion", "dropout": 0.2},
    "LoRA, accumulation, lamb": {
        **{"encoder": "timm:test_vit+random", "lora": "{rank: 2, targets: [qkv]}"},
        **{"accumulate": 2, "optimiser": "lamb", "schedule": "one_cycle"},
    },
}


def start(clinic: Path, out: Path, recipe: dict[str, object]) -> subprocess.Popen[bytes]:
    """Start the command as a person would, one thread."""
    options = [word for name, value in {**TOY, **recipe}.items() for word in (f"--{name}", str(value))]
    words = [sys.executable, "-m", "dermlab", "finetune", str(clinic), "--out", str(out), *options]
    return subprocess.Popen(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def killed_until_done(clinic: Path, out: Path, recipe: dict[str, object], draw: random.Random) -> tuple[int, int]:
    """Return how often the run was killed, and how often a checkpoint was being written then."""
    place = out / "checkpoints" / "repeat0-fold0"
    n_kills = n_while_saving = 0
    while True:
        process = start(clinic, out, recipe)
        while process.poll() is None and not place.is_dir():
            time.sleep(0.005)
        end, at_saving = time.monotonic() + draw.uniform(0, 3), draw.random() < 0.5
        while process.poll() is None:
            saving = any(place.glob(".*.tmp"))
            if (at_saving and saving) or time.monotonic() > end:
                process.kill()
                process.wait()
                n_kills, n_while_saving = n_kills + 1, n_while_saving + saving
                break
            time.sleep(0 if at_saving else 0.005)
        else:
            if process.returncode:
                raise SystemExit(f"{out}: ended with status {process.returncode}")
            return n_kills, n_while_saving


def same(run: Path, other: Path) -> bool:
    """Tell whether weights, average, optimiser, history, stopping, metrics and predictions are equal to the bit."""
    for name in ("best", "last"):
        files = [one / "checkpoints" / "repeat0-fold0" / f"{name}.safetensors" for one in (run, other)]
        (tensors, record), (expected, expected_record) = map(load_checkpoint, files)
        if record != expected_record or tensors.keys() != expected.keys():
            return False
        if not all(torch.equal(tensors[key], value) for key, value in expected.items()):
            return False
    frames = [pd.read_parquet(one / "predictions.parquet") for one in (run, other)]
    return frames[0].equals(frames[1]) and read_json(run / "metrics.json") == read_json(other / "metrics.json")


def main() -> None:
    """Print a row for each recipe and round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        clinic = Path(folder) / "clinic"
        dataset = make_clinic(clinic, n=160, size_px=64, seed=7)
        dataset.write_split("main", split_by_fraction(dataset, (0.6, 0.2, 0.2), seed=0))
        for place, (title, recipe) in enumerate(RECIPES.items()):
            whole = Path(folder) / f"whole{place}"
            if start(clinic, whole, recipe).wait():
                raise SystemExit(f"{title}: the run never killed failed")
            for number in range(options.rounds):
                out = Path(folder) / f"killed{place}-{number}"
                n_kills, n_saving = killed_until_done(clinic, out, recipe, draw)
                told = "bit-equal" if same(out, whole) else "DIFFERS"
                print(f"{title}: killed {n_kills} times, {n_saving} of them while saving: {told}", flush=True)


if __name__ == "__main__":
    main()
