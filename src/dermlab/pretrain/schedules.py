"""Values that change over a run; each depends on the step's number alone, so a resume cannot change them."""

from __future__ import annotations

import math


def cosine(step: int, n_steps: int, start: float, end: float) -> float:
    """Return the value at a step that goes by half a cosine from ``start`` at step 0 to ``end`` at the last.

    Args:
        step: 0 to ``n_steps - 1``; later ones keep ``end``.
        n_steps: of the whole run.
        start: the first value.
        end: the last value.
    """
    if n_steps <= 1 or step >= n_steps - 1:
        return end
    return end - (end - start) * (math.cos(math.pi * step / (n_steps - 1)) + 1) / 2


def linear_warmup(step: int, n_warmup: int, start: float, end: float) -> float:
    """Return the value at a step that rises evenly from ``start`` at step 0 to ``end`` at ``n_warmup``, then stays."""
    return end if step >= n_warmup else start + (end - start) * step / n_warmup
