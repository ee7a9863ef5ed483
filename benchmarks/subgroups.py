"""How often `subgroups` claims a difference where there is none, and how often its interval of a gap holds the truth.

    python benchmarks/subgroups.py --simulations 300

Simulated clinics of 150 patients with 1 to 5 photos (`coverage.py`'s), and three columns drawn by patient: two, three
and four levels. At first no level differs; then the photos of one level of three are answered wrongly more often, and
the true gaps are those of a population of 60,000 patients. Results are in docs/how-to/subgroups_and_shift.md.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import pandas as pd

from coverage import CLASSES, clinic
from dermlab.evaluate.predictions import PROBABILITY, Predictions
from dermlab.evaluate.subgroups import subgroups

METRICS = ("top1", "balanced_accuracy", "auroc")
LEVELS = {"sex": 2, "device": 3, "site": 4}
SPOILT = 0.3


def table(random: np.random.Generator, n_patients: int, *, planted: bool) -> Predictions:
    """Return a predictions table with three columns; ``planted``: device 2 is worse."""
    label, scores, patient = clinic(random, n_patients, 1)
    columns = {name: random.integers(0, n, n_patients)[patient].astype(str) for name, n in LEVELS.items()}
    probabilities = scores[0]
    if planted:
        spoilt = (columns["device"] == "2") & (random.random(len(label)) < SPOILT)
        probabilities[spoilt] = np.roll(probabilities[spoilt], 1, axis=1)
    names = [f"i{row}" for row in range(len(label))]
    frame = pd.DataFrame({"image_id": names, "unit": names, "group": patient.astype(str), "target": "d"})
    frame = frame.assign(split="test", fold=0, repeat=0, seed=0, label=np.array(CLASSES)[label], **columns)
    frame[[PROBABILITY + name for name in CLASSES]] = probabilities
    return Predictions(frame, CLASSES, {"kind": "multiclass", "group_by": "patient_id"})


def true_gaps() -> dict[str, float]:
    """Return the gap of each metric between devices in a large population of the planted kind."""
    found = subgroups(
        table(np.random.default_rng(1), 60_000, planted=True),
        columns=["device"],
        metrics=METRICS,
        n_boot=2,
        n_permutations=1,
    )
    return {name: gap["difference"]["value"] for name, gap in found["columns"]["device"]["gaps"].items()}


def simulate(n: int, *, planted: bool, truth: dict[str, float]) -> dict[str, Any]:
    """Return shares over ``n`` clinics: claims, tests that reject, and intervals of gaps that hold the truth."""
    claims: dict[str, list[bool]] = {name: [] for name in METRICS}
    rejected: dict[str, list[bool]] = {name: [] for name in METRICS}
    held: dict[str, list[bool]] = {name: [] for name in METRICS}
    for simulation in range(n):
        random = np.random.default_rng([7, planted, simulation])
        found = subgroups(
            table(random, 150, planted=planted),
            columns=list(LEVELS),
            metrics=METRICS,
            n_boot=400,
            n_permutations=199,
            seed=simulation,
        )
        told = {(one["column"], one["metric"]) for one in [*found["worse"], *found["better"]]}
        for name in METRICS:
            claims[name].append(any((column, name) in told for column in LEVELS))
            gap = found["columns"]["device"]["gaps"][name]
            rejected[name].append(gap["p"] < 0.05)
            held[name].append(gap["difference"]["low"] <= truth[name] <= gap["difference"]["high"])
    return {
        name: {
            "any claim": float(np.mean(claims[name])),
            "p < .05 (device)": float(np.mean(rejected[name])),
            "gap covered": float(np.mean(held[name])),
        }
        for name in METRICS
    }


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--kind", choices=("null", "planted", "both"), default="both")
    options = parser.parse_args()
    start = time.monotonic()
    result: dict[str, Any] = {"simulations": options.simulations}
    if options.kind != "planted":
        result["null"] = simulate(options.simulations, planted=False, truth=dict.fromkeys(METRICS, 0.0))
    if options.kind != "null":
        truth = true_gaps()
        result |= {"true gaps": truth, "planted": simulate(options.simulations, planted=True, truth=truth)}
    print(json.dumps(result | {"seconds": time.monotonic() - start}, indent=1))


if __name__ == "__main__":
    main()
