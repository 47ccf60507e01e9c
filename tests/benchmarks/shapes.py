"""Models and utterances to measure on: real speech on `small`, or random ones of a given shape.

`7b` is Qwen2-Audio-7B-Instruct by its public config.json (audio: 128 mel, d 1280, 32 layers, 20
heads, ffn 5120, 1500 positions; text: hidden 4096, 32 layers, 32 heads and key-value heads,
intermediate 11008, vocabulary 156032, rms 1e-5, rope theta 10000), with random weights made on the
device. `tiny` has the same parts in milliseconds.

Lengths follow a lognormal with mean 3.6 s and 5 % over 9 s. MELD's README gives a mean of 3.59 s,
the time stamps of its three CSVs have a mean of 3.13 s and 5 % over 7.9 s, which is 9.0 s when
scaled to that mean (subtitles are cut tighter than clips), and a log standard deviation of 0.77
(here 0.71).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ermgap import config
from ermgap.model.prompts import Prompt

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
MEAN_S, OVER_9_S, FRAMES_PER_SECOND = 3.6, 0.05, 100
LABELS = config.MELD_LABELS
GENDERS = ("female", "male")


@dataclass(frozen=True)
class Shape:
    """A random Qwen2-Audio."""

    audio: dict
    text: dict
    prefix: int = 20
    suffix: int = 35
    audio_token: int = 151646
    end: int = 151645

    def config(self):
        """As `Qwen2AudioConfig`."""
        from transformers import Qwen2AudioConfig, Qwen2AudioEncoderConfig, Qwen2Config

        ids = {"bos_token_id": 0, "eos_token_id": self.end, "pad_token_id": 0}
        return Qwen2AudioConfig(
            audio_config=Qwen2AudioEncoderConfig(**self.audio).to_dict(),
            text_config=Qwen2Config(**self.text, **ids, tie_word_embeddings=False).to_dict(),
            audio_token_index=self.audio_token,
            tie_word_embeddings=False,
        )

    def prompt(self) -> Prompt:
        """Made-up ids: 20 before the audio, 35 behind, seven answers of 1 to 3 tokens and end."""
        draw = np.random.default_rng(0).permutation(min(self.end, self.audio_token) - 1) + 1
        ids = iter(draw.tolist())

        def take(count: int) -> tuple[int, ...]:
            return tuple(next(ids) for _ in range(count))

        answers = tuple((*take(1 + i % 3), self.end) for i in range(len(LABELS)))
        return Prompt(take(self.prefix), take(self.suffix), self.audio_token, answers)


SHAPES = {
    "7b": Shape(
        audio={"num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32}
        | {"encoder_attention_heads": 20, "encoder_ffn_dim": 5120, "max_source_positions": 1500},
        text={"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 156032}
        | {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 8192},
    ),
    "tiny": Shape(
        audio={"num_mel_bins": 80, "d_model": 32, "encoder_layers": 1}
        | {"encoder_attention_heads": 2, "encoder_ffn_dim": 64, "max_source_positions": 1500},
        text={"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 512}
        | {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 8192},
        audio_token=510,
        end=509,
    ),
}


def random_model(shape: Shape, *, device: str, dtype: str):
    """A frozen `Qwen2AudioForConditionalGeneration` with random weights, made on the device."""
    from transformers import Qwen2AudioForConditionalGeneration

    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2AudioForConditionalGeneration._from_config(
            shape.config(), dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    model.generation_config.eos_token_id = shape.end
    model.generation_config.pad_token_id = 0
    return model.requires_grad_(False).eval()


def seconds(count: int, *, seed: int) -> np.ndarray:
    """Lengths of utterances, float64 [count], at most 30 s."""
    over = 1.6448536  # the normal quantile of 1 - OVER_9_S
    spread = over - np.sqrt(over**2 - 2 * np.log(9 / MEAN_S))
    middle = np.log(MEAN_S) - spread**2 / 2
    return np.random.default_rng(seed).lognormal(middle, spread, count).clip(0.1, 30)


def mel_frames(lengths: np.ndarray) -> np.ndarray:
    """Log-mel frames of clips of so many seconds, int64."""
    return np.clip(np.round(lengths * FRAMES_PER_SECOND), 3, 3000).astype(np.int64)


def audio_tokens(frames: np.ndarray) -> np.ndarray:
    """The tower's valid positions after pooling."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


class RandomStore(Mapping):
    """A feature store of random numbers: views of one matrix, so it takes no memory."""

    def __init__(self, lengths: Mapping[str, int], *, dim: int, dtype: str) -> None:
        self.lengths, self.dim, self.dtype = dict(lengths), dim, dtype
        longest = max(self.lengths.values())
        draw = torch.randn(longest + 97, dim, generator=torch.Generator().manual_seed(0))
        self._all = draw.to(getattr(torch, dtype))
        self._start = {name: i % 97 for i, name in enumerate(self.lengths)}

    def tensor(self, utterance_id: str) -> torch.Tensor:
        """[T, dim]."""
        start = self._start[utterance_id]
        return self._all[start : start + self.lengths[utterance_id]]

    def __getitem__(self, utterance_id: str) -> torch.Tensor:
        return self.tensor(utterance_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def frames(self, utterance_ids) -> np.ndarray:
        """T of each, int64."""
        return np.array([self.lengths[name] for name in utterance_ids], dtype=np.int64)


def random_table(train: int, dev: int) -> pd.DataFrame:
    """Utterances with every column, two languages, both genders, and `frames`, log-mel frames."""
    count = train + dev
    rows = np.arange(count)
    length = seconds(count, seed=0)
    return pd.DataFrame(
        {
            "utterance_id": [f"random/{i:05d}" for i in rows],
            "corpus": "random",
            "language": np.where(rows % 4 < 2, "de", "en"),
            "gender": np.where(rows % 2, *GENDERS),
            "emotion": np.asarray(LABELS)[
                np.random.default_rng(1).integers(len(LABELS), size=count)
            ],
            "speaker": [f"s{i % 8}" for i in rows],
            "group": [f"s{i % 8}" for i in rows],
            "split": np.where(rows < train, "train", "dev"),
            "path": "",
            "start_s": 0.0,
            "end_s": length,
            "transcript": "",
            "synthetic": True,
            "frames": mel_frames(length),
        }
    )


def speech_table(*, train: int, dev: int, folder: Path | None = None) -> tuple[pd.DataFrame, str]:
    """Real clips of unseen speakers on dev, and what they are; the synthetic demo where absent.

    An equal number of each language and gender, drawn with a fixed seed.
    """
    from ermgap import corpora
    from ermgap.corpora import split

    folder = SHARED if folder is None else folder
    names = [f"{name}={folder / name}" for name in ("emodb", "ravdess") if (folder / name).is_dir()]
    what = "EmoDB and RAVDESS (real, acted speech)"
    if len(names) < 2:
        names, what = ["demo"], "the project's synthetic demo: ../shared/data is absent"
    table = split.assign(corpora.load(names).table, seed=0)
    parts = []
    for name, wanted in (("train", train), ("dev", dev)):
        part = table[table["split"] == name].sample(frac=1, random_state=0)
        turn = part.groupby(["language", "gender"]).cumcount()
        parts.append(part.loc[turn.sort_values(kind="stable").index[:wanted]])
    return pd.concat(parts).reset_index(drop=True), what
