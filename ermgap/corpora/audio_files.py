"""Finds the audio files of a folder, and says why some cannot be decoded here."""

from __future__ import annotations

import glob
import os
from pathlib import Path

REMEDY = "convert it (ffmpeg -i IN OUT.flac)"
SUFFIXES = frozenset(
    ".wav .wave .bwf .flac .ogg .oga .opus .mp3 .mp2 .aiff .aif .aifc .au .snd .caf .w64 .rf64 "
    ".sph .voc".split()
)
UNSUPPORTED = frozenset(
    ".m4a .m4b .m4r .mp4 .m4v .mov .webm .mkv .mka .weba .avi .amr .awb .3gp .3gpp .3g2 .wma .wmv "
    ".asf .aac .adts .ac3 .eac3 .dts .ape .wv .tta .tak .mpc .spx .ra .rm .dsf .dff .qcp .gsm "
    ".flv .ts .mts .mpg .mpeg .silk .raw .pcm".split()
)
HEADERLESS = (".raw", ".pcm")
_MARKS = (
    (0, b"#!AMR", "AMR"), (0, b"\x1aE\xdf\xa3", "WebM or Matroska"), (4, b"ftyp", "MPEG-4"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"), (0, b"#!SILK", "SILK"), (0, b"FLV", "FLV"),
    (8, b"AVI ", "AVI"), (0, b"MAC ", "Monkey's Audio"), (0, b"wvpk", "WavPack"),
    (0, b"TTA1", "TTA"), (0, b".RMF", "RealMedia"), (0, b"DSD ", "DSD"),
    (0, b"\xff\xf1", "AAC"), (0, b"\xff\xf9", "AAC"),
)  # fmt: skip


def search(folder: Path) -> list[tuple[Path, str]]:
    """The audio files below a folder in sorted order, with `unsupported_name` of each.

    Links to folders are followed. Hidden files are ignored, and so is `__MACOSX`, where macOS keeps
    metadata under the names of audio files (`._clip.wav`).
    """
    # glob follows symbolic links to folders, which Path.rglob passes over, and skips hidden names.
    names = glob.glob(os.path.join(glob.escape(str(folder)), "**", "*"), recursive=True)
    files = [Path(name) for name in sorted(names) if "__MACOSX" not in name.split(os.sep)]
    files = [file for file in files if file.suffix.lower() in SUFFIXES | UNSUPPORTED]
    return [(file, unsupported_name(file)) for file in files if file.is_file()]


def unsupported_name(path: str | os.PathLike) -> str:
    """Why a file of this name cannot be decoded and what to do, or "" where it may be.

    Reads as the end of "FILE is ...".
    """
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix in HEADERLESS:
        return f"of raw samples without a header ({suffix}); write them as a WAV"
    return (
        f"in a format that is not read here ({suffix}); {REMEDY}" if suffix in UNSUPPORTED else ""
    )


def unsupported_content(mark: bytes) -> str:
    """The same from a file's first bytes, whatever its name."""
    if mark[:4] == b"\0\5\x16\7":
        return "no audio but metadata of macOS (._NAME); remove it"
    kind = next((name for at, start, name in _MARKS if mark[at:].startswith(start)), "")
    return f"in a format that is not read here ({kind}); {REMEDY}" if kind else ""
