"""A command that is printed can be pasted into a shell, whatever the folder is called."""

from __future__ import annotations

import shlex
import types
from pathlib import Path

import fake_sweep
import pytest

from ermgap.errors import UserError
from ermgap.records import Records
from sweeps.recording.timing import Session
from sweeps.running import run_sweep
from sweeps.scheduler import driver
from sweeps.scheduler.machines import machine
from sweeps.scoring import confirm, reruns
from sweeps.setup import folders

NAMES = ("two words", "it's", 'a "quoted" one', "a;b", "$HOME", "ümläut", "plain")


def word_after(said: str, option: str) -> str:
    """The word that a shell gives to an option of the command in `said`."""
    words = shlex.split(said[said.index(option) :].splitlines()[0])
    return words[1]


@pytest.fixture(params=NAMES)
def folder(request, tmp_path: Path) -> Path:
    return tmp_path / request.param / "out"


def test_an_unfinished_folder_is_named_as_the_shell_takes_it(folder):
    records = fake_sweep.write(folder, [{"acc": 0.5, "max_gap": 0.1}], done=False)
    with pytest.raises(UserError) as refused:
        folders.output_folder(folder)
    assert word_after(str(refused.value)[:-1], "--resume") == str(folder)
    with pytest.raises(UserError) as refused:
        Records.create(folder, sweep=records.sweep, table=records.table())
    assert word_after(str(refused.value), "--resume") == str(folder)


@pytest.fixture
def quiet(monkeypatch):
    """`run_sweep.finish` without its files: only what it prints."""
    from analysis import report
    from ermgap.records import bucket_mirror
    from sweeps.recording import timing
    from sweeps.search import journal, stopping

    for module, name in (
        (report, "write"),
        (bucket_mirror, "mark_done"),
        (journal, "write"),
        (stopping, "write_hindsight"),
        (timing, "tell"),
    ):
        monkeypatch.setattr(module, name, lambda *given: None)


@pytest.mark.parametrize("planned", [1, 2])
def test_what_a_sweep_says_at_its_end_can_be_pasted(folder, quiet, planned, capsys):
    records = fake_sweep.write(folder, [{"acc": 0.5, "max_gap": 0.1}], planned=planned, done=False)
    sweep = types.SimpleNamespace(trials=planned, points={})
    run_sweep.finish(types.SimpleNamespace(sweep=sweep), records, Session(), command="pareto")
    said = capsys.readouterr().out
    if planned == 1:
        assert word_after(said, "tensorboard --logdir".split()[1]) == str(folder / "tb")
        assert word_after(said, "optuna-dashboard") == str(folder / "optuna.journal")
    else:
        assert word_after(said, "--resume") == str(folder)


def test_a_sweep_that_never_began_says_how_to_go_on_and_makes_no_report(folder, capsys):
    records = fake_sweep.write(folder, [], planned=2, done=False)
    session = Session(interrupted=True)
    assert run_sweep.finish(types.SimpleNamespace(), records, session, command="pareto") == 130
    assert word_after(capsys.readouterr().out, "--resume") == str(folder)


def test_what_a_confirmation_says_when_it_stops_can_be_pasted(folder, monkeypatch, capsys):
    records = fake_sweep.write(folder, [{"acc": 0.5, "max_gap": 0.1}])
    child = types.SimpleNamespace(
        lock=lambda: None, consolidate=lambda: None, trials=lambda: [], directory=folder
    )
    planned = types.SimpleNamespace(
        sweep=types.SimpleNamespace(trials=2), train=types.SimpleNamespace(epochs=1)
    )
    monkeypatch.setattr(confirm, "to_confirm", lambda records: ({"t0000": {}}, ()))
    monkeypatch.setattr(reruns, "sweep_folders", lambda *given, **more: [child])
    monkeypatch.setattr(reruns, "config_of", lambda child: planned)
    monkeypatch.setattr(driver, "run", lambda *given, **more: Session(interrupted=True))
    assert confirm.run(records, planned, seeds=2, folds=None, address=None) == 130
    assert word_after(capsys.readouterr().out, "--resume") == str(folder)


def test_a_lost_head_names_the_folder_as_the_shell_takes_it(folder):
    said = machine.head_lost("auto", folder)
    assert word_after(said[:-1], "--resume") == str(folder)
