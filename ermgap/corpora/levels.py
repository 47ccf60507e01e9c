"""Tells clips that cannot be speech by their level, and channels that cancel when averaged."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

# Float samples of a mix pass 1 by some decibels, those of a decoded MP3 or Opus reach 2: 4 (12 dB)
# leaves room (1.28 is the most in 7,051 real clips of five corpora). int16 samples stored as float
# exceed 4 unless they are as good as silent.
LOUDEST = 4.0
# Half of the range of the samples: three steps of 16 bit. The quietest of those clips has 0.0050.
QUIETEST = 1e-4
# Root mean square of the mean of n channels over that of the channels, times the square root of n:
# 1 where the channels have nothing in common, also where only one of them has sound, 0 where they
# cancel. Under CANCELLED (-40 dB) what remains is noise of the recording, not what was said.
CANCELLED = 0.01
CANCELLING = 0.25


class Level:
    """The largest magnitude in any channel, and the power of the channels and of their mean."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.peak = 0.0
        self.cancelling = False  # set by `problem`
        self._count = 0
        self._sums = np.zeros(channels)
        self._squares = np.zeros(channels)

    def add(self, block: np.ndarray) -> None:
        """Take in a block, float32 [frames, channels]."""
        self.peak = max(self.peak, float(np.abs(block).max(initial=0.0)))
        if self.channels > 1:
            self._count += len(block)
            self._sums += block.sum(0, dtype=np.float64)
            self._squares += np.einsum("fc,fc->c", block, block, dtype=np.float64)

    def problem(self, mono: np.ndarray) -> str:
        """Why the clip is not speech, or ""; `mono` is the mean of the channels, float32 [n > 0].

        Reads as the end of "CLIP is ...".
        """
        if not np.isfinite(mono).all():
            return "not finite (NaN or infinite samples)"
        if self.peak > LOUDEST:
            peak = f"{self.peak:,.0f}" if self.peak >= 100 else f"{self.peak:.1f}"
            return f"of an implausible level (peak {peak}; samples should lie in [-1, 1])"
        share = self._share(mono)
        self.cancelling = share < CANCELLING
        low, high = float(mono.min()), float(mono.max())
        if share < CANCELLED:
            return "without sound in the mean of its channels, which cancel (opposite phase)"
        if low == high == 0:
            return "silent (every sample is zero)"
        if high - low > 2 * QUIETEST:
            return ""
        if max(-low, high) > QUIETEST:
            return "constant (its samples do not vary)"
        return f"nearly silent (its samples stay within {QUIETEST:g} of zero)"

    def _share(self, mono: np.ndarray) -> float:
        """The mean's root mean square, constant part taken off, in units of CANCELLED."""
        if self.channels == 1:
            return math.inf
        power = float((self._squares / self._count - (self._sums / self._count) ** 2).mean())
        if power < QUIETEST**2:
            return math.inf
        return float(mono.std(dtype=np.float64)) * math.sqrt(self.channels / power)


def notes(table: pd.DataFrame, cancelling: np.ndarray) -> tuple[str, ...]:
    """A sentence for each corpus that has clips whose channels nearly cancel (audio.inspect)."""
    return tuple(
        f"the channels of {part.sum()} of {len(part)} clips of {corpus} cancel for the most part "
        "when they are averaged (opposite phase); give one channel of each"
        for corpus, part in pd.Series(cancelling).groupby(table["corpus"].to_numpy(), sort=False)
        if part.any()
    )
