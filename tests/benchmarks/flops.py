"""How many floating-point operations a Qwen2-Audio needs: our own arithmetic, matrix products only.

    sizes = Sizes.of(model.config)
    sum(needed(sizes, work, rank=16, targets=TARGETS, head=sizes.vocab).values())

A product of [n, k] by [k, m] is 2 n k m operations. Norms, softmax, rotary embeddings, activations
and the optimiser are not counted: they are under a percent, and peaks are quoted for products.

A weight that is frozen costs its forward and the gradient of its input (2 x forward), one that is
trained its own gradient as well (3 x), and one whose input needs no gradient no such product.
Attention costs two products forward and four backward (3 x); recomputing is not counted.

`needed` is what the step needs with a cached tower: no padding, causal pairs only, and in the last
layer queries, output projection and MLP at answer positions alone. `plain` is what the usual
forward performs: the tower over its whole window, padded sequences, the head at all positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
FROZEN, TRAINED, PAIRS = 2, 3, 3  # forward and backward, in forwards


@dataclass(frozen=True)
class Sizes:
    """Widths and depths of a model; `frames` are the tower's positions before pooling."""

    mel: int
    audio: int
    audio_layers: int
    audio_ffn: int
    frames: int
    hidden: int
    layers: int
    query: int  # heads x width of a head
    key: int
    ffn: int
    vocab: int

    @classmethod
    def of(cls, config) -> Sizes:
        """From a `Qwen2AudioConfig`."""
        audio, text = config.audio_config, config.text_config
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            mel=audio.num_mel_bins,
            audio=audio.d_model,
            audio_layers=audio.encoder_layers,
            audio_ffn=audio.encoder_ffn_dim,
            frames=audio.max_source_positions,
            hidden=text.hidden_size,
            layers=text.num_hidden_layers,
            query=head * text.num_attention_heads,
            key=head * text.num_key_value_heads,
            ffn=text.intermediate_size,
            vocab=text.vocab_size,
        )

    def linears(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the linear modules of a decoder layer."""
        h, q, k, f = self.hidden, self.query, self.key, self.ffn
        return {
            "q_proj": (h, q),
            "k_proj": (h, k),
            "v_proj": (h, k),
            "o_proj": (q, h),
            "gate_proj": (h, f),
            "up_proj": (h, f),
            "down_proj": (f, h),
        }


@dataclass(frozen=True)
class Work:
    """Utterances of a step: audio tokens, tokens of the whole sequence, answer positions of each.

    A sequence ends with the answer's tokens but the last, which nothing has to follow.
    """

    audio: Sequence[int]
    tokens: Sequence[int]
    answers: Sequence[int]

    @classmethod
    def of(cls, prompt, audio: Sequence[int], labels: Sequence[int], *, answers: bool) -> Work:
        """Of these audio lengths and label indices; without `answers` one position each."""
        shown = [len(prompt.answers[label]) if answers else 1 for label in labels]
        around = len(prompt.prefix) + len(prompt.suffix)
        tokens = [around + int(a) + s - 1 for a, s in zip(audio, shown, strict=True)]
        return cls([int(a) for a in audio], tokens, shown)


def linear(rows: int, inputs: int, outputs: int) -> int:
    """[rows, inputs] by [inputs, outputs]."""
    return 2 * rows * inputs * outputs


def attention(width: int, pairs: int) -> int:
    """Scores and mixing over so many (query, key) pairs; `width` is heads x width of a head."""
    return 2 * linear(pairs, width, 1)


def tower(sizes: Sizes, clips: int) -> int:
    """The audio tower, forward: always its whole window. At 7B and 30 s: 2.26 TFLOP a clip."""
    s, n = sizes, sizes.frames
    convolutions = linear(2 * n, 3 * s.mel, s.audio) + linear(n, 3 * s.audio, s.audio)
    layer = linear(n, s.audio, 4 * s.audio + 2 * s.audio_ffn) + attention(s.audio, n * n)
    return clips * (convolutions + s.audio_layers * layer)


def lora(sizes: Sizes, rows: dict[str, int], *, rank: int, targets: Sequence[str]) -> int:
    """Both factors of the adapters of a layer, forward; `rows` seen by each module."""
    every = sizes.linears()
    return sum(linear(rows[name], rank, sum(every[name])) for name in targets)


def layer(sizes: Sizes, rows: dict[str, int]) -> int:
    """The linear modules of a decoder layer, forward; `rows` seen by each module."""
    return sum(linear(rows[name], *io) for name, io in sizes.linears().items())


def needed(
    sizes: Sizes, work: Work, *, rank: int, targets: Sequence[str], head: int
) -> dict[str, int]:
    """A training step (forward and backward) with cached tower outputs, by part.

    Args:
        head: logits at an answer position: the vocabulary, or the number of labels.
    """
    tokens, answers = sum(work.tokens), sum(work.answers)
    pairs = sum(n * (n + 1) // 2 for n in work.tokens)
    # The answer positions are the last of each sequence.
    last = sum(
        n - i for n, shown in zip(work.tokens, work.answers, strict=True) for i in range(shown)
    )
    all_rows = dict.fromkeys(sizes.linears(), tokens)
    last_rows = all_rows | dict.fromkeys(sizes.linears(), answers)
    last_rows |= {"k_proj": tokens, "v_proj": tokens}
    first = sizes.layers - 1
    return {
        "projector": 2 * linear(sum(work.audio), sizes.audio, sizes.hidden),
        "decoder": FROZEN * (first * layer(sizes, all_rows) + layer(sizes, last_rows)),
        "adapter": TRAINED
        * (
            first * lora(sizes, all_rows, rank=rank, targets=targets)
            + lora(sizes, last_rows, rank=rank, targets=targets)
        ),
        "attention": PAIRS * attention(sizes.query, first * pairs + last),
        "head": FROZEN * linear(answers, sizes.hidden, head),
    }


def plain(
    sizes: Sizes, batches: Sequence[tuple[int, int]], *, rank: int, targets: Sequence[str]
) -> dict[str, int]:
    """What transformers' forward and backward perform, by part.

    Args:
        batches: (utterances, padded length) of each. Attention gets a padding mask there, so all
            pairs are computed, and the projector runs over the tower's whole output.
    """
    clips = sum(b for b, _ in batches)
    tokens = sum(b * t for b, t in batches)
    rows = dict.fromkeys(sizes.linears(), tokens)
    return {
        "tower": tower(sizes, clips),
        "projector": 2 * linear(clips * (sizes.frames // 2), sizes.audio, sizes.hidden),
        "decoder": FROZEN * sizes.layers * layer(sizes, rows),
        "adapter": TRAINED * sizes.layers * lora(sizes, rows, rank=rank, targets=targets),
        "attention": PAIRS
        * attention(sizes.query, sizes.layers * sum(b * t * t for b, t in batches)),
        "head": FROZEN * linear(tokens, sizes.hidden, sizes.vocab),
    }
