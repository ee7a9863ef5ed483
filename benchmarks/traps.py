"""Every planted trap of the synthetic clinic, over seeds: what the audit finds, and what it says of clean clinics.

Labels are exchanged on purpose too (the clinic plants none): precision and recall of the list, beside chance.

    python benchmarks/traps.py [--seeds 10] [--n 240]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from dermlab.audit import Finding, audit
from dermlab.audit.mislabelled import exchanged, out_of_fold, suspects
from dermlab.data.dataset import Dataset
from dermlab.data.splits import split_by_fraction
from dermlab.data.synthetic import make_clinic
from dermlab.features.extract import embed


def trapped(folder: Path, n: int, seed: int) -> dict[str, list[int]]:
    """Return, by kind of trap, how many were planted and how many of those were found."""
    make_clinic(folder, n=n, size_px=96, seed=seed, traps=True)
    traps = json.loads((folder / "traps.json").read_text())
    findings = audit(Dataset.open(folder))

    def rows(*codes: str) -> set[frozenset[str]]:
        found = set()
        for finding in findings:
            if finding.code in codes and finding.table is not None:
                found |= {frozenset(pair) for pair in finding.table[["image_id", "copy"]].to_numpy()}
        return found

    def of(code: str) -> Finding | None:
        return next((finding for finding in findings if finding.code == code), None)

    pairs = rows("duplicates", "near-duplicates")
    result = {}
    planted = set()
    for kind in ("exact_duplicates", "near_duplicates", "label_conflicts"):
        wanted = {frozenset((trap["image_id"], trap["copy_of"])) for trap in traps[kind]}
        planted |= wanted
        result[kind] = [len(wanted), len(wanted & pairs)]
    result["pairs that are none"] = [0, len(pairs - planted)]
    conflict = of("label-conflict")
    told = 0 if conflict is None else conflict.evidence["n"]
    result["label conflicts told"] = [len(traps["label_conflicts"]), told]
    result["leaking column"] = [1, int(of(f"proxy:{traps['leaking_column']['column']}") is not None)]
    blank = of("missingness")
    found = blank is not None and traps["leaking_blank"]["column"] in blank.evidence["columns"]
    result["leaking blank"] = [1, int(found)]
    overlap = of("group-overlap")
    ids = set() if overlap is None or overlap.table is None else set(overlap.table["id"])
    patients = set(traps["leaking_group"]["patients"])
    result["divided patients"] = [len(patients), len(patients & ids)]
    broken = of("unreadable")
    result["unreadable"] = [len(traps["unreadable"]), 0 if broken is None else broken.evidence["n"]]
    return result


def clean(folder: Path, n: int, seed: int) -> tuple[list[Finding], dict[str, float]]:
    """Return what is said of a clean clinic, and how well exchanged labels are found in it."""
    dataset = make_clinic(folder, n=n, size_px=96, seed=seed)
    dataset.write_split("main", split_by_fraction(dataset, (0.6, 0.2, 0.2), seed=0))
    dataset = Dataset.open(folder)
    target = dataset.card.target(None)
    codes = np.array([target.classes.index(label) for label in dataset.labels(None)])
    codes = np.unique(codes, return_inverse=True)[1]
    values = embed(dataset, "histogram").values
    changed, rows = exchanged(codes, dataset.groups(), seed)
    listed = suspects(changed, out_of_fold(values, changed, dataset.groups(), codes.max() + 1, seed=seed))
    hits = len(np.intersect1d(rows, listed))
    figures = {
        "listed": len(listed) / len(codes),
        "recall": hits / len(rows),
        "precision": hits / max(len(listed), 1),
        "chance": len(rows) / len(codes),
    }
    return audit(dataset, closely=True), figures


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--n", type=int, default=240)
    options = parser.parse_args()
    planted: dict[str, np.ndarray] = {}
    said: Counter[str] = Counter()
    figures = []
    with tempfile.TemporaryDirectory() as root:
        for seed in range(options.seeds):
            for kind, counts in trapped(Path(root) / f"traps{seed}", options.n, seed).items():
                planted[kind] = planted.get(kind, np.zeros(2, dtype=np.int64)) + np.array(counts)
            findings, found = clean(Path(root) / f"clean{seed}", options.n, 100 + seed)
            said.update(f"{finding.severity} {finding.code}" for finding in findings)
            figures.append(found)
            print(json.dumps({"seed": seed, "clean": sorted({f"{f.severity} {f.code}" for f in findings})}), flush=True)
    print(
        json.dumps(
            {
                "planted and found": {kind: counts.tolist() for kind, counts in planted.items()},
                "clean clinics": options.seeds,
                "findings on them": dict(said),
                "exchanged labels": {key: round(float(np.mean([f[key] for f in figures])), 3) for key in figures[0]},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
