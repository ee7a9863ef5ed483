"""The nearest neighbours are exactly scikit-learn's, in every block size, with ties in the bank's order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from dermlab.core.errors import InputError
from dermlab.features import nearest
from dermlab.features.neighbours import Neighbourhood, _descending


def vectors(n: int, dim: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 7, 300])
@pytest.mark.parametrize("block", [64, 1000, 16_384])
def test_it_finds_what_brute_force_finds(metric, k, block):
    queries, bank = vectors(40, 16, 1), vectors(3000, 16, 2)
    similarity, index = nearest(queries, bank, k, metric=metric, block=block)
    distance, expected = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(bank).kneighbors(queries)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(similarity, 1 - distance if metric == "cosine" else -distance, atol=2e-6)


def test_a_bank_sorted_the_worst_way_round_changes_nothing():
    angles = np.linspace(1.5, 0.5, 5000, dtype=np.float32)  # each row nearer than all before it
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert nearest(np.array([[1, 0]], np.float32), bank, 5, block=256)[1][0].tolist() == [4999, 4998, 4997, 4996, 4995]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_among_equals_the_earlier_row_is_first(metric):
    bank = np.zeros((4000, 3), np.float32)
    bank[:, 0] = 1
    bank[[5, 1800, 3900]] = [0, 1, 0]
    similarity, index = nearest(np.array([[0, 1, 0]], np.float32), bank, 6, metric=metric)
    assert index[0].tolist() == [5, 1800, 3900, 0, 1, 2]
    assert (np.diff(similarity[0]) <= 0).all()


def test_the_scale_of_a_vector_is_nothing_to_the_cosine_and_zero_is_like_nothing():
    bank = vectors(200, 8, 3)
    bank[17] = 0
    first = nearest(bank[:5], bank, 200)
    scaled = nearest(bank[:5] * 1000, bank * np.float32(0.001), 200)
    np.testing.assert_array_equal(first[1], scaled[1])
    assert first[0][first[1] == 17].tolist() == [0.0] * 5


def test_close_distances_far_from_the_origin_keep_their_order():
    offset = np.float32(1000)
    bank = offset + np.linspace(0, 1, 50, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    similarity, index = nearest(bank[:1], bank, 50, metric="euclidean")
    assert index[0].tolist() == list(range(50))
    np.testing.assert_allclose(-similarity[0], np.linalg.norm(bank - bank[0], axis=1), atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 60), st.integers(1, 4), st.integers(0, 10_000))
def test_a_larger_bank_holds_no_worse_neighbours(n, k, seed):
    bank, query = vectors(n + 3, 5, seed), vectors(3, 5, seed + 1)
    assert (nearest(query, bank[:n], k)[0] <= nearest(query, bank, k)[0] + 1e-6).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_vector_deep_in_the_bank_is_noticed(metric, value):
    bank = vectors(5000, 4, 1)
    bank[4321, 2] = value
    with pytest.raises(InputError, match="not finite"):
        nearest(vectors(3, 4, 2), bank, 2, metric=metric, block=512)


@pytest.mark.parametrize(
    ("queries", "bank", "k", "told"),
    [
        (np.zeros((2, 3)), np.zeros((5, 4)), 1, r"\(Q, D\) and \(N, D\)"),
        (np.zeros((2, 3)), np.zeros((5, 3)), 6, "from 1 to the 5 rows"),
        (np.zeros((2, 3)), np.zeros((5, 3)), 0, "from 1 to the 5 rows"),
        (np.full((2, 3), np.nan), np.ones((5, 3)), 1, "not finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(queries, bank, k, told):
    with pytest.raises(InputError, match=told):
        nearest(queries, bank, k)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 7), (60, 5), (60, 60), (900, 40), (2000, 200), (3000, 10)])
def test_within_a_subset_it_finds_what_brute_force_finds(n, k):
    queries, bank = vectors(50, 16, 1), vectors(3000, 16, 2)
    rows = np.sort(np.random.default_rng(n).permutation(3000)[:n])
    similarity, index = Neighbourhood(queries, bank).nearest(rows, k)
    distance, expected = NearestNeighbors(n_neighbors=k, metric="cosine").fit(bank[rows]).kneighbors(queries)
    np.testing.assert_array_equal(index, rows[expected])
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-6)


def test_a_subset_that_hides_from_the_front_of_the_rows_is_found_all_the_same():
    """All members are the farthest of the bank: the first guess of how far to look is far too short."""
    query, bank = vectors(1, 4, 0), vectors(3000, 4, 3)
    farthest = np.argsort((bank / np.linalg.norm(bank, axis=1, keepdims=True)) @ query[0])[:1000]
    found = Neighbourhood(query, bank).nearest(np.sort(farthest), 20)[1]
    assert sorted(found[0]) == sorted(farthest[-20:])


def test_equals_of_a_subset_come_in_the_bank_s_order():
    bank = np.repeat(vectors(3, 8, 0), 400, axis=0)
    rows = np.arange(1, 1200, 2)
    for k in (3, 150):
        assert (Neighbourhood(bank[:1], bank).nearest(rows, k)[1][0] == rows[:k]).all()


def test_more_neighbours_than_drawn_are_refused():
    with pytest.raises(InputError, match="3 rows drawn"):
        Neighbourhood(vectors(2, 4, 0), vectors(9, 4, 1)).nearest(np.array([1, 2, 3]), 4)


def test_the_sort_by_bits_is_a_stable_sort_by_value_with_signed_zeros():
    values = np.random.default_rng(0).integers(-3, 4, (40, 300)).astype(np.float32)
    values[values == 0] *= np.random.default_rng(1).choice([-1.0, 1.0], (values == 0).sum()).astype(np.float32)
    values[:, ::7] *= np.float32(1e-30)
    np.testing.assert_array_equal(_descending(values), np.argsort(-values, axis=1, kind="stable"))
