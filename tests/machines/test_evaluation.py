"""Systems that are not trained are asked on the workers: who loads what, and what comes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import tiny_run
import torch
from real_sweep import ROOT, RealSweep
from saved_adapters import saved

from ermgap.baselines import Context, on_driver
from ermgap.baselines.arguments import absolute
from ermgap.records import Records
from sweeps import benchmark
from sweeps.scheduler import evaluation, evaluator
from sweeps.scheduler.extractor import Pool
from sweeps.scoring.systems import rows_of
from sweeps.setup import command_line

PLUGIN = ROOT / "tests" / "plugins" / "loads.py"
OPTIONS = ["--smoke-test", "--set", f"plugins=[{PLUGIN}]", "--set", "sweep.slots=1"]


def config_of():
    """Of the benchmark that `OPTIONS` begin, without the plugin."""
    return command_line.make_config(command_line.parse(benchmark.options(), ["--smoke-test"]))


def loads(folder: Path) -> tuple[dict[int, list[str]], int]:
    """Bases loaded by each process, and the clips whose features any of them computed."""
    lines = [line.split() for line in (folder / "loads").read_text().splitlines()]
    bases: dict[int, list[str]] = {}
    for pid, what, value in lines:
        if what == "base":
            bases.setdefault(int(pid), []).append(value)
    return bases, sum(int(value) for _, what, value in lines if what == "clips")


def test_models_are_asked_on_a_worker_with_one_base_and_the_features_of_the_storage(tmp_path):
    config = config_of()
    names = ["generated", "zero-shot"]
    saved(tmp_path / "a" / "first", config, seed=1)
    saved(tmp_path / "a" / "second", config, seed=2)
    names += ["adapter=a/first", "adapter=a/second"]  # relative: a worker has another directory
    given = [*OPTIONS, "--out", "out", "--storage", "store", "--models", *names]
    with RealSweep(tmp_path, "benchmark.py", *given) as run:
        assert run.ends() == 0 and "Traceback" not in run.said, run.said
        assert run.left_over() == []
    bases, clips = loads(tmp_path)
    judged = Records.open(run.out).table().query("split == 'dev'")
    assert list(bases.values()) == [["random-tiny"]] and run.process.pid not in bases
    assert clips == len(judged) and list((tmp_path / "store" / "features").iterdir())
    made = [pd.read_parquet(run.out / "systems" / f"{number:02d}.parquet") for number in range(4)]
    assert [table["system"].iloc[0] for table in made] == [
        "generated", "random-tiny, zero-shot", "first", "second",
    ]  # fmt: skip
    assert not made[2]["prediction"].equals(made[3]["prediction"])
    # As they are without Ray, each system with a base of its own and features made anew.
    torch.set_num_threads(2)
    context = Context(config.data.labels, config, "cpu", tmp_path / "here")
    for name, table in zip(names, made, strict=True):
        spec = name.replace("a/", f"{tmp_path}/a/")
        alone = evaluator.ask(spec, judged, context=context, note=print)
        pd.testing.assert_frame_equal(table, alone, check_exact=True)


# Each of it is checked without a process in test_evaluator_pool.py and test_sweep_benchmark.py.
@pytest.mark.slow
def test_ctrl_c_ends_the_evaluators_and_resume_asks_what_is_missing(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    given = ["--smoke-test", "--set", f"plugins=[{slow}]", "--set", "sweep.slots=1"]
    given += ["--out", "out", "--models", "quick", "slow"]
    with RealSweep(tmp_path, "benchmark.py", *given) as run:
        run.until(lambda: (tmp_path / "asleep").exists())
        run.process.send_signal(signal.SIGINT)
        assert run.ends() == 130, run.said
        assert run.left_over() == []
    assert "stopped; continue with: python sweeps/benchmark.py --resume out" in run.said
    assert "Traceback" not in run.said
    assert [path.name for path in (run.out / "systems").iterdir()] == ["00.parquet"]
    os.utime(run.out / "systems" / "00.parquet", (0, 0))
    (tmp_path / "awake").touch()
    with RealSweep(tmp_path, "benchmark.py", "--resume", "out") as again:
        assert again.ends() == 0, again.said
    assert "error:" not in again.said and (tmp_path / "died").exists()  # once, and asked again
    assert (run.out / "systems" / "00.parquet").stat().st_mtime == 0
    assert "slow: heard" in again.said


SLOW = """
import os, signal, time
from pathlib import Path
from ermgap.baselines import SYSTEMS, System, predictions_table

FOLDER = Path(os.environ["ERMGAP_TEST"])

class Mine(System):
    def __init__(self, name):
        self.name = name

    def predict(self, utterances, *, modality, note=print):
        if self.name == "slow" and not (FOLDER / "awake").exists():
            (FOLDER / "asleep").touch()
            time.sleep(1000)
        if self.name == "slow" and not (FOLDER / "died").exists():
            (FOLDER / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        note(f"{self.name}: heard {len(utterances)}")
        labels = sorted(set(utterances["emotion"]))
        said = [labels[0]] * len(utterances)
        return predictions_table(utterances, modality=modality, prediction=said, labels=labels)

SYSTEMS["quick"] = lambda argument, context: Mine("quick")
SYSTEMS["slow"] = lambda argument, context: Mine("slow")
"""


# Without Ray --------------------------------------------------------------------------------------


def test_what_the_driver_imports_for_a_benchmark_that_trains_nothing_holds_no_model():
    program = (
        "import sys; from sweeps import benchmark; "
        "benchmark.main(['--smoke-test', '--models', 'zero-shot', 'generated', '--dry-run']); "
        "print({'torch', 'transformers', 'ermgap.model.qwen2_audio'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    ("spec", "here"),
    [("zero-shot", False), ("generated", False), ("voxtral=ORG/NAME", False),
     ("adapter=DIR", False), ("openai=MODEL@http://127.0.0.1:1/v1", True)],
)  # fmt: skip
def test_endpoints_alone_are_asked_by_the_driver(spec, here):
    assert on_driver(spec) is here


def test_a_path_in_a_spec_becomes_absolute_and_nothing_else_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "small", "MODEL"):
        (tmp_path / name).mkdir()
    assert absolute("adapter=a") == f"adapter={tmp_path}/a"
    assert absolute("dial=0.7:a:small") == f"dial=0.7:{tmp_path}/a:{tmp_path}/small"
    assert absolute("generated=a") == f"generated={tmp_path}/a"
    assert [row.spec for row in rows_of(["adapter=a"])] == [f"adapter={tmp_path}/a"]
    for spec in ("zero-shot=small", "openai=MODEL", "voxtral=ORG/NAME", "zero-shot"):
        assert absolute(spec) == spec


@pytest.mark.parametrize("system", ["adapter=", "dial=0.3:"])
def test_adapters_travel_to_another_machine_and_mistakes_name_the_user_s_folder(tmp_path, system):
    config = config_of()
    number = 1 if system == "adapter=" else 2
    folders = [
        str(saved(tmp_path / "here" / f"t000{seed}", config, seed=seed)) for seed in range(number)
    ]
    judged = tiny_run.tones(tmp_path / "tones", train=0, dev=1)
    judged["emotion"] = "joy"
    spec, files = evaluation._for_workers(system + ":".join(folders), ship=True)
    assert [set(files[folder]) for folder in folders] == [set(evaluation.PARTS)] * number
    assert evaluation._for_workers(spec, ship=False) == (spec, None)
    given = {"config": config.to_dict(), "folder": str(tmp_path), "pool": Pool(1, 2, gpu=False)}
    here = evaluator.Evaluator(**given, features=str(tmp_path / "store"))
    direct = here.evaluate(spec, judged, None, None)
    assert direct["mistake"] == "" and direct["table"]["system"].iloc[0].startswith("t0000")
    os.rename(tmp_path / "here", tmp_path / "gone")
    pd.testing.assert_frame_equal(
        here.evaluate(spec, judged, None, files)["table"], direct["table"], check_exact=True
    )
    del files[folders[-1]]["adapter_model.safetensors"]
    mistake = here.evaluate(spec, judged, None, files)["mistake"]
    assert f"{folders[-1]}/adapter_model.safetensors cannot be read" in mistake
    assert "cannot be evaluated on" in here.evaluate("zero-shot", None, None, None)["mistake"]
