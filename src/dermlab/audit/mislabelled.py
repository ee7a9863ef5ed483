"""Labels that a model which never saw the photo would not have given: a ranked list for a dermatologist to look at.

Out-of-fold probabilities of a linear head (patients undivided), then confident learning (Northcutt, Jiang and Chuang
2021, "Confident learning: estimating uncertainty in dataset labels", section 3; cleanlab's implementation). A photo on
the list is not a wrong label: it is an unusual photo, a wrong label or a mistake of the model. How much such a list is
worth depends on how well the features tell the classes apart, so the list measures itself: labels are exchanged at
random, everything is done again, and the share of the exchanged ones that the list holds stands beside what chance
gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from dermlab.adapt.linear import LinearHead
from dermlab.adapt.probe import over_classes
from dermlab.audit.findings import FOLDER, Finding, examples, not_looked_for
from dermlab.core.errors import MissingExtraError
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.core.words import plural

N_FOLDS = 5

MIN_GROUPS = 2 * N_FOLDS
"""A class of fewer groups than this is not judged: too few of its kind are left to learn it from."""

MIN_PHOTOS = 50
"""Below this many photos in judged classes nothing can be said."""

PLANTED_SHARE = 0.05
"""So many labels are exchanged to see how many of them the list finds."""

MOST_DIMENSIONS = 128
"""Features are cut to so many principal components: five fits on 15,000 x 768 features then take seconds."""

WORTH_A_LOOK = 2.0
"""A list that holds exchanged labels less than this many times as often as chance would is not worth a look."""


def out_of_fold(
    features: np.ndarray, codes: np.ndarray, groups: np.ndarray, n_classes: int, *, seed: int = 0
) -> np.ndarray:
    """Return the probabilities that a linear head gives to photos whose groups it was not fitted on, float64 (N, C).

    Args:
        features: float (N, D), finite.
        codes: class of each photo, int (N,) in ``range(n_classes)``.
        groups: patient (else lesion) of each photo, (N,).
        n_classes: C.
        seed: of the folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=int(generator(seed, "folds").integers(2**31)))
    probabilities = np.zeros((len(codes), n_classes))
    for train, test in folds.split(features, codes, groups):
        head = LinearHead(random_state=seed).fit(features[train], codes[train], groups=groups[train])
        known = [str(code) for code in head.classes_]
        names = [str(code) for code in range(n_classes)]
        probabilities[test] = over_classes(head.predict_proba(features[test]), known, names)
    return probabilities


def confident_learning() -> Any:
    """Return cleanlab's function.

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        raise MissingExtraError("looking for wrong labels", "cleanlab", "audit") from None
    return find_label_issues


def suspects(codes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the rows whose label confident learning would not have given, likeliest first: int64 (K,).

    Args:
        codes: class of each photo, int (N,).
        probabilities: out of fold, float (N, C).

    Raises:
        MissingExtraError: cleanlab is not installed.
    """
    rows = confident_learning()(
        codes, probabilities, return_indices_ranked_by="normalized_margin", filter_by="both", n_jobs=1
    )
    return np.asarray(rows, dtype=np.int64)


def exchanged(codes: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give :data:`PLANTED_SHARE` of the photos another photo's class, drawn by its frequency among the others.

    Returns:
        The codes with the exchange, and the rows that were exchanged.
    """
    rng = generator(seed, "exchanged labels")
    n = max(5, round(PLANTED_SHARE * len(codes)))
    rows = rng.permutation(len(codes))[:n]
    changed = codes.copy()
    for row in rows.tolist():
        changed[row] = rng.choice(codes[codes != codes[row]])
    return changed, rows


def label_findings(
    name: str,
    image_ids: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    classes: Sequence[str],
    features: np.ndarray,
    usable: np.ndarray,
    *,
    source: str,
    seed: int = 0,
) -> list[Finding]:
    """List the photos whose label is likely wrong, with what such a list is worth on these photos.

    Args:
        name: opens the sentences.
        image_ids: (N,).
        labels: class of each image, None where missing, (N,).
        groups: patient (else lesion) of each image, (N,).
        classes: the target's classes.
        features: float (N, D), of an encoder or of colours.
        usable: which rows of ``features`` are a photo's, bool (N,).
        source: what the features are, for the sentence: ``clip_vit_b16``, ``colours``.
        seed: of folds and exchange.

    Returns:
        Nothing where fewer than two classes can be judged. Never an error: a model's opinion stops no run.
    """
    all_codes = pd.Index(classes).get_indexer(pd.Index(labels))
    judged = [
        code for code in range(len(classes)) if len(np.unique(groups[(all_codes == code) & usable])) >= MIN_GROUPS
    ]
    rows = np.flatnonzero(np.isin(all_codes, judged) & usable)
    if len(judged) < 2 or len(rows) < MIN_PHOTOS:
        return []
    names = [str(classes[code]) for code in judged]
    codes = np.searchsorted(judged, all_codes[rows])
    try:
        confident_learning()
    except MissingExtraError as error:
        return [not_looked_for(name, error)]
    values, group = _reduced(features[rows]), groups[rows]
    with progress("look for wrong labels", 2, "fits of five folds") as advance:
        probabilities = out_of_fold(values, codes, group, len(judged), seed=seed)
        advance(1)
        changed, planted = exchanged(codes, group, seed)
        again = out_of_fold(values, changed, group, len(judged), seed=seed)
        advance(1)
    listed, test_list = suspects(codes, probabilities), suspects(changed, again)
    n_found = int(np.isin(planted, test_list).sum())
    recall, chance = n_found / len(planted), len(test_list) / len(rows)
    precision = n_found / max(len(test_list), 1)
    lift = recall / chance if chance else 0.0
    evidence = {
        "n": len(listed),
        "n_judged": len(rows),
        "classes_judged": names,
        "features": source,
        "accuracy_out_of_fold": float((probabilities.argmax(axis=1) == codes).mean()),
        "exchanged": {
            "n": len(planted),
            "n_listed": len(test_list),
            "n_found": n_found,
            "recall": recall,
            "precision": precision,
            "chance": chance,
            "lift": lift,
        },
    }
    if lift < WORTH_A_LOOK:
        message = (
            f"{name}: wrong labels cannot be told from {source}: of {len(planted)} labels exchanged on purpose a list "
            f"of {len(test_list):,} held {n_found}, by chance {chance * len(planted):.0f}."
        )
        remedy = f"'dermlab data check {FOLDER} --encoder NAME' looks with an encoder's features."
        return [Finding("label-errors", "info", message, evidence, remedy)]
    if len(listed) == 0:
        return []
    suggested = probabilities[listed].argmax(axis=1)
    table = pd.DataFrame(
        {
            "image_id": image_ids[rows[listed]],
            "label": [names[code] for code in codes[listed]],
            "suggested": [names[code] for code in suggested],
            "probability_of_label": probabilities[listed, codes[listed]].round(3),
            "probability_of_suggested": probabilities[listed, suggested].round(3),
            "group": group[listed],
        }
    )
    evidence["examples"] = examples(table)
    first = table.iloc[0]
    message = (
        f"{name}: {plural(len(listed), 'label')} of {len(rows):,} {'is' if len(listed) == 1 else 'are'} doubtful by "
        f"{source} (first {first['image_id']}: labelled {first['label']}, looks like {first['suggested']}). A list "
        f"made the same way held {n_found} of {len(planted)} labels exchanged on purpose, by chance "
        f"{chance * len(planted):.0f}; most of those listed may still be right."
    )
    remedy = f"A dermatologist should look at the first ones first; 'dermlab data check {FOLDER} --out DIR' shows them."
    return [Finding("label-errors", "warning", message, evidence, remedy, table)]


def _reduced(features: np.ndarray) -> np.ndarray:
    """Centre (N, D) features and cut them to their first principal components, float32."""
    values = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    if values.shape[1] <= MOST_DIMENSIONS:
        return values.astype(np.float32)
    _, axes = np.linalg.eigh(values.T @ values)
    return (values @ axes[:, ::-1][:, :MOST_DIMENSIONS]).astype(np.float32)
