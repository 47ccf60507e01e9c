"""The frozen audio tower of a Qwen2-Audio: finding it, naming its weights, running it over clips.

`tower_output` is the uncached forward, exactly what transformers does before the projector;
`Extract` runs it over clips for the feature store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from ermgap.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

RATE = 16000
GPU_BATCH = 16
Clip = tuple[str, str, float, float]  # utterance id, path, start and end in seconds


def audio_tower(model: nn.Module) -> nn.Module:
    """The audio encoder inside a Qwen2-Audio, whatever wraps it."""
    named = model.named_modules()
    return next(part for name, part in named if name.split(".")[-1] == "audio_tower")


def tower_revision(model: nn.Module) -> str:
    """sha256 over the tower's parameters and structure: a revision that cannot be told wrong.

    0.05 s for `small`; some seconds for the 1.3 GB of the 7B model.
    """
    import torch

    tower = audio_tower(model)
    structure = [tower.config.encoder_attention_heads, tower.config.activation_function]
    digest = hashlib.sha256(repr(structure).encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def tower_output(
    tower: nn.Module, input_features: torch.Tensor, feature_attention_mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The tower's output [B, T_max, d_audio] and each clip's valid frames [B], int64.

    Takes log-mel input [B, mel, L] padded to the window and its mask [B, L]; does what
    `Qwen2AudioModel.forward` of transformers does before the projector. With m of the L frames
    valid, T = ((m - 1) // 2 + 1 - 2) // 2 + 1; the frames behind are padding.
    """
    import torch
    from transformers.masking_utils import create_bidirectional_mask

    mel, valid = tower._get_feat_extract_output_lengths(feature_attention_mask.sum(-1))
    count = (input_features.shape[-1] - 2) // 2 + 1
    inside = torch.arange(count, device=mel.device)[None, :] < mel[:, None]
    like = torch.zeros(*inside.shape, 1, dtype=tower.conv1.weight.dtype, device=mel.device)
    mask = create_bidirectional_mask(
        config=tower.config, inputs_embeds=like, attention_mask=inside.long()
    )
    return tower(input_features, attention_mask=mask).last_hidden_state, valid


class Extract:
    """Clips in, features out: `for array in extract(clips)`, [T, d_audio] each, in their order.

    On a CPU clips go through the tower one at a time: it is no slower there (30 ms a clip at 4 s on
    one core, at every batch size from 1 to 16), and a clip's features then do not depend on its
    neighbours, to the bit.
    """

    def __init__(
        self,
        tower: nn.Module,
        extractor: Callable,
        *,
        window_s: int,
        dtype: str,
        device: torch.device | str,
    ) -> None:
        self.tower, self.extractor, self.window_s = tower, extractor, window_s
        self.dtype, self.device = dtype, device
        self.batch = 1 if str(device).startswith("cpu") else GPU_BATCH

    def __call__(self, clips: Sequence[Clip]) -> Iterator[np.ndarray]:
        training = self.tower.training
        self.tower.eval()
        try:
            with ThreadPoolExecutor(max_workers=min(4, self.batch)) as pool:
                for first in range(0, len(clips), self.batch):
                    yield from self._batch(clips[first : first + self.batch], pool=pool)
        finally:
            self.tower.train(training)

    def _batch(self, clips: Sequence[Clip], *, pool: ThreadPoolExecutor) -> list[np.ndarray]:
        import torch

        heard = self.extractor(
            list(pool.map(self._read, clips)),
            sampling_rate=RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.device)
        with torch.no_grad():
            mel, mask = heard["input_features"], heard["attention_mask"]
            output, valid = tower_output(self.tower, mel, mask)
        output = output.to(getattr(torch, self.dtype)).cpu()
        pairs = zip(clips, output, valid.tolist(), strict=True)
        return [self._checked(clip, frames[:count]) for clip, frames, count in pairs]

    def _read(self, clip: Clip) -> np.ndarray:
        from ermgap.corpora import audio

        _, path, start_s, end_s = clip
        return audio.read(path, start_s, end_s, rate=RATE, window_s=self.window_s)

    def _checked(self, clip: Clip, frames: torch.Tensor) -> np.ndarray:
        import torch

        name, path, *_ = clip
        if len(frames) < 1:
            raise UserError(f"the clip {path} of utterance {name} is under 0.03 s; take it out.")
        if not torch.isfinite(frames).all():
            raise UserError(
                f"the audio tower's output for utterance {name} ({path}) is not finite; "
                "take the clip out, or set backbone.dtype to float32."
            )
        bits = frames.view(torch.uint16) if frames.dtype == torch.bfloat16 else frames
        return np.array(bits.numpy())
