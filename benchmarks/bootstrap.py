"""The grouped bootstrap of all metrics.json metrics against the same written plainly with scikit-learn.

    python benchmarks/bootstrap.py

The setting of the seeds: 15,561 predictions over 25 classes; here of 9,000 patients. The scikit-learn loop draws
patients, gathers their rows and calls one function a metric; it is timed on --loop replicates and extrapolated to the
same number. Both are checked to agree on the same draws. Then ten such models are compared pairwise, and small test
sets are redrawn from them.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np
import pandas as pd
import sklearn.metrics as sk

from dermlab.evaluate import Predictions, compare_predictions
from dermlab.evaluate.cases import cases_from_arrays
from dermlab.evaluate.estimates import estimate
from dermlab.evaluate.intervals import BLOCK, group_counts, resample
from dermlab.evaluate.metrics import N_BINS, Evaluation
from dermlab.evaluate.redraw import redraw
from dermlab.evaluate.summary import PROMISED


def predictions(n: int, n_classes: int, n_patients: int, seed: int, skill: float) -> tuple[np.ndarray, ...]:
    """Return labels (N,), probabilities (N, C) and patients (N,); all seeds share labels and patients."""
    shared = np.random.default_rng(0)
    label = shared.choice(n_classes, n, p=shared.dirichlet(np.full(n_classes, 2.0)))
    patient = shared.integers(0, n_patients, n)
    scores = np.random.default_rng([1, seed]).normal(size=(n, n_classes))
    scores[np.arange(n), label] += skill
    powers = np.exp(scores)
    return label, powers / powers.sum(axis=1, keepdims=True), patient


def scikit_learn(label: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Return the metrics of metrics.json as scikit-learn computes them; ECE, which it lacks, with numpy."""
    n_classes = probabilities.shape[1]
    said, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    bins = np.clip(np.ceil(confidence * N_BINS).astype(int) - 1, 0, N_BINS - 1)
    return {
        "top1": sk.accuracy_score(label, said),
        "top3": sk.top_k_accuracy_score(label, probabilities, k=3, labels=range(n_classes)),
        "balanced_accuracy": sk.balanced_accuracy_score(label, said),
        "macro_f1": sk.f1_score(label, said, average="macro"),
        "auroc": sk.roc_auc_score(label, probabilities, multi_class="ovr", labels=range(n_classes)),
        "ece": np.abs(np.bincount(bins, (said == label) - confidence, N_BINS)).sum() / len(label),
        **dict(enumerate(sk.recall_score(label, said, average=None, labels=range(n_classes)))),
    }


def main() -> None:
    """Time both and print the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=15_561)
    parser.add_argument("--classes", type=int, default=25)
    parser.add_argument("--patients", type=int, default=9_000)
    parser.add_argument("--n_boot", type=int, default=2_000)
    parser.add_argument("--loop", type=int, default=10, help="replicates of the scikit-learn loop that are timed")
    parser.add_argument("--models", type=int, default=10, help="models compared pairwise; 0 skips the comparison")
    options = parser.parse_args()
    label, probabilities, patient = predictions(options.n, options.classes, options.patients, 0, 1.5)

    def ours() -> None:
        evaluation = Evaluation([cases_from_arrays(label, probabilities, patient)], PROMISED)
        estimate([evaluation], n_boot=options.n_boot, seed=0)

    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        ours()
        seconds.append(time.perf_counter() - start)

    names, codes = np.unique(patient, return_inverse=True)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    counts = group_counts(len(names), min(BLOCK, options.loop), 0, 0)
    evaluation = Evaluation([cases_from_arrays(label, probabilities, patient)], PROMISED)
    replicates = resample([evaluation], n_boot=options.loop, seed=0)[0]
    gaps, start = [], time.perf_counter()
    for replicate in range(options.loop):
        drawn = np.repeat(np.arange(len(names)), counts[:, replicate].astype(int))
        rows = np.concatenate([members[code] for code in drawn])
        theirs = scikit_learn(label[rows], probabilities[rows])
        gaps += [abs(theirs[name] - replicates[name][replicate]) for name in PROMISED]
    each = (time.perf_counter() - start) / options.loop
    result = {
        "predictions": [options.n, options.classes],
        "patients": len(names),
        "replicates": options.n_boot,
        "seconds": round(float(np.median(seconds)), 2),
        "scikit-learn seconds, extrapolated": round(each * options.n_boot, 1),
        "extrapolated from replicates": options.loop,
        "ratio": round(each * options.n_boot / float(np.median(seconds)), 1),
        "largest disagreement": float(max(gaps)),
        "peak memory MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if options.models > 1:
        tables = {}
        classes = tuple(f"c{code:02d}" for code in range(options.classes))
        for seed in range(options.models):
            label, probabilities, patient = predictions(
                options.n, options.classes, options.patients, seed, 1.4 + 0.02 * seed
            )
            frame = pd.DataFrame(probabilities, columns=[f"p:{name}" for name in classes])
            frame["image_id"] = frame["unit"] = [f"i{row}" for row in range(options.n)]
            frame["group"] = patient.astype(str)
            frame["label"] = np.array(classes)[label]
            frame["split"], frame["fold"], frame["repeat"], frame["seed"] = "test", 0, 0, 0
            tables[f"m{seed}"] = Predictions(frame, classes, {"group_by": "patient_id"})
        start = time.perf_counter()
        compare_predictions(tables, n_boot=options.n_boot)
        result[f"seconds to compare {options.models} models"] = round(time.perf_counter() - start, 1)
        start = time.perf_counter()
        found = redraw(tables, n=250, draws=1000)
        result["seconds to redraw 1,000 test sets at each size"] = round(time.perf_counter() - start, 1)
        result["another winner on 250"] = next(one for one in found["sizes"] if one["n"] == 250)["winner_differs"]
        result["same winner in 95 % from"] = found["n_for_5_percent"]
        result["peak memory MB, with the comparison"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
