"""The choice of a winner and the decision, on outcomes and comparisons made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dermlab.bench.decision import Decision, Rival, Scope, decide, groups_needed, judge, pair_of
from dermlab.bench.outcome import Outcome, choose_winner, order


def outcome(name: str, val: float | None, test: float = 0.6, **over: Any) -> Outcome:
    metrics = {
        "n": 168,
        "n_groups": 131,
        "unit": "image",
        "top1": {"value": test, "low": test - 0.07, "high": test + 0.07},
    }
    settings: dict[str, Any] = {
        "kind": "candidate",
        "encoder": name,
        "head": "linear",
        "metrics": metrics,
        "val_score": val,
    }
    return Outcome(name, **{**settings, **over})


def pair(a: str, b: str, difference: float, half: float, verdict: str | None = None) -> dict[str, Any]:
    low, high = difference - half, difference + half
    told = "a better" if low > 0 else "b better" if high < 0 else "cannot tell apart"
    return {
        "a": a,
        "b": b,
        "metric": "top1",
        "n": 168,
        "n_groups": 131,
        "difference": difference,
        "low": low,
        "high": high,
        "p": 0.01,
        "p_adjusted": 0.02,
        "test": "paired",
        "discordant": [30, 12],
        "verdict": verdict or told,
    }


def old(difference: float, half: float) -> Rival:
    return Rival("old", "baseline", pair("new", "old", difference, half))


def floor(difference: float, half: float) -> Rival:
    return Rival("histogram", "floor", pair("new", "histogram", difference, half))


def decided(outcomes: list[Outcome], comparison: list[dict[str, Any]], **over: Any) -> Decision:
    winner = choose_winner(outcomes)
    if winner is not None:
        winner.winner = True
    settings: dict[str, Any] = {"metric": "top1", "use": "commercial", "tested": Scope("patient_id")}
    return decide(outcomes, comparison, **{**settings, **over})


def test_the_best_on_val_wins_whatever_test_says() -> None:
    chosen = choose_winner([outcome("good_on_test", 0.60, test=0.9), outcome("good_on_val", 0.70, test=0.2)])
    assert chosen is not None
    assert chosen.name == "good_on_val"


@pytest.mark.parametrize(
    "over",
    [
        {"flags": ["did not converge"]},
        {"encoder_verdict": "blocked"},
        {"encoder_verdict": "unknown"},
        {"data_verdict": "blocked"},
        {"status": "failed"},
        {"val_score": float("nan")},
    ],
)
def test_what_is_flagged_blocked_unknown_or_failed_cannot_win(over: dict[str, Any]) -> None:
    chosen = choose_winner([_with(over), outcome("second", 0.5)])
    assert chosen is not None
    assert chosen.name == "second"


def _with(over: dict[str, Any]) -> Outcome:
    best = outcome("best", 0.9)
    for name, value in over.items():
        setattr(best, name, value)
    return best


def test_a_tie_goes_to_the_floor_else_to_the_first_listed() -> None:
    chosen = choose_winner([outcome("a", 0.6), outcome("floor", 0.6, kind="floor"), outcome("b", 0.6)])
    assert chosen is not None
    assert chosen.name == "floor"
    chosen = choose_winner([outcome("a", 0.6), outcome("b", 0.6)])
    assert chosen is not None
    assert chosen.name == "a"


def test_nobody_wins_where_nobody_may() -> None:
    assert choose_winner([outcome("a", 0.6, encoder_verdict="blocked")]) is None
    decision = decided([outcome("a", 0.6, encoder_verdict="blocked")], [], baseline="old")
    assert decision.word == "NO-GO"
    assert decision.fallback == {"name": "old", "sentence": "Keep old."}
    assert decided([outcome("a", 0.6, data_verdict="blocked")], []).word == "NO WINNER"


def test_order_is_by_val_with_the_failed_last() -> None:
    names = [
        o.name for o in order([outcome("failed", None, status="failed"), outcome("low", 0.1), outcome("high", 0.9)])
    ]
    assert names == ["high", "low", "failed"]


@pytest.mark.parametrize(
    ("difference", "half", "margin", "word"),
    [
        (0.07, 0.03, 0.02, "GO"),
        (0.04, 0.03, 0.02, "CANNOT TELL"),  # better than nothing, but perhaps by less than asked for
        (0.00, 0.015, 0.02, "NO-GO"),  # at most 1.5 points better
        (0.01, 0.03, 0.0, "CANNOT TELL"),
        (-0.05, 0.03, 0.0, "NO-GO"),
        (-0.005, 0.01, -0.02, "GO"),  # non-inferior: no more than 2 points worse
        (-0.015, 0.01, -0.02, "CANNOT TELL"),
        (-0.05, 0.01, -0.02, "NO-GO"),
    ],
)
def test_go_no_go_and_cannot_tell_follow_the_interval_and_the_margin(
    difference: float, half: float, margin: float, word: str
) -> None:
    assert judge(pair("new", "old", difference, half), margin) == word


def test_go_needs_the_paired_test_too() -> None:
    assert judge(pair("new", "old", 0.04, 0.03, verdict="cannot tell apart"), 0.0) == "CANNOT TELL"


def test_an_interval_that_could_not_be_computed_cannot_tell() -> None:
    assert judge({**pair("new", "old", 0.04, 0.03), "low": None, "high": None}, 0.0) == "CANNOT TELL"


def test_the_sentences_name_winner_baseline_numbers_and_n() -> None:
    outcomes = [outcome("new", 0.7, conditions=["keep the notice"]), outcome("other", 0.6, encoder="e2")]
    comparison = [pair("new", "other", 0.02, 0.05)]
    go = decided(outcomes, comparison, rival=old(0.07, 0.03), margin=0.02)
    assert go.word == "GO"
    for part in (
        "Ship new instead of old",
        "+7.0 points",
        "+4.0 to +10.0",
        "60.0%",
        "168 photos of 131 patients",
        "2.0 points",
    ):
        assert part in go.sentence
    assert go.fallback is not None
    assert go.fallback["name"] == "other"
    assert "−2.0 points (95% interval −7.0 to +3.0) against new" in go.fallback["sentence"]
    assert "1 condition" in go.change[0]


def test_cannot_tell_says_how_many_patients_would_settle_it() -> None:
    outcomes = [outcome("new", 0.7)]
    told = decided(outcomes, [], rival=old(0.03, 0.05), margin=0.0)
    assert told.word == "CANNOT TELL"
    assert told.fallback == {"name": "old", "sentence": "Keep old."}
    assert "About 750 patients" in told.change[0]
    assert "now 131" in told.change[0]


def test_groups_needed_gives_80_percent_power() -> None:
    """Oracle: the power of a two-sided z test at the number of groups returned, from the normal distribution itself."""
    from scipy.stats import norm

    n = groups_needed(pair("new", "old", 0.03, 0.05), 0.0)
    assert n is not None
    standard_error = 0.05 / norm.ppf(0.975) * (131 / n) ** 0.5
    effect = norm(loc=0.03 / standard_error)
    assert effect.sf(norm.ppf(0.975)) + effect.cdf(norm.ppf(0.025)) == pytest.approx(0.8, abs=0.005)


def test_no_number_of_patients_is_promised_where_the_difference_is_the_margin() -> None:
    assert groups_needed(pair("new", "old", 0.02, 0.05), 0.02) is None
    told = decided([outcome("new", 0.7)], [], rival=old(0.02, 0.05), margin=0.02)
    assert "no realistic number" in told.change[0]


def test_without_a_baseline_the_winner_is_held_against_the_best_floor() -> None:
    outcomes = [outcome("new", 0.7), outcome("histogram", 0.5, kind="floor")]
    beats = decided(outcomes, [], rival=floor(0.1, 0.05))
    assert beats.word == "WINNER"
    assert "beats the best floor, histogram: +10.0 points (95% interval +5.0 to +15.0)" in beats.sentence
    assert beats.against is not None
    assert (beats.against["name"], beats.against["kind"]) == ("histogram", "floor")
    level = decided([outcome("new", 0.7)], [], rival=floor(0.02, 0.05))
    assert "cannot tell it from a floor, histogram" in level.sentence
    assert "patients" in level.change[0]
    worse = decided([outcome("new", 0.7)], [], rival=floor(-0.2, 0.05))
    assert "Do not ship it" in worse.sentence


def test_a_floor_that_wins_is_said_to_be_one() -> None:
    outcomes = [outcome("questionnaire", 0.7, kind="floor", encoder=None), outcome("net", 0.6)]
    rival = Rival("net", "candidate", pair("questionnaire", "net", 0.01, 0.05))
    decision = decided(outcomes, [], rival=rival)
    assert decision.winner == "questionnaire"
    assert (
        "It is a floor: no candidate has been shown to add anything to it (against net: +1.0 points"
        in decision.sentence
    )
    rival = Rival("net", "candidate", pair("questionnaire", "net", 0.1, 0.05))
    assert "better than the best candidate, net" in decided(outcomes, [], rival=rival).sentence


def test_a_better_one_that_may_not_ship_is_named() -> None:
    outcomes = [
        outcome("panderm", 0.8, encoder_verdict="blocked"),
        outcome("new", 0.7),
        outcome("gone", None, status="failed", error="403"),
    ]
    decision = decided(outcomes, [])
    assert "panderm scored 10.0 points higher on validation but may not go into commercial use." in decision.change
    assert "gone has no result: 403" in decision.change


def test_data_of_unknown_terms_never_give_a_go() -> None:
    outcomes = [outcome("new", 0.7, data_verdict="unknown")]
    decision = decided(outcomes, [], rival=old(0.2, 0.03))
    assert decision.word == "CANNOT TELL"
    assert "card.yaml" in decision.sentence
    assert decision.winner == "new"


def test_the_fallback_has_another_encoder_than_the_winner() -> None:
    outcomes = [
        outcome("a-fusion", 0.7, encoder="a"),
        outcome("a-linear", 0.69, encoder="a"),
        outcome("ensemble", 0.68, kind="ensemble", encoder=None),
        outcome("control", 0.65, encoder="c+random"),
        outcome("b-linear", 0.6, encoder="b"),
    ]
    decision = decided(outcomes, [])
    assert decision.fallback is not None
    assert decision.fallback["name"] == "b-linear"


def test_pair_of_turns_a_comparison_round() -> None:
    turned = pair_of([pair("a", "b", 0.1, 0.05)], "b", "a", "top1")
    assert turned is not None
    assert (turned["difference"], turned["verdict"], turned["discordant"]) == (-0.1, "b better", [12, 30])
    assert turned["low"] == pytest.approx(-0.15)
    assert pair_of([], "a", "b", "top1") is None


def with_recalls(**found: tuple[int, int]) -> dict[str, Any]:
    entries = {
        name: {"n": n, "recall": {"value": k / n if n else None, "low": 0.01, "high": 0.3}}
        for name, (k, n) in found.items()
    }
    return {**outcome("new", 0.7).metrics, "per_class": entries}


def test_the_classes_that_the_winner_misses_stand_beside_the_decision() -> None:
    metrics = with_recalls(NEV=(90, 100), BCC=(0, 5), MEL=(2, 21), SEK=(40, 50), ABSENT=(0, 0))
    told = decided([outcome("new", 0.7, metrics=metrics)], [], tested=Scope("patient_id", malignant=("MEL",)))
    assert [entry["class"] for entry in told.weakest] == ["MEL", "BCC"]
    assert told.weakest[0] == {
        "class": "MEL",
        "malignant": True,
        "n": 21,
        "n_found": 2,
        "recall": {"value": 2 / 21, "low": 0.01, "high": 0.3},
    }
    assert told.sentence.endswith(
        "But it finds 9.5% of MEL (2 of 21; 95% interval 1.0–30.0) and none of BCC (0 of 5; 95% interval 1.0–30.0)."
    )


def test_where_no_class_is_weak_the_worst_is_named() -> None:
    told = decided([outcome("new", 0.7, metrics=with_recalls(NEV=(90, 100), MEL=(14, 21)))], [])
    assert [entry["class"] for entry in told.weakest] == ["MEL"]
    assert "At worst it finds 66.7% of MEL (14 of 21;" in told.sentence


def test_the_majority_class_is_no_winner() -> None:
    told = decided([outcome("new", 0.6), outcome("majority", 0.7, kind="floor", head="majority")], [])
    assert (told.word, told.winner, told.weakest) == ("NO WINNER", None, ())
    assert "always naming the most frequent class (top-1 accuracy 70.0%)" in told.sentence


@pytest.mark.parametrize(("n_groups", "word"), [(9, "NO WINNER"), (10, "WINNER")])
def test_from_a_handful_of_patients_nothing_is_told(n_groups: int, word: str) -> None:
    metrics = {**outcome("new", 0.7).metrics, "n_groups": n_groups}
    told = decided([outcome("new", 0.7, metrics=metrics)], [])
    assert told.word == word
    assert ("fewer than 10" in told.sentence) == (word == "NO WINNER")


def test_what_was_waived_is_not_called_unseen() -> None:
    plain = decided([outcome("new", 0.7)], [])
    waived = decided([outcome("new", 0.7)], [], tested=Scope("patient_id", waived=("duplicates",)))
    assert "it had not seen" in plain.sentence
    assert "it had not seen" not in waived.sentence
    assert "(waived: duplicates)" in waived.sentence


def test_a_photo_without_a_patient_is_no_patient() -> None:
    told = decided([outcome("new", 0.7)], [], tested=Scope("patient_id", n_without=1))
    assert "168 photos of 130 patients and 1 photo without one" in told.sentence


def test_a_difference_without_an_interval_tells_nothing_and_is_said_to_have_none() -> None:
    """Where every bootstrap replicate is alike there is no interval: no sentence may print one, and nothing ships."""
    rival = old(0.03, 0.01)
    rival.pair.update(low=None, high=None, verdict="cannot tell apart")
    found = decided([outcome("new", 0.7)], [rival.pair], rival=rival, margin=0.0)
    assert found.word == "CANNOT TELL"
    assert "+3.0 points (no interval)" in found.sentence
    assert groups_needed(rival.pair, 0.0) is None
    turned = pair_of([rival.pair], "old", "new", "top1")
    assert turned is not None
    assert (turned["low"], turned["high"]) == (None, None)
