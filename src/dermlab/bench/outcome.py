"""What became of each candidate, and which of them wins: ``val`` chooses among those that may win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dermlab.bench.terms import Terms
from dermlab.licensing.triage import CONDITIONS, VIABLE, worst

if TYPE_CHECKING:
    from dermlab.evaluate.predictions import Predictions

MAY_SHIP = (VIABLE, CONDITIONS)
MIN_TEST_GROUPS = 10
"""Fewer patients in the test part tell nothing: an interval that is drawn from them anew means little."""
COSTS = ("seconds", "embed_seconds", "images_per_second", "full_seconds")


@dataclass
class Outcome:
    """What became of one candidate.

    Attributes:
        name: its name in the table.
        kind: ``candidate``, ``floor`` (what a model must beat to have learnt anything) or ``ensemble``.
        encoder: the encoder's name, None where it looks at no photo.
        head: the head's kind.
        status: ``ok`` or ``failed``.
        error: one line why it failed.
        run: its run folder, relative to the bake-off's.
        metrics: CONTRACT's metrics.json.
        val_score: the score on val that chooses, the mean over folds; higher is better.
        flags: reasons why it may not win although it has a score: not converged, collapsed, contaminated.
        warnings: what a reader should know.
        encoder_verdict: licence verdict of its encoders.
        data_verdict: licence verdict of the data it was fitted on.
        conditions: what must be met to ship it.
        reasons: why the verdicts are what they are.
        weights: of an ensemble, the weight of each member.
        reused: whether an earlier run left its result.
        cost: by the names of :data:`COSTS`; None where it was not measured.
        winner: whether it won.
        rank: 1 + the number of candidates significantly better on test.
        table: its predictions.
        mistakes: the most confident mistakes on test: ``image_id, unit, label, predicted, confidence``.
        finetuned: whether the whole network was trained.
        trainings: run folder of each training seed; ``metrics``, ``val_score`` and ``table`` are over all of them.
        shipped: the table of ``run``, the training that is best on val, where there are several.
    """

    name: str
    kind: Literal["candidate", "floor", "ensemble"]
    encoder: str | None
    head: str
    status: Literal["ok", "failed"] = "ok"
    error: str = ""
    run: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    val_score: float | None = None
    flags: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    encoder_verdict: str = "viable"
    data_verdict: str = "viable"
    conditions: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    reused: bool = False
    cost: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(COSTS))
    winner: bool = False
    rank: int | None = None
    table: Predictions | None = field(default=None, repr=False)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    finetuned: bool = False
    trainings: dict[int, str] = field(default_factory=dict)
    shipped: Predictions | None = field(default=None, repr=False)

    def under(self, encoder: Terms, data: Terms) -> None:
        """Take on the terms of its encoder and of the data that it is fitted on."""
        self.encoder_verdict, self.data_verdict = encoder.verdict, data.verdict
        self.conditions = list(dict.fromkeys([*encoder.conditions, *data.conditions]))
        self.reasons = list(dict.fromkeys([*encoder.reasons, *data.reasons]))

    @property
    def own_table(self) -> Predictions | None:
        """The predictions of the one model in ``run``."""
        return self.shipped if self.shipped is not None else self.table

    @property
    def verdict(self) -> str:
        """The worse of the verdicts on its encoders and its data."""
        return worst((self.encoder_verdict, self.data_verdict))

    @property
    def val(self) -> float:
        """The score on val for sorting: minus infinity where there is none."""
        return self.val_score if self.scored and self.val_score is not None else float("-inf")

    @property
    def scored(self) -> bool:
        """Whether it has a result to choose by."""
        return self.status == "ok" and self.val_score is not None and math.isfinite(self.val_score)

    @property
    def may_win(self) -> bool:
        """Whether it may be named winner.

        An encoder that may not ship, or of which nobody knows, cannot win. Data of unknown terms are common to all
        candidates and change no choice between them: they are held against the decision instead.
        """
        return self.scored and not self.flags and self.encoder_verdict in MAY_SHIP and self.data_verdict != "blocked"


def best_on_val(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the best on val among those that may win; a tie goes to a floor, else to the one listed first."""
    able = [outcome for outcome in outcomes if outcome.may_win]
    return max(able, key=lambda outcome: (outcome.val, outcome.kind == "floor"), default=None)


def choose_winner(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Return the best on val among those that may win, or None where it deserves no such name.

    The majority class has learnt nothing, and of fewer than :data:`MIN_TEST_GROUPS` tested groups nothing can be said.
    """
    best = best_on_val(outcomes)
    return None if best is None or best.head == "majority" or too_few_groups(best) else best


def too_few_groups(outcome: Outcome) -> bool:
    """Tell whether an outcome was tested on too few groups (patients) to be told from another."""
    return bool(outcome.metrics) and outcome.metrics["n_groups"] < MIN_TEST_GROUPS


def order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes as the leaderboard lists them: best on val first, those without a score last."""
    return sorted(outcomes, key=lambda outcome: (not outcome.scored, -outcome.val, outcome.kind != "floor"))
