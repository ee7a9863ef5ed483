"""The floor under every table: the class mix of the training part, whatever the photo shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dermlab.adapt.base import Head


class MajorityHead(Head):
    """Predicts the class shares of the training part for every sample, so that its decision is the majority class.

    The other floors are heads on other inputs: ``questionnaire`` is a :class:`LinearHead` on the encoded
    questionnaire, the colour histogram is a :class:`KNNHead` on the features of the encoder ``histogram``.

    Args:
        classes: all classes of the target in order; None: those that occur.
        choose_by: has no effect; kept alike in all heads.
        random_state: has no effect.

    Attributes:
        prior_: share of each class seen in training (of each label: among the samples where it is known), float64 (S,).
    """

    def __init__(
        self, classes: Sequence[Any] | None = None, choose_by: str = "log_loss", random_state: int = 0
    ) -> None:
        self.classes = classes
        self.choose_by = choose_by
        self.random_state = random_state

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        self._refit(X, codes)
        if X_val is not None and codes_val is not None:
            self.head_report_["val_score"] = self._score(codes_val, self._seen_probabilities(X_val))

    def _refit(self, X: np.ndarray, codes: np.ndarray) -> None:
        if self.multilabel_:
            self.prior_ = np.nanmean(codes, axis=0)
            return
        self.prior_ = np.bincount(codes, minlength=len(self.seen_)) / len(codes)

    def _seen_probabilities(self, X: np.ndarray) -> np.ndarray:
        return np.tile(self.prior_, (len(X), 1))

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn's checks that no accuracy is to be expected."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags
