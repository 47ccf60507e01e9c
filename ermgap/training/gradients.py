"""One optimiser step: the exact gradient of an objective over a global batch; learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ermgap.distributed import World
from ermgap.model.batches import Batch
from ermgap.objective import Objective, group_sums, utterance_weights


def accumulate_gradients(
    speech,
    objective: Objective,
    *,
    batches: Sequence[Batch],
    progress: float,
    world: World,
    over: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add this worker's share of dJ/dtheta to `.grad`; the shares add up to it.

    One micro-batch: one pass. Several: pass A without gradient for the sums, pass B weighted; each
    micro-batch of B starts from the random state it had in A, or dropout would make them differ.

    Args:
        speech: has `losses(batch, over=...) -> [1, B]`, e.g. a `SpeechLLM` in training mode, and
            `random_state`, `set_random_state`.
        objective: the loss and its fairness weight.
        batches: this worker's micro-batches of the global batch; may be empty.
        progress: share of the full budget's steps done, for the fairness weight.
        world: adds sums up over workers.
        over: `labels` or `answer`.

    Returns:
        The global batch's sums [3, C, columns] and J, float64, and the number of this worker's
        utterances whose weight is negative, so that the step raises their losses (int64 scalar).
    """
    single, cells, columns = len(batches) == 1, len(objective.cells), objective.columns
    states, kept = [], []
    raised = torch.zeros((), dtype=torch.int64, device=world.device)
    sums = torch.zeros(3, cells, columns, dtype=torch.float64, device=world.device)
    for batch in batches:
        if not single:
            states.append(speech.random_state())
        with torch.set_grad_enabled(single):
            losses = speech.losses(batch, over=over)[0]
        kept.append(losses)
        sums += group_sums(losses, batch.cell, batch.side, cells=cells, sides=columns)
    world.all_reduce(sums)
    value, gradient = objective(sums, progress=progress)
    for i, batch in enumerate(batches):
        if not single:
            speech.set_random_state(states[i])
            kept[i] = speech.losses(batch, over=over)[0]
        weights = utterance_weights(gradient, kept[i], batch.cell, batch.side)
        raised += (weights < 0).sum()
        (weights * kept[i]).sum().backward()
        kept[i] = None
    return sums, value, raised


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to 0."""
    rising = warmup * steps
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
