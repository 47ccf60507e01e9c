"""What a user may get wrong: one sentence on stderr, exit status 2, and nothing is started.

The table `MISTAKES` lists them: a name, the arguments that make the mistake, and what the sentence
must mention. A mistake that is found before a sweep begins leaves no folder behind.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from bad_input import (
    GOOD,
    Place,
    data,
    fine,
    lacking_a_column,
    manifest_of,
    one_folder_twice,
    one_speaker,
    out_below_a_file,
    out_is_a_file,
    out_with,
    plugin,
    preset,
    resume,
    resume_another_preset,
    resume_damaged,
    resume_with_a_value,
    under_another_name,
    unfinished,
    unreadable_audio,
    without_manifest,
)

from ermgap.errors import command_line
from sweeps import pareto, train
from sweeps.scheduler.machines import machine
from sweeps.setup import command_line as cli
from sweeps.setup import folders

MISTAKES: dict[str, tuple[Callable[[Place], list[str]], tuple[str, ...]]] = {
    # The manifest
    "a manifest without rows": (manifest_of(), ("manifest.csv", "no rows")),
    "no manifest": (without_manifest, ("manifest.csv",)),
    "a manifest without a column": (lacking_a_column, ("manifest.csv", "gender")),
    "a column under another name": (under_another_name, ("manifest.csv", "'Sex'", "gender")),
    "a gender of another name": (
        lambda place: place.rows_but(3, "0_anger.wav,en,anger,lady,s0"),
        ("manifest.csv", "row 3", "lady"),
    ),
    "a language of another form": (
        lambda place: place.rows_but(5, "1_anger.wav,english,anger,female,s1"),
        ("manifest.csv", "row 5", "english"),
    ),
    "a path that leads out": (
        lambda place: place.rows_but(2, "../secret.wav,en,joy,male,s0"),
        ("manifest.csv", "row 2", "../secret.wav"),
    ),
    "a row with a field too few": (
        lambda place: place.rows_but(4, "1_joy.wav,en,joy"),
        ("manifest.csv", "row 4"),
    ),
    "an utterance twice": (manifest_of(GOOD, GOOD), ("manifest.csv", "row 3", "row 2")),
    "no emotion that is a label": (manifest_of(GOOD.replace("joy,m", "boredom,m")), ("boredom",)),
    "a single speaker": (one_speaker, ("split", "groups")),
    # The audio
    "no readable audio": (unreadable_audio, ("nothing remains", "manifest")),
    "no audio at all": (manifest_of(GOOD.replace("0_joy", "gone")), ("nothing remains",)),
    "a damaged clip under --strict": (
        lambda place: [place.file("voices/0_joy.wav", b"x") and "--strict", *place.fine()],
        ("0_joy.wav",),
    ),
    # The name of the data
    "an unknown corpus": (data("emodbb"), ("emodbb", "emodb")),
    "a corpus without its path": (data("manifest"), ("manifest",)),
    "a corpus whose path is gone": (data("emodb=/nowhere/at/all"), ("/nowhere/at/all",)),
    "a corpus with an empty path": (data("emodb="), ("emodb=",)),
    "a corpus named twice": (data("demo", "demo"), ("demo", "twice")),
    "a folder of two names": (one_folder_twice, ("a=", "b=", "voices", "once")),
    "a name for a folder without a corpus": (data("mine=/proc"), ("'mine'", "/proc", "manifest")),
    # The preset
    "an unknown preset": (fine("--preset", "domo"), ("domo", "demo")),
    "a preset file that is gone": (fine("--preset", "gone.yaml"), ("gone.yaml",)),
    "a preset that is no YAML": (preset("train: ["), ("mine.yaml",)),
    "a preset of bytes": (preset(b"\xff\xfe\x00"), ("mine.yaml",)),
    "a preset that is a list": (preset("- train\n"), ("mine.yaml",)),
    "a preset with an unknown key": (preset("train: {epoch: 3}"), ("train.epoch", "train.epochs")),
    "a preset with an unknown section": (preset("trains: {}"), ("trains", "mine.yaml")),
    "a preset with a value of another type": (preset("train: {lr: fast}"), ("train.lr", "fast")),
    # The configuration
    "--set without a value": (fine("--set", "train.lr"), ("--set train.lr",)),
    "--set of a value ruled out": (fine("--set", "train.epochs=0"), ("train.epochs",)),
    "--set below a value": (fine("--set", "train.lr.x=1"), ("train.lr.x",)),
    "an unknown window": (fine("--set", "backbone.window_s=5"), ("backbone.window_s",)),
    "labels named twice": (fine("--set", "data.labels=[joy, joy, anger]"), ("data.labels",)),
    "an unknown objective": (fine("--objectives", "acc,speed"), ("sweep.objectives", "speed")),
    "one objective": (fine("--objectives", "acc"), ("sweep.objectives",)),
    "four objectives": (
        fine("--objectives", "acc,w_f1,max_gap,max_loss_gap"),
        ("sweep.objectives",),
    ),
    "no trials": (fine("--trials", "0"), ("sweep.trials",)),
    "an impossible range": (fine("--set", "sweep.space.lr=[2, 1]"), ("sweep.space.lr",)),
    "an unknown hyperparameter": (fine("--set", "sweep.space.lrr=[1, 2]"), ("lrr", "'lr'")),
    "a range that the configuration refuses": (
        fine("--set", "sweep.space.ramp=[0, 1]"),
        ("ramp = 0.0", "objective.ramp"),
    ),
    "an unknown weight among the choices": (
        fine("--set", "sweep.space.weight=[linear, lineer]"),
        ("lineer",),
    ),
    "a loss that is not searched": (fine("--set", "objective.loss=erms"), ("objective.loss",)),
    "an unknown sampler": (fine("--set", "sweep.sampler=grid"), ("sampler", "grid")),
    # Plugins
    "a plugin that does not exist": (fine("--set", "plugins=[gone.py]"), ("gone.py",)),
    "a plugin module that does not exist": (fine("--set", "plugins=[no.such]"), ("no.such",)),
    "a plugin that is no module name": (fine("--set", "plugins=['']"), ("plugin",)),
    "a plugin that is no Python": (plugin("def"), ("plug_in.py",)),
    # The output folder
    "an output folder that is a file": (out_is_a_file, ("out", "--out")),
    "an output folder below a file": (out_below_a_file, ("deeper", "--out")),
    "an output folder that cannot be made": (
        lambda place: [*place.fine()[:2], "--out", "/proc/nowhere"],
        ("/proc/nowhere", "--out"),
    ),
    "an output folder with a name too long": (
        lambda place: [*place.fine()[:2], "--out", str(place.root / ("x" * 300))],
        ("x" * 300, "--out"),
    ),
    "an output folder with other files": (out_with("thesis.tex"), ("out", "--out")),
    "an output folder with an unfinished sweep": (unfinished, ("out", "--resume")),
    "a storage folder that cannot be made": (fine("--storage", "/proc/nowhere"), ("--storage",)),
    "more slots than there are cores": (
        lambda place: place.fine("--set", "sweep.slots=10000"),
        ("sweep.slots", "10000"),
    ),
    # The folder to resume
    "resuming what is no sweep": (
        lambda place: ["--resume", str(place.corpus)],
        ("voices", "sweep.yaml"),
    ),
    "resuming what is not there": (lambda place: ["--resume", str(place.out)], ("out",)),
    "resuming a damaged sweep.yaml": (resume_damaged("sweep.yaml", "config: ["), ("sweep.yaml",)),
    "resuming an emptied sweep.yaml": (resume_damaged("sweep.yaml", ""), ("sweep.yaml",)),
    "resuming a sweep.yaml of bytes": (resume_damaged("sweep.yaml", b"\xff\xfe"), ("sweep.yaml",)),
    "resuming a sweep.yaml with a list": (
        resume_damaged("sweep.yaml", "config: [1]"),
        ("sweep.yaml",),
    ),
    "resuming a sweep.yaml with an unknown key": (
        resume_with_a_value("train", "speed", 1),
        ("sweep.yaml", "train.speed"),
    ),
    "resuming a sweep.yaml with a wrong value": (
        resume_with_a_value("train", "epochs", 0),
        ("train.epochs",),
    ),
    "resuming a damaged table": (resume_damaged("table.parquet", b"x"), ("table.parquet",)),
    "resuming with other values": (resume("--set", "train.epochs=99"), ("train.epochs",)),
    "resuming with another preset": (resume_another_preset, ("train.epochs", "train.batch")),
    "resuming with other objectives": (resume("--objectives", "acc,w_f1"), ("sweep.objectives",)),
    "resuming with fewer trials": (resume("--trials", "3"), ("--trials 3", "5")),
    "resuming into another folder": (resume("--out", "elsewhere"), ("--out",)),
    # Flags
    "--confirm without seeds": (fine("--confirm", "none"), ("--confirm",)),
    "--folds without --confirm": (fine("--folds", "2"), ("--folds 2", "--confirm SEEDS")),
    "--folds 1": (fine("--confirm", "2", "--folds", "1"), ("--folds 1", "two folds")),
    "--folds above a gender's speakers": (
        fine("--confirm", "2", "--folds", "5"),
        ("--folds 5", "en has 4", "at most --folds 4"),
    ),
    "--folds of a corpus with splits": (
        lambda place: ["--out", str(place.out), "--confirm", "2", "--folds", "2"],
        ("--folds", "their own splits"),
    ),
    "--storage that is no bucket": (fine("--storage", "ftp://host/x"), ("ftp://host/x", "s3://")),
    "--resume of no bucket": (
        lambda place: ["--resume", "ftp://host/x"],
        ("ftp://host/x", "gs://"),
    ),
    "an unknown flag": (fine("--trails", "3"), ("--trails",)),
    "a flag with a value of another type": (fine("--trials", "many"), ("--trials", "many")),
}
OF_TRAIN: dict[str, tuple[Callable[[Place], list[str]], tuple[str, ...]]] = {
    "resuming what sweeps/pareto.py made": (resume(), ("sweeps/pareto.py",)),
    "an unknown loss": (fine("--set", "objective.loss=minmaxgop"), ("minmaxgop", "minmaxgap")),
    "an unknown weight": (fine("--set", "objective.schedule=ramp"), ("ramp",)),
    "a flag of sweeps": (fine("--trials", "3"), ("--trials",)),
    "an unknown corpus": (data("ravdes"), ("ravdes", "ravdess")),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray comes up in the background, where it fails; a command that needed it would raise that."""

    def refuse(**_) -> None:
        raise AssertionError("Ray would have been used")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(machine, "_starting", [])
    yield
    for start in machine._starting:  # or its thread would find the real `ray.init` again
        assert start.ended.wait(60)


def sentence(main: Callable, arguments: list[str], capsys) -> str:
    """Run a command in this process as from the shell; its one line on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command_line(lambda: main(arguments))
    errors = capsys.readouterr().err
    assert ended.value.code == 2, errors
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n")
    return errors


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_status_2(name, place, capsys):
    make, words = MISTAKES[name]
    arguments = make(place)
    before = sorted(place.out.rglob("*")) if place.out.is_dir() else place.out.exists()
    said = sentence(pareto.main, arguments, capsys)
    assert all(word in said for word in words), said
    after = sorted(place.out.rglob("*")) if place.out.is_dir() else place.out.exists()
    assert after == before


@pytest.mark.parametrize("name", OF_TRAIN)
def test_a_mistake_of_one_run_is_one_sentence_and_status_2(name, place, capsys):
    make, words = OF_TRAIN[name]
    said = sentence(train.main, make(place), capsys)
    assert all(word in said for word in words), said
    assert name.startswith("resuming") or not place.out.exists()


def test_without_a_mistake_the_same_arguments_are_fine(place, capsys):
    assert pareto.main(place.fine("--dry-run", "--trials", "4")) == 0
    assert train.main(place.fine("--dry-run")) == 0
    said = capsys.readouterr()
    assert "up to 4 trials" in said.out and "up to 1 trials" in said.out and said.err == ""
    assert not place.out.exists()
    assert pareto.main(["--resume", str(place.sweep()), "--dry-run", "--trials", "6"]) == 0


def test_resuming_with_the_options_it_was_started_with_is_fine(place):
    more = ["--set", "train.epochs=3", "data.cell_support=1", "--objectives", "acc,w_f1,max_gap"]
    more.insert(2, "--set")
    given = cli.parse(cli.options("", many=True), place.fine(*more))
    folders.prepare(given, kind="sweep", check=lambda *_: None)
    assert pareto.main(["--resume", str(place.out), *more, "--dry-run"]) == 0
    assert pareto.main(["--resume", str(place.out), *more, *place.fine()[:2], "--dry-run"]) == 0


def test_the_list_of_mistakes_is_long_enough():
    assert len(MISTAKES) >= 18


@pytest.mark.parametrize(
    ("command", "name"),
    [("pareto", "a gender of another name"), ("train", "an unknown corpus")],
)
def test_a_mistake_in_a_real_process_is_one_line_and_no_traceback(place, root, command, name):
    make, words = {**MISTAKES, **OF_TRAIN}[name]
    run = subprocess.run(
        [sys.executable, f"sweeps/{command}.py", *make(place), "--dry-run"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert all(word in run.stderr for word in words)
