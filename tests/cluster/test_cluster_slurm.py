"""cluster/slurm.sh with stand-ins for Slurm and Ray: what would be started, with which arguments.

Ray's own parsers read what the script gives to `ray symmetric-run`; Ray itself is not started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster_files as files
import pytest

SCRIPT = files.CLUSTER / "slurm.sh"
RECORD = '#!/bin/bash\nprintf "%s\\n" "$@" >"$RECORDS/{name}"\n'
STAND_INS = {
    # Runs what follows `--`, as the head would.
    "srun": RECORD + 'while [[ "$1" != "--" ]]; do shift; done\nshift\n"$@"\n',
    "scontrol": '#!/bin/bash\nprintf "node7\\nnode8\\n"\n',
    # A sweep: waits to be told where WAITS is set, and ends as asked.
    "python": RECORD + "trap 'echo told >\"$RECORDS/told\"; exit 0' TERM\n"
    'for _ in $(seq "${{WAITS:-0}}"); do sleep 0.1; done\nexit "${{ENDS:-0}}"\n',
    "ray": '#!/bin/bash\necho "ray, version $RAY_VERSION"\n',
}


@pytest.fixture
def job(tmp_path) -> dict[str, str]:
    """The environment of a job of two nodes, in a folder that looks like the repository."""
    stand_ins = tmp_path / ".venv" / "bin"
    stand_ins.mkdir(parents=True)
    for name, body in STAND_INS.items():
        (stand_ins / name).write_text(body.format(name=name) if "{name}" in body else body)
        (stand_ins / name).chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x")
    (tmp_path / "records").mkdir()
    return {
        "PATH": f"{stand_ins}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RECORDS": str(tmp_path / "records"),
        "RAY_VERSION": files.pinned()["ray"],
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_ID": "1234",
        "SLURM_CPUS_PER_TASK": "32",
        "SLURM_GPUS_ON_NODE": "4",
    }


def run(job: dict, *arguments: str) -> subprocess.CompletedProcess:
    command = ["bash", str(SCRIPT), *arguments]
    return subprocess.run(command, env=job, capture_output=True, text=True, timeout=60)


def recorded(job: dict, name: str) -> list[str]:
    return (Path(job["RECORDS"]) / name).read_text().splitlines()


def complaints(script: str) -> str:
    """What `bash -n`, and shellcheck where it is installed, say of a script."""
    found = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True).stderr
    checker = shutil.which("shellcheck")
    if checker and not found:
        found = subprocess.run(
            [checker, "-s", "bash", "-"], input=script, capture_output=True, text=True
        ).stdout
    return found


def test_the_script_is_sound_and_a_mistake_in_it_is_noticed():
    script = SCRIPT.read_text()
    assert complaints(script) == ""
    assert "syntax error" in complaints(script.replace("    exit 1\n}", "    exit 1\n"))


def test_ray_reads_its_arguments_on_the_head_and_on_the_other_nodes(job):
    from ray.scripts import symmetric_run
    from ray.scripts.scripts import start

    assert run(job, "--preset", "paper").returncode == 0
    given = recorded(job, "srun")
    assert given[given.index("ray") + 1] == "symmetric-run"
    before = given[given.index("symmetric-run") + 1 : given.index("--")]
    read = symmetric_run.symmetric_run.make_context("run", list(before), resilient_parsing=True)
    assert (read.params["address"], read.params["min_nodes"]) == ("node7:6613", 2)
    rest = symmetric_run.curate_and_validate_ray_start_args(list(before))
    for node in (["--head"], ["--address", "node7:6613"]):
        told = start.make_context("start", [*node, *rest]).params
        assert (told["num_cpus"], told["num_gpus"]) == (32, 4)
        assert told["dashboard_host"] == "127.0.0.1" and not told["include_dashboard"]


def test_an_argument_that_symmetric_run_does_not_take_is_refused():
    from click import ClickException
    from ray.scripts import symmetric_run

    with pytest.raises(ClickException, match="--port"):
        symmetric_run.curate_and_validate_ray_start_args(["--address", "a:1", "--port", "6379"])


def test_a_new_job_starts_a_sweep_that_our_command_line_reads(job):
    from sweeps.setup import command_line

    assert run(job, "--preset", "paper", "--set", "sweep.slots=8").returncode == 0
    script, *arguments = recorded(job, "python")
    given = command_line.parse(command_line.options("", many=True), arguments)
    assert (script, given.address, given.preset) == ("sweeps/pareto.py", "auto", "paper")
    assert (str(given.out), given.settings) == ("results/slurm-1234", ["sweep.slots=8"])


def test_a_requeued_job_goes_on_with_the_sweep_it_finds(job, tmp_path):
    (tmp_path / "results" / "slurm-1234").mkdir(parents=True)
    (tmp_path / "results" / "slurm-1234" / "sweep.yaml").write_text("")
    assert run(job, "--preset", "paper").returncode == 0
    assert recorded(job, "python")[-2:] == ["--resume", "results/slurm-1234"]


def test_the_marker_of_a_sweep_is_one_that_sweeps_write():
    assert 'sweep.yaml"' in (files.ROOT / "ermgap" / "records" / "sweep_records.py").read_text()


def test_how_the_sweep_ended_is_how_the_job_ends(job):
    assert run(job | {"ENDS": "3"}).returncode == 3


def test_the_notice_reaches_the_driver_alone_and_the_job_waits_for_it(job):
    started = subprocess.Popen(["bash", str(SCRIPT)], env=job | {"WAITS": "300"})
    pid_file = Path(job["SLURM_SUBMIT_DIR"]) / "results" / ".slurm-1234.pid"
    deadline = time.monotonic() + 30
    while not (Path(job["RECORDS"]) / "python").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # the stand-in sets its trap
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=30) == 0
    assert recorded(job, "told") == ["told"]
    assert not pid_file.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SLURM_JOB_NODELIST": ""}, "no Slurm job"),
        ({"RAY_VERSION": "2.9.0"}, "ray, version 2.9.0 is installed"),
        ({"HOME": "/nonexistent"}, "no token"),
        ({"SLURM_SUBMIT_DIR": "/"}, "no .venv/bin/ray here"),
    ],
)
def test_what_is_missing_is_said_in_one_sentence(job, change, said):
    ended = run(job | change)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {said}") and line.endswith(".")


def test_the_command_exists_in_this_ray():
    told = subprocess.run(
        [Path(sys.executable).parent / "ray", "symmetric-run", "--help"],
        capture_output=True,
        text=True,
    ).stdout
    assert all(option in told for option in ("--address", "--min-nodes"))
