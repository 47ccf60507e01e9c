"""Clips: what `read` returns, and that every kind of damaged audio is found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import table_of, tone

from ermgap.corpora import audio
from ermgap.errors import UserError


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_a_tone_keeps_its_pitch_length_and_loudness_at_any_rate(tmp_path, rate):
    samples = audio.read(tone(tmp_path / "a.wav", hertz=1000.0, rate=rate))
    assert samples.dtype == np.float32 and abs(len(samples) - 16000) <= 1
    assert np.argmax(np.abs(np.fft.rfft(samples))) == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)


def test_samples_at_the_right_rate_come_back_as_the_file_holds_them(tmp_path):
    data = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", data, 16000, subtype="FLOAT")
    assert np.array_equal(audio.read(tmp_path / "a.wav"), data)
    assert np.array_equal(audio.read(tmp_path / "a.wav", 0.1, 0.2), data[1600:3200])
    assert np.array_equal(audio.read(tmp_path / "a.wav", 0.1, float("nan")), data[1600:])


def test_channels_are_averaged(tmp_path):
    both = np.stack([np.full(4000, 0.5), np.full(4000, -0.1)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, 16000, subtype="FLOAT")
    assert audio.read(tmp_path / "a.wav") == pytest.approx(0.2)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_window_returns_a_prefix_of_the_whole_clip(tmp_path, rate):
    path = tone(tmp_path / "a.wav", seconds=2, rate=rate)
    whole = audio.read(path)
    assert np.array_equal(audio.read(path, window_s=0.5), whole[:8000])
    assert np.array_equal(audio.read(path, window_s=9), whole)


def test_reading_a_file_that_is_no_audio_names_it(tmp_path):
    (tmp_path / "a.wav").write_text("hello")
    with pytest.raises(UserError, match="a.wav is unreadable"):
        audio.read(tmp_path / "a.wav")
    with pytest.raises(UserError, match="none.wav is unreadable"):
        audio.read(tmp_path / "none.wav")


def test_a_digest_follows_bytes_and_span_and_not_the_name(tmp_path):
    path = tone(tmp_path / "a.wav")
    copy = shutil.copy(path, tmp_path / "b.wav")
    assert audio.digest(path) == audio.digest(copy)
    assert audio.digest(path, 0.0, float("nan")) == audio.digest(path)
    spans = [(0.0, None), (0.1, None), (0.0, 0.5), (0.1, 0.5)]
    assert len({audio.digest(path, *span) for span in spans}) == 4
    before = audio.digest(path)
    tone(path, hertz=441)
    assert audio.digest(path) != before


def _damage(folder: Path) -> dict[str, str]:
    """One clip of each damage, by the reason that must be given."""
    quiet = np.zeros(16000)
    soundfile.write(folder / "silent.wav", quiet, 16000)
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        data = np.full(16000, 0.1, dtype=np.float32)
        data[5000] = value
        soundfile.write(folder / f"{name}.wav", data, 16000, subtype="FLOAT")
    (folder / "zero_bytes.wav").touch()
    soundfile.write(folder / "no_samples.wav", np.zeros(0), 16000)
    (folder / "text.wav").write_text("this is not audio")
    tone(folder / "short.wav", seconds=0.05)
    tone(folder / "long.wav", seconds=30.5, rate=8000)
    noise = np.random.default_rng(0).normal(0, 0.1, 64000)
    soundfile.write(folder / "whole.flac", noise, 16000)
    content = (folder / "whole.flac").read_bytes()
    (folder / "half.flac").write_bytes(content[: len(content) // 2])
    content = tone(folder / "whole.wav").read_bytes()
    (folder / "half.wav").write_bytes(content[: len(content) // 2])
    soundfile.write(folder / "whole.opus", noise, 16000, format="OGG", subtype="OPUS")
    content = (folder / "whole.opus").read_bytes()
    third = len(content) // 3
    (folder / "hole.opus").write_bytes(content[:third] + bytes(third) + content[2 * third :])
    (folder / "folder.wav").mkdir()
    return {
        "silent.wav": "silent", "nan.wav": "not finite", "inf.wav": "not finite",
        "zero_bytes.wav": "empty", "no_samples.wav": "empty", "text.wav": "unreadable",
        "short.wav": "shorter than 0.1 s", "long.wav": "longer than 30 s",
        "half.flac": "truncated", "half.wav": "truncated", "hole.opus": "truncated",
        "none.wav": "missing", "folder.wav": "missing",
    }  # fmt: skip


def test_every_damaged_clip_is_left_out_with_its_reason_and_the_sound_one_stays(tmp_path):
    damaged = _damage(tmp_path)
    sound = tone(tmp_path / "sound.wav", seconds=1.5)
    table = table_of(*(tmp_path / name for name in damaged), sound)
    kept, excluded, _ = audio.inspect(table)
    assert kept["path"].to_list() == [str(sound)]
    assert kept["end_s"].to_list() == [1.5]
    assert len(excluded) == len(damaged)
    for path, reason in zip(excluded["path"], excluded["reason"], strict=True):
        assert reason.startswith(damaged[Path(path).name]), path


def test_a_wav_written_to_a_pipe_is_sound_though_its_header_knows_no_length(tmp_path):
    content = bytearray(tone(tmp_path / "a.wav").read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    kept, _, _ = audio.inspect(table_of(tmp_path / "a.wav"))
    assert kept["end_s"].to_list() == [1.0]


def test_strict_refuses_the_first_damaged_clip_and_says_how_many(tmp_path):
    sound = tone(tmp_path / "a.wav")
    audio.inspect(table_of(sound), strict=True)
    with pytest.raises(UserError, match=r"none.wav is missing, and 1 of 2 clips"):
        audio.inspect(table_of(sound, tmp_path / "none.wav"), strict=True)


def test_a_clip_longer_than_the_window_is_counted_and_refused_by_strict(tmp_path):
    table = table_of(tone(tmp_path / "a.wav"), tone(tmp_path / "b.wav", seconds=3))
    kept, excluded, _ = audio.inspect(table, window_s=2)
    assert len(kept) == 2 and excluded.empty
    assert "1 of 2 clips of c are longer than the window" in audio.crop_notes(kept, 2)[0]
    assert audio.crop_notes(kept, 3) == ()
    with pytest.raises(UserError, match="1 of 2 clips of c .* --strict refuses"):
        audio.inspect(table, strict=True, window_s=2)


@pytest.mark.parametrize(
    ("start", "end", "kept"),
    [(0.2, 0.8, 0.8), (0.0, 1.03, 1.0), (0.5, np.nan, 1.0), (0.0, 1.2, None), (1.5, 2, None)],
)
def test_a_span_must_lie_in_its_file_but_for_a_rounded_end(tmp_path, start, end, kept):
    table, excluded, _ = audio.inspect(table_of(tone(tmp_path / "a.wav"), start=start, end=end))
    if kept is None:
        assert excluded["reason"].to_list() == ["shorter than the span that is named for it"]
    else:
        assert table["end_s"].to_list() == [kept]


def test_copies_are_found_by_bytes_and_span(tmp_path):
    path = tone(tmp_path / "a.wav")
    copy = Path(shutil.copy(path, tmp_path / "b.wav"))
    other = tone(tmp_path / "c.wav", hertz=441)  # of the same size
    table, _, _ = audio.inspect(table_of(path, copy, other))
    kept, excluded = audio.drop_copies(table)
    assert kept["utterance_id"].to_list() == ["c/0", "c/2"]
    assert excluded["reason"].to_list() == ["a copy of c/0"]
    spans = table_of(path, path).assign(start_s=[0.0, 0.5], end_s=[0.5, 1.0])
    assert len(audio.drop_copies(spans)[0]) == 2
