"""The frozen audio tower of a Qwen2-Audio: finding it, hashing its weights, running it over clips.

`tower_output` is the forward over the whole window, exactly what transformers does before the
projector. `FeatureEncoder` computes the same for the feature store, in the time of the clip's own
length: a masked frame influences no valid one, so the frames after the clip need not be computed. A
3-s clip takes `small` 24 ms on one core for any window; padded, it took 31 ms at 4 s and 300 ms at
30 s.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ermgap.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

RATE = 16000
GPU_BATCH = 16
EXTRA_FRAMES = 3  # of silence after the clip, whose end influences the STFT of the next two
Clip = tuple[str, str, float, float]  # utterance id, path, start and end in seconds
Item, Result = TypeVar("Item"), TypeVar("Result")


def audio_tower(model: nn.Module) -> nn.Module:
    """The audio encoder inside a Qwen2-Audio, whatever wraps it."""
    modules = model.named_modules()
    return next(module for name, module in modules if name.split(".")[-1] == "audio_tower")


def tower_revision(model: nn.Module) -> str:
    """sha256 over the tower's parameters and structure, which identifies it whatever its name.

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
    valid, T = ((m - 1) // 2 + 1 - 2) // 2 + 1; the frames after them are padding.
    """
    counts, valid = tower._get_feat_extract_output_lengths(feature_attention_mask.sum(-1))
    mask = _mask(tower, counts, positions=(input_features.shape[-1] - 2) // 2 + 1)
    return tower(input_features, attention_mask=mask).last_hidden_state, valid


def log_mel(extractor: Callable, samples: np.ndarray) -> tuple[torch.Tensor, int]:
    """A clip's log-mel [mel, frames] that the convolutions need, and its positions after them.

    Equal to the whole window's, bit for bit; up to the last bit of float32 on CPUs whose kernels
    round by the number of frames. The frames after the clip are silence: the extractor is given
    enough of it that neither its reflected end nor its clamp, 8 below the clip's maximum, differs.
    """
    hop, window = extractor.hop_length, extractor.n_samples
    valid = -(-min(len(samples), window) // hop)
    count = (valid - 1) // 2 + 1
    features = extractor(
        [samples],
        sampling_rate=RATE,
        padding="max_length",
        max_length=min(window, hop * (valid + EXTRA_FRAMES)),
        return_tensors="pt",
    )
    # position i depends on the frames 2i - 2 to 2i + 2; after the window there are none
    return features["input_features"][0, :, : 2 * count + 1], count


def encode(tower: nn.Module, mel: torch.Tensor, counts: Sequence[int]) -> torch.Tensor:
    """The tower's output [B, T_max, d_audio] for log-mel [B, mel, frames] shorter than the window.

    As `Qwen2AudioEncoder.forward` (transformers 5.17 to 5.23), which demands a whole window. Clip b
    has counts[b] >= 2 positions after the convolutions; its first counts[b] // 2 rows are valid.
    """
    import torch
    from torch.nn import functional as F

    longest, like = max(counts), tower.conv1.weight
    hidden = F.gelu(tower.conv1(mel.to(like.device, like.dtype)))
    hidden = F.gelu(tower.conv2(hidden))[..., :longest].transpose(1, 2)
    hidden = hidden + tower.embed_positions.weight[:longest]
    mask = None
    if min(counts) < longest:
        mask = _mask(tower, torch.tensor(counts, device=like.device), positions=longest)
    for layer in tower.layers:
        hidden = layer(hidden, mask)
    return tower.layer_norm(tower.avg_pooler(hidden.transpose(1, 2)).transpose(1, 2))


def _mask(tower: nn.Module, counts: torch.Tensor, *, positions: int) -> torch.Tensor | None:
    """The attention mask for the first `counts` [B] of the positions, as the tower takes it."""
    import torch
    from transformers.masking_utils import create_bidirectional_mask

    inside = torch.arange(positions, device=counts.device)[None, :] < counts[:, None]
    like = torch.zeros(*inside.shape, 1, dtype=tower.conv1.weight.dtype, device=counts.device)
    return create_bidirectional_mask(
        config=tower.config, inputs_embeds=like, attention_mask=inside.long()
    )


class FeatureEncoder:
    """Computes features of clips: `for array in encoder(clips)`, [T, d_audio], in their order.

    On a CPU each thread reads and encodes a clip of its own: two cores take half the time of one
    (12 ms a clip for 24; both on one clip took 23 to 28), and a clip's features depend neither on
    other clips nor on the number of threads, bit for bit. (Batches of clips of one length would be
    a tenth faster.) On a GPU the threads read ahead, and clips are encoded in batches, padded to
    the longest.
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
        import torch

        training, threads = self.tower.training, torch.get_num_threads()
        self.tower.eval()
        try:
            with ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
                if self.batch == 1:
                    yield from _ahead(pool, self._encode_single, clips, depth=2 * threads)
                    return
                heard = _ahead(pool, self._hear, clips, depth=2 * threads + self.batch)
                while batch := list(itertools.islice(heard, self.batch)):
                    yield from self._encode(batch)
        finally:
            torch.set_num_threads(threads)
            self.tower.train(training)

    def _encode_single(self, clip: Clip) -> np.ndarray:
        return self._encode([self._hear(clip)])[0]

    def _hear(self, clip: Clip) -> tuple[Clip, torch.Tensor, int]:
        from ermgap.corpora import audio

        name, path, start_s, end_s = clip
        samples = audio.read(path, start_s, end_s, rate=RATE, window_s=self.window_s)
        mel, count = log_mel(self.extractor, samples) if len(samples) else (None, 0)
        if count < 2:
            raise UserError(f"the clip {path} of utterance {name} is under 0.03 s; remove it.")
        return clip, mel, count

    def _encode(self, heard: Sequence[tuple[Clip, torch.Tensor, int]]) -> list[np.ndarray]:
        import torch
        from torch.nn.functional import pad

        clips, mels, counts = zip(*heard, strict=True)
        longest = max(mel.shape[1] for mel in mels)
        mel = torch.stack([pad(mel, (0, longest - mel.shape[1])) for mel in mels])
        with torch.no_grad():
            output = encode(self.tower, mel, counts).to(getattr(torch, self.dtype)).cpu()
        arrays = []
        for (name, path, *_), frames, count in zip(clips, output, counts, strict=True):
            frames = frames[: count // 2]
            if not torch.isfinite(frames).all():
                raise UserError(
                    f"the audio tower's output for utterance {name} ({path}) is not finite; "
                    "take the clip out, or set backbone.dtype to float32."
                )
            bits = frames.view(torch.uint16) if frames.dtype == torch.bfloat16 else frames
            arrays.append(np.array(bits.numpy()))
        return arrays


def _one_thread() -> None:
    """Torch uses one thread in each of our threads; the caller's number is restored."""
    import torch

    torch.set_num_threads(1)


def _ahead(
    pool: ThreadPoolExecutor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    depth: int,
) -> Iterator[Result]:
    """Results in the order of the items; at most `depth` are computed ahead of the caller."""
    pending, items = deque(), iter(items)
    try:
        while True:
            ahead = itertools.islice(items, depth - len(pending))
            pending.extend(pool.submit(function, item) for item in ahead)
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
