"""Paths in a manifest: unusual names, other spellings of names, and what stays refused."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ermgap import corpora
from ermgap.corpora import manifest
from ermgap.errors import UserError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
UNUSUAL = {
    "an ideographic space": "a\u3000b.wav",
    "one that is first": "\u3000a.wav",
    "a space that does not break": "a\u00a0b.wav",
    "a mark of no width": "a\u200cb.wav",
    "a mark of direction": "a\u200fb.wav",
    "a blank in front": " a.wav",
    "an emoji": "\U0001f600\ufe0f.wav",
    "a private letter": "\ue000.wav",
    "a tilde": "~a.wav",
    "a backslash": "a\\b.wav",
    "composed accents": f"{COMPOSED}.wav",
    "decomposed accents": f"{DECOMPOSED}.wav",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "voices").mkdir()
    return tmp_path / "voices"


def clips(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(name) + sum(name.encode())).normal(0, 0.1, 8000)
        soundfile.write(folder / name, noise, 16000, format="WAV")


def write(folder: Path, *paths: str) -> Path:
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["path", "language", "emotion", "gender", "speaker"])
        writer.writerows([path, "en", "joy", "male", i] for i, path in enumerate(paths))
    return folder


def load(folder: Path, *paths: str, **options) -> corpora.Corpus:
    return corpora.load([f"manifest={write(folder, *paths)}"], **options)


@pytest.mark.parametrize("name", UNUSUAL.values(), ids=UNUSUAL)
def test_a_legal_name_of_a_file_is_taken_as_it_is(folder, name):
    clips(folder, name)
    corpus = load(folder, name)
    assert corpus.table["path"].to_list() == [str(folder / name)] and corpus.notes == ()


@pytest.mark.parametrize("character", "\x00\x07\x1b\x7f\x85\u2028\u2029\u202e\u2066")
def test_control_characters_are_refused_and_not_printed(folder, character):
    with pytest.raises(UserError, match="row 2: the path .* holds a control character") as caught:
        manifest.load(write(folder, f"a{character}b.wav"))
    assert str(caught.value).isprintable()


OTHERWISE = {
    "backslashes": (r"sub\deep\a.wav", "sub/deep/a.wav"),
    "accents": (f"sub/{DECOMPOSED}.wav", f"sub/{COMPOSED}.wav"),
    "accents of a folder": (f"{COMPOSED}/a.wav", f"{DECOMPOSED}/a.wav"),
    "letter case": ("SUB/a.WAV", "sub/A.wav"),
    "all": (rf".\SUB\{DECOMPOSED}.wav", f"sub/{COMPOSED}.wav"),
    "letter case of an accent": (f"{COMPOSED.upper()}.wav", f"{DECOMPOSED}.wav"),
}


@pytest.mark.parametrize(("written", "there"), OTHERWISE.values(), ids=OTHERWISE)
def test_a_file_that_is_spelt_otherwise_is_used_and_counted(folder, written, there):
    clips(folder, there, "other.wav")
    corpus = load(folder, "other.wav", written, "gone.wav")
    assert corpus.table["path"].to_list() == [str(folder / "other.wav"), str(folder / there)]
    assert corpus.excluded["reason"].to_list() == ["missing"]
    (note,) = corpus.notes
    assert "1 paths of voices's manifest.csv are spelt unlike their files (" in note
    assert note.isprintable() and " 1" in note and " 2" not in note


def test_a_name_that_two_files_could_have_is_missing(folder):
    clips(folder, "a.wav", "A.wav")
    corpus = load(folder, "a.wav", "A.wav")
    assert [Path(path).name for path in corpus.table["path"]] == ["a.wav", "A.wav"]
    clips(folder, "b.wav")
    corpus = load(folder, "b.wav", "A.WAV")
    assert corpus.excluded["reason"].to_list() == ["missing"] and corpus.notes == ()


def test_another_spelling_leads_nowhere_that_the_path_itself_may_not(folder, tmp_path):
    clips(tmp_path, "private.wav", "private/b.wav")
    clips(folder, "a.wav")
    (folder / "Link.wav").symlink_to(tmp_path / "private.wav")
    (folder / "Far").symlink_to(tmp_path / "private")
    for path in ("link.wav", r"far\b.wav", "Far/B.wav", r".\Far\b.wav"):
        with pytest.raises(UserError, match=r"row 3: .*lies outside .*data\.outside=true"):
            load(folder, "a.wav", path)
        assert len(load(folder, "a.wav", path, outside=True).table) == 2
    for path in (r"..\private.wav", r"sub\..\..\private.wav", r"\\host\a.wav", r"C:\a.wav"):
        with pytest.raises(UserError, match="row 3: .*leads out of the corpus"):
            load(folder, "a.wav", path)
    found = load(folder, "a.wav", r"..\PRIVATE.wav", outside=True).table["path"]
    assert Path(found[1]).resolve() == tmp_path / "private.wav"


@pytest.mark.parametrize("name", ["manifest", "emodb", "mine"])
def test_a_folder_that_is_spelt_otherwise_is_named(folder, name):
    written = folder.with_name("Voices")
    with pytest.raises(UserError, match=f"there is {folder}|but {folder} does"):
        corpora.load([f"{name}={written}"])
    with pytest.raises(UserError) as caught:
        corpora.load([f"{name}={written / 'deeper'}"])
    assert str(folder) not in str(caught.value)
