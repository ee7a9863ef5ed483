"""Photos that may show a tattoo, by an encoder that is taught on the spot what one would look like on these photos.

No detector of tattoos ships under a licence that this project can carry, and rules of colour do not serve: black ink
and black hair, blue ink and a blue naevus are of one colour. So tattoos are drawn onto a sample of the data set's own
photos (:mod:`dermlab.data.synthetic.tattoos`), and a linear head learns to tell those from the same ones as they are.
Each photo is judged by a head that saw neither its group nor, of the drawn ones, this kind of drawing, so that the
share of drawn tattoos that the list would hold says something about kinds that nobody drew.

The measure is of drawn tattoos, not of real ones; and what is listed may as well be a marking pen, a blue naevus or
hair. It is a list for a person to look at. How good it is: docs/explanation/leaks_and_proxies.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dermlab.adapt.linear import LinearHead
from dermlab.audit.findings import FOLDER, Finding, examples
from dermlab.core.progress import progress
from dermlab.core.randomness import generator
from dermlab.core.words import plural
from dermlab.data.decode import DecodeError, decode_file
from dermlab.data.synthetic.tattoos import INKS, KINDS, draw_tattoo
from dermlab.evaluate.intervals import wilson

SAMPLE = 160
"""So many photos are drawn on and embedded anew, each as it is and with one tattoo."""

SHARES = (0.15, 0.6)
"""Smallest and largest tattoo, as a share of the photo's shorter side."""

LISTED = 0.03
"""This share of the photos is listed, the likeliest first: also where there is no tattoo at all."""

LEAST_FOUND = 0.5
"""A list that would hold less than this share of the drawn tattoos is not shown: the encoder cannot tell."""

LEAST_PHOTOS = 60


@dataclass(frozen=True)
class Tattoos:
    """What an encoder says of N photos, and how far to trust it.

    Attributes:
        score: of each photo by the head that saw nothing of its group, float64 (N,), NaN where there is no photo. Log
            odds above those that all but :data:`LISTED` of the photos judged by that head stay below: heads differ in
            how sure they are.
        drawn: the same of each drawn tattoo, by the head that knew neither the photo nor the kind, float64 (M,).
        kind, ink: what was drawn, (M,).
        share: how large, float64 (M,).
    """

    score: np.ndarray
    drawn: np.ndarray
    kind: np.ndarray
    ink: np.ndarray
    share: np.ndarray


def find_tattoos(
    features: np.ndarray,
    usable: np.ndarray,
    groups: np.ndarray,
    paths: Sequence[Path],
    encoder: str,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
) -> Tattoos | None:
    """Judge every photo by heads taught on tattoos drawn onto some of them.

    Args:
        features: of the photos as they are, float32 (N, D).
        usable: which rows are a photo's, bool (N,).
        groups: patient (else lesion) of each photo, (N,).
        paths: of the photos, N.
        encoder: the encoder of ``features``.
        sample: how many photos are drawn on.
        seed: of sample, drawings and folds.

    Returns:
        None where there are too few photos, or groups, to teach anything.
    """
    from dermlab.features.extract import embed_arrays

    rows = np.flatnonzero(usable)
    _, code = np.unique(groups[rows], return_inverse=True)
    n_groups = int(code.max(initial=-1)) + 1
    if len(rows) < LEAST_PHOTOS or n_groups < 2 * len(KINDS):
        return None
    rng = generator(seed, "tattoos")
    fold = np.full(len(features), -1)
    fold[rows] = rng.permutation(np.arange(n_groups) % len(KINDS))[code]
    plain, inked, of, ink, share = [], [], [], [], []
    chosen = np.sort(rng.permutation(rows)[:sample])
    with progress("draw tattoos", len(chosen), "photos") as advance:
        for row in chosen.tolist():
            advance(1)
            try:
                photo = decode_file(paths[row])
            except DecodeError:
                continue
            name, size = str(rng.choice(list(INKS))), float(rng.uniform(*SHARES))
            plain.append(photo)
            inked.append(draw_tattoo(photo, rng, kind=KINDS[fold[row]], ink=name, share=size)[0])
            of.append(row)
            ink.append(name)
            share.append(size)
    # Both by the same way through the encoder, or the head would learn the way.
    before, after = (embed_arrays(photos, encoder).astype(np.float32) for photos in (plain, inked))
    where = np.array(of, dtype=np.int64)
    score, drawn = np.full(len(features), np.nan), np.full(len(where), np.nan)
    for number in range(len(KINDS)):
        taught = fold[where] != number
        if not taught.any() or taught.all():
            return None
        X = np.concatenate([before[taught], after[taught]])
        y = np.repeat(["as it is", "tattoo"], taught.sum())
        head = LinearHead(random_state=seed).fit(X, y, groups=np.tile(groups[where[taught]], 2))
        place = list(head.classes_).index("tattoo")
        here = fold == number
        score[here] = _log_odds(head.predict_proba(features[here]), place)
        middle = np.quantile(score[here], 1 - LISTED)
        score[here] -= middle
        drawn[~taught] = _log_odds(head.predict_proba(after[~taught]), place) - middle
    return Tattoos(score, drawn, np.array(KINDS)[fold[where]], np.array(ink), np.array(share))


def _log_odds(probabilities: np.ndarray, place: int) -> np.ndarray:
    """Return log odds of one of two classes, from both columns: one alone cannot tell 1 - 1e-20 from 1."""
    log = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float64).tiny))
    return np.asarray(log[:, place] - log[:, 1 - place])


def tattoo_findings(name: str, image_ids: np.ndarray, found: Tattoos | None, encoder: str) -> list[Finding]:
    """List the photos that look most like skin with a tattoo, and what such a list is worth.

    Args:
        name: opens the sentences.
        image_ids: (N,).
        found: what :func:`find_tattoos` returned.
        encoder: its encoder.
    """
    if found is None:
        return []
    n, n_drawn = int(np.isfinite(found.score).sum()), len(found.drawn)
    n_found = int((found.drawn > 0).sum())
    low, high = wilson(n_found, n_drawn)
    rows = np.flatnonzero(np.nan_to_num(found.score, nan=-1.0) > 0)
    worth = f"{n_found} of {n_drawn} tattoos drawn onto these photos on purpose ({low:.0%} to {high:.0%})"
    evidence = {
        "n": len(rows),
        "n_judged": n,
        "encoder": encoder,
        "drawn": {"n": n_drawn, "n_found": n_found, "low": low, "high": high},
    }
    if n_found < LEAST_FOUND * n_drawn:
        message = f"{name}: tattoos cannot be told by {encoder}: a list would have held {worth}."
        remedy = "Another encoder may see more; a person has to look."
        return [Finding("tattoos", "info", message, evidence, remedy)]
    if len(rows) == 0:
        return []
    rows = rows[np.argsort(-found.score[rows], kind="stable")]
    table = pd.DataFrame({"image_id": image_ids[rows], "score": found.score[rows].round(3)})
    evidence["examples"] = examples(table)
    message = (
        f"{name}: {plural(len(rows), 'photo')} of {n:,} ({LISTED:.0%}) {'looks' if len(rows) == 1 else 'look'} most "
        f"like skin with a tattoo, by {encoder}. So many are always listed, also where there is none; a list made the "
        f"same way held {worth}."
    )
    remedy = (
        f"Look at them ('dermlab data check {FOLDER} --out DIR' shows them): a tattoo tells who the patient is. Crop "
        "or paint over the files at the source and import again; dermlab changes no photo."
    )
    return [Finding("tattoos", "info", message, evidence, remedy, table)]
