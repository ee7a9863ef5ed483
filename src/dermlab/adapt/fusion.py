"""The fusion head: photo and questionnaire in one network, trained branch by branch, then joined."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dermlab.adapt.base import MIN_PROBABILITY
from dermlab.adapt.mlp import PREDICT_BLOCK, Batch, Curve, MLPHead, deterministic, train
from dermlab.core.randomness import generator

if TYPE_CHECKING:
    from dermlab.models.fusion import FusionNetwork

BRANCH_SHARE = 0.1
"""In joint training the finished branches move at a tenth of the rate of the interaction, which starts at zero."""

JOINT_FROM = 1000
"""Training samples from which joint training is tried. On PAD-UFES-20's 505 it gained .000 to .009 of log loss on val,
never more than its standard error, in five of five fits."""


class FusionHead(MLPHead):
    """The seeds' Gen2A head on ``X = [embedding | encoded questionnaire]``.

    Trained in three steps, ``val`` deciding where each ends:

    1. the embedding branch (→ 256) with a classifier of its own;
    2. the questionnaire branch with a classifier of its own, under *questionnaire dropout*: in every batch answers of
       random columns, and for some patients all of them, are blanked as if they were missing, so that the network
       knows what to do when they really are;
    3. both joined, their logits added less the log prior both contain
       (:meth:`dermlab.models.fusion.FusionNetwork.join`), and trained together with a hidden layer on both for what
       they only say together. This is tried from 1,000 training samples on, and kept only where it beats its start on
       val by more than one standard error of the paired difference in log loss.

    Why not all at once, as the seeds did on 121,514 photos: on PAD-UFES-20 (505 training photos, EfficientNet-Lite0)
    joint training from scratch memorises the embedding before it has learnt the questionnaire, and ends below the
    questionnaire alone.

    Args:
        n_embedding: number of leading features that are the embedding; None: all, which makes an MLP.
        blocks: sizes of the questionnaire's columns in features, in order; the last feature of each is its missing
            indicator (:attr:`dermlab.data.metadata.QuestionnaireEncoder.blocks_`). None: every feature is a column
            by itself, blanked to its mean.
        questionnaire_dropout: probability that a column is blanked in training, and that all are.
        hidden: width of the embedding branch.
        epochs: most passes over the training samples, in each step.
        patience: epochs without a better val score after which a step ends.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        dropout: of the embedding branch; the questionnaire branch takes 0.4 of it.
        input_dropout: of the embedding.
        n_members: networks averaged.
        batch_size: None: by the number of samples.
        class_weight: None, ``"balanced"`` or weights by class.
        classes: all classes of the target in order; None: those that occur.
        choose_by: metric on val that ends each step.
        random_state: seed of everything.

    Attributes:
        networks_: the fitted members.
        mean_, scale_: float32 (D + Q,), of the training samples.
        n_iter_: epochs kept, over the steps.
    """

    def __init__(
        self,
        n_embedding: int | None = None,
        blocks: Sequence[int] | None = None,
        questionnaire_dropout: float = 0.1,
        hidden: int = 256,
        epochs: int = 100,
        patience: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        n_members: int = 3,
        batch_size: int | None = None,
        class_weight: Any = None,
        classes: Sequence[Any] | None = None,
        choose_by: str = "log_loss",
        random_state: int = 0,
    ) -> None:
        super().__init__(
            hidden=hidden,
            epochs=epochs,
            patience=patience,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            dropout=dropout,
            input_dropout=input_dropout,
            n_members=n_members,
            batch_size=batch_size,
            class_weight=class_weight,
            classes=classes,
            choose_by=choose_by,
            random_state=random_state,
        )
        self.n_embedding = n_embedding
        self.blocks = blocks
        self.questionnaire_dropout = questionnaire_dropout

    @property
    def n_embedding_(self) -> int:
        """Number of leading features that are the embedding."""
        return self.n_features_in_ if self.n_embedding is None else self.n_embedding

    def _fit(self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None) -> None:
        n_questionnaire = X.shape[1] - self.n_embedding_
        if n_questionnaire < 0 or self.n_embedding_ < 1:
            raise ValueError(f"n_embedding: {self.n_embedding_} of {X.shape[1]} features cannot be the embedding")
        if self.blocks is not None and sum(self.blocks) != n_questionnaire:
            raise ValueError(
                f"blocks: sum to {sum(self.blocks)}, but there are {n_questionnaire} questionnaire features"
            )
        if n_questionnaire == 0:
            super()._fit(X, codes, X_val, codes_val)
            return
        self._learn_scale(X)
        self._open_indicators()
        self.restore_blank()
        judged = X_val is not None
        image_curve = self._train_image(X, codes, X_val, codes_val)
        image = self.networks_
        answers_curve = self._train_questionnaire(X, codes, X_val, codes_val)
        self.networks_ = self._join(image, self.networks_, codes)
        joint_curve, kept = self._train_jointly(X, codes, X_val, codes_val)
        self.n_iter_ = max(1, image_curve.best_epoch + answers_curve.best_epoch + kept)
        report = self.head_report_
        report |= {
            "chosen": {"epochs": [image_curve.best_epoch, answers_curve.best_epoch, kept]},
            "val_score": joint_curve.val_scores[kept] if judged else None,
            "sweep": [
                {"step": step, "epoch": epoch, "val_score": value}
                for step, curve in (
                    ("embedding", image_curve),
                    ("questionnaire", answers_curve),
                    ("joint", joint_curve),
                )
                for epoch, value in enumerate(curve.val_scores)
            ],
            "converged": image_curve.finite and answers_curve.finite and joint_curve.finite,
        }
        for name, curve in (("embedding", image_curve), ("questionnaire", answers_curve)):
            if judged and curve.best_epoch == 0:
                report["warnings"].append(f"the {name} branch was never better on val than the class shares")

    def _ends(self) -> np.ndarray:
        """Return the place of each column's missing indicator among the features, int (columns,)."""
        return self.n_embedding_ + np.cumsum(self.blocks or (), dtype=np.int64) - 1

    def _open_indicators(self) -> None:
        """Give indicators that never varied in training a scale too: questionnaire dropout will set them."""
        ends = self._ends()
        self.scale_[ends] = np.where(np.isfinite(self.scale_[ends]), self.scale_[ends], 1.0)

    def restore_blank(self) -> None:
        """Work out ``blank_``, what a questionnaire nobody filled in looks like to the networks: float32 (Q,)."""
        blank = self.mean_.copy()
        if self.blocks is not None:
            blank[self.n_embedding_ :] = 0.0
            blank[self._ends()] = 1.0
        self.blank_ = self._standardise(blank[None])[0, self.n_embedding_ :]

    def _split(self, X: np.ndarray) -> Batch:
        import torch

        scaled = self._standardise(X)
        answers = scaled[:, self.n_embedding_ :]
        return {
            "embedding": torch.from_numpy(np.ascontiguousarray(scaled[:, : self.n_embedding_])),
            "questionnaire": torch.from_numpy(np.ascontiguousarray(answers)),
            "present": torch.from_numpy(self._present(answers)),
        }

    def _present(self, answers: np.ndarray) -> np.ndarray:
        """Return whether anything was filled in, bool (N,)."""
        if self.blocks is None:
            return np.ones(len(answers), dtype=bool)
        ends = np.cumsum(self.blocks) - 1
        return (answers[:, ends] < self.blank_[ends] - 1e-3).any(axis=1)

    def _blanked(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Blank random columns of the questionnaire, and for some rows all of it."""
        import torch

        answers = batch["questionnaire"].numpy().copy()
        sizes = np.ones(answers.shape[1], dtype=np.int64) if self.blocks is None else np.asarray(self.blocks)
        gone = random.random((len(answers), len(sizes))) < self.questionnaire_dropout
        gone |= random.random((len(answers), 1)) < self.questionnaire_dropout
        gone = np.repeat(gone, sizes, axis=1)
        answers[gone] = np.broadcast_to(self.blank_, answers.shape)[gone]
        return {
            **batch,
            "questionnaire": torch.from_numpy(answers),
            "present": torch.from_numpy(self._present(answers)),
        }

    def _train_questionnaire(
        self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None
    ) -> Curve:
        everything = self._split(X)
        self.networks_ = self._build(0, X.shape[1] - self.n_embedding_, codes, "questionnaire")

        def batch(rows: np.ndarray, random: np.random.Generator) -> Batch:
            part = {name: everything[name][rows] for name in ("questionnaire", "present")}
            return self._blanked(part, random)

        judge = self._judge(X_val, codes_val)
        weights = self._sample_weights(codes)
        return train(self.networks_, len(X), batch, codes, weights, judge, self._training("questionnaire training"))

    def _join(
        self, image: list[FusionNetwork], questionnaire: list[FusionNetwork], codes: np.ndarray
    ) -> list[FusionNetwork]:
        import torch

        from dermlab.models.fusion import FusionNetwork

        log_prior = torch.from_numpy(self._log_prior(codes).astype(np.float32))
        joined = []
        for member, pair in enumerate(zip(image, questionnaire, strict=True)):
            with deterministic(int(generator(self.random_state, "join", member).integers(2**31))):
                joined.append(FusionNetwork.join(*pair, log_prior, dropout=self.dropout).eval())
        return joined

    def _train_jointly(
        self, X: np.ndarray, codes: np.ndarray, X_val: np.ndarray | None, codes_val: np.ndarray | None
    ) -> tuple[Curve, int]:
        """Train the joined networks, go back to their start unless val is clear; return curve and epoch kept."""
        report = self.head_report_
        if X_val is None or codes_val is None:
            report["joint_training"] = "left out: nothing to judge it by"
            return Curve([np.nan], 0, True), 0
        if len(X) < JOINT_FROM:
            report["joint_training"] = f"left out: {len(X)} training samples, tried from {JOINT_FROM}"
            return Curve([self._score(codes_val, self._seen_probabilities(X_val))], 0, True), 0
        everything = self._split(X)
        start = [copy.deepcopy(network) for network in self.networks_]
        before = self._own_log_probability(X_val, codes_val)
        training = self._training("joint training")
        curve = train(
            self.networks_,
            len(X),
            lambda rows, random: self._blanked({name: values[rows] for name, values in everything.items()}, random),
            codes,
            self._sample_weights(codes),
            self._judge(X_val, codes_val),
            replace(training, branch_share=BRANCH_SHARE),
        )
        gain = self._own_log_probability(X_val, codes_val) - before
        mean = float(gain.mean())
        error = float(gain.std(ddof=1) / np.sqrt(len(gain))) if len(gain) > 1 else np.inf
        clear = curve.best_epoch > 0 and mean > error
        report["joint_training"] = (
            f"{'kept' if clear else 'not kept'}: it gained {mean:.4f} of log loss on val (standard error {error:.4f})"
        )
        if clear:
            return curve, curve.best_epoch
        self.networks_ = start
        return curve, 0

    def _own_log_probability(self, X_val: np.ndarray, codes_val: np.ndarray) -> np.ndarray:
        """Return the log-probability of each val sample's class, (M,); of labels the mean over those known of it."""
        full = self._over_all(self._seen_probabilities(X_val))
        if self.multilabel_:
            known = ~np.isnan(codes_val)
            own = np.log(np.maximum(np.where(codes_val == 1, full, 1 - full), MIN_PROBABILITY))
            return (own * known).sum(axis=1)[known.any(axis=1)] / known.sum(axis=1)[known.any(axis=1)]
        return np.log(np.maximum(full[np.arange(len(full)), codes_val], MIN_PROBABILITY))

    def _batches(self, X: np.ndarray) -> Iterator[Batch]:
        """Yield what the networks take, block by block; a network of one branch gets that branch's part."""
        network = self.networks_[0]
        for start in range(0, len(X), PREDICT_BLOCK):
            part = self._split(X[start : start + PREDICT_BLOCK]) if self.n_embedding_ < X.shape[1] else None
            if part is None:
                yield from super()._batches(X[start : start + PREDICT_BLOCK])
            elif not network.n_questionnaire:
                yield {"embedding": part["embedding"]}
            elif not network.n_embedding:
                yield {"questionnaire": part["questionnaire"], "present": part["present"]}
            else:
                yield part
