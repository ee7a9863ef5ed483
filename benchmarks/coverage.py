"""How often 95 % intervals hold the truth, and how often tests cry wolf, on simulated clinics with clustered patients.

    python benchmarks/coverage.py --simulations 2000

Each simulated clinic has patients with 1 to 5 photos. A patient shifts the scores of all their photos (the cluster
effect), and mostly has lesions of one class. Truth is the metric on a population of 200,000 such patients.
Under the null hypothesis two models err alike on average, each with errors of its own and patients it finds hard.
Results are in docs/explanation/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import pandas as pd

from dermlab.evaluate import Predictions, compare_predictions, compare_recipes
from dermlab.evaluate.cases import Cases
from dermlab.evaluate.compare import bootstrap_p, clustered_mcnemar, mcnemar, permutation_test
from dermlab.evaluate.influence import auroc_influence, delong, delong_interval
from dermlab.evaluate.intervals import interval, jackknife, resample, wilson_grouped
from dermlab.evaluate.metrics import Evaluation

PRIOR = np.array([0.5, 0.25, 0.15, 0.1])
METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc")
CLASSES = tuple("ABCD")


def clinic(random: np.random.Generator, n_patients: int, n_models: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels (N,), scores (models, N, 4) and patients (N,) of a simulated clinic."""
    size = random.integers(1, 6, n_patients)
    patient = np.repeat(np.arange(n_patients), size)
    habitual = random.choice(4, n_patients, p=PRIOR)[patient]
    label = np.where(random.random(len(patient)) < 0.7, habitual, random.choice(4, len(patient), p=PRIOR))
    shared = random.normal(size=(n_patients, 4))[patient]
    own = random.normal(size=(n_models, n_patients, 4))[:, patient]
    scores = shared + own + random.normal(size=(n_models, len(patient), 4))
    scores[:, np.arange(len(patient)), label] += 2.0
    scores[..., 0] += 0.5
    powers = np.exp(scores)
    return label, powers / powers.sum(axis=-1, keepdims=True), patient


def cases(label: np.ndarray, scores: np.ndarray, group: np.ndarray) -> Cases:
    """Return one model's cases."""
    return Cases(label, scores.argmax(axis=1), scores, group, int(group.max()) + 1, CLASSES)


def coverage(n_simulations: int, n_patients: int, n_boot: int) -> dict[str, Any]:
    """Return the share of intervals that hold the truth, by method and metric."""
    label, scores, patient = clinic(np.random.default_rng(1), 200_000, 1)
    truth = Evaluation([cases(label, scores[0], patient)], METRICS).value()
    held: dict[str, dict[str, list[bool]]] = {}

    def note(method: str, name: str, low: float, high: float) -> None:
        held.setdefault(method, {}).setdefault(name, []).append(low <= truth[name] <= high)

    for simulation in range(n_simulations):
        label, scores, patient = clinic(np.random.default_rng([2, simulation]), n_patients, 1)
        grouped = cases(label, scores[0], patient)
        single = cases(label, scores[0], np.arange(len(label)))
        for words, data, method in (
            ("percentile over patients", grouped, "percentile"),
            ("BCa over patients", grouped, "bca"),
            ("percentile over photos (clusters ignored)", single, "percentile"),
        ):
            evaluation = Evaluation([data], METRICS)
            drawn = resample([evaluation], n_boot=n_boot, seed=simulation, names=METRICS)[0]
            without = jackknife(evaluation, METRICS) if method == "bca" else dict.fromkeys(METRICS)
            for name, value in evaluation.value().items():
                if name in METRICS:
                    n_groups = evaluation.n_groups
                    one = interval(value, drawn[name], n_groups, method=method, jackknifed=without[name])
                    note(words, name, one.low, one.high)
        for words, data in (("Wilson, effective n", grouped), ("Wilson, clusters ignored", single)):
            found = wilson_grouped(data.correct(), data.group)
            note(words, "top1", found.low, found.high)
            area = delong_interval([data])
            note(
                "DeLong over patients" if data is grouped else "DeLong, clusters ignored", "auroc", area.low, area.high
            )
            for code, name in enumerate(CLASSES):
                own = label == code
                found = wilson_grouped(data.correct()[own], data.group[own])
                note(words, "recall:" + name, found.low, found.high)
    return {method: {name: float(np.mean(values)) for name, values in rows.items()} for method, rows in held.items()}


def type_one(n_simulations: int, n_patients: int, n_boot: int) -> dict[str, float]:
    """Return the share of p values below .05 when two models are equally good."""
    rejected: dict[str, list[bool]] = {}
    for simulation in range(n_simulations):
        label, scores, patient = clinic(np.random.default_rng([3, simulation]), n_patients, 2)
        data = [cases(label, model, patient) for model in scores]
        evaluations = [Evaluation([model], METRICS) for model in data]
        names = ("top1", "balanced_accuracy", "macro_f1")
        swapped = [Evaluation([model], names) for model in data]
        ps = permutation_test([(swapped[0], swapped[1])], names, n_permutations=999, seed=simulation)[0]
        found = {f"permutation by patient, {name}": p for name, p in ps.items()}
        values = [evaluation.value() for evaluation in evaluations]
        draws = resample(evaluations, n_boot=n_boot, seed=simulation, names=METRICS)
        found |= {
            f"bootstrap over patients, {name}": bootstrap_p(draws[0][name] - draws[1][name], n_patients)
            for name in METRICS
        }
        gap = values[0]["auroc"] - values[1]["auroc"]
        found["DeLong clustered, auroc"] = delong(gap, auroc_influence(data[:1]) - auroc_influence(data[1:]))
        single = [cases(label, model, np.arange(len(label))) for model in scores]
        found["DeLong, clusters ignored, auroc"] = delong(
            gap, auroc_influence(single[:1]) - auroc_influence(single[1:])
        )
        right = [model.correct() for model in data]
        only = int((right[0] > right[1]).sum()), int((right[0] < right[1]).sum())
        found["McNemar, clusters ignored, top1"] = mcnemar(*only)
        found["McNemar clustered (Obuchowski), top1"] = clustered_mcnemar(np.bincount(patient, right[0] - right[1]))[1]
        for name, p in found.items():
            rejected.setdefault(name, []).append(p < 0.05)
    return {name: float(np.mean(values)) for name, values in rejected.items()}


def recipes(n_simulations: int, n_patients: int, n_boot: int, n_seeds: int = 3) -> dict[str, float]:
    """Return the share of p < .05 when two recipes are equally good and each run has its luck.

    A recipe has patients it finds hard, whatever the seed; a run has errors of its own and is luckier or less so.
    """
    rejected: dict[str, list[bool]] = {}
    for simulation in range(n_simulations):
        random = np.random.default_rng([4, simulation])
        label, scores, patient = clinic(random, n_patients, 2)
        tables: list[list[Predictions]] = []
        for recipe in scores:
            tables.append([])
            for seed in range(n_seeds):
                run = np.log(recipe) + 0.7 * random.normal(size=recipe.shape)
                run[np.arange(len(label)), label] += 0.3 * random.normal()
                powers = np.exp(run)
                frame = pd.DataFrame(
                    powers / powers.sum(axis=1, keepdims=True), columns=[f"p:{one}" for one in CLASSES]
                )
                frame["image_id"] = frame["unit"] = [f"i{row}" for row in range(len(label))]
                frame["group"], frame["label"] = patient.astype(str), np.array(CLASSES)[label]
                frame["split"], frame["fold"], frame["repeat"], frame["seed"] = "test", 0, 0, seed
                tables[-1].append(Predictions(frame, CLASSES, {"group_by": "patient_id"}))
        found = compare_recipes(dict(zip("ab", tables, strict=True)), metrics=METRICS, n_boot=n_boot, seed=simulation)
        for entry in found["comparisons"]:
            rejected.setdefault(f"{n_seeds} seeds a side, {entry['metric']}", []).append(entry["p"] < 0.05)
        single = compare_predictions(
            {"a": tables[0][0], "b": tables[1][0]}, metrics=METRICS, n_boot=100, n_permutations=499, seed=simulation
        )
        for entry in single:
            rejected.setdefault(f"one seed a side, {entry['metric']}", []).append(entry["p"] < 0.05)
    return {name: float(np.mean(values)) for name, values in rejected.items()}


def main() -> None:
    """Run the simulations and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--n_boot", type=int, default=1000)
    parser.add_argument("--recipes", type=int, default=300, help="simulations of recipes over training seeds")
    options = parser.parse_args()
    start = time.perf_counter()
    result = {
        "simulations": options.simulations,
        "patients": options.patients,
        "n_boot": options.n_boot,
        "coverage of 95 % intervals": coverage(options.simulations, options.patients, options.n_boot),
        "share of p < .05 under the null": type_one(options.simulations, options.patients, options.n_boot),
        "share of p < .05 between equal recipes": recipes(options.recipes, options.patients, options.n_boot),
    }
    result["seconds"] = round(time.perf_counter() - start, 1)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
