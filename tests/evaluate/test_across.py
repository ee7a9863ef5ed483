"""Models over several data sets: against Demšar's own example, R's documentation and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from dermlab.core.errors import InputError
from dermlab.evaluate.across import across, hodges_lehmann, lines

# Demšar 2006, table 6: AUC of C4.5 with and without tuning on 14 data sets. The paper ranks the two that are printed
# as .975 on the 13th apart, so a digit is added there.
NAMES = ["C4.5", "C4.5+m", "C4.5+cf", "C4.5+m+cf"]
DEMSAR = """
.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657  .882 .888 .886 .898
.936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625  .775 .838 .866 .875  1.00 1.00 1.00 1.00
.940 .962 .965 .962  .619 .666 .614 .669  .972 .981 .9751 .975  .957 .978 .946 .970
"""


@pytest.fixture
def demsar() -> pd.DataFrame:
    values = np.array(DEMSAR.split(), float).reshape(-1, 4)
    return pd.DataFrame(values, columns=NAMES, index=[f"set{row}" for row in range(14)])


def test_demsars_own_example(demsar: pd.DataFrame) -> None:
    """Sec. 3.2.2: mean ranks, the chi-square of 9.28 (without ties), the critical differences 1.25 and 1.12."""
    found = across(demsar)
    ranks = {model["name"]: model["mean_rank"] for model in found["models"]}
    published = {"C4.5": 3.143, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5+m+cf": 1.964}
    assert ranks == pytest.approx(published, abs=5e-4)
    untied = 12 * 14 / 20 * (sum(rank**2 for rank in ranks.values()) - 25)
    assert untied == pytest.approx(9.28, abs=5e-3)
    tied = (scipy.stats.rankdata(demsar, axis=1)[:, :, None] == scipy.stats.rankdata(demsar, axis=1)[:, None, :]).sum(2)
    correction = 1 - (tied**2 - 1).sum() / (14 * 4 * 15)
    assert found["statistic"] == pytest.approx(untied / correction)
    assert found["critical_difference"] == pytest.approx(1.25, abs=5e-3)
    assert across(demsar, level=0.9)["critical_difference"] == pytest.approx(1.12, abs=5e-3)
    assert found["alike"] == [["C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"]]
    # At 10 % the paper tells C4.5 from C4.5+m and from C4.5+m+cf, and cannot place C4.5+cf.
    assert across(demsar, level=0.9)["alike"] == [["C4.5+m+cf", "C4.5+m", "C4.5+cf"], ["C4.5+cf", "C4.5"]]


def test_two_classifiers_give_demsars_wilcoxon(demsar: pd.DataFrame) -> None:
    """Sec. 3.1.3: T = 12 for C4.5 against C4.5+m, below the critical 21."""
    found = across(demsar[["C4.5", "C4.5+m"]])
    assert (found["test"], found["statistic"], found["critical_difference"]) == ("Wilcoxon signed-rank", 12.0, None)
    pair = found["pairs"][0]
    assert pair["p"] < 0.05
    assert (pair["verdict"], pair["wins"]) == ("b better", [2, 10, 2])
    assert pair["low"] < pair["difference"] < pair["high"] < 0
    turned = across(-demsar[["C4.5", "C4.5+m"]], higher_is_better=False)
    assert turned["pairs"][0]["verdict"] == "b better"
    assert [model["name"] for model in turned["models"]] == ["C4.5+m", "C4.5"]


def test_the_estimate_of_a_difference_is_that_of_rs_documentation() -> None:
    """Hollander & Wolfe's depression data, R's example of wilcox.test: p .03906; the interval by brute force."""
    first = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    second = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    assert across(pd.DataFrame({"x": first, "y": second}))["p"] == pytest.approx(0.03906, abs=5e-6)
    gap = first - second
    middle, low, high = hodges_lehmann(gap)
    walsh = sorted((gap[i] + gap[j]) / 2 for i, j in itertools.combinations_with_replacement(range(9), 2))
    assert middle == pytest.approx(np.median(walsh))

    def p(shift: float) -> float:
        return float(scipy.stats.wilcoxon(gap - shift, method="exact").pvalue)

    tiny = 1e-6
    assert p(low + tiny) > 0.05 >= p(low - tiny)
    assert p(high - tiny) > 0.05 >= p(high + tiny)


def test_pairs_are_adjusted_and_nemenyi_goes_with_its_critical_difference() -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        random.normal(size=(15, 5)) * 0.03 + np.array([0.9, 0.87, 0.86, 0.7, 0.6]), columns=list("abcde")
    )
    found = across(table)
    ps = [scipy.stats.wilcoxon(table[i], table[j]).pvalue for i, j in itertools.combinations("abcde", 2)]
    assert [pair["p"] for pair in found["pairs"]] == pytest.approx(ps)
    assert found["p"] == pytest.approx(scipy.stats.friedmanchisquare(*table.to_numpy().T).pvalue)
    ranks = {model["name"]: model["mean_rank"] for model in found["models"]}
    for pair in found["pairs"]:
        apart = abs(ranks[pair["a"]] - ranks[pair["b"]]) > found["critical_difference"]
        assert (pair["p_nemenyi"] < 0.05) == apart
        together = any({pair["a"], pair["b"]} <= set(group) for group in found["alike"])
        assert together == (not apart)
        assert pair["p_adjusted"] >= pair["p"]
    assert any("a better" in line for line in lines(found))


def test_models_that_are_all_the_same_are_alike() -> None:
    found = across(pd.DataFrame(np.full((6, 3), 0.5), columns=list("abc")))
    assert (found["statistic"], found["p"], found["alike"]) == (0.0, 1.0, [["a", "b", "c"]])
    assert {pair["verdict"] for pair in found["pairs"]} == {"cannot tell apart"}


def test_too_few_data_sets_are_told_and_too_little_is_refused() -> None:
    found = across(pd.DataFrame({"a": [0.9, 0.8, 0.9, 0.7], "b": [0.5, 0.42, 0.51, 0.3]}))
    assert "cannot fall below 0.125" in found["warnings"][0]
    assert found["pairs"][0]["low"] is None
    with pytest.raises(InputError, match="two models and two data sets"):
        across(pd.DataFrame({"a": [0.1, 0.2]}))
    with pytest.raises(InputError, match="no value of b on 1"):
        across(pd.DataFrame({"a": [0.1, 0.2], "b": [0.3, np.nan]}))


@pytest.mark.parametrize("gap", [[0.01] * 5, [0.02, 0.02, 0.02, 0.03, 0.05], [0.01, 0.01, 0.02, -0.03, 0.04, 0.04]])
def test_ties_on_few_data_sets_give_the_exact_p(gap: list[float]) -> None:
    """Brute force over all signs; five wins cannot be significant, however equal they are."""
    found = across(pd.DataFrame({"a": 0.5 + np.array(gap), "b": 0.5}))["pairs"][0]
    ranks = scipy.stats.rankdata(np.abs(np.round(gap, 12)))
    sums = np.array(list(itertools.product([-1, 1], repeat=len(gap)))) @ ranks
    assert found["p"] == pytest.approx(np.mean(np.abs(sums) >= abs(np.sign(gap) @ ranks) - 1e-9))
    assert found["p"] >= 0.0625
    assert found["verdict"] == "cannot tell apart"


def test_both_verdicts_are_told_and_where_they_differ() -> None:
    """Six data sets, four models: six pairs of least p .03125 cannot pass Holm; Nemenyi tells three pairs apart."""
    values = np.array([[0.9, 0.8, 0.7, 0.6]]) + np.arange(6)[:, None] * 0.01
    values += np.arange(4) * np.arange(6)[:, None] ** 2 * 1e-4  # no two differences are tied
    found = across(pd.DataFrame(values, columns=list("ABCD")))
    assert {pair["verdict"] for pair in found["pairs"]} == {"cannot tell apart"}
    apart = {(pair["a"], pair["b"]) for pair in found["pairs"] if pair["verdict_nemenyi"] == "a better"}
    assert apart == {("A", "C"), ("A", "D"), ("B", "D")}
    told = " ".join(found["warnings"])
    assert "6 data sets and 6 pairs: the least of Wilcoxon's p after Holm cannot fall below 0.188" in told
    assert "judge 3 of 6 pairs differently (A and C, A and D, B and D): claim what both say" in told
    (line,) = (line for line in lines(found) if line.startswith("  A − D"))
    assert "cannot tell apart; Nemenyi p " in line
    assert line.endswith("A better")
    turned = across(pd.DataFrame(-values, columns=list("ABCD")), higher_is_better=False)
    assert [pair["verdict_nemenyi"] for pair in turned["pairs"]] == [pair["verdict_nemenyi"] for pair in found["pairs"]]
    enough = across(pd.DataFrame(np.concatenate([values, values[:2] + 0.005]), columns=list("ABCD")))
    assert not any("cannot fall below" in text for text in enough["warnings"])
    assert across(pd.DataFrame(values[:, :2]))["pairs"][0]["verdict_nemenyi"] is None
