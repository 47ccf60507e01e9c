"""From the plain path to ours one change at a time: what each takes away from a training step.

All rungs here are transformers' modules under peft in a bare loop, over the same utterances:

- `forward`: the plain forward, features already in memory: what `Trainer` and the processor add is
  the difference to the plain path's own figure;
- `tower cached`: the tower's outputs come from memory;
- `answer logits`: the head runs at the answer's positions alone;
- `by length`: batches of similar lengths, so that less is padding.

Ours, measured elsewhere as a whole, adds to these: no padding at all, the last layer at answer
positions alone, its own adapter.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from machine import synchronise
from torch.nn import functional as F

IGNORE = -100


def climb(model, data, *, batch: int, steps: int, device: str) -> list[dict]:
    """Seconds an utterance of a training step on each rung, and its share of padding.

    Every batch is taken twice and the faster counts: the first warms up, and others may disturb.

    Args:
        model: with peft's adapter. data: see peer_data.py.
    """
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    random = np.random.default_rng(0).permutation(len(data))[: batch * steps]
    rungs = [("forward", _whole, random), ("tower cached", _cached, random)]
    rungs += [("answer logits", _answers, random), ("by length", _answers, _sorted(data, random))]
    cache = _Cache(model, data, device=device)
    made = []
    for name, loss_of, rows in rungs:
        spent, padded, tokens = [], 0, 0
        for chunk in np.array_split(rows, max(1, len(rows) // batch)):
            given = cache.batch(chunk.tolist(), whole=loss_of is _whole)
            padded += given["attention_mask"].numel()
            tokens += int(given["attention_mask"].sum())
            twice = [_step(model, loss_of, given, optimizer, parameters, device) for _ in range(2)]
            spent.append(min(twice))
        each = sum(spent) / len(rows)
        made.append({"rung": name, "seconds_an_utterance": each, "padding": 1 - tokens / padded})
    return made


def _step(model, loss_of, given: dict, optimizer, parameters: list, device: str) -> float:
    """Seconds of one optimiser step."""
    synchronise(device)
    before = time.perf_counter()
    loss_of(model, given).backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    synchronise(device)
    return time.perf_counter() - before


class _Cache:
    """Batches on the device, with the tower's outputs computed beforehand."""

    def __init__(self, model, data, *, device: str) -> None:
        self.core = model.get_base_model().model
        self.data, self.device, self.outputs = data, device, {}

    @torch.no_grad()
    def batch(self, rows: list[int], *, whole: bool) -> dict:
        from ermgap.model.features.audio_tower import tower_output

        given = {name: value.to(self.device) for name, value in self.data.train(rows).items()}
        if whole:
            return given
        mel, mask = given.pop("input_features"), given.pop("feature_attention_mask")
        new = [i for i, row in enumerate(rows) if row not in self.outputs]
        if new:
            output, valid = tower_output(self.core.audio_tower, mel[new], mask[new])
            for i, frames, count in zip(new, output, valid.tolist(), strict=True):
                self.outputs[rows[i]] = frames[:count].clone()
        return given | {"features": torch.cat([self.outputs[row] for row in rows])}


def _whole(model, given: dict) -> torch.Tensor:
    return model(**given).loss


def _embedded(model, given: dict) -> torch.Tensor:
    """[B, T, H] with the projected audio in its places."""
    core = model.get_base_model().model
    embeddings = core.language_model.embed_tokens(given["input_ids"])
    audio = core.multi_modal_projector(given["features"].to(_dtype(core.multi_modal_projector)))
    places = given["input_ids"] == core.config.audio_token_id
    return embeddings.masked_scatter(places.unsqueeze(-1), audio.to(embeddings.dtype))


def _dtype(projector) -> torch.dtype:
    kinds = [p.dtype for p in projector.parameters() if p.requires_grad]
    return kinds[0] if kinds else next(projector.parameters()).dtype


def _cached(model, given: dict) -> torch.Tensor:
    return model(
        inputs_embeds=_embedded(model, given),
        attention_mask=given["attention_mask"],
        labels=given["labels"],
        use_cache=False,
    ).loss


def _answers(model, given: dict) -> torch.Tensor:
    base = model.get_base_model()
    states = base.model.language_model(
        inputs_embeds=_embedded(model, given),
        attention_mask=given["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    following = given["labels"][:, 1:]
    asked = following != IGNORE
    return F.cross_entropy(base.lm_head(states[:, :-1][asked]).float(), following[asked])


def _sorted(data, rows: np.ndarray) -> np.ndarray:
    """Rows in the order of the padded length of each one alone."""
    kept = list(data.batches)
    alone = [data.train([int(row)])["input_ids"].shape[1] for row in rows]
    data.batches[:] = kept
    return rows[np.argsort(alone, kind="stable")]
