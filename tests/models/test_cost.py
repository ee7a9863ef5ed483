"""The cost of a run before it is begun: arithmetic that meets what the seeds paid, and a measurement that measures."""

import pytest
import torch

from dermlab.core.device import Runtime
from dermlab.core.errors import InputError
from dermlab.models import create_encoder
from dermlab.models.cost import FROZEN_BYTES, TRAINED_BYTES, estimate, measure

CPU = Runtime("cpu", "fp32", "a test")
N_TRAIN = 293_000  # the seeds' training photos


def test_the_pascal_card_needs_sixty_two_hours_an_epoch():
    assert estimate(N_TRAIN, 1.3).hours_per_epoch == pytest.approx(62, abs=1)


def test_the_rented_card_costs_between_ten_and_fifteen_dollars():
    # An epoch of 121,514 photos took half an hour there. A frozen epoch has no backward pass: a third of the work.
    pace = 121_514 / 1800
    trained = estimate(N_TRAIN, pace, epochs=3, price_per_hour=3.29)
    frozen = estimate(N_TRAIN, 3 * pace, price_per_hour=3.29)
    assert trained.price is not None
    assert frozen.price is not None
    assert 10 < trained.price + frozen.price < 15


@pytest.mark.parametrize("wrong", [(0, 1.0), (10, 0.0), (10, float("nan"))])
def test_numbers_that_are_not_positive_are_refused(wrong):
    with pytest.raises(InputError, match="must be positive"):
        estimate(*wrong)


def test_training_is_slower_and_keeps_what_the_backward_pass_needs():
    encoder, _ = create_encoder("timm:test_vit+random")
    frozen, trained = (measure(encoder, CPU, batch_size=2, steps=3, train=train) for train in (False, True))
    assert frozen.bytes_per_image == 0
    assert trained.weights_bytes / frozen.weights_bytes == TRAINED_BYTES / FROZEN_BYTES
    assert trained.bytes_per_image > 3 * 160 * 160 * 4  # at least the image itself, which the first layer keeps
    four = measure(encoder, CPU, batch_size=4, steps=1, train=True)
    assert four.bytes_per_image == pytest.approx(trained.bytes_per_image, rel=0.05)
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert frozen.images_per_second > 0
    assert torch.is_grad_enabled()
