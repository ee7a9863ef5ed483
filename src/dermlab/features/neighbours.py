"""The nearest neighbours of vectors in a bank: exact, in blocks, ties in the order of the bank."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from dermlab.core.errors import InputError

QUERY_BLOCK = 2048
FIRST_BLOCK = 1024
# A small subset is sorted for itself where its part of the sorted rows is wider.
DIRECT = 1024
SORT_WIDTH = 1.5
SORT_BLOCK = 256


def nearest(
    queries: np.ndarray,
    bank: np.ndarray,
    k: int,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    block: int = 16_384,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the ``k`` nearest rows of ``bank`` for each query, best first; among equals the earlier row is first.

    All similarities are computed, but never all kept: a block of the bank at a time is multiplied, and only what beats
    a query's k-th best so far is looked at again. After the first blocks that is nearly nothing, so the search costs
    little more than the multiplication.

    Args:
        queries: (Q, D) floating.
        bank: (N, D) floating.
        k: how many, at most N.
        metric: ``"cosine"`` (a vector of zeros is like nothing, similarity 0) or ``"euclidean"``.
        block: rows of the bank multiplied at a time; with Q ≤ 2,048 that takes ``8 kB × block`` of memory.

    Returns:
        Similarities (Q, k) float32, which for ``"euclidean"`` are negative distances, and row numbers (Q, k) int64.

    Raises:
        InputError: shapes that do not fit, ``k`` out of range, or values that are not finite.
    """
    queries, bank = np.asarray(queries, np.float32), np.asarray(bank, np.float32)
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise InputError(f"nearest: queries {queries.shape} and bank {bank.shape} must be (Q, D) and (N, D)")
    if metric not in ("cosine", "euclidean"):
        raise InputError(f"nearest: metric {metric!r} is not one of cosine, euclidean")
    if not 1 <= k <= len(bank):
        raise InputError(f"nearest: k is {k}, but must be from 1 to the {len(bank)} rows of the bank")
    similarity = np.empty((len(queries), k), np.float32)
    index = np.empty((len(queries), k), np.int64)
    with torch.inference_mode():
        for start in range(0, len(queries), QUERY_BLOCK):
            part = slice(start, start + QUERY_BLOCK)
            similarity[part], index[part] = _search(torch.from_numpy(queries[part]), bank, k, metric, block)
    if not np.isfinite(similarity).all():
        raise InputError("nearest: queries or bank hold values that are not finite")
    return similarity, index


class Neighbourhood:
    """The nearest neighbours of the same queries within one subset of a bank after another.

    All similarities are computed and every query's row is sorted once; a subset's neighbours are then the first of its
    members along that row. Memory: 8 bytes × queries × bank, 12 from 32,768 rows on.
    """

    def __init__(self, queries: np.ndarray, bank: np.ndarray) -> None:
        """Multiply (Q, D) queries with the (N, D) bank by cosine and sort; among equals the earlier row is first."""
        left = torch.nn.functional.normalize(torch.from_numpy(np.asarray(queries, np.float32)), dim=1)
        right = torch.nn.functional.normalize(torch.from_numpy(np.asarray(bank, np.float32)), dim=1)
        with torch.inference_mode():
            self.similarity = (left @ right.T).numpy()
        if not np.isfinite(self.similarity).all():
            raise InputError("neighbours: queries or bank hold values that are not finite")
        self.order = _descending(self.similarity)
        self.rank = np.empty_like(self.order)
        place = np.arange(len(bank), dtype=self.order.dtype)
        for rank, order in zip(self.rank, self.order, strict=True):
            rank[order] = place
        self._start = (np.arange(len(self.order)) * len(bank))[:, None]

    def nearest(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Find the ``k`` nearest of the bank's ``rows`` for each query, best first.

        Args:
            rows: distinct row numbers of the bank, ascending.
            k: how many, at most ``len(rows)``.

        Returns:
            Similarities (Q, k) float32 and row numbers of the bank (Q, k) int64.

        Raises:
            InputError: ``k`` is out of range.
        """
        index = self.indices(rows, k).astype(np.int64)
        return self._pick(self.similarity, index), index

    def indices(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Return the row numbers that :meth:`nearest` does, int16 or int32 (Q, k), without looking up similarities.

        Raises:
            InputError: ``k`` is out of range.
        """
        n_bank = self.similarity.shape[1]
        if not 1 <= k <= len(rows):
            raise InputError(f"nearest: k is {k}, but must be from 1 to the {len(rows)} rows drawn")
        # So many places of a sorted row hold k members of the subset, nearly always.
        width = int(np.ceil((k + 4 * np.sqrt(k)) * n_bank / len(rows)))
        if len(rows) <= DIRECT and width > SORT_WIDTH * len(rows):
            # Whole numbers without equals, which numpy sorts ten times as fast as it argsorts similarities.
            return self._pick(self.order, np.sort(np.take(self.rank, rows, axis=1), axis=1)[:, :k])
        member = np.zeros(n_bank, bool)
        member[rows] = True
        while True:
            width = min(width, n_bank)
            inside = np.take(member, self.order[:, :width], mode="clip")  # numbers of rows all; numpy need not look
            counts = np.count_nonzero(inside, axis=1)
            if counts.min(initial=k) >= k:
                break
            width *= 2
        # In one dimension, where numpy finds what is true several times as fast as in two.
        column = np.flatnonzero(inside) % width
        first = np.cumsum(counts) - counts
        return self._pick(self.order, column[first[:, None] + np.arange(k)])

    def _pick(self, values: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return (Q, k) of each query's (Q, N) values: ``np.take_along_axis`` in half the time."""
        return np.take(values.reshape(-1), columns + self._start, mode="clip")


def _descending(similarity: np.ndarray) -> np.ndarray:
    """Return the columns of each row, largest value first, among equals the earlier: int16 or int32 (Q, N).

    Value and column are packed into one whole number, which numpy sorts several times as fast as it argsorts.
    """
    n = similarity.shape[1]
    order = np.empty(similarity.shape, np.int16 if n <= np.iinfo(np.int16).max else np.int32)  # half the memory
    for start in range(0, len(similarity), SORT_BLOCK):
        bits = (0.0 - similarity[start : start + SORT_BLOCK]).view(np.int32)  # 0 - 0 is +0 for either zero
        # Negative floats have their bits in the opposite order.
        packed = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64) << 32
        packed |= np.arange(n)
        packed.sort(axis=1)
        order[start : start + SORT_BLOCK] = packed & 0xFFFFFFFF
    return order


def _search(queries: torch.Tensor, bank: np.ndarray, k: int, metric: str, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Search the whole bank for one block of queries."""
    cosine = metric == "cosine"
    # Euclidean order is that of 2 q·b − |b|²; its rounding is mended below.
    left = torch.nn.functional.normalize(queries, dim=1) if cosine else 2 * queries
    best = torch.empty((len(queries), 0))
    index = torch.empty((len(queries), 0), dtype=torch.int64)
    buffer = torch.empty(len(queries) * min(max(block, k), len(bank)))
    start, size = 0, max(min(FIRST_BLOCK, block), k)
    while start < len(bank):
        rows = torch.from_numpy(bank[start : start + size])
        scores = buffer[: len(queries) * len(rows)].view(len(queries), len(rows))
        if cosine:
            torch.mm(left, torch.nn.functional.normalize(rows, dim=1).T, out=scores)
        else:
            torch.addmm(-rows.square().sum(dim=1), left, rows.T, out=scores)
        # A value of the bank that is not finite shows in the score of every query, and would never be found again.
        if not torch.isfinite(scores[:1]).all():
            raise InputError("nearest: queries or bank hold values that are not finite")
        best, index = _merge(best, index, scores, start, k)
        start += len(rows)
        # Blocks that double keep the candidates of each block at about k a query.
        size = min(2 * size, max(block, k))
    if cosine:
        return best.numpy(), index.numpy()
    return _exact_distances(queries.numpy(), bank, index.numpy())


def _merge(
    best: torch.Tensor, index: torch.Tensor, scores: torch.Tensor, start: int, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge a block's scores into the best so far: both stay sorted, equals in the order of the bank."""
    if not best.shape[1]:  # the first block, which holds k rows at least
        merged = scores
        candidates = torch.arange(start, start + scores.shape[1]).expand(len(scores), -1)
    else:
        # A score that only equals the k-th best comes later in the bank, so it does not displace it.
        query, column = (scores > best[:, -1:]).nonzero(as_tuple=True)
        if not len(query):
            return best, index
        counts = torch.bincount(query, minlength=len(scores))
        place = torch.arange(len(query)) - (counts.cumsum(0) - counts)[query]
        width = int(counts.max())
        merged = torch.cat([best, torch.full((len(scores), width), -torch.inf)], dim=1)
        candidates = torch.cat([index, torch.zeros((len(scores), width), dtype=torch.int64)], dim=1)
        merged[query, k + place] = scores[query, column]
        candidates[query, k + place] = column + start
    merged, order = torch.sort(merged, dim=1, descending=True, stable=True)
    return merged[:, :k].contiguous(), candidates.gather(1, order[:, :k])


def _exact_distances(queries: np.ndarray, bank: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return negative distances from the differences themselves, free of cancellation, and the order they give."""
    doubles = queries.astype(np.float64)
    similarity = np.stack([-np.linalg.norm(bank[near] - one, axis=1) for one, near in zip(doubles, index, strict=True)])
    order = np.lexsort((index, -similarity), axis=1)
    return np.take_along_axis(similarity, order, axis=1), np.take_along_axis(index, order, axis=1)
