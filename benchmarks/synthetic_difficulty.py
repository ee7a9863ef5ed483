"""How hard the synthetic clinic is: what plain scikit-learn reaches on it, and that nothing but the lesion helps.

    python benchmarks/synthetic_difficulty.py --n 800 --seeds 0 7 3

For each seed a clinic is made and scored in five grouped, stratified folds by patient: EfficientNet-Lite0 from
ImageNet (needs ``dermlab[demo]``), the same network with random weights, the colour histogram, the questionnaire, and
Lite0 with the questionnaire. Then, as checks of honesty, the skin at the photo's edge, and what is not the photo at
all (site, device, modality, skin type, file size, number of photos): both must stay at chance, one in six.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

WANTED = {  # balanced accuracy, mean over the seeds
    "Lite0, linear": (0.55, 0.85),
    "random weights, linear": (0.167, 0.45),
    "histogram, kNN": (0.167, 0.45),
    "questionnaire": (0.25, 0.55),
    "skin at the edge, colours": (0.0, 0.24),
    "not the photo": (0.0, 0.24),
}


def linear(regularisation: float) -> BaseEstimator:
    """Return standardised logistic regression; enough for a sanity line, C is not tuned."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=3000))


def questionnaire(frame: pd.DataFrame) -> np.ndarray:
    """Return the answers as numbers: medians and one level for "blank"."""
    numeric = frame.select_dtypes("float").columns
    other = frame.columns.difference(numeric)
    known = frame.assign(**{name: frame[name].astype(object).where(frame[name].notna(), "?") for name in other})
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), list(numeric)),
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), list(other)),
    )
    return encoder.fit_transform(known.astype(dict.fromkeys(other, str)))


def rim_colours(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return mean and spread of the colours along a photo's edge, where there is skin and no lesion."""
    edge = photo.shape[0] // 10
    rim = np.ones(mask.shape, bool)
    rim[edge:-edge, edge:-edge] = False
    skin = photo[rim & (mask == 0)]
    return np.concatenate([skin.mean(axis=0), skin.std(axis=0)])


def measure(n: int, size_px: int, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    """Make one clinic and score everything on it."""
    from dermlab.data.synthetic import make_clinic
    from dermlab.features.extract import embed

    start = time.perf_counter()
    dataset = make_clinic(folder, n, size_px, seed)
    seconds = time.perf_counter() - start
    labels, groups = dataset.labels().astype(str), dataset.groups()
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    results: dict[str, dict[str, float]] = {"made": {"images_per_second": n / seconds}}

    def score(name: str, features: np.ndarray, model: Any) -> None:
        probability = cross_val_predict(model, features, labels, groups=groups, cv=folds, method="predict_proba")
        predicted = np.unique(labels)[probability.argmax(axis=1)]
        results[name] = {
            "top1": accuracy_score(labels, predicted),
            "balanced": balanced_accuracy_score(labels, predicted),
            "auroc": roc_auc_score(labels, probability, multi_class="ovr"),
        }

    lite0 = embed(dataset, "efficientnet_lite0").values
    asked = questionnaire(dataset.questionnaire())
    score("Lite0, linear", lite0, linear(3e-3))
    score("Lite0, kNN", lite0, KNeighborsClassifier(10, metric="cosine", weights="distance"))
    untrained = embed(dataset, "efficientnet_lite0+random").values
    score("random weights, linear", untrained, linear(3e-3))
    histogram = embed(dataset, "histogram").values
    score("histogram, kNN", histogram, KNeighborsClassifier(10, metric="cosine"))
    score("histogram, linear", histogram, linear(1.0))
    score("questionnaire", asked, linear(0.1))
    together = np.hstack([StandardScaler().fit_transform(lite0), 4 * StandardScaler().fit_transform(asked)])
    score("Lite0 + questionnaire, linear", together, LogisticRegression(C=1e-3, max_iter=3000))

    masks = [dataset.folder / path for path in dataset.manifest["mask_path"]]
    rims = [
        rim_colours(np.asarray(cv2.imread(str(path))), np.asarray(cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)))
        for path, mask in zip(dataset.paths, masks, strict=True)
    ]
    score("skin at the edge, colours", np.stack(rims), linear(0.1))
    outside = pd.DataFrame(
        {
            **{name: dataset.manifest[name].astype(str) for name in ("site", "modality", "skin_type", "device")},
            "bytes": [float(path.stat().st_size) for path in dataset.paths],
            "n_photos": pd.Series(groups).map(pd.Series(groups).value_counts()).astype(float),
        }
    )
    score("not the photo", questionnaire(outside), linear(0.1))
    return results


def main() -> int:
    """Measure, print a table (or ``--json``), and return 1 where a figure lies outside what is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=800)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 7, 3])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DERMLAB_CACHE"] = f"{folder}/cache"
        runs = [measure(options.n, options.size, seed, Path(folder) / str(seed)) for seed in options.seeds]
    names = [name for name in runs[0] if name != "made"]
    mean = {name: {key: float(np.mean([run[name][key] for run in runs])) for key in runs[0][name]} for name in names}
    if options.json:
        print(json.dumps({"runs": runs, "mean": mean}, indent=2))
    else:
        print(f"{options.n} photos of {options.size} px, seeds {options.seeds}; mean (balanced accuracy of each seed)")
        for name in names:
            each = " ".join(f"{run[name]['balanced']:.3f}" for run in runs)
            line = "  ".join(f"{key} {value:.3f}" for key, value in mean[name].items())
            print(f"{name:32} {line}  ({each})")
        rates = ", ".join(f"{run['made']['images_per_second']:.0f}" for run in runs)
        print(f"made at {rates} images/s")
    wrong = [name for name, (low, high) in WANTED.items() if not low <= mean[name]["balanced"] <= high]
    for name in wrong:
        print(f"outside what is wanted: {name}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
