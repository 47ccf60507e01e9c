"""File names that are not UTF-8, and terminals that cannot show what is printed, end no command."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from ermgap.corpora import audio, table
from ermgap.corpora.clip_paths import ClipPaths
from ermgap.errors import UserError, printable
from ermgap.records import files

TERMINALS = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
}
COMMANDS = {
    "describe": ["-m", "ermgap.corpora", "describe", "manifest=FOLDER"],
    "pareto": ["sweeps/pareto.py", "--dry-run", "--data", "manifest=FOLDER"],
    "predict": ["-m", "ermgap.predict", "--adapter", "FOLDER/怒り", "a.wav"],
    "analysis": ["-m", "analysis", "FOLDER/怒り"],
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> bytes:
    """A folder whose name is Latin-1, with clips and an emotion in Japanese."""
    folder = os.fsencode(tmp_path_factory.mktemp("corpora")) + b"/c\xf6rpus"
    os.mkdir(folder)
    lines = ["path,language,emotion,gender,speaker"]
    noise = np.random.default_rng(0)
    for i in range(32):
        emotion = "謎" if i == 31 else ("anger", "joy")[i // 2 % 2]
        lines.append(f"怒り_{i}.wav,en,{emotion},{('female', 'male')[i % 2]},s{i // 4}{i % 2}")
        clip = os.fsencode(os.fsdecode(folder)) + f"/怒り_{i}.wav".encode()
        with open(clip, "wb") as file:
            soundfile.write(file, noise.normal(0, 0.1, 8000), 16000, format="WAV")
    with open(folder + b"/manifest.csv", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return folder


def runs():
    """Every command on every terminal; what takes seconds to start is quick on one alone."""
    for command in COMMANDS:
        for terminal in TERMINALS:
            repeated = command in ("pareto", "predict") and terminal != "C"
            yield pytest.param(command, terminal, marks=[pytest.mark.slow] if repeated else [])


@pytest.mark.parametrize(("command", "terminal"), runs())
def test_a_command_ends_as_it_should_on_any_terminal(corpus, root, command, terminal):
    arguments = [part.encode().replace(b"FOLDER", corpus) for part in COMMANDS[command]]
    env = os.environ | TERMINALS[terminal]
    done = subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, env=env)
    printed = (done.stdout + done.stderr).decode("ascii")
    assert "Traceback" not in printed
    if command in ("describe", "pareto"):
        assert done.returncode == 0, printed
        assert r"excluded from c\xf6rpus: 1 (1 x emotion '\u8b0e' is not" in printed
        assert "31 utterances" in printed
    else:
        assert done.returncode == 2 and printed.startswith("error: ")


def test_a_name_that_is_not_utf_8_is_escaped_and_still_opens_its_file(tmp_path):
    raw = os.fsencode(tmp_path) + b"/K\xe4the \x93.wav"
    with open(raw, "wb") as file:
        soundfile.write(file, np.full(4000, 0.1), 16000, format="WAV")
    shown = files.escape_undecodable(os.fsdecode(raw))
    assert shown.endswith(r"/K\xe4the \x93.wav") and shown.encode("utf-8")
    assert files.path_bytes(shown) == files.path_bytes(os.fsdecode(raw)) == raw
    assert len(audio.read(shown)) == 4000
    other = tmp_path / r"K\xe4the \x93.wav"  # a file of just that name goes first
    other.touch()
    assert files.path_bytes(shown) == os.fsencode(other)
    assert files.escape_undecodable("怒り \u00a0.wav") == "怒り \u00a0.wav"
    assert files.escape_undecodable("\ud800 怒り") == r"\ud800 怒り"


def test_an_escaped_name_leads_out_of_a_corpus_no_more_than_another(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "secret.wav").touch()
    os.symlink(tmp_path / "secret.wav", os.fsencode(tmp_path / "corpus") + b"/\xe4.wav")
    with pytest.raises(UserError, match="lies outside of the corpus"):
        escaped = str(tmp_path / "corpus" / r"\xe4.wav")
        ClipPaths(tmp_path / "corpus", outside=False).find(escaped, place="row 1")


def test_what_steers_a_terminal_is_not_printed(tmp_path):
    assert printable("a\x1b[2Jb\x9b\r\n怒り\u00a0") == "a\\x1b[2Jb\\x9b\\x0d\n怒り\u00a0"


def test_a_table_holds_escaped_names(tmp_path):
    row = {"utterance_id": "c/1", "corpus": "c\udcf6", "language": "en", "gender": "male",
           "emotion": "joy", "speaker": "s", "path": "/c\udcf6/a.wav"}  # fmt: skip
    made = table.frame([row])
    left_out = table.excluded_frame([row | {"reason": "empty"}])
    for frame in (made, left_out):
        assert frame[["corpus", "path"]].to_numpy().tolist() == [[r"c\xf6", r"/c\xf6/a.wav"]]
        frame.to_parquet(tmp_path / "t.parquet")
