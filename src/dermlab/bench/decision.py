"""Who wins and what follows: pure functions from scores, verdicts and comparisons to one sentence a person can act on.

``val`` chooses; ``test`` only says how good the chosen one is, and how sure that is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from dermlab.bench.outcome import MAY_SHIP, MIN_TEST_GROUPS, Outcome, best_on_val, order
from dermlab.core import words

Z_95, Z_POWER_80 = 1.959964, 0.841621
HOPELESS = 50  # times the patients in hand beyond which asking for more is no advice
WEAK = 0.5  # of the mean recall over classes: a class that is found less often than that is named beside the decision
N_TOLD = 3  # weak classes in the sentence; the record has them all


@dataclass(frozen=True)
class Scope:
    """What the words must say of the photos that were tested.

    Attributes:
        group_by: the column that groups are of.
        n_without: groups that are a photo alone, because that column is blank for it.
        waived: findings by which tested photos, or others of their patients, were seen in training, and were waived.
        malignant: classes of the branches of the card's hierarchy that are called malignant.
    """

    group_by: str | None
    n_without: int = 0
    waived: tuple[str, ...] = ()
    malignant: tuple[str, ...] = ()

    @property
    def groups(self) -> str:
        """What groups are called."""
        return words.groups_word(self.group_by)


@dataclass(frozen=True)
class Rival:
    """What the winner is held against.

    The comparison is one alone, planned before anything was measured: both sides were named by the config or chosen on
    val. So nothing is corrected for.

    Attributes:
        name: the baseline's name; without one the best floor on val, or, where a floor won, the best candidate.
        kind: which of them.
        pair: the paired comparison on test, ``a`` the winner and ``b`` the rival.
    """

    name: str
    kind: Literal["baseline", "floor", "candidate"]
    pair: Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What the bake-off says.

    Attributes:
        word: ``GO``, ``NO-GO``, ``CANNOT TELL`` against a baseline; ``WINNER`` or ``NO WINNER`` without one.
        sentence: the decision in one or two sentences.
        winner: the winner's name.
        against: what the winner was held against: ``name, kind, difference, low, high, verdict``.
        fallback: ``name`` and ``sentence``.
        change: what would change the decision, a sentence each.
        weakest: the classes that the winner finds less than :data:`WEAK` times as often as its classes on average
            (balanced accuracy), malignant ones first, then the worst first; the worst alone where none is so bad:
            ``{"class", "malignant", "n", "n_found", "recall": {"value", "low", "high"}}``. Empty without a winner.
    """

    word: Literal["GO", "NO-GO", "CANNOT TELL", "WINNER", "NO WINNER"]
    sentence: str
    winner: str | None = None
    against: dict[str, Any] | None = None
    fallback: dict[str, str] | None = None
    change: tuple[str, ...] = ()
    weakest: tuple[dict[str, Any], ...] = ()


def decide(
    outcomes: Sequence[Outcome],
    comparison: Sequence[Mapping[str, Any]],
    *,
    metric: str,
    use: str,
    tested: Scope,
    rival: Rival | None = None,
    baseline: str | None = None,
    margin: float = 0.0,
) -> Decision:
    """Put the choice into words.

    Against a baseline one rule holds, which a reader can check by eye: with ``[low, high]`` the 95 % interval of the
    paired difference (winner minus baseline), GO where ``low > margin``, NO-GO where ``high < margin``, else CANNOT
    TELL. A margin above 0 asks for an improvement that is worth the change, one below 0 for non-inferiority. GO with
    a margin of 0 or more also needs the paired test to say "better".

    Args:
        outcomes: all candidates, the winner marked.
        comparison: paired comparisons of all pairs (CONTRACT's comparison.json).
        metric: the metric that decides.
        use: the intended use.
        tested: what there is to say of the photos that were tested.
        rival: what the winner is held against.
        baseline: the baseline's name, also where nobody won.
        margin: the least difference that is worth a change, as a share (0.02 is two points).
    """
    winner = next((outcome for outcome in outcomes if outcome.winner), None)
    if winner is None:
        return _no_winner(outcomes, metric=metric, use=use, baseline=baseline, groups=tested.groups)
    decision = _decision(outcomes, winner, comparison, metric, use, tested, rival, margin)
    weak, worst = weakest(winner.metrics, tested.malignant)
    return replace(decision, sentence=decision.sentence + _weakness(weak, worst), weakest=weak or worst)


def weakest(
    metrics: Mapping[str, Any], malignant: Sequence[str] = ()
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Return the weak classes of a ``metrics.json`` as :class:`Decision` describes them, and the worst one alone."""
    found = [
        {
            "class": name,
            "malignant": name in malignant,
            "n": entry["n"],
            "n_found": round(entry["recall"]["value"] * entry["n"]),
            "recall": {key: entry["recall"].get(key) for key in ("value", "low", "high")},
        }
        for name, entry in metrics.get("per_class", {}).items()
        if entry["n"] and entry["recall"]["value"] is not None
    ]
    found.sort(key=lambda entry: (not entry["malignant"], entry["recall"]["value"]))
    if not found:
        return (), ()
    mean = sum(entry["recall"]["value"] for entry in found) / len(found)
    weak = tuple(entry for entry in found if entry["recall"]["value"] < WEAK * mean)
    return weak, (min(found, key=lambda entry: entry["recall"]["value"]),)


def _weakness(weak: Sequence[Mapping[str, Any]], worst: Sequence[Mapping[str, Any]]) -> str:
    """Say which classes a model misses; what an average over all classes hides."""
    told = [_finds(entry) for entry in weak[:N_TOLD]]
    if told:
        more = f"; {len(weak) - N_TOLD} more classes are found as rarely" if len(weak) > N_TOLD else ""
        return f" But it finds {', '.join(told[:-1])}{' and ' if told[1:] else ''}{told[-1]}{more}."
    return f" At worst it finds {_finds(worst[0])}." if worst else ""


def _finds(entry: Mapping[str, Any]) -> str:
    recall = entry["recall"]
    share = words.score(recall["value"]) if entry["n_found"] else "none"
    span = words.span(recall)
    interval = f"95% interval {span}" if recall["low"] is not None else span
    return f"{share} of {entry['class']} ({entry['n_found']:,} of {entry['n']:,}; {interval})"


def _decision(
    outcomes: Sequence[Outcome],
    winner: Outcome,
    comparison: Sequence[Mapping[str, Any]],
    metric: str,
    use: str,
    tested: Scope,
    rival: Rival | None,
    margin: float,
) -> Decision:
    groups = tested.groups
    measured = _measured(winner, metric, tested)
    change = _rivals(outcomes, winner, metric, use)
    fallback = _fallback(outcomes, winner, comparison, metric)
    against = None if rival is None else {**_effect(rival.pair), "name": rival.name, "kind": rival.kind}
    if rival is None or rival.kind != "baseline":
        able = f"the candidates that may go into {words.use_words(use)}"
        sentence = f"{winner.name} was best on validation among {able}: {measured}."
        if rival is not None:
            sentence += _against(rival, metric)
            if rival.pair["verdict"] == "cannot tell apart":
                change += _needed(rival.pair, 0.0, groups)
        change.append(
            "With baseline: in the config this page would say GO, NO-GO or CANNOT TELL against what you have."
        )
        return Decision("WINNER", sentence + _unknown_data(winner, use), winner.name, against, fallback, tuple(change))

    pair, baseline = rival.pair, rival.name
    word = judge(pair, margin)
    asked = _asked(margin, metric)
    gap = _gap(pair, metric)
    if word == "GO" and winner.verdict not in MAY_SHIP:
        sentence = (
            f"{winner.name} is {asked} {baseline} ({gap}; {measured}), but it is not known to be lawful to ship it."
        )
        return Decision(
            "CANNOT TELL",
            sentence + _unknown_data(winner, use),
            winner.name,
            against,
            {"name": baseline, "sentence": f"Keep {baseline} until the terms are known."},
            tuple(change),
        )
    if word == "GO":
        sentence = f"Ship {winner.name} instead of {baseline}: {gap}; {measured}.{_wanted(margin, metric)}"
        limit = words.points(pair["low"], _kind(metric)).lstrip("+")
        change.insert(0, f"With a margin of more than {limit}{_unit(metric)} this would be CANNOT TELL.")
        if winner.conditions:
            change.insert(
                0,
                f"The {words.plural(len(winner.conditions), 'condition')} under 'May it ship' must be met; "
                "where one cannot be, the fallback takes its place.",
            )
        keep = {"name": baseline, "sentence": f"{baseline} stays where it is."}
        return Decision(word, sentence, winner.name, against, fallback or keep, tuple(change))
    keep = {"name": baseline, "sentence": f"Keep {baseline}."}
    if word == "NO-GO":
        sentence = (
            f"Keep {baseline}: {winner.name}, the best candidate that may ship, is not {asked} it ({gap}; {measured})."
        )
        change.insert(0, "A better candidate: more encoders, fine-tuning, more training photos, or a smaller margin.")
    else:
        sentence = (
            f"These data cannot tell whether {winner.name} is {asked} {baseline}: the difference is {gap} "
            f"({measured}), so a true difference on either side of the margin fits."
        )
        change = _needed(pair, margin, groups) + change
    return Decision(word, sentence + _unknown_data(winner, use), winner.name, against, keep, tuple(change))


def judge(pair: Mapping[str, Any], margin: float) -> Literal["GO", "NO-GO", "CANNOT TELL"]:
    """Return GO, NO-GO or CANNOT TELL for a paired difference (winner minus baseline) and a margin."""
    low, high = pair["low"], pair["high"]
    if low is None or high is None:
        return "CANNOT TELL"
    if high < margin:
        return "NO-GO"
    if low > margin and (margin < 0 or pair["verdict"] == "a better"):
        return "GO"
    return "CANNOT TELL"


def groups_needed(pair: Mapping[str, Any], margin: float) -> int | None:
    """Return how many groups would settle the question at 80 % power if the true difference is the one observed.

    The interval's half width shrinks with the square root of the number of groups; a two-sided 5 % test.
    Returns None where the observed difference is the margin itself or no interval is known.
    """
    low, high, difference = pair["low"], pair["high"], pair["difference"]
    if low is None or high is None or difference is None or math.isclose(difference, margin, abs_tol=1e-9):
        return None
    standard_error = (high - low) / (2 * Z_95)
    return math.ceil(pair["n_groups"] * ((Z_95 + Z_POWER_80) * standard_error / abs(difference - margin)) ** 2)


def pair_of(comparison: Sequence[Mapping[str, Any]], a: str, b: str, metric: str) -> dict[str, Any] | None:
    """Return the comparison of ``a`` and ``b`` seen from ``a``, whichever way round it was made, or None."""
    for pair in comparison:
        if pair["metric"] != metric:
            continue
        if (pair["a"], pair["b"]) == (a, b):
            return dict(pair)
        if (pair["a"], pair["b"]) == (b, a):
            turned = {"a better": "b better", "b better": "a better"}
            return {
                **pair,
                "a": a,
                "b": b,
                "difference": _minus(pair["difference"]),
                "low": _minus(pair["high"]),
                "high": _minus(pair["low"]),
                "discordant": None if pair["discordant"] is None else list(reversed(pair["discordant"])),
                "verdict": turned.get(pair["verdict"], pair["verdict"]),
            }
    return None


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _kind(metric: str) -> str:
    return words.metric_words(metric)[2]


def _unit(metric: str) -> str:
    return " points" if _kind(metric) == "share" else ""


def _effect(pair: Mapping[str, Any]) -> dict[str, Any]:
    return {key: pair[key] for key in ("difference", "low", "high", "p", "n", "n_groups", "verdict")}


def _gap(pair: Mapping[str, Any], metric: str) -> str:
    kind = _kind(metric)
    said = ("" if pair["low"] is None else "95% interval ") + words.gap_span(pair, kind)
    return f"{words.points(pair['difference'], kind)}{_unit(metric)} ({said})"


def _asked(margin: float, metric: str) -> str:
    size = words.points(abs(margin), _kind(metric)).lstrip("+") + _unit(metric)
    if margin > 0:
        return f"at least {size} better than"
    return "better than" if margin == 0 else f"no more than {size} worse than"


def _wanted(margin: float, metric: str) -> str:
    size = words.points(abs(margin), _kind(metric)).lstrip("+") + _unit(metric)
    if margin > 0:
        return f" At least {size} were asked for."
    return "" if margin == 0 else f" Up to {size} worse was allowed."


def _measured(winner: Outcome, metric: str, tested: Scope) -> str:
    n, n_groups = winner.metrics["n"], winner.metrics["n_groups"]
    unit = words.units_word(winner.metrics["unit"], n)
    groups = tested.groups
    of = f" of {n_groups - tested.n_without:,} {groups}" if groups not in ("photos", unit) else ""
    if of and tested.n_without:
        of += f" and {words.plural(tested.n_without, 'photo')} without one"
    scored = winner.metrics.get(metric) or {"value": None, "low": None, "high": None}
    label, _, kind = words.metric_words(metric)
    figure = f"{words.score(scored['value'], kind)} (95% interval {words.span(scored, kind)})"
    unseen = "it had not seen"
    if tested.waived:
        unseen = (
            f"some of which it was trained on, they or others of the same group (waived: {', '.join(tested.waived)})"
        )
    return f"{label} {figure} on {n:,} {unit}{of} {unseen}"


def _against(rival: Rival, metric: str) -> str:
    """Say what follows from a comparison with a floor, or, where a floor won, with the best candidate."""
    gap, verdict = _gap(rival.pair, metric), rival.pair["verdict"]
    doubt = f"{gap}, p = {words.p_value(rival.pair['p'])}"
    if rival.kind == "candidate":
        floor = " It is a floor"
        if verdict == "a better":
            return f"{floor}, and better than the best candidate, {rival.name}: {gap}. Photos were not shown to help."
        if verdict == "b better":
            return f"{floor}; on test the candidate {rival.name} is better ({gap}), which val did not see."
        return f"{floor}: no candidate has been shown to add anything to it (against {rival.name}: {doubt})."
    if verdict == "a better":
        return f" It beats the best floor, {rival.name}: {gap}."
    if verdict == "b better":
        return f" On test the floor {rival.name} is better: {gap}. Do not ship it."
    return f" These data cannot tell it from a floor, {rival.name}: {doubt}."


def _unknown_data(winner: Outcome, use: str) -> str:
    if winner.data_verdict in MAY_SHIP:
        return ""
    goal = words.use_words(use)
    return f" Nobody has said whether its training photos may go into {goal}: write their licence into card.yaml."


def _needed(pair: Mapping[str, Any], margin: float, groups: str) -> list[str]:
    needed = groups_needed(pair, margin)
    have = pair["n_groups"]
    if needed is None or needed > HOPELESS * have:
        return [
            "The difference is so close to the margin that no realistic number of further patients would settle it."
        ]
    if needed <= have:
        return [f"More {groups} in the test part would narrow the interval; there are {have:,} now."]
    return [
        f"About {_rounded(needed):,} {groups} in the test part (now {have:,}) would settle it with 80% power, "
        "if the true difference is the one seen here."
    ]


def _rounded(n: int) -> int:
    """Round to two figures: an estimate from one interval deserves no more."""
    size = 10 ** max(0, len(str(n)) - 2)
    return math.ceil(n / size) * size


def _rivals(outcomes: Sequence[Outcome], winner: Outcome, metric: str, use: str) -> list[str]:
    """Name those that did better on val but could not win, and those that never ran."""
    kind, lines = _kind(metric), []
    for outcome in order(outcomes):
        if outcome.status == "failed":
            lines.append(f"{outcome.name} has no result: {outcome.error}")
        elif outcome.scored and not outcome.may_win and outcome.val > winner.val:
            better = words.points(outcome.val - winner.val, kind).lstrip("+") + _unit(metric)
            if outcome.flags:
                why = f"is not ranked: {'; '.join(outcome.flags)}"
            elif outcome.encoder_verdict == "blocked":
                why = f"may not go into {words.use_words(use)}"
            else:
                why = f"is under terms of which nothing is known for {words.use_words(use)}"
            lines.append(f"{outcome.name} scored {better} higher on validation but {why}.")
    return lines


def _fallback(
    outcomes: Sequence[Outcome], winner: Outcome, comparison: Sequence[Mapping[str, Any]], metric: str
) -> dict[str, str] | None:
    """Return the next best on val that may ship and is no floor or control, of another encoder if possible.

    Where the winner's encoder turns out not to do, for its licence or its cost, another head on it is no way out.
    """
    able = [
        item
        for item in order(outcomes)
        if item.may_win
        and not item.winner
        and item.kind == "candidate"
        and not (item.encoder or "").endswith("+random")
    ]
    others = [item for item in able if item.encoder != winner.encoder] or able
    if not others:
        return None
    chosen = others[0]
    pair = pair_of(comparison, chosen.name, winner.name, metric)
    told = f": {_gap(pair, metric)} against {winner.name}" if pair is not None else ""
    other = " with another encoder" if chosen.encoder != winner.encoder and chosen.encoder else ""
    conditions = f" ({words.plural(len(chosen.conditions), 'condition')} to meet)" if chosen.conditions else ""
    return {"name": chosen.name, "sentence": f"{chosen.name}{conditions}, the next best on validation{other}{told}."}


def _no_winner(outcomes: Sequence[Outcome], *, metric: str, use: str, baseline: str | None, groups: str) -> Decision:
    scored = [outcome for outcome in order(outcomes) if outcome.scored]
    best = best_on_val(outcomes)
    keep = {"name": baseline, "sentence": f"Keep {baseline}."} if baseline else None
    if best is not None and best.head != "majority":  # too few groups were tested, whoever was best
        sentence = (
            f"The test part holds {best.metrics['n_groups']} {groups}, and from fewer than {MIN_TEST_GROUPS} nothing "
            f"can be told: {best.name} was best on validation, which may be chance."
        )
        change = (f"At least {MIN_TEST_GROUPS} {groups} in the test part: more photos, or folds: 5.",)
        return Decision("CANNOT TELL" if baseline else "NO WINNER", sentence, fallback=keep, change=change)
    change = ("Candidates whose encoder and data may be used so, or another use: in the config (research, internal).",)
    if best is not None:
        kind = words.metric_words(metric)[2]
        of_labels = best.metrics.get("kind") == "multilabel"
        guess = "giving every photo the labels' shares" if of_labels else "always naming the most frequent class"
        sentence = (
            f"Nothing that may go into {words.use_words(use)} was better on validation than {guess} "
            f"({words.metric_words(metric)[0]} {words.score(best.val_score, kind)})."
        )
        other = "" if of_labels else ", or metric: balanced_accuracy, for which the majority counts little"
        change = (f"More photos, other encoders{other}.",)
    elif not scored:
        sentence = "No candidate has a result; each one's error is below."
    elif all(outcome.data_verdict == "blocked" for outcome in scored):
        sentence = (
            f"Nothing fitted on these photos may go into {words.use_words(use)}: the terms of the data set forbid it."
        )
    else:
        why = "; ".join(f"{outcome.name}: {_obstacle(outcome)}" for outcome in scored[:4])
        sentence = f"No candidate may be named winner for {words.use_words(use)} ({why})."
    return Decision("NO-GO" if baseline else "NO WINNER", sentence, fallback=keep, change=change)


def _obstacle(outcome: Outcome) -> str:
    if outcome.flags:
        return outcome.flags[0]
    return "may not ship" if outcome.verdict == "blocked" else "licence unknown"
