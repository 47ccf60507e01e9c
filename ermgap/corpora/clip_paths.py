"""Finds the clips that untrusted rows name, in the corpus's folder and under other spellings.

    clips = ClipPaths(folder, outside=False)
    clips.find("sub\\a.wav", place="manifest.csv, row 2")       # "/.../folder/sub/a.wav"
    clips.notes("manifest.csv")                                 # how many were spelt differently

Only where no file has the path as written is another spelling tried; the checks of where a file
lies hold for the path that is used.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath

from ermgap.config import quoted
from ermgap.errors import UserError
from ermgap.records.files import path_bytes

ASK = "or allow it with --set data.outside=true if you trust who wrote it"
# Control characters, ends of lines, and marks that make a terminal show another order of letters.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SPELLINGS = (
    ("accents", lambda name: unicodedata.normalize("NFC", name)),
    ("letter case", lambda name: unicodedata.normalize("NFC", name).casefold()),
)


def require_file(path: str, *, place: str) -> None:
    """Raise UserError unless `path` has a file's name, without control characters."""
    if UNSAFE.search(path):
        raise UserError(
            f"{place}: the path {quoted(path)} holds a control character; remove it from the path "
            "and from the file's name."
        )
    if not PurePosixPath(path).name:
        raise UserError(
            f"{place}: the path {quoted(path)} names no file; write it in the column 'path'."
        )


def require_inside(path: str, *, place: str) -> None:
    """Raise UserError for a path that is absolute or has `..`, as text: no file is looked at."""
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).anchor
    first, *others = re.split(r"[/\\]", path)
    if absolute or ".." in (first, *others) or first.startswith("~") and others:
        raise UserError(
            f"{place}: the path {quoted(path)} leads out of the corpus; "
            f"write it relative to the manifest's folder, without '..', {ASK}."
        )


def other_spelling(path: Path) -> Path | None:
    """The existing file or folder that a missing absolute path may stand for, spelt differently."""
    other = ClipPaths(Path("/"), outside=True)._other_spelling(str(path))[1]
    return Path(other) if other else None


class ClipPaths:
    """The files that the rows of one corpus name, relative to `root` unless absolute.

    `within` are the folders in which they must lie, `root` if it is empty; `outside` allows all.
    """

    def __init__(self, root: Path, *, outside: bool, within: tuple[str | Path, ...] = ()) -> None:
        self._root = str(root)
        self._folders = () if outside else tuple(map(os.path.realpath, within or (root,)))
        self._real: dict[str, str] = {}  # real paths of the folders that files are in
        self._listed: dict[str, list[dict[str, list[str]]]] = {}
        self._kinds: Counter[str] = Counter()  # of differences in spelling
        self._replaced: list[tuple[str, str]] = []  # path as written, path of the file used instead

    def find(self, written: str, *, place: str) -> str:
        """The absolute path of the file; as written where there is no such file in any spelling.

        Raises UserError, which begins with `place`, for a file that lies elsewhere once every
        symbolic link is followed.
        """
        for text in (written, written.strip()):
            path = os.path.join(self._root, PurePosixPath(text))
            self._require(path, place)
            if os.path.lexists(path):
                return path
        kinds, other = self._other_spelling(written.strip())
        if not other or not os.path.isfile(other):
            return path
        self._require(other, place)
        self._kinds.update(kinds)
        self._replaced.append((written, other))
        return other

    def notes(self, name: str) -> tuple[str, ...]:
        """A sentence on the paths of the file `name` that are spelt unlike their files."""
        if not self._replaced:
            return ()
        kinds = ", ".join(f"{kind} {n}" for kind, n in self._kinds.items())
        written, other = self._replaced[0]
        return (
            f"{len(self._replaced)} paths of {name} are spelt unlike their files ({kinds}), "
            f"such as {quoted(written)} for {quoted(os.path.relpath(other, self._root))}; the "
            "files are used",
        )

    def _require(self, path: str, place: str) -> None:
        """Raise UserError for a file elsewhere; one that is absent is judged by its name."""
        try:
            real = self._real_path(os.fsdecode(path_bytes(path))) if self._folders else path
        except (OSError, ValueError):  # too long for a file's name; it will be counted as missing
            return
        if self._folders and not any(real.startswith(os.path.join(f, "")) for f in self._folders):
            raise UserError(
                f"{place}: {quoted(path)} lies outside of the corpus, where a link or its path "
                f"leads; copy it into the corpus, {ASK}."
            )

    def _real_path(self, path: str) -> str:
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        # One system call a file, not one for each part of its path: 30,000 files are usual.
        near = os.path.join(self._real[folder], name)
        return os.path.realpath(near) if name in ("", ".", "..") or os.path.islink(near) else near

    def _other_spelling(self, path: str) -> tuple[set[str], str]:
        """The kinds of differences to a path that exists, and that path, or "" if there is none."""
        kinds = {"backslashes"} if "\\" in path else set()
        here = "/" if path.startswith("/") else self._root
        for part in re.split(r"[/\\]", path):
            if part in ("", "."):
                continue
            if not os.path.lexists(os.path.join(here, part)):
                kind, part = self._entry(here, part)
                if not part:
                    return set(), ""
                kinds.add(kind)
            here = os.path.join(here, part)
        return kinds, here

    def _entry(self, folder: str, name: str) -> tuple[str, str]:
        """The kind of difference to the only entry of a folder that `name` can mean, and that."""
        if folder not in self._listed:
            self._listed[folder] = [defaultdict(list) for _ in SPELLINGS]
            with suppress(OSError, ValueError):
                for entry in os.listdir(folder):
                    for (_, key), entries in zip(SPELLINGS, self._listed[folder], strict=True):
                        entries[key(entry)].append(entry)
        for (kind, key), entries in zip(SPELLINGS, self._listed[folder], strict=True):
            if names := entries.get(key(name)):
                return (kind, names[0]) if len(names) == 1 else ("", "")
        return "", ""
