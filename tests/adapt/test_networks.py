"""MLP and fusion: they learn what a linear head cannot, use both inputs, and bear blanks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from dermlab.adapt.fusion import FusionHead
from dermlab.adapt.linear import LinearHead
from dermlab.adapt.mlp import MLPHead
from dermlab.data.metadata import QuestionnaireEncoder
from dermlab.models.fusion import FusionNetwork

QUICK = {"hidden": 64, "n_members": 2, "learning_rate": 3e-3}


def test_the_mlp_learns_what_is_not_linear() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(900, 4)).astype(np.float32)
    y = ((X[:, 0] * X[:, 1]) > 0).astype(int)
    head = MLPHead(**QUICK).fit(X[:500], y[:500], validation=(X[500:700], y[500:700]))
    assert LinearHead().fit(X[:500], y[:500]).score(X[700:], y[700:]) < 0.62
    assert head.score(X[700:], y[700:]) > 0.8


def test_what_learns_nothing_predicts_the_class_shares_and_says_so() -> None:
    """Val holds the opposite of what training teaches: every epoch is worse there than the start."""
    random = np.random.default_rng(0)
    X = random.normal(size=(200, 5))
    y = (X[:, 0] > 0.5).astype(int)
    head = MLPHead(**QUICK).fit(X, y, validation=(-X, y))
    assert head.head_report_["chosen"]["epochs"] == 0
    np.testing.assert_allclose(head.predict_proba(X), np.tile(np.bincount(y) / 200, (200, 1)), atol=1e-6)
    assert any("nothing was learnt" in text for text in head.head_report_["warnings"])


def test_the_callers_random_state_and_threads_are_left_alone() -> None:
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    MLPHead(epochs=2).fit(X, y)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def clinic(n: int, seed: int) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
    """Photos that tell half of the diagnosis and a questionnaire that tells the other half."""
    random = np.random.default_rng(seed)
    photo_half, answer_half = random.integers(0, 2, size=n), random.integers(0, 2, size=n)
    embedding = random.normal(size=(n, 30)).astype(np.float32)
    embedding[:, :5] += photo_half[:, None] * 1.2
    answers = pd.DataFrame(
        {
            "itch": pd.array(np.where(random.random(n) < 0.9, answer_half, 1 - answer_half) == 1, dtype="boolean"),
            "age": 40 + 15 * answer_half + 10 * random.normal(size=n),
            "region": np.where(random.random(n) < 0.8, np.array(["FACE", "BACK"])[answer_half], "ARM"),
        }
    )
    return embedding, answers, np.array(["ACK", "BCC", "MEL", "NEV"])[2 * photo_half + answer_half]


@pytest.fixture(scope="module")
def fused() -> dict[str, object]:
    embedding, answers, y = clinic(600, 0)
    encoder = QuestionnaireEncoder().fit(answers[:400], y[:400])
    X = np.hstack([embedding, encoder.transform(answers)])
    head = FusionHead(n_embedding=30, blocks=encoder.blocks_, **QUICK)
    head.fit(X[:400], y[:400], validation=(X[400:], y[400:]))
    embedding, answers, y = clinic(600, 1)
    return {"head": head, "encoder": encoder, "embedding": embedding, "answers": answers, "y": y}


def test_fusion_is_better_than_each_of_its_parts(fused: dict) -> None:
    head, encoder, embedding, answers, y = fused.values()
    X = np.hstack([embedding, encoder.transform(answers)])
    train_embedding, train_answers, train_y = clinic(600, 0)
    photo = LinearHead().fit(train_embedding, train_y).score(embedding, y)
    asked = LinearHead().fit(encoder.transform(train_answers), train_y).score(encoder.transform(answers), y)
    assert head.score(X, y) > max(photo, asked) + 0.1


def test_without_a_questionnaire_fusion_falls_back_on_the_photo(fused: dict) -> None:
    """Nobody in training left a blank, yet a blank questionnaire costs no more than what it would have said."""
    head, encoder, embedding, answers, y = fused.values()
    blank = np.tile(encoder.blank(), (len(y), 1))
    np.testing.assert_array_equal(encoder.transform(answers.mask(answers.notna())), blank)
    photo_half = np.isin(y, ["MEL", "NEV"])
    probabilities = head.predict_proba(np.hstack([embedding, blank]))
    said = probabilities[:, [2, 3]].sum(axis=1) > 0.5
    assert (said == photo_half).mean() > 0.85
    # What only the questionnaire knows is left open, not guessed.
    assert np.abs(probabilities[:, 1] - probabilities[:, 0]).mean() < 0.25


def test_a_blank_answer_costs_less_than_to_a_head_that_never_saw_one(fused: dict) -> None:
    head, encoder, embedding, answers, y = fused.values()
    answers = answers.copy()
    answers["itch"] = pd.array([None] * len(y), dtype="boolean")
    X = np.hstack([embedding, encoder.transform(answers)])
    train_embedding, train_answers, train_y = clinic(600, 0)
    linear = LinearHead().fit(np.hstack([train_embedding, encoder.transform(train_answers)]), train_y)
    own = {name: place for place, name in enumerate(head.classes_)}
    true = np.array([own[name] for name in y])
    losses = [-np.log(model.predict_proba(X)[np.arange(len(y)), true]).mean() for model in (head, linear)]
    assert losses[0] < losses[1]


def test_joint_training_learns_how_photo_and_answers_interact() -> None:
    """The label is an exclusive or of both: neither part alone, nor their sum, says anything."""
    random = np.random.default_rng(0)
    photo, answer = random.integers(0, 2, size=(2, 2600))
    X = random.normal(size=(2600, 9)).astype(np.float32) * 0.3
    X[:, 0] += photo * 2
    X[:, 8] = answer
    y = photo ^ answer
    head = FusionHead(n_embedding=8, learning_rate=5e-3, n_members=1, hidden=32, questionnaire_dropout=0.02)
    head.fit(X[:1800], y[:1800], validation=(X[1800:2200], y[1800:2200]))
    assert head.head_report_["joint_training"].startswith("kept")
    assert head.score(X[2200:], y[2200:]) > 0.9


def test_joint_training_too_depends_on_its_own_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dermlab.adapt.fusion.JOINT_FROM", 50)
    random = np.random.default_rng(0)
    photo, answer = random.integers(0, 2, size=(2, 500))
    X = random.normal(size=(500, 9)).astype(np.float32) * 0.3
    X[:, 0] += photo * 2
    X[:, 8] = answer
    y = photo ^ answer
    found = []
    for foreign in (1, 2):  # whatever somebody else drew from torch's generator before
        torch.manual_seed(foreign)
        head = FusionHead(n_embedding=8, learning_rate=5e-3, n_members=2, hidden=32, random_state=3)
        head.fit(X[:350], y[:350], validation=(X[350:], y[350:]))
        assert len([row for row in head.head_report_["sweep"] if row["step"] == "joint"]) > 1
        found.append((head.head_report_["sweep"], head.predict_proba(X)))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_blocks_must_fit_the_features() -> None:
    X, y = np.zeros((20, 6)), np.arange(20) % 2
    with pytest.raises(ValueError, match="blocks"):
        FusionHead(n_embedding=2, blocks=(2, 3)).fit(X, y)
    with pytest.raises(ValueError, match="n_embedding"):
        FusionHead(n_embedding=7).fit(X, y)


def test_a_joined_network_adds_the_logits_of_its_branches() -> None:
    torch.manual_seed(0)
    image, answers = FusionNetwork(6, 0, 3).eval(), FusionNetwork(0, 4, 3).eval()
    for network in (image, answers):
        torch.nn.init.normal_(network.classifier.weight)
        torch.nn.init.normal_(network.classifier.bias)
    prior = torch.tensor([0.5, 0.3, 0.2]).log()
    photos, questionnaire = torch.randn(5, 6), torch.randn(5, 4)
    expected = image(photos) + answers(questionnaire=questionnaire) - prior
    joined = FusionNetwork.join(image, answers, prior).eval()
    torch.testing.assert_close(joined(photos, questionnaire), expected)
    present = torch.tensor([True, False, True, False, True])
    mixed = joined(photos, questionnaire, present)
    torch.testing.assert_close(mixed[present], expected[present])
    torch.testing.assert_close(mixed[~present], joined(photos)[~present])
    torch.nn.init.normal_(joined.interaction[-1].weight)
    assert not torch.allclose(joined(photos, questionnaire), expected)
