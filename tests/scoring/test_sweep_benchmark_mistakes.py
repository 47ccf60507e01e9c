"""What a user may get wrong about a benchmark: one sentence, exit status 2, and nothing is started.

`MISTAKES` are of one that begins; `AGAIN` of one that is resumed, given a folder that is finished.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fake_benchmark import SPEAKERS, Fakes

from ermgap.errors import command_line
from ermgap.records import Records
from sweeps import benchmark, pareto, train

MODELS = ("--models", "erm", "echo")


def fine(*more: str) -> Callable[[Fakes], list[str]]:
    return lambda made: made.arguments(*more)


def other_data(*names: str) -> Callable[[Fakes], list[str]]:
    def make(made: Fakes) -> list[str]:
        given = made.arguments(*MODELS)
        at = given.index("--data")
        return [*given[:at], "--data", *names, *given[at + 2 :]]

    return make


def without_rows(made: Fakes) -> list[str]:
    path = made.corpus / "manifest.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    return made.arguments(*MODELS)


def without_clips(made: Fakes) -> list[str]:
    for clip in made.corpus.glob("*.wav"):
        clip.unlink()
    return made.arguments(*MODELS)


def unfinished(made: Fakes) -> list[str]:
    made.run(*MODELS)
    (made.out / "DONE").unlink()
    return made.arguments(*MODELS)


MISTAKES: dict[str, tuple[Callable[[Fakes], list[str]], tuple[str, ...]]] = {
    # Systems
    "an unknown system": (fine("--models", "ermm"), ("--models ermm", "did you mean 'erm'")),
    "nothing like a system": (fine("--models", "qqq"), ("--models qqq", "erm", "zero-shot")),
    "a system named twice": (fine("--models", "erm", "all"), ("'erm'", "twice")),
    "no system": (fine("--models"), ("--models",)),
    "an argument for what is trained": (fine("--models", "erm=3"), ("erm=3", "no argument")),
    "an empty argument": (fine("--models", "voxtral="), ("voxtral", "empty")),
    "an adapter that is gone": (fine("--models", "adapter=/nowhere/t0"), ("/nowhere/t0",)),
    "an unknown backbone": (fine("--models", "zero-shot=smal"), ("smal", "small")),
    "a baseline that is no row": (
        fine(*MODELS, "--baseline", "vrex"),
        ("--baseline vrex", "--models"),
    ),
    # Data
    "an unknown corpus": (other_data("emodbb"), ("emodbb", "emodb")),
    "a corpus whose path is gone": (other_data("emodb=/nowhere/at/all"), ("/nowhere/at/all",)),
    "a corpus without rows": (without_rows, ("manifest.csv", "no rows")),
    "a corpus without clips": (without_clips, ("nothing remains",)),
    "no test split": (fine(*MODELS, "--split", "test"), ("no test utterances", "--split")),
    "an unknown split": (fine(*MODELS, "--split", "train"), ("--split", "train")),
    # Folds
    "one fold": (fine(*MODELS, "--folds", "1"), ("--folds 1", "two folds")),
    "folds of test": (fine(*MODELS, "--folds", "3", "--split", "test"), ("--folds", "--split")),
    "more folds than speakers": (
        fine(*MODELS, "--folds", str(1 + max(SPEAKERS.values()))),
        ("fold 5", "fewer --folds"),
    ),
    "folds of a corpus with its own splits": (
        lambda made: [*other_data("demo")(made), "--folds", "3"],
        ("fold 1", "fewer --folds"),
    ),
    # The run
    "a value ruled out": (fine(*MODELS, "--set", "train.epochs=0"), ("train.epochs",)),
    "a flag of sweeps": (fine(*MODELS, "--trials", "3"), ("--trials",)),
    "an unfinished benchmark": (unfinished, ("out", "--resume")),
}


def resume(*more: str) -> Callable[[Fakes], list[str]]:
    return lambda made: ["--resume", str(made.out), *more]


def changed(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Fakes], list[str]]:
    """Resume over a corpus whose manifest is another one by now."""

    def make(made: Fakes) -> list[str]:
        path = made.corpus / "manifest.csv"
        change(pd.read_csv(path)).to_csv(path, index=False)
        return ["--resume", str(made.out)]

    return make


def of_kind(kind: str) -> Callable[[Fakes], list[str]]:
    def make(made: Fakes) -> list[str]:
        path = made.out / "sweep.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"kind": kind}))
        return ["--resume", str(made.out)]

    return make


def damaged(name: str) -> Callable[[Fakes], list[str]]:
    def make(made: Fakes) -> list[str]:
        (made.out / name).write_bytes(b"x")
        return ["--resume", str(made.out)]

    return make


AGAIN: dict[str, tuple[Callable[[Fakes], list[str]], tuple[str, ...]]] = {
    "a folder that is missing": (
        lambda made: ["--resume", str(made.out / "gone")],
        ("out/gone", "is not a folder"),
    ),
    "a folder of something else": (
        lambda made: ["--resume", str(made.corpus)],
        ("voices", "no sweep.yaml"),
    ),
    "a sweep": (of_kind("sweep"), ("was made by sweeps/pareto.py", "that command")),
    "one run": (of_kind("train"), ("was made by sweeps/train.py", "that command")),
    "reruns": (of_kind("confirm"), ("the reruns of a sweep", "the folder above it")),
    "a fold": (
        lambda made: ["--resume", str(made.out / "fold-0")],
        ("a fold of a benchmark", "out."),
    ),
    "other settings": (resume("--set", "train.lr=0.1"), ("omit --set,", "--out")),
    "other systems": (resume("--models", "vrex"), ("omit --models,", "--out")),
    "other folds": (resume("--folds", "4", "--split", "dev"), ("--split, --folds,", "--out")),
    "other data": (resume("--data", "demo"), ("omit --data,",)),
    "another folder": (resume("--out", "elsewhere"), ("omit --out,",)),
    "a clip less": (changed(lambda rows: rows[:-1]), ("84 utterances then, 83 now", "--out")),
    "a label of another kind": (
        changed(lambda rows: rows.replace({"emotion": {"joy": "sadness"}})),
        ("not what they were", "--out"),
    ),
    "other people": (  # who would be dealt to other folds
        changed(lambda rows: rows.assign(speaker=rows["speaker"].str.replace("0", "1"))),
        ("not what they were", "--out"),
    ),
    "damaged answers": (damaged("systems/01.parquet"), ("01.parquet", "remove it")),
    "damaged predictions": (damaged("fold-0/predictions/t0000.parquet"), ("t0000.parquet",)),
    "a damaged description": (damaged("sweep.yaml"), ("sweep.yaml",)),
    "a damaged table": (damaged("table.parquet"), ("table.parquet",)),
}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    return Fakes(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fakes]:
    with pytest.MonkeyPatch.context() as patch:
        made = Fakes(tmp_path_factory.mktemp("finished"), patch)
        assert made.run("--folds", "3", *MODELS) == 0
    return made


@pytest.fixture
def again(finished: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fakes]:
    """A copy to resume; the corpus, which a mistake may change, is mended afterwards."""
    made = finished.copied(tmp_path, monkeypatch)
    manifest = made.corpus / "manifest.csv"
    text = manifest.read_text()
    yield made
    manifest.write_text(text)


def sentence(arguments: list[str], capsys: pytest.CaptureFixture, command=benchmark) -> str:
    """Run a command in this process as from the shell; its one line on stderr."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command_line(lambda: command.main(arguments))
    errors = capsys.readouterr().err
    assert ended.value.code == 2, errors
    assert errors.startswith("error: ") and errors.count("\n") == 1 and errors.endswith("\n")
    return errors


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_nothing_is_trained_or_written(name, made, capsys) -> None:
    make, words = MISTAKES[name]
    arguments = make(made)
    made.forget()
    before = sorted(made.out.rglob("*"))
    said = sentence(arguments, capsys)
    assert all(word in said for word in words), said
    assert (made.trained, made.asked) == ([], []) and sorted(made.out.rglob("*")) == before


@pytest.mark.parametrize("name", AGAIN)
def test_a_mistake_on_resume_is_one_sentence_and_nothing_is_asked(name, again, capsys) -> None:
    make, words = AGAIN[name]
    before = again.written()
    said = sentence(make(again), capsys)
    assert all(word in said for word in words), said
    assert (again.trained, again.asked) == ([], []) and again.written() == before


def test_without_a_mistake_the_same_arguments_are_fine(made, capsys) -> None:
    assert benchmark.main(made.arguments(*MODELS, "--dry-run")) == 0
    said = capsys.readouterr()
    assert "2 systems, 1 of them trained" in said.out and said.err == ""
    assert not made.out.exists()


def test_without_a_mistake_it_goes_on(again) -> None:
    assert benchmark.main(["--resume", str(again.out), "--dry-run"]) == 0
    assert again.resume() == 0


def test_two_processes_do_not_share_a_folder(again, capsys) -> None:
    holder = Records.open(again.out)
    holder.lock()
    assert "another process" in sentence(["--resume", str(again.out)], capsys)


@pytest.mark.parametrize("command", [pareto, train])
@pytest.mark.parametrize("part", ["", "fold-0"])
def test_the_other_commands_send_a_benchmark_to_its_own(again, command, part, capsys) -> None:
    said = sentence(["--resume", str(again.out / part)], capsys, command)
    assert "sweeps/benchmark.py" in said


@pytest.mark.parametrize("arguments", [["--models", "ermm"], ["--resume", "results/none"]])
def test_a_mistake_in_a_real_process_is_one_line_and_no_traceback(arguments, root, tmp_path):
    command = [sys.executable, str(root / "sweeps" / "benchmark.py"), "--smoke-test", *arguments]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2 and "Traceback" not in run.stdout
    assert run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    assert arguments[1] in run.stderr and not list(tmp_path.iterdir())
