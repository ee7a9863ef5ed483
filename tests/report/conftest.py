"""A bake-off record made by hand in the documented format (docs/reference/report.md), no model behind it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

CLASSES = ["ACK", "BCC", "MEL", "NEV", "SCC", "SEK"]
TRUE = [164, 242, 44, 216, 35, 141]
NAMES = {"ACK": "actinic keratosis", "BCC": "basal cell carcinoma", "MEL": "melanoma", "NEV": "nevus"}


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(value - half, 4), "high": round(value + half, 4)}


def metrics_of(matrix: np.ndarray) -> dict[str, Any]:
    n = int(matrix.sum())
    recall = matrix.diagonal() / matrix.sum(axis=1)
    top1 = float(matrix.diagonal().sum() / n)
    return {
        "n": n,
        "n_groups": 657,
        "unit": "image",
        "group_by": "patient_id",
        "target": "diagnosis",
        "split": "test",
        "folds": 5,
        "classes": CLASSES,
        "top1": interval(top1, 0.034),
        "top3": interval(min(0.97, top1 + 0.2), 0.02),
        "balanced_accuracy": interval(float(recall.mean()), 0.045),
        "macro_f1": interval(float(recall.mean()) - 0.01, 0.05),
        "auroc": interval(min(0.97, top1 + 0.17), 0.02),
        "ece": interval(0.05, 0.02),
        "per_class": {
            name: {
                "n": int(matrix[index].sum()),
                "recall": interval(float(recall[index]), 0.98 / np.sqrt(matrix[index].sum()) * 0.8),
            }
            for index, name in enumerate(CLASSES)
        },
        "confusion_matrix": matrix.tolist(),
        "warnings": [],
    }


def candidate(name: str, encoder: str | None, head: str, skill: float, *, kind: str = "candidate", **over: Any) -> dict:
    generator = np.random.default_rng(len(name) * 7 + int(skill * 1000))
    matrix = np.zeros((6, 6), dtype=int)
    for true, n in enumerate(TRUE):
        chances = np.array([0.2, 0.32, 0.05, 0.25, 0.05, 0.13]) * (1 - skill)
        chances[true] += skill
        matrix[true] = generator.multinomial(n, chances / chances.sum())
    bins = [
        {"low": low, "high": low + 0.1, "confidence": low + 0.05, "accuracy": max(0.0, low + 0.02 - 0.06 * low), "n": n}
        for low, n in zip(np.arange(0.2, 1.0, 0.1).tolist(), [6, 31, 77, 120, 160, 170, 150, 128], strict=True)
    ]
    base = {
        "name": name,
        "encoder": encoder,
        "head": head,
        "kind": kind,
        "status": "ok",
        "error": "",
        "run": f"runs/{name}",
        "flags": [],
        "warnings": [],
        "val_score": round(float(matrix.diagonal().sum() / matrix.sum()) + 0.01, 4),
        "winner": False,
        "rank": 1,
        "eligible": True,
        "weights": {},
        "metrics": metrics_of(matrix) | {"reliability": bins},
        "mistakes": [
            {
                "image_id": f"PAT_{i}_{i * 7}_{i * 3}",
                "unit": "",
                "label": "SCC",
                "predicted": "BCC",
                "confidence": 0.97 - i / 100,
            }
            for i in range(8)
        ],
        "licence": {
            "verdict": "viable with conditions",
            "conditions": ["keep the Apache-2.0 notice of the weights", "name PAD-UFES-20 and its authors (CC BY 4.0)"],
            "reasons": [
                "efficientnet_lite0: Apache-2.0 allows commercial use",
                "trained on ImageNet: terms for research only",
            ],
        },
        "cost": {"seconds": 41.2, "embed_seconds": 12.4, "images_per_second": 68.0, "full_seconds": 5400.0},
    }
    return base | over


def make_record() -> dict[str, Any]:
    candidates = [
        candidate(
            "ensemble", None, "ensemble", 0.64, kind="ensemble", weights={"clip-fusion": 0.62, "lite0-fusion": 0.38}
        ),
        candidate("clip-fusion", "timm:vit_base_patch16_clip_quickgelu_224", "fusion", 0.62, winner=True),
        candidate("clip-linear", "timm:vit_base_patch16_clip_quickgelu_224", "linear", 0.6),
        candidate("lite0-fusion", "efficientnet_lite0", "fusion", 0.55, rank=3),
        candidate("questionnaire", None, "questionnaire", 0.53, kind="floor", rank=3),
        candidate("lite0-linear", "efficientnet_lite0", "linear", 0.45, rank=5, flags=["the head did not converge"]),
        candidate("panderm-linear", "panderm_base", "linear", 0.44, rank=5),
        candidate("histogram-knn", "histogram", "knn", 0.2, kind="floor", rank=7),
        candidate("majority", None, "majority", 0.02, kind="floor", rank=8),
    ]
    candidates[0]["licence"] = {"verdict": "blocked", "conditions": [], "reasons": ["one of its parts may not ship"]}
    candidates[6]["licence"] = {
        "verdict": "blocked",
        "conditions": [],
        "reasons": ["CC BY-NC-ND 4.0 forbids commercial use"],
    }
    failed = candidate("medsiglip-linear", "medsiglip", "linear", 0.5)
    failed |= {
        "status": "failed",
        "error": "the weights google/medsiglip-448 are gated: accept the terms on its page and set HF_TOKEN",
        "metrics": {},
        "mistakes": [],
        "val_score": None,
        "rank": None,
        "cost": {"seconds": None, "embed_seconds": None, "images_per_second": None, "full_seconds": None},
    }
    candidates.append(failed)
    comparison = []
    scored = candidates[:-1]
    for i, a in enumerate(scored):
        for b in scored[i + 1 :]:
            difference = a["metrics"]["top1"]["value"] - b["metrics"]["top1"]["value"]
            verdict = "cannot tell apart" if abs(difference) < 0.04 else "a better" if difference > 0 else "b better"
            comparison.append(
                {
                    "a": a["name"],
                    "b": b["name"],
                    "metric": "top1",
                    "n": 842,
                    "n_groups": 657,
                    "difference": difference,
                    "low": difference - 0.035,
                    "high": difference + 0.035,
                    "p": min(1.0, 0.5 * 10 ** (-60 * abs(difference))),
                    "p_adjusted": min(1.0, 5 * 10 ** (-60 * abs(difference))),
                    "test": "paired permutation over groups",
                    "discordant": [90, 54],
                    "verdict": verdict,
                }
            )
    baseline = candidate("gen2a", None, "", 0.54)
    baseline = {key: baseline[key] for key in ("name", "metrics")} | {"path": "gen2a.parquet"}
    return {
        "format": 1,
        "title": "Which model for diagnosis on PAD-UFES-20?",
        "made_at": "2026-07-01 10:12 UTC",
        "asked": {
            "data": "PAD-UFES-20",
            "target": "diagnosis",
            "use": "commercial",
            "metric": "top1",
            "margin": 0.02,
            "seed": 17,
        },
        "decision": {
            "word": "GO",
            "sentence": "Ship clip-fusion instead of gen2a: on 842 photos of 657 patients that it had not seen its "
            "top-1 accuracy is 69.5% (66.1–72.9), 7.1 points above gen2a (+3.9 to +10.4); 2.0 were asked for.",
            "winner": "clip-fusion",
            "against": {"name": "gen2a", "kind": "baseline", "difference": 0.071, "low": 0.039, "high": 0.104},
            "fallback": {
                "name": "lite0-fusion",
                "sentence": "lite0-fusion, the next best on validation with another encoder; 6.2 points below.",
            },
            "change": [
                "If the conditions listed under licences cannot be met, the fallback takes its place.",
                "With a margin of 5 points these data could not tell; about 1,400 patients could.",
            ],
        },
        "data": {
            "name": "PAD-UFES-20",
            "version": "1",
            "licence": "CC-BY-4.0",
            "citation": "Pacheco et al. 2020, doi 10.17632/zr7vgbcyr2.1",
            "description": "Clinical smartphone photos with a questionnaire.",
            "folder": "pad",
            "fingerprint": "5f2a",
            "n_images": 842,
            "n_labelled": 842,
            "n_units": 842,
            "n_groups": 657,
            "group_by": "patient_id",
            "unit": "image",
            "kind": "multiclass",
            "target": "diagnosis",
            "classes": CLASSES,
            "class_names": NAMES,
            "parts": [
                {"name": "train", "n": 539, "n_groups": 420},
                {"name": "val", "n": 135, "n_groups": 105},
                {"name": "test", "n": 168, "n_groups": 132},
            ],
            "class_counts": {
                name: {"train": int(n * 0.64), "val": int(n * 0.16), "test": n - int(n * 0.64) - int(n * 0.16)}
                for name, n in zip(CLASSES, TRUE, strict=True)
            },
            "split": {"name": "folds5", "n_folds": 5, "n_repeats": 1, "fingerprint": "ab12"},
            "balance": [{"fold": 0, "split": "test", "class": "ACK", "n": 33, "share": 0.196}],
            "missing": [
                {"column": "smoke", "share": 0.393},
                {"column": "age", "share": 0.0},
                {"column": "itch", "share": 0.01},
            ],
            "dropped": [
                {"column": "smoke", "reason": "its blanks betray the label (BCC, AUROC 0.83 on the training part)"}
            ],
            "quarantine": [{"path": "images/broken.png", "reason": "truncated"}],
            "samples": {name: [f"PAT_{name}_{i}" for i in range(6)] for name in CLASSES},
        },
        "findings": [
            {
                "code": "label-proxy",
                "severity": "warning",
                "message": "the column 'biopsed' alone tells BCC (AUROC 0.91); it is not used as an input",
                "remedy": "leave it in label_proxies of card.yaml",
            },
            {"code": "blurred", "severity": "info", "message": "12 photos look blurred", "remedy": ""},
        ],
        "waivers": [],
        "warnings": ["val and test differ in their class shares by up to 4 points (BCC)"],
        "candidates": candidates,
        "baseline": baseline,
        "comparison": comparison,
        "cost": {"n_reused": 2, "seconds": 312.0, "machine": "2 CPU threads in bf16", "full_data_images": 100_000},
        "reproduce": {
            "command": "dermlab bakeoff pad.yaml --data pad --out bakeoff-pad",
            "config_yaml": "data: pad\nfolds: 5\nencoders: [efficientnet_lite0]\nheads: [linear, fusion]\n",
            "facts": {"seed": "17", "data fingerprint": "5f2a", "python": "3.11.9", "torch": "2.14.1"},
        },
    }


@pytest.fixture
def record() -> dict[str, Any]:
    return copy.deepcopy(make_record())
