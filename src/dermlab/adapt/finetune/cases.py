"""Several photos of one case in one network: which belong together, and how their vectors become one.

A case is a lesion, a patient or the card's unit. A photo that is not there is missing: it is left out of the attention,
or a learned vector stands for its place; no black picture is shown to the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import nn

from dermlab.core.errors import DermlabError, InputError
from dermlab.data.augment import uniforms
from dermlab.data.loader import batches

if TYPE_CHECKING:
    from dermlab.data.dataset import Dataset
    from dermlab.data.pixel_cache import Pixels

CasePoolingKind = Literal["attention", "concatenation"]

# Views draw from streams 0 to 4 of a photo's numbers (data.augment); which photos of a case are shown has its own.
_CHOICE = 16


@dataclass(frozen=True)
class Bags:
    """The photos of C cases.

    Attributes:
        rows: int64 (P,), photos by their number in the data set, case after case.
        slots: int64 (P,), each photo's modality, or its place among the photos of its case.
        starts: int64 (C + 1,), where each case's photos begin.
        case_of: int64 (N,), the case of every photo of the data set; -1 where it has none with a photo that is there.
        n_slots: how many modalities or places there are.
        most: photos of one slot that a case shows at once.
    """

    rows: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    case_of: np.ndarray
    n_slots: int
    most: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def shown(
        self, cases: np.ndarray, *, seed: int | None = None, epoch: int = 0, dropout: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the photos that cases show: rows (P',), slots (P',) and how many of each case (len(cases),), int64.

        Args:
            cases: by number; repeats allowed.
            seed: with one, each photo is left out with probability ``dropout`` (one of each case stays) and which
                ``most`` of a slot are shown is drawn, from seed, epoch and photo alone; None: the first ``most``.
            epoch: the pass over the data.
            dropout: see ``seed``.
        """
        counts = np.diff(self.starts)[cases]
        owner = np.repeat(np.arange(len(cases)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self.starts[cases][owner] + within
        rows, slots = self.rows[places], self.slots[places]
        keep = np.ones(len(rows), bool)
        order = within.astype(float)
        if seed is not None and len(rows):
            drawn = uniforms(seed, epoch, rows, 0, _CHOICE, 2)
            keep, order = drawn[:, 0] >= dropout, drawn[:, 1]
            # The photo least likely to go stays where all of a case would.
            by_luck = np.lexsort((-drawn[:, 0], owner))
            luckiest = by_luck[np.r_[True, owner[by_luck][1:] != owner[by_luck][:-1]]]
            alone = np.bincount(owner, weights=keep, minlength=len(cases))[owner[luckiest]] == 0
            keep[luckiest[alone]] = True
        key = owner * self.n_slots + slots
        ranked = np.lexsort((order, ~keep, key))
        first = np.searchsorted(key[ranked], key[ranked])
        rank = np.empty(len(rows), np.int64)
        rank[ranked] = np.arange(len(rows)) - first
        keep &= rank < self.most
        return rows[keep], slots[keep], np.bincount(owner[keep], minlength=len(cases))


def case_column(dataset: Dataset, kind: str) -> str:
    """Return the manifest's column that cases go by; those of kind ``unit`` by what the card scores."""
    return f"{dataset.card.unit if kind == 'unit' else kind}_id"


def find_bags(
    dataset: Dataset, kind: str, *, modalities: Sequence[str], most: int, readable: np.ndarray, in_order: bool
) -> Bags:
    """Find the cases of a data set and their photos.

    Args:
        dataset: with ``lesion_id`` or ``patient_id`` as ``kind`` needs.
        kind: ``lesion``, ``patient`` or ``unit`` (what the card scores).
        modalities: values of the manifest's ``modality`` that a case shows, each a slot; empty: all photos alike.
        most: photos of a slot that a case shows at once; without modalities and ``in_order``, the number of slots.
        readable: bool (N,), whether each photo holds an image.
        in_order: without modalities, a photo's slot is its place among those of its case, in the manifest's order.

    Raises:
        InputError: a column is missing, or no photo has one of the modalities.
    """
    column = case_column(dataset, kind)
    if column not in dataset.manifest:
        raise InputError(f"{dataset.folder}/manifest.parquet: has no column {column!r}, which case: {kind} goes by")
    ids = dataset.ids_of(column)
    slots = np.zeros(len(ids), np.int64)
    keep = readable.copy()
    if modalities:
        if "modality" not in dataset.manifest:
            raise InputError(f"{dataset.folder}/manifest.parquet: has no column 'modality', which modalities go by")
        found = dataset.manifest["modality"].to_numpy(dtype=object)
        known = {name: place for place, name in enumerate(modalities)}
        slots = np.array([known.get(name, -1) for name in found], np.int64)
        for name, place in known.items():
            if not (slots == place).any():
                there = ", ".join(sorted({str(value) for value in found if isinstance(value, str)})) or "none"
                raise InputError(f"modalities: no photo of {dataset.folder} is {name!r}; there are {there}")
        keep &= slots >= 0
    rows = np.flatnonzero(keep)
    names, codes = np.unique(ids[rows], return_inverse=True)
    order = np.argsort(codes, kind="stable")
    rows, codes = rows[order], codes[order]
    starts = np.searchsorted(codes, np.arange(len(names) + 1))
    case_of = pd.Index(names).get_indexer(pd.Index(ids)).astype(np.int64)
    if modalities or not in_order:
        return Bags(rows, slots[rows], starts, case_of, max(1, len(modalities)), most)
    within = np.arange(len(rows)) - starts[codes]
    fits = within < most
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes[fits], minlength=len(names)))])
    return Bags(rows[fits], within[fits], starts, case_of, most, 1)


def first_photos(bags: Bags, known: np.ndarray, values: np.ndarray, dataset: Dataset, what: str) -> np.ndarray:
    """Return each case's first photo of which a value is known, int64 (C,), -1 where of none.

    Args:
        bags: the cases.
        known: bool (N,).
        values: (N,) or (N, K), the same for all known photos of a case.
        dataset: for errors.
        what: the values' name.

    Raises:
        InputError: photos of one case differ.
    """
    rows = np.flatnonzero((bags.case_of >= 0) & known)
    cases, first = np.unique(bags.case_of[rows], return_index=True)
    result = np.full(len(bags), -1, np.int64)
    result[cases] = rows[first]
    mine, theirs = values[rows], values[result[bags.case_of[rows]]]
    differs = (mine != theirs) & ~((mine != mine) & (theirs != theirs))  # NaN is as NaN
    differs = differs.reshape(len(rows), -1).any(axis=1)
    if differs.any():
        row = rows[differs][0]
        raise InputError(
            f"{dataset.folder}: photo {dataset.image_ids[row]!r} differs in {what} from "
            f"{dataset.image_ids[result[bags.case_of[row]]]!r} of the same case; choose another case, or a split that "
            "divides none"
        )
    return result


def case_batches(
    pixels: Pixels,
    bags: Bags,
    cases: np.ndarray,
    sizes: Sequence[int],
    *,
    dropout: float = 0.0,
    occurrences: np.ndarray | None = None,
    **options: Any,
) -> Iterator[tuple[torch.Tensor, np.ndarray, dict[str, Any]]]:
    """Yield batches of cases: photos (P, 3, S, S), the cases' numbers (B,), and where each photo belongs.

    Args:
        pixels: the photos, those of the bags readable.
        bags: the cases.
        cases: int64, which, in this order.
        sizes: cases of each batch in turn.
        dropout: share of photos left out, where there are random views.
        occurrences: see :func:`dermlab.data.loader.batches`.
        options: of :func:`dermlab.data.loader.batches`.
    """
    seed = options.get("seed")
    rows, slots, counts = bags.shown(cases, seed=seed, epoch=options.get("epoch", 0), dropout=dropout)
    edges = np.cumsum([0, *sizes])
    photos = np.concatenate([[0], np.cumsum(counts)])[edges]
    owner = np.repeat(np.arange(len(cases)), counts)
    times = None if occurrences is None else occurrences[owner]
    made = batches(pixels, rows, np.diff(photos).tolist(), occurrences=times, **options)
    for place, (images, chosen) in enumerate(made):
        own = slice(photos[place], photos[place + 1])
        if len(chosen) != own.stop - own.start:
            raise DermlabError("a photo of a case can no longer be read; the same command leaves it out and goes on")
        belongs = torch.from_numpy(owner[own] - edges[place]).to(images.device)
        slot = torch.from_numpy(slots[own]).to(images.device)
        there = {"case": belongs, "slot": slot, "n_cases": int(sizes[place])}
        yield images, cases[edges[place] : edges[place + 1]], there


class CasePooling(nn.Module):
    """Turns the vectors of a case's photos into one.

    ``attention``: gated attention over whatever photos there are (Ilse et al. 2018, "Attention-based deep multiple
    instance learning", equation 9), to each of which its modality's vector is added. ``concatenation``: the mean of
    each slot's photos side by side, a learned vector where a slot has none.

    Args:
        dim: length of a photo's vector.
        n_slots: modalities or places.
        kind: how.
        hidden: width of the attention.
    """

    def __init__(self, dim: int, n_slots: int, kind: CasePoolingKind, hidden: int = 128) -> None:
        super().__init__()
        self.kind, self.n_slots = kind, n_slots
        self.dim = dim if kind == "attention" else dim * n_slots
        self.slot = nn.Parameter(torch.zeros(n_slots, dim))
        if kind == "attention":
            self.value, self.gate = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
            self.weight = nn.Linear(hidden, 1)

    def forward(self, vectors: torch.Tensor, case: torch.Tensor, slot: torch.Tensor, n_cases: int) -> torch.Tensor:
        """Return one vector a case, fp32 (n_cases, dim).

        Args:
            vectors: of the photos, (P, D).
            case: which case each photo belongs to, int64 (P,); each of ``range(n_cases)`` has one at least.
            slot: its modality or place, int64 (P,).
            n_cases: how many cases.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            if self.kind == "attention":
                vectors = vectors + self.slot[slot]
                shares = self.attention(vectors, case, n_cases)
                return vectors.new_zeros(n_cases, vectors.shape[1]).index_add(0, case, shares[:, None] * vectors)
            place = case * self.n_slots + slot
            n = torch.bincount(place, minlength=n_cases * self.n_slots)[:, None]
            sums = vectors.new_zeros(len(n), vectors.shape[1]).index_add(0, place, vectors)
            means = torch.where(n > 0, sums / n.clamp_min(1), self.slot.repeat(n_cases, 1))
            return means.view(n_cases, self.dim)

    def attention(self, vectors: torch.Tensor, case: torch.Tensor, n_cases: int) -> torch.Tensor:
        """Return each photo's share of its case, (P,); those of a case sum to 1."""
        scores = self.weight(torch.tanh(self.value(vectors)) * torch.sigmoid(self.gate(vectors)))[:, 0]
        highest = scores.new_full((n_cases,), -torch.inf).scatter_reduce(0, case, scores.detach(), "amax")
        grown = torch.exp(scores - highest[case])
        return grown / grown.new_zeros(n_cases).index_add(0, case, grown)[case]
