"""Readers of other people's files on arbitrary input: a result, or one sentence, and soon.

No other exception, no hang, no memory without bound. `make test` tries a few hundred inputs a
reader, always the same ones; `make test-slow` 100,000 and more, new ones every time (a failure
prints how to repeat it). What is read and how inputs are made stands in fuzz.py.
"""

from __future__ import annotations

import re
import resource
import sys
import time
from pathlib import Path

import pytest
from fuzz import CARD, MELD, READERS, Reader, csv_of, inputs
from hypothesis import HealthCheck, Phase, given, settings

from ermgap.errors import UserError

QUICK, SLOW = 150, 10_000  # inputs a reader
BATCH = 2_000  # hypothesis remembers all inputs of a run: 10,000 took 200 MB
LONGEST_S = 5.0  # of the processor's time; the slowest input was at 0.2 s
PLACE = (
    r"{}|the utterance |^\d+ (speaker|group)s? |"
    r"^(no language|[a-z]+\.\w+|plugins)\b.* is not possible: "
)
MOST_MB = 500  # that a reader's inputs may add to the process


def read(name: str, folder: Path, content: bytes) -> object:
    """Have it read; what is wrong with the way in which it ends is an AssertionError."""
    reader = READERS[name]
    began = time.thread_time()
    try:
        found = reader.read(folder, content)
    except UserError as mistake:
        found = str(mistake)
        assert found.isprintable() and found[-1] in ".?" and len(found) < 2000, found
        assert not reader.never_refuses, found
        # A table's checks name the utterance, and a configuration's the key.
        assert name == "--set" or re.search(PLACE.format(folder.name), found), found
    assert time.thread_time() - began < LONGEST_S
    return found


def try_out(name: str, folder: Path, n: int, **how) -> int:
    """Try n inputs; returns how many there were, which differs if hypothesis finds no more."""
    tried = 0

    @settings(
        max_examples=n,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        **how,
    )
    @given(content=inputs(READERS[name]))
    def one(content: bytes) -> None:
        nonlocal tried
        tried += 1
        read(name, folder, content)

    before = _peak_mb()
    one()
    assert _peak_mb() - before < MOST_MB
    return tried


def _peak_mb() -> float:
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@pytest.mark.parametrize("name", READERS)
def test_a_valid_file_is_read(tmp_path, name):
    for content in READERS[name].valid:
        assert not isinstance(read(name, tmp_path, content), str) or name == "--set"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_a_result_or_one_sentence(tmp_path, name):
    assert try_out(name, tmp_path, QUICK, derandomize=True) >= 0.9 * QUICK


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", READERS)
def test_ten_thousand_inputs_of_each_reader_give_a_result_or_one_sentence(tmp_path, name):
    batches = range(SLOW // BATCH)
    assert sum(try_out(name, tmp_path, BATCH, print_blob=True) for _ in batches) >= SLOW


def test_the_slow_test_tries_a_hundred_thousand_inputs():
    assert SLOW * len(READERS) >= 100_000
    assert all(isinstance(reader, Reader) for reader in READERS.values())


# Inputs that need memory or time out of proportion ------------------------------------------------

ALIASES = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
BOMB = f"a0: &a0 [x, x, x]\n{ALIASES}\n".encode()  # nine to the eleventh, if it were written out
WIDE = ",".join(f"c{i % 50_000}" for i in range(200_000)).encode()
CSVS = ("manifest", "demo's manifest", "MELD-ST", "genders")
OUT_OF_PROPORTION = {
    "aliases": (("preset", "sweep.yaml"), BOMB + b"train: {lr: *a11}\nconfig: *a11\n"),
    "an alias to itself": (("preset", "sweep.yaml"), b"config: &a [*a]\nsweep: &b {space: *b}\n"),
    "deep flow": (("preset", "--set", "sweep.yaml"), b"sweep.space=" + b"[" * 100_000),
    "deep blocks": (("preset", "sweep.yaml"), b"- " * 50_000),
    "deep names": (("--set",), b"sweep.space." + b"a." * 100_000 + b"a=1"),
    "deep JSON": (
        ("trials.jsonl", "adapter's card", "kept answers"),
        b'{"trial_id":' + b'{"a":' * 100_000,
    ),
    "a long number": (("preset", "--set", "sweep.yaml"), b"train.lr=" + b"1:" * 400_000 + b"1"),
    "many columns": (CSVS, WIDE),
    "a long field": (CSVS, b"path," + b"x" * 10_000_000),
    "a long line": (("JVNV's transcripts",), b"anger_free_" * 1_000_000),
    "one id in every row": (("MELD-ST",), csv_of([MELD[0], *[MELD[1]] * 20_000])),
    "a long file": (("preset",), b"# " * 5_000_000),
}


@pytest.mark.parametrize("what", OUT_OF_PROPORTION)
def test_time_and_memory_stay_in_proportion_to_the_file(tmp_path, what):
    names, content = OUT_OF_PROPORTION[what]
    before = _peak_mb()
    for name in names:
        read(name, tmp_path, content)
    assert _peak_mb() - before < MOST_MB


def test_what_an_adapters_card_lacks_is_told(tmp_path):
    for absent in ("backbone", "prompt", "data", "adapter"):
        values = {key: value for key, value in CARD.items() if key != absent}
        content = READERS["adapter's card"].render(values).encode()
        assert absent in read("adapter's card", tmp_path, content)
