"""Model and utterances in, per-utterance predictions out: the only input of every metric.

A prediction is the label with the largest softmax over the labels' first tokens at the answer
position (constrained greedy decoding); `logp_<label>` is its log.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from ermgap.corpora.predictions import predictions_table
from ermgap.distributed import World
from ermgap.model.batches import IndexedUtterances
from ermgap.model.qwen2_audio import SpeechLLM
from ermgap.training.batch_sampler import by_length


@torch.no_grad()
def label_log_probabilities(
    speech: SpeechLLM,
    examples: IndexedUtterances,
    *,
    world: World,
    batch: int,
    tick: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """log softmax over labels, [K, N, labels] float64, gathered over workers on every worker.

    One prefill a batch, the tokens before the audio computed once for all of it.
    """
    speech.training = False
    shape = (max(len(speech.adapters), 1), len(examples), len(speech.prompt.answers))
    scores = torch.zeros(shape, dtype=torch.float64, device=world.device)
    for prefix in np.unique(examples.prefix):
        same = np.flatnonzero(examples.prefix == prefix)
        # Dealt by length, so that the workers finish together.
        same = same[np.argsort(examples.length[same], kind="stable")]
        mine = by_length(same[world.rank :: world.size], size=batch, lengths=examples.length)
        # Where workers share the weights, all make equally many passes; spare ones are dropped.
        most = math.ceil(math.ceil(len(same) / world.size) / batch) if speech.sharded else len(mine)
        for i, rows in enumerate([*mine, *[same[:1]] * (most - len(mine))]):
            inputs = examples.batch(
                rows, answers=False, device=world.device, dtype=speech.dtype, shared=True
            )
            logits = speech.label_logits(inputs).double()
            if i < len(mine):
                scores[:, inputs.index] = logits.log_softmax(-1)
            tick()
    return world.all_reduce(scores).cpu().numpy()


def predictions(
    examples: IndexedUtterances, log_probabilities: np.ndarray, *, labels: Sequence[str]
) -> pd.DataFrame:
    """The table of predictions (`ermgap.corpora.predictions`) with the most probable labels."""
    return predictions_table(
        examples.table,
        modality=examples.table["modality"],
        prediction=np.asarray(labels)[log_probabilities.argmax(1)],
        labels=labels,
        log_probabilities=log_probabilities,
    )
