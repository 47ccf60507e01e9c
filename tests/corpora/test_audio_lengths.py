"""A clip is as long as what can be decoded of it, whatever its header says."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, mp3, table_of, tone, voice

from ermgap.corpora import audio, audio_files, containers, mpeg
from ermgap.errors import UserError


def counted_frames(content: bytes) -> int:
    """MPEG 1 layer III frames, by an independent count of the bytes."""
    kbits = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320]
    at = frames = 0
    while at + 4 <= len(content):
        if content[at] == 0xFF and content[at + 1] & 0xFE == 0xFA and content[at + 2] >> 4 < 15:
            padding = content[at + 2] >> 1 & 1
            at += 144_000 * kbits[content[at + 2] >> 4] // RATE + padding
            frames += at <= len(content)
        else:
            at += 1
    return frames


def outcome(path: Path, **span) -> float | str:
    """The end in seconds, or the reason why the clip is excluded."""
    kept, excluded, _ = audio.inspect(table_of(path, **span))
    return kept["end_s"][0] if len(kept) else excluded["reason"][0]


@pytest.fixture(params=["loud first", "silent first"])
def stream(request, tmp_path) -> Path:
    """An MP3 without its index frame, whose first frames are larger, or smaller, than the mean."""
    parts = [voice(3), np.zeros(RATE * 6), voice(2)]
    parts = parts if request.param == "loud first" else [np.zeros(RATE * 3), voice(8)]
    return mp3(tmp_path / "a.mp3", *parts, indexed=False)


def test_an_mp3_without_an_index_is_read_to_its_last_frame(stream):
    seconds = counted_frames(stream.read_bytes()) * 1152 / RATE
    assert outcome(stream) == pytest.approx(seconds, abs=0.03)
    assert len(audio.read(stream)) / audio.RATE == pytest.approx(seconds, abs=0.03)
    assert abs(soundfile.info(stream).duration - seconds) > 1, "libsndfile alone knew"


def test_an_index_that_counts_too_few_frames_is_not_believed(tmp_path):
    path = mp3(tmp_path / "a.mp3", voice(2), indexed=True)
    path.write_bytes(path.read_bytes() * 2)  # two files one after the other
    assert outcome(path) == pytest.approx(4, abs=0.2)
    assert len(audio.read(path)) / audio.RATE == pytest.approx(4, abs=0.2)


def test_an_mp3_cut_short_is_damaged_if_its_index_tells_and_else_what_is_there(tmp_path):
    for indexed, found in ((True, containers.TRUNCATED), (False, pytest.approx(2, abs=0.2))):
        path = mp3(tmp_path / "a.mp3", voice(4), indexed=indexed)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert outcome(path) == found


def test_tags_around_the_frames_are_not_counted_as_sound(tmp_path):
    path = mp3(tmp_path / "a.mp3", voice(2), indexed=False)
    frames = path.read_bytes()
    picture = bytes(200_000)
    size = bytes(len(picture) >> shift & 0x7F for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + picture + frames + b"TAG" + b" " * 125)
    assert outcome(path) == pytest.approx(counted_frames(frames) * 1152 / RATE, abs=0.03)


def test_tags_between_frames_are_passed_over_and_a_large_hole_is_damage(tmp_path):
    path = mp3(tmp_path / "a.mp3", voice(2), indexed=False)
    frames = path.read_bytes()
    tag = b"ID3\3\0\0\0\1\x48\x20" + bytes(1 << 14 | 0x48 << 7 | 0x20)
    path.write_bytes(frames + tag + frames + b"APETAGEX" + bytes(range(256)) * 200)
    assert outcome(path) == pytest.approx(2 * counted_frames(frames) * 1152 / RATE, abs=0.06)
    path.write_bytes(frames + b"\xff" * 3_000_000 + frames)
    assert outcome(path) == containers.TRUNCATED


def test_a_whole_mp3_keeps_the_length_that_was_encoded(tmp_path):
    path = mp3(tmp_path / "a.mp3", voice(2), np.zeros(RATE), indexed=True)
    assert outcome(path) == 3.0


def test_a_span_of_an_mp3_is_what_decoding_from_the_start_gives_there(stream):
    whole = audio.read(stream, rate=RATE)
    for start, end in ((0.31, 0.9), (3.7, 4.4), (5.1, 6.0), (7.77, 8.2)):
        span = audio.read(stream, start, end, rate=RATE)
        there = whole[round(start * RATE) :][: len(span)]
        assert len(span) == round((end - start) * RATE)
        np.testing.assert_allclose(span, there, atol=1e-4)
    assert outcome(stream, start=6.0, end=9.5) == 9.5
    assert outcome(stream, start=5.0, end=50.0) == audio.TOO_SHORT
    assert outcome(stream, start=50.0) == audio.TOO_SHORT


def test_the_frames_of_mpeg_2_and_of_layer_2_are_counted_too():
    for mark, header in {
        b"\xff\xfb\x90\x00": (417, 1152, 44100),  # MPEG 1 layer III, 128 kbit/s
        b"\xff\xfb\x92\x00": (418, 1152, 44100),  # the same, padded
        b"\xff\xf3\x84\x00": (192, 576, 24000),  # MPEG 2 layer III, 64 kbit/s
        b"\xff\xe3\x48\x00": (288, 576, 8000),  # MPEG 2.5 layer III, 32 kbit/s
        b"\xff\xfd\xa4\x00": (576, 1152, 48000),  # MPEG 1 layer II, 192 kbit/s
    }.items():
        found = mpeg.header(mark)
        assert (found.size, found.samples, found.rate) == header
    for mark in (b"\xff\xfb\x00\x00", b"\xff\xfb\xf0\x00", b"\xff\xeb\x90\x00", b"RIFF", b"\xff"):
        assert mpeg.header(mark) is None
    assert mpeg.count_frames(io.BytesIO(b"\xff\xfb\x90\x00" + bytes(5000)), 0, 5004) is None


# FLAC, Ogg, WAV and its kin -----------------------------------------------------------------------


def flac_declaring(path: Path, samples: int) -> Path:
    soundfile.write(path, voice(2, rate=16000), 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:26] = struct.pack(">I", samples)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("declared", "found"), [(0, 2.0), (16000, 2.0), (32000, 2.0), (80000, containers.TRUNCATED)]
)
def test_a_flac_is_as_long_as_its_frames_and_damaged_if_they_are_too_few(tmp_path, declared, found):
    path = flac_declaring(tmp_path / "a.flac", declared)
    assert outcome(path) == found
    if found == 2.0:
        assert outcome(path, start=0.5, end=0.9) == 0.9
        assert len(audio.read(path, 0.5, 0.9)) == 6400


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_without_an_end_is_cut_and_one_of_several_streams_is_refused(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    soundfile.write(path, voice(3, rate=16000), 16000, format="OGG", subtype=subtype)
    content = path.read_bytes()
    assert outcome(path) == 3.0
    path.write_bytes(content[: content.rfind(b"OggS")])  # a page's end: nothing is half there
    assert outcome(path) == containers.TRUNCATED
    path.write_bytes(content * 2)
    assert outcome(path) == containers.CHAINED


@pytest.mark.parametrize(("form", "suffix"), [("AIFF", "aif"), ("AU", "au"), ("RF64", "rf64"),
                                              ("W64", "w64"), ("WAVEX", "wav")])  # fmt: skip
def test_every_container_that_is_shorter_than_its_header_says_is_cut(tmp_path, form, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, voice(2, rate=16000), 16000, format=form, subtype="PCM_16")
    assert outcome(path) == 2.0
    path.write_bytes(path.read_bytes()[:-20000])
    assert outcome(path) == containers.TRUNCATED


@pytest.mark.parametrize("riff", [b"\0\0\0\0", b"\x24\0\0\0", b"\xff\xff\xff\xff"])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "ULAW"])
def test_a_wav_whose_recorder_never_wrote_its_sizes_is_read_to_its_end(tmp_path, riff, subtype):
    path = tmp_path / "a.wav"
    samples = voice(1.5, rate=16000)
    soundfile.write(path, samples, 16000, subtype=subtype)
    whole, content = audio.read(path), bytearray(path.read_bytes())
    data = content.find(b"data")
    content[4:8], content[data + 4 : data + 8] = riff, bytes(4)
    path.write_bytes(content)
    assert outcome(path) == 1.5
    assert np.array_equal(audio.read(path), whole)
    assert np.array_equal(audio.read(path, 0.5, 1.0), whole[8000:16000])


def test_a_wav_that_goes_on_after_its_end_is_of_unknown_length(tmp_path):
    path = tone(tmp_path / "a.wav")
    content = path.read_bytes()
    path.write_bytes(content + content[100:30000])  # sizes written once, then the recorder died
    assert outcome(path).startswith(containers.UNKNOWN)
    for tail in (bytes(30000), b"LIST" + struct.pack("<I", 29992) + bytes(29992)):
        path.write_bytes(content + tail)
        assert outcome(path) == 1.0
    soundfile.write(path, np.zeros(0), 16000)
    assert outcome(path) == "empty"


# Bounds and formats -------------------------------------------------------------------------------


def test_of_hours_of_sound_only_what_a_clip_may_have_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "hours.flac"
    with soundfile.SoundFile(path, "w", samplerate=16000, channels=2) as file:
        for _ in range(60):
            file.write(np.zeros((16000 * 60, 2)))
    decoded, read = [], containers.Sound.read

    def counted(self, *given, **more):
        decoded.append(len(block := read(self, *given, **more)))
        return block

    monkeypatch.setattr(containers.Sound, "read", counted)
    assert outcome(path) == "longer than 30 s"
    assert sum(decoded) == 30 * 16000 + 1 and max(decoded) <= containers.LONGEST_BLOCK / 2


def test_raw_and_foreign_formats_are_named_with_what_to_do(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "b.wav").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(500))
    (tmp_path / "c.webm").write_bytes(b"nothing that is known")
    (tmp_path / "._d.wav").write_bytes(b"\0\5\x16\7" + bytes(100))
    sound = tone(tmp_path / "e.wav")
    names = ["a.raw", "b.wav", "c.webm", "._d.wav"]
    kept, excluded, _ = audio.inspect(table_of(*(tmp_path / name for name in names), sound))
    assert len(kept) == 1
    wanted = ["raw samples without a header", "MPEG-4.*ffmpeg", r"\(.webm\).*ffmpeg", "macOS"]
    for reason, words in zip(excluded["reason"], wanted, strict=True):
        assert re.search(words, reason)
    with pytest.raises(UserError, match="a.raw is of raw samples"):
        audio.read(tmp_path / "a.raw")


def test_whatever_a_decoder_raises_one_clip_is_left_out_and_the_others_stay(tmp_path, monkeypatch):
    good, bad = tone(tmp_path / "good.wav"), tone(tmp_path / "bad.wav")
    check = containers._check

    def fails(file, plan, size):
        if b"bad" in file.name:
            raise TypeError("samplerate must be specified")
        check(file, plan, size)

    monkeypatch.setattr(containers, "_check", fails)
    kept, excluded, _ = audio.inspect(table_of(good, bad))
    assert kept["path"].to_list() == [str(good)]
    assert excluded["reason"].to_list() == ["unreadable"]


def test_a_folder_is_searched_for_sound_and_for_what_cannot_be_read(tmp_path):
    for name in ("a.WAV", "b.m4a", "sub/c.opus", "sub/d.amr", "notes.txt", "._a.wav", ".e.wav",
                 "__MACOSX/f.wav", ".trash/g.wav"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = audio_files.search(tmp_path)
    assert [path.name for path, problem in found if not problem] == ["a.WAV", "c.opus"]
    assert [path.name for path, problem in found if problem] == ["b.m4a", "d.amr"]
