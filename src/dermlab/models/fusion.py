"""The fusion network: what the photo says and what the patient says, each in its own branch, one classifier on both.

The layout is the seeds' Gen2A model: embedding branch to 256, questionnaire branch, concatenation, classifier. The
frozen head trains it on stored features; fine-tuning puts a backbone in front of the same network.
"""

from __future__ import annotations

import torch
from torch import nn


class FusionNetwork(nn.Module):
    """Embedding branch, questionnaire branch, concatenation, classifier; either branch may be left out.

    The classifier is linear in the concatenation, hence a sum of what photo and questionnaire say each by itself. What
    they only say together ("grew, and looks like this") is the part of ``interaction``, a small hidden layer beside
    it that starts at zero.

    Args:
        n_embedding: length of the embedding; 0 leaves the branch out (a network of the questionnaire alone).
        n_questionnaire: features of the encoded questionnaire; 0 leaves the branch out (an MLP on the embedding).
        n_classes: classes.
        hidden: width of the embedding branch.
        questionnaire_hidden: width of the questionnaire branch.
        interaction_hidden: width of the layer on both, where there are both.
        input_dropout: dropout of the embedding.
        dropout: dropout of the embedding branch's output; the questionnaire branch takes 0.4 of it.
    """

    def __init__(
        self,
        n_embedding: int,
        n_questionnaire: int,
        n_classes: int,
        *,
        hidden: int = 256,
        questionnaire_hidden: int = 64,
        interaction_hidden: int = 64,
        input_dropout: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.n_embedding, self.n_questionnaire = n_embedding, n_questionnaire
        self.hidden, self.questionnaire_hidden = hidden, questionnaire_hidden
        self.embedding_branch = None
        self.questionnaire_branch = None
        width = 0
        if n_embedding:
            self.embedding_branch = nn.Sequential(
                nn.Dropout(input_dropout),
                nn.Linear(n_embedding, hidden),
                nn.LayerNorm(hidden),
                nn.GELU(),
                nn.Dropout(dropout),
            )
            width += hidden
        if n_questionnaire:
            self.questionnaire_branch = nn.Sequential(
                nn.Linear(n_questionnaire, questionnaire_hidden),
                nn.LayerNorm(questionnaire_hidden),
                nn.GELU(),
                nn.Dropout(0.4 * dropout),
                nn.Linear(questionnaire_hidden, questionnaire_hidden),
                nn.GELU(),
                nn.Dropout(0.4 * dropout),
            )
            # Stands for the whole branch where nobody filled in anything.
            self.no_questionnaire = nn.Parameter(torch.zeros(questionnaire_hidden))
            width += questionnaire_hidden
        self.interaction = None
        if n_embedding and n_questionnaire:
            last = nn.Linear(interaction_hidden, n_classes)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            hidden_layer = nn.Linear(width, interaction_hidden)
            self.interaction = nn.Sequential(hidden_layer, nn.GELU(), nn.Dropout(dropout), last)
        self.classifier = nn.Linear(width, n_classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self,
        embedding: torch.Tensor | None = None,
        questionnaire: torch.Tensor | None = None,
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits (B, C).

        Args:
            embedding: standardised embedding, float (B, D).
            questionnaire: encoded and standardised questionnaire, float (B, Q); None: nobody has one.
            present: whether anything of each questionnaire was filled in, bool (B,); None: all.
        """
        parts = []
        if self.embedding_branch is not None:
            assert embedding is not None
            parts.append(self.embedding_branch(embedding))
        if self.questionnaire_branch is not None:
            if questionnaire is None:
                assert embedding is not None
                answered = self.no_questionnaire.expand(len(embedding), -1)
            else:
                answered = self.questionnaire_branch(questionnaire)
                if present is not None:
                    answered = torch.where(present[:, None], answered, self.no_questionnaire)
            parts.append(answered)
        both = torch.cat(parts, dim=1)
        logits = self.classifier(both)
        return logits if self.interaction is None else logits + self.interaction(both)

    @classmethod
    @torch.no_grad()
    def join(
        cls, image: FusionNetwork, questionnaire: FusionNetwork, log_prior: torch.Tensor, *, dropout: float = 0.5
    ) -> FusionNetwork:
        """Join two networks of one branch each into one of two: their logits added, less the log prior both contain.

        That is Bayes' rule for a photo and a questionnaire that are independent given the diagnosis, and exactly what
        a classifier on concatenated branches can say: a sum of one term from each.

        Args:
            image: a network without a questionnaire branch.
            questionnaire: a network without an embedding branch.
            log_prior: log class shares of the samples both were trained on, float (C,).
            dropout: of the interaction, whose first layer is drawn from torch's generator as it stands.
        """
        assert image.embedding_branch is not None
        assert questionnaire.questionnaire_branch is not None
        joined = cls(
            image.n_embedding,
            questionnaire.n_questionnaire,
            image.classifier.out_features,
            hidden=image.hidden,
            questionnaire_hidden=questionnaire.questionnaire_hidden,
            dropout=dropout,
        )
        joined.embedding_branch = image.embedding_branch
        joined.questionnaire_branch = questionnaire.questionnaire_branch
        joined.no_questionnaire = questionnaire.no_questionnaire
        joined.classifier.weight.copy_(torch.cat([image.classifier.weight, questionnaire.classifier.weight], dim=1))
        joined.classifier.bias.copy_(image.classifier.bias + questionnaire.classifier.bias - log_prior)
        return joined
