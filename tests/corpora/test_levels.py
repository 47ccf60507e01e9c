"""Samples that cannot be speech are excluded with a reason, and nothing that can be is."""

from __future__ import annotations

import re

import numpy as np
import pytest
import soundfile
from sounds import table_of

from ermgap.corpora import audio, levels, table

NOISE = np.random.default_rng(0).normal(0, 0.05, 16000)
STEP = 1 / 32768


def inspected(path, samples, **how) -> audio.Inspected:
    soundfile.write(path, samples, 16000, **{"subtype": "FLOAT"} | how)
    return audio.inspect(table_of(path))


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (NOISE * 32768, r"of an implausible level \(peak 6,\d\d\d; samples should lie in"),
        (NOISE / np.abs(NOISE).max() * 10, r"of an implausible level \(peak 10.0;"),
        (np.stack([NOISE, NOISE * 32768], 1), "of an implausible level"),
        (NOISE * 1e-4, "nearly silent"),
        (np.sign(NOISE) * STEP, "nearly silent"),
        (np.full(16000, 0.25), "constant"),
        (0.4 + np.sign(NOISE) * STEP, "constant"),
        (np.stack([NOISE, -NOISE], 1), "without sound in the mean of its channels"),
        (np.stack([NOISE, 1e-4 - NOISE], 1), "without sound in the mean of its channels"),
    ],
)
def test_what_is_no_speech_is_left_out_with_its_reason(tmp_path, samples, reason):
    kept, excluded, _ = inspected(tmp_path / "a.wav", samples)
    assert kept.empty
    assert re.match(reason, excluded["reason"][0])


@pytest.mark.parametrize(
    "samples",
    [
        NOISE / np.abs(NOISE).max() * 3,  # a mix that passes full scale by 9.5 dB
        NOISE * 0.02,
        NOISE + 0.4,
        np.stack([NOISE, np.zeros_like(NOISE)], 1),
        np.stack([NOISE, *[np.zeros_like(NOISE)] * 7], 1),
        np.stack([NOISE, np.roll(NOISE, 100)], 1),
        np.stack([0.25 + NOISE, NOISE - 0.25], 1),
    ],
)
def test_what_can_be_speech_stays_without_a_remark(tmp_path, samples):
    kept, _, cancelling = inspected(tmp_path / "a.wav", samples)
    assert len(kept) == 1 and not cancelling.any()


def test_channels_that_nearly_cancel_are_kept_and_counted(tmp_path):
    both = np.stack([NOISE, -0.9 * NOISE], 1)
    kept, excluded, cancelling = inspected(tmp_path / "a.wav", both, subtype="PCM_16")
    assert excluded.empty and cancelling.tolist() == [True]
    (note,) = levels.notes(kept, cancelling)
    assert note.startswith("the channels of 1 of 1 clips of c cancel for the most part")


def test_many_peaks_are_counted_under_one_reason():
    rows = [
        {"corpus": "c", "path": f"{i}.wav",
         "reason": f"of an implausible level (peak 8,{i}; samples should lie in [-1, 1])"}
        for i in range(100, 150)
    ]  # fmt: skip
    text = table.summarize_reasons(table.excluded_frame([*rows, rows[0] | {"reason": "empty"}]))
    assert text == (
        "50 x of an implausible level (peak 8,100 and others; samples should lie in [-1, 1]); "
        "1 x empty"
    )
