"""What `make` does: the set-up's order, its repair of half-made environments, the demo's resume.

The Makefile runs for real in a copy, with a stand-in for Python that writes down how it was called;
so all of this is tested in milliseconds and nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INPUTS = ("Makefile", "pyproject.toml", "constraints.txt", "weights-requirements.txt")
# A Python that logs its arguments, makes itself an environment, and fails where FAIL_ON says.
STAND_IN = """#!/bin/sh
[ "$1" = -c ] && case "$2" in *print*) echo yes;; esac
[ "$1" = -c ] && exit 0
echo "$@" >> "$LOG"
if [ "$1 $2" = "-m venv" ]; then rm -rf .venv; mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
[ -n "$FAIL_ON" ] && case "$*" in *"$FAIL_ON"*) exit 1;; esac
exit 0
"""


class Copy:
    """A copy of what the Makefile reads, with the stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "calls.log"
        for name in INPUTS:
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "stand-in"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def make(self, *targets: str, fail_on: str = "") -> subprocess.CompletedProcess:
        self.log.unlink(missing_ok=True)
        environment = {**os.environ, "LOG": str(self.log), "FAIL_ON": fail_on}
        for name in (
            "MAKEFLAGS",
            "MAKELEVEL",
            "MFLAGS",
            "ARGS",
            "PIP_ARGS",
        ):  # this test may itself run under make
            environment.pop(name, None)
        return subprocess.run(
            ["make", *targets, f"PYTHON={self.python}"],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def installs(self) -> list[str]:
        return [call.split(" install ", 1)[1] for call in self.calls() if " install " in call]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    return Copy(tmp_path)


def test_set_up_installs_torch_alone_then_the_project_then_the_hashed_weights(copy):
    assert copy.make("setup").returncode == 0
    torch, editable, voxtral, weights = copy.installs()
    assert torch.split()[-1].startswith("torch==") and "-r" not in torch
    assert "-c constraints.txt" in editable and ".[dev]" in editable
    assert "--no-deps -c constraints.txt mistral-common" in voxtral
    for flag in ("--no-deps", "--require-hashes", "--only-binary=:all:"):
        assert flag in weights


def test_a_second_set_up_installs_nothing_and_says_nothing(copy):
    copy.make("setup")
    done = copy.make("setup")
    assert (done.returncode, copy.calls(), done.stdout) == (0, [], "")


def test_set_up_runs_again_when_a_version_changes(copy):
    copy.make("setup")
    with (copy.folder / "constraints.txt").open("a") as file:
        file.write("tqdm==4.0.0\n")
    copy.make("setup")
    assert len(copy.installs()) == 4


@pytest.mark.parametrize("step", ["torch==", "constraints.txt", "--require-hashes"])
def test_an_environment_left_half_made_is_remade_by_the_next_call(copy, step):
    assert copy.make("setup", fail_on=step).returncode != 0
    assert copy.make("setup").returncode == 0
    assert any(call.startswith("-m venv --clear") for call in copy.calls())
    assert copy.make("setup").returncode == 0 and copy.calls() == []


def test_an_environment_that_lost_its_interpreter_is_remade(copy):
    copy.make("setup")
    (copy.folder / ".venv" / "bin" / "python").unlink()
    assert copy.make("setup").returncode == 0
    assert any(call.startswith("-m venv") for call in copy.calls())


def test_an_environment_that_the_user_made_is_completed_and_not_cleared(copy):
    copy.make("setup")
    (copy.folder / ".venv" / "mine").touch()
    for stamp in (copy.folder / ".venv").glob(".stamp-*"):
        stamp.unlink()
    copy.make("setup")
    assert (copy.folder / ".venv" / "mine").exists() and len(copy.installs()) == 4


def test_torch_comes_from_the_index_that_is_named_and_nothing_else_does(copy):
    copy.make("setup", "TORCH_INDEX=https://example.org/cpu")
    torch, *others = copy.installs()
    assert "--index-url https://example.org/cpu" in torch
    assert not any("example.org" in other for other in others)


def sweep(copy: Copy, name: str, *files: str, age: int) -> None:
    folder = copy.folder / "results" / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    os.utime(folder, (time.time() - age, time.time() - age))


def test_demo_starts_a_sweep_where_there_is_none(copy):
    copy.make("demo")
    assert copy.calls()[-1] == "sweeps/pareto.py"


def test_demo_continues_the_newest_unfinished_sweep(copy):
    sweep(copy, "demo", "sweep.yaml", age=300)
    sweep(copy, "demo-2", "sweep.yaml", age=200)
    sweep(copy, "demo-3", "sweep.yaml", "DONE", age=100)
    copy.make("demo")
    assert copy.calls()[-1] == "sweeps/pareto.py --resume results/demo-2"


def test_demo_starts_anew_when_all_sweeps_are_finished(copy):
    sweep(copy, "demo", "sweep.yaml", "DONE", age=100)
    copy.make("demo")
    assert copy.calls()[-1] == "sweeps/pareto.py"
