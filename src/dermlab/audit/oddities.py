"""Photos that are no photos of what the others show: charts, screenshots, collages, and whatever else got in.

Figure-like: a straight, sharp edge that runs (nearly) from side to side inside the picture, or large even areas with
such an edge. Off-topic: far from its nearest neighbours, measured by how far the data set's photos are from theirs; in
an encoder's features where one is given, else by colours, which see less.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from dermlab.audit.duplicates import nearest_index
from dermlab.audit.findings import FOLDER, Finding, examples
from dermlab.audit.thumbnails import Thumbnails
from dermlab.core.words import plural

EDGE_SHARE = 0.90
"""A sharp edge along this much of a side is drawn or glued, not grown (docs/explanation/leaks_and_proxies.md)."""

EVEN_SHARE, EDGE_OF_EVEN = 0.40, 0.50
"""With even areas on this much of the picture, a shorter edge will do."""

N_NEAREST = 5

FAR = 3.5
"""A photo is off-topic where the log of its distance to its nearest is this many spreads above the median one."""

LEAST_PHOTOS = 50
"""Below this many photos nobody can tell what is usual."""

MANY_SHARE = 0.5


def odd_findings(
    name: str, image_ids: np.ndarray, thumbnails: Thumbnails, features: np.ndarray | None, encoder: str | None
) -> list[Finding]:
    """List photos that look like figures, and those unlike all others.

    Args:
        name: opens the sentences.
        image_ids: (N,).
        thumbnails: of the N photos.
        features: an encoder's, (N, D), zeros where there is no photo; None: colours serve.
        encoder: its name.
    """
    return [
        *_figures(name, image_ids, thumbnails),
        *_off_topic(name, image_ids, thumbnails, features, encoder),
    ]


def looks_drawn(edge: np.ndarray, even: np.ndarray) -> np.ndarray:
    """Tell which pictures look like charts, screenshots or collages, bool (N,).

    Args:
        edge: longest straight sharp edge inside, as a share of the side, (N,).
        even: share of the picture that is one even colour with its surroundings, (N,).
    """
    return (edge >= EDGE_SHARE) | ((even >= EVEN_SHARE) & (edge >= EDGE_OF_EVEN))


def distances(vectors: np.ndarray) -> np.ndarray:
    """Return how far each row is from its nearest others, in robust spreads of the logarithm, float64 (N,).

    Args:
        vectors: float32 (N, D), N > :data:`N_NEAREST`.
    """
    k = min(N_NEAREST + 1, len(vectors))
    squared = nearest_index(np.ascontiguousarray(vectors, dtype=np.float32)).search(vectors, k)[0]
    # The nearest is the photo itself; copies lie at 0 too and must not make the logarithm endless.
    mean = np.sqrt(np.maximum(squared[:, 1:], 0)).mean(axis=1)
    known = mean[mean > 0]
    if len(known) == 0:
        return np.zeros(len(vectors))
    log = np.log(np.maximum(mean, known.min()))
    low, middle, high = np.quantile(log, [0.25, 0.5, 0.75])
    return (log - middle) / max((high - low) / 1.349, 1e-6)


def _figures(name: str, image_ids: np.ndarray, thumbnails: Thumbnails) -> list[Finding]:
    rows = np.flatnonzero(thumbnails.readable & looks_drawn(thumbnails.edge, thumbnails.even))
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(-thumbnails.edge[rows], kind="stable")]
    table = pd.DataFrame(
        {
            "image_id": image_ids[rows],
            "edge": thumbnails.edge[rows].round(2),
            "even": thumbnails.even[rows].round(2),
        }
    )
    n = int(thumbnails.readable.sum())
    many = len(rows) > MANY_SHARE * n
    message = (
        f"{name}: {plural(len(rows), 'photo')} of {n:,} {'looks' if len(rows) == 1 else 'look'} like a chart, a "
        "screenshot or several pictures in one (a straight edge from side to side)."
    )
    remedy = (
        "So many that it is how these photos are framed; crop the frames, or leave it."
        if many
        else "Look at them; take out what is no single photo of one lesion, and import again."
    )
    evidence = {"n": len(rows), "n_judged": n, "edge_from": EDGE_SHARE, "examples": examples(table)}
    return [Finding("figures", "info" if many else "warning", message, evidence, remedy, table)]


def _off_topic(
    name: str, image_ids: np.ndarray, thumbnails: Thumbnails, features: np.ndarray | None, encoder: str | None
) -> list[Finding]:
    usable = np.flatnonzero(thumbnails.readable)
    if len(usable) < LEAST_PHOTOS:
        return []
    if features is None:
        vectors, by = np.sqrt(thumbnails.colours[usable]), "its colours"  # Hellinger's distance between histograms
    else:
        values = features[usable]
        vectors, by = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), str(encoder)
    far = distances(vectors.astype(np.float32))
    rows = np.flatnonzero(far >= FAR)
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(-far[rows], kind="stable")]
    table = pd.DataFrame({"image_id": image_ids[usable[rows]], "spreads_away": far[rows].round(1)})
    message = (
        f"{name}: {plural(len(rows), 'photo')} of {len(usable):,} {'is' if len(rows) == 1 else 'are'} unlike all "
        f"others by {by}."
    )
    remedy = "Look at them: what shows no skin should go; a rare diagnosis or another camera should stay."
    if features is None:
        remedy += f" Colours see little; 'dermlab data check {FOLDER} --encoder NAME' sees more."
    evidence = {"n": len(rows), "n_judged": len(usable), "by": by, "spreads_from": FAR, "examples": examples(table)}
    return [Finding("off-topic", "warning", message, evidence, remedy, table)]
