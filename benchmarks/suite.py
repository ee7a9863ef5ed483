"""A suite of tasks against a plain script that embeds once for each encoder with timm and fits with scikit-learn.

6 tasks × 2 encoders × (nearest neighbours + logistic regression on every seed's split + few labels). Tasks are
synthetic clinics. Both sides read the same photos, splits and draws, choose k by macro-F1 on val and report macro-F1 on
test. The plain script embeds each task once for each encoder (open, timm's transform, batches of 32, fp32), then fits
``KNeighborsClassifier(metric="cosine")`` for each k and ``LogisticRegression(C=1)``; few labels are standardised, one
fit for each C, as ours are. Last, what it would take to embed again for every draw, as one well-known protocol's code
does, extrapolated from the one embedding that was timed.

    python benchmarks/suite.py
    python benchmarks/suite.py --photos 120 --tasks 2 --repeats 3 --encoders timm:test_vit+random
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

KS = (1, 5, 10, 20, 30, 50, 100, 200)
CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def embed_plainly(encoder: str, paths: list[Path], seed: int) -> np.ndarray:
    """Return what a notebook would: open, transform, stack, run, (N, D) float32."""
    from timm.data import create_transform, resolve_model_data_config

    from dermlab.models import create_encoder

    network, preprocess = create_encoder(encoder, seed=seed)  # of random weights
    transform = create_transform(
        **resolve_model_data_config(network.network)
        | {
            "input_size": (3, preprocess.size_px, preprocess.size_px),
            "mean": preprocess.mean,
            "std": preprocess.std,
            "crop_pct": preprocess.crop_fraction,
            "crop_mode": "squash" if preprocess.fit == "squash" else "center",
            "interpolation": preprocess.interpolation,
        }
    )
    parts = []
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            batch = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths[start : start + 32]])
            parts.append(network(batch).numpy())
    return np.concatenate(parts)


def score(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    """Return macro-F1."""
    return float(f1_score(y, model.predict(X), average="macro", zero_division=0))


def nearest(X: np.ndarray, y: np.ndarray, train: np.ndarray, val: np.ndarray, test: np.ndarray) -> float:
    """Fit every k, choose on val (ties go to the larger), return the score on test."""
    tried = []
    for k in sorted({min(k, len(train)) for k in KS}):
        model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(X[train], y[train])
        tried.append((score(model, X[val], y[val]), k, model))
    return score(max(tried, key=lambda one: one[:2])[2], X[test], y[test])


def few_linear(X: np.ndarray, y: np.ndarray, train: np.ndarray, val: np.ndarray, test: np.ndarray) -> float:
    """Standardise by the draw, fit every C, choose on val (ties go to the stronger penalty), return the test score."""
    scaled = StandardScaler().fit(X[train]).transform(X)
    tried = []
    for C in CS:
        model = LogisticRegression(C=C, max_iter=10_000).fit(scaled[train], y[train])
        tried.append((score(model, scaled[val], y[val]), -C, model))
    return score(max(tried, key=lambda one: one[:2])[2], scaled[test], y[test])


def plain(
    folders: dict[str, Path], splits: dict[str, str], encoders: list[str], sizes: list[int], repeats: int, seed: int
) -> tuple[dict[tuple[str, str, str], float], float]:
    """Do by hand what the suite does; return macro-F1 by task, encoder and head, and the seconds of embedding."""
    import pandas as pd

    from dermlab.bench.label_efficiency import ALL, Size, draw_order
    from dermlab.core.randomness import generator
    from dermlab.data.dataset import Dataset

    found: dict[tuple[str, str, str], float] = {}
    embedding = 0.0
    for task, folder in folders.items():
        dataset = Dataset.open(folder)
        target = dataset.card.target(None)
        y = pd.Index(target.classes).get_indexer(pd.Index(dataset.labels(None)))
        groups, split = dataset.groups(), dataset.read_split(splits[task])
        parts = [part["split"].to_numpy(str) for _, part in split.groupby("repeat")]
        rows = [[np.flatnonzero(part == name) for name in ("train", "val", "test")] for part in parts]
        for encoder in encoders:
            start = time.perf_counter()
            X = embed_plainly(encoder, dataset.paths, seed)
            embedding += time.perf_counter() - start
            found[task, encoder, "knn"] = float(np.mean([nearest(X, y, *one) for one in rows]))
            linear = []
            for train, _, test in rows:
                model = LogisticRegression(C=1.0, max_iter=10_000).fit(X[train], y[train])
                linear.append(score(model, X[test], y[test]))
            found[task, encoder, "linear"] = float(np.mean(linear))
            pool, val, test = rows[0]
            for head, fit in (("knn", nearest), ("linear", few_linear)):
                for size in [*(Size(f"{n} per class", f"n{n}", per_class=n) for n in sizes), ALL]:
                    scores = []
                    for repeat in range(1 if size is ALL else repeats):
                        order = draw_order(
                            y[pool], groups[pool], len(target.classes), generator(seed, "labels", 0, 0, repeat)
                        )
                        counts = size.counts(np.array([len(one) for one in order]))
                        drawn = np.sort(np.concatenate([one[:n] for one, n in zip(order, counts, strict=True)]))
                        scores.append(fit(X, y, pool[drawn], val, test))
                    found[task, encoder, f"few {head} {size.name}"] = float(np.mean(scores))
    return found, embedding


def main() -> None:
    """Time both sides and print the ratio, the disagreement and the extrapolation as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=6)
    parser.add_argument("--photos", type=int, default=600, help="photos of each task")
    parser.add_argument("--encoders", default="efficientnet_lite0,clip_vit_b16")
    parser.add_argument("--sizes", default="1,3,10,30", help="labels per class")
    parser.add_argument("--repeats", type=int, default=50, help="draws of each size")
    parser.add_argument("--precision", default="auto", help="of our embedding; the plain script's is fp32")
    options = parser.parse_args()
    encoders, sizes = options.encoders.split(","), [int(n) for n in options.sizes.split(",")]
    with tempfile.TemporaryDirectory(prefix="dermlab-suite-") as place:
        os.environ["DERMLAB_CACHE"] = f"{place}/cache"
        from dermlab.bench.config import short_encoder
        from dermlab.bench.suites.config import Suite
        from dermlab.bench.suites.run import Request, run_suite
        from dermlab.core.config import validate
        from dermlab.data.synthetic import make_clinic

        folders = {f"task{number}": Path(place) / f"task{number}" for number in range(options.tasks)}
        for number, folder in enumerate(folders.values()):
            make_clinic(folder, n=options.photos, size_px=256, seed=number)
        fields = {
            "name": "benchmark",
            "title": "Benchmark",
            "protocol": {
                "seeds": [1, 9, 21, 42, 555],
                "heads": [
                    {"kind": "knn", "k": KS, "weights": "uniform", "centre": False, "choose_by": "macro_f1"},
                    {"kind": "linear", "C": 1.0, "standardise": False},
                ],
                "few_shot": {"per_class": sizes, "repeats": options.repeats, "C": CS},
                "n_boot": 100,
            },
            "encoders": encoders,
            "tasks": [{"name": name, "data": name} for name in folders],
        }
        suite = validate(Suite, fields)
        start = time.perf_counter()
        record = run_suite(suite, Request(data=folders, precision=options.precision), Path(place) / "out")
        ours = time.perf_counter() - start
        splits = {task["task"]: task["data"]["split"] for task in record["tasks"]}
        start = time.perf_counter()
        theirs, embedding = plain(folders, splits, encoders, sizes, options.repeats, suite.protocol.seeds[0])
        by_hand = time.perf_counter() - start
        found = {}
        names = {short_encoder(name): name for name in encoders}
        for row in record["rows"]:
            found[row["task"], names[row["model"]], row["method"]] = row["metrics"]["macro_f1"]["value"]
        for task in record["tasks"]:
            for curve in task["few_shot"]["curves"]:
                for point in curve["points"]:
                    key = (task["task"], curve["encoder"], f"few {curve['head']} {point['size']}")
                    found[key] = point["macro_f1"]["value"]
        gaps = {key: abs(found[key] - theirs[key]) for key in found if key in theirs}
        draws = len(sizes) * options.repeats + 1 + 2 * len(suite.protocol.seeds)
        again = embedding * draws + (by_hand - embedding)
        result = {
            "tasks": options.tasks,
            "photos a task": options.photos,
            "encoders": encoders,
            "seconds": round(ours, 1),
            "plain script, seconds": round(by_hand, 1),
            "of these embedding": round(embedding, 1),
            "ratio (ours / plain)": round(ours / by_hand, 3),
            "values compared": len(gaps),
            "mean disagreement of macro-F1": round(float(np.mean(list(gaps.values()))), 5),
            "largest disagreement": [round(max(gaps.values()), 5), " · ".join(max(gaps, key=lambda key: gaps[key]))],
            "embedding again for every draw, hours, extrapolated": round(again / 3600, 2),
            "intervals, page and tables": "ours has them, the plain script has none",
        }
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
