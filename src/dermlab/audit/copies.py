"""What copies of photos do: a photo in two parts of a split, under two labels, under two patients, in two data sets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from dermlab.audit.duplicates import photo_of
from dermlab.audit.findings import FOLDER, Finding, Severity, examples
from dermlab.audit.leakage import straddling
from dermlab.core.words import groups_word, plural

_LIST = f"'dermlab data check {FOLDER} --out DIR' lists every one"


def copy_findings(
    name: str,
    image_ids: np.ndarray,
    labels: np.ndarray | None,
    groups: np.ndarray,
    group_column: str,
    splits: Mapping[str, pd.DataFrame],
    pairs: pd.DataFrame,
) -> list[Finding]:
    """Judge the copies within one data set.

    Args:
        name: opens the sentences.
        image_ids: (N,).
        labels: label of each image as text, None where missing, (N,); None without a target.
        groups: group of each image, (N,).
        group_column: what the groups are.
        splits: name -> split.
        pairs: what :func:`dermlab.audit.duplicates.find_duplicates` found among these N images.
    """
    if pairs.empty:
        return []
    identical = pairs["kind"].str.startswith("identical").to_numpy()
    findings = _conflicts(name, image_ids, labels, pairs)
    exact, every = photo_of(len(image_ids), pairs[identical]), photo_of(len(image_ids), pairs)
    divided_pairs = np.zeros(len(pairs), dtype=bool)
    for split_name, split in splits.items():
        where = f"{name}, split {split_name!r}"
        divided = straddling(exact, split)
        in_exact = np.isin(exact[pairs["a"]].astype(str), divided["id"]) & identical
        findings += _divided("duplicates", where, image_ids, exact, divided, pairs[in_exact])
        divided_pairs |= in_exact
        near = straddling(every, split)
        near = near[~near["id"].isin(every[pairs["a"][in_exact]].astype(str))]
        in_near = np.isin(every[pairs["a"]].astype(str), near["id"]) & ~in_exact
        findings += _divided("near-duplicates", where, image_ids, every, near, pairs[in_near])
        divided_pairs |= in_near
    findings += _within("duplicates", name, image_ids, groups, group_column, pairs[identical & ~divided_pairs])
    findings += _within("near-duplicates", name, image_ids, groups, group_column, pairs[~identical & ~divided_pairs])
    return findings


def contamination_findings(
    names: tuple[str, str],
    image_ids: tuple[np.ndarray, np.ndarray],
    photos: tuple[np.ndarray, np.ndarray],
    splits: tuple[Mapping[str, pd.DataFrame], Mapping[str, pd.DataFrame]],
    pairs: pd.DataFrame,
    *,
    pretraining: tuple[bool, bool] = (False, False),
) -> list[Finding]:
    """Judge the photos that two data sets share.

    Where an encoder is pretrained on one of them, it is an error only if the other is tested on shared photos: in the
    test part of a split, or anywhere where there is no split yet.

    Args:
        names: of the two data sets.
        image_ids: of both, (N,) and (M,).
        photos: number of the photo that each image shows, of both: copies share one.
        splits: name -> split, of both.
        pairs: copies, ``a`` a row of the first and ``b`` a row of the second.
        pretraining: which of the two an encoder is pretrained on.
    """
    if pairs.empty:
        return []
    first, second = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    table = pd.DataFrame(
        {
            names[0]: image_ids[0][first],
            names[1]: image_ids[1][second],
            "kind": pairs["kind"].to_numpy(),
            "orientation": pairs["orientation"].to_numpy(),
            "similarity": pairs["similarity"].to_numpy().round(3),
        }
    )
    shared = [np.isin(photos[0], photos[1]), np.isin(photos[1], photos[0])]
    in_test = []
    learned = pretraining.index(True) if sum(pretraining) == 1 else None
    for side in (0, 1):
        if side == learned:
            continue
        for split_name, split in splits[side].items():
            tested = np.isin(image_ids[side], split.loc[split["split"] == "test", "image_id"])
            if count := int((shared[side] & tested).sum()):
                in_test.append(f"{count:,} in the test part of {names[side]}, split {split_name!r}")
    told = f" ({'; '.join(in_test)})" if in_test else ""
    n = [int(side.sum()) for side in shared]
    evidence = {"n": n[0], "n_of_second": n[1], "in_test": in_test, "examples": examples(table)}
    if learned is None:
        message = f"{plural(n[0], 'photo')} of {names[0]} {'is' if n[0] == 1 else 'are'} in {names[1]} too{told}."
        remedy = (
            "A model pretrained or trained on one and tested on the other has seen the answers: take them out of one, "
            f"or 'waive: [contamination]'; {_LIST}."
        )
        return [Finding("contamination", "error", message, evidence, remedy, table)]
    held, evidence["pretraining"] = 1 - learned, names[learned]
    counted = f"{plural(n[held], 'photo')} of {names[held]} {'is' if n[held] == 1 else 'are'}"
    message = f"{counted} in the pretraining photos {names[learned]}{told}"
    if splits[held] and not in_test:
        message += ", none of them in a test part."
        remedy = f"Nothing tested was seen. To be able to test on all of them, pretrain without; {_LIST}."
        return [Finding("contamination", "warning", message, evidence, remedy, table)]
    message += "." if in_test else "; there is no split yet, so any of them may be tested."
    remedy = (
        f"Pretrain without them ({_LIST}), or leave them out of the test part; "
        "'waive: [contamination]' goes on regardless."
    )
    return [Finding("contamination", "error", message, evidence, remedy, table)]


def _described(image_ids: np.ndarray, pairs: pd.DataFrame) -> pd.DataFrame:
    """Name the images of pairs, for tables that people read."""
    return pd.DataFrame(
        {
            "image_id": image_ids[pairs["a"]],
            "copy": image_ids[pairs["b"]],
            "kind": pairs["kind"].to_numpy(),
            "orientation": pairs["orientation"].to_numpy(),
            "similarity": pairs["similarity"].to_numpy().round(3),
        }
    )


def _conflicts(name: str, image_ids: np.ndarray, labels: np.ndarray | None, pairs: pd.DataFrame) -> list[Finding]:
    if labels is None:
        return []
    photo = photo_of(len(image_ids), pairs)
    known = ~pd.isna(labels)
    frame = pd.DataFrame({"photo": photo[known], "image_id": image_ids[known], "label": labels[known]})
    frame = frame[frame.groupby("photo")["label"].transform("nunique") > 1]
    if frame.empty:
        return []
    frame = frame.sort_values(["photo", "image_id"], kind="stable")
    n = frame["photo"].nunique()
    frame["photo"] = pd.factorize(frame["photo"])[0] + 1
    first = frame[frame["photo"] == 1]
    example = " and ".join(f"{row.image_id} {row.label}" for row in first.head(2).itertuples())
    message = f"{name}: {plural(n, 'photo')} {'has' if n == 1 else 'have'} two labels (for one, {example})."
    evidence = {"n": n, "n_images": len(frame), "examples": examples(frame)}
    remedy = f"Find out which label is right and mend or remove the other row, or 'waive: [label-conflict]'; {_LIST}."
    return [Finding("label-conflict", "error", message, evidence, remedy, frame.reset_index(drop=True))]


def _divided(
    code: str, where: str, image_ids: np.ndarray, photo: np.ndarray, divided: pd.DataFrame, pairs: pd.DataFrame
) -> list[Finding]:
    if divided.empty:
        return []
    n = divided["id"].nunique()
    parts = divided.drop_duplicates("id").set_index("id")["parts"]
    table = _described(image_ids, pairs)
    table["parts"] = parts.reindex(photo[pairs["a"]].astype(str)).to_numpy()
    what = "identical photo" if code == "duplicates" else "near-identical photo"
    message = f"{where}: {plural(n, what)} {'is' if n == 1 else 'are'} in more than one part."
    evidence = {"n": n, "n_pairs": len(table), "examples": examples(table)}
    remedy = (
        f"Keep one of each, or file them under one patient or lesion, then import and split again; "
        f"or 'waive: [{code}]'. {_LIST}."
    )
    return [Finding(code, "error", message, evidence, remedy, table)]


def _within(
    code: str, name: str, image_ids: np.ndarray, groups: np.ndarray, group_column: str, pairs: pd.DataFrame
) -> list[Finding]:
    """Copies that no split divides: a nuisance within a patient, a trap for the next split across patients."""
    if pairs.empty:
        return []
    across = groups[pairs["a"]] != groups[pairs["b"]]
    table = _described(image_ids, pairs)
    one, other = groups[pairs["a"]], groups[pairs["b"]]
    table["groups"] = np.where(across, pd.Series(one).str.cat(pd.Series(other), sep=" + "), one)
    n, n_across = len(np.unique(pairs["b"])), int(across.sum())
    what = "identical" if code == "duplicates" else "near-identical"
    message = f"{name}: {plural(n, 'photo')} {'is' if n == 1 else 'are'} {what} to another"
    severity: Severity = "warning"
    if group_column != "image_id" and n_across:
        message += f", {n_across:,} filed under different {groups_word(group_column)}: a split may divide them."
    elif group_column == "image_id":
        message += ": a split may divide them."
    else:
        message += f"; no two of them are of different {groups_word(group_column)}."
        severity = "warning" if code == "duplicates" else "info"
    remedy = f"Keep one of each; {_LIST}."
    evidence = {"n": n, "n_across_groups": n_across, "examples": examples(table)}
    return [Finding(code, severity, message, evidence, remedy, table)]
