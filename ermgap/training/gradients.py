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
    objectives: Sequence[Objective],
    *,
    batches: Sequence[Batch],
    progress: float,
    world: World,
    over: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add this worker's share of each member's dJ/dtheta to `.grad`; the shares add up to it.

    One micro-batch: one pass. Several: pass A without gradient for the sums, pass B weighted; each
    micro-batch of B starts from the random state it had in A, or dropout would make them differ.
    The members of a gang share the passes and nothing else: no member's loss depends on another's
    parameters, so the gradient of the sum of their objectives is each one's own.

    Args:
        speech: has `losses(batch, over=...) -> [K, B]`, e.g. a `SpeechLLM` in training mode, and
            `random_state`, `set_random_state`.
        objectives: the loss and its weight of each of the K members.
        batches: this worker's micro-batches of the global batch; may be empty.
        progress: share of the full budget's steps done, for the weight.
        world: adds sums up over workers.
        over: `labels` or `answer`.

    Returns:
        The global batch's sums [K, 3, C, 2] float64 and each J, [K] float64.
    """
    single, cells = len(batches) == 1, len(objectives[0].cells)
    states, kept = [], []
    sums = torch.zeros(len(objectives), 3, cells, 2, dtype=torch.float64, device=world.device)
    for batch in batches:
        if not single:
            states.append(speech.random_state())
        with torch.set_grad_enabled(single):
            losses = speech.losses(batch, over=over)
        kept.append(losses)
        sums += torch.stack(
            [group_sums(member, batch.cell, batch.gender, cells=cells) for member in losses]
        )
    world.add_up(sums)
    values, gradients = zip(
        *(one(sums[k], progress=progress) for k, one in enumerate(objectives)), strict=True
    )
    for i, batch in enumerate(batches):
        if not single:
            speech.set_random_state(states[i])
            kept[i] = speech.losses(batch, over=over)
        weights = [
            utterance_weights(gradient, losses, batch.cell, batch.gender)
            for gradient, losses in zip(gradients, kept[i], strict=True)
        ]
        (torch.stack(weights) * kept[i]).sum().backward()
        kept[i] = None
    return sums, torch.stack(values)


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to 0."""
    rising = warmup * steps
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))
