"""A real `ray up`: two hosts of our own, a sweep over both, TensorBoard, the results, `ray down`.

    make test-cluster

cluster/local.yaml is used as it stands, but for its EDIT lines, the package index and the CPUs. One
slot's two workers lie on two hosts, each with one CPU and a disk of its own. The same sweeps then
run on one host, and every number must be the same. The transcript of the last run is in
cluster/README.md; a new one is written to $ERMGAP_TRANSCRIPT if that is set.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from cluster_hosts import LAPTOP, Hosts, why_not
from real_cluster import LAPTOP_RC, ROOT, Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

PORT = 6006
SWEEPS = {"smoke": "--smoke-test", "demo": "--preset demo --trials 3"}
SETTINGS = (
    " --set sweep.workers=2 --set sweep.slots=1 --set sweep.device=cpu"
    f" --set plugins=[{ROOT}/tests/plugins/places.py]"
)
# What no two runs share: clocks and memory.
MEASURED = {"time", "seconds", "train_seconds", "eval_seconds", "utterances_per_second",
            "peak_memory_mb"}  # fmt: skip


class Story:
    """All that happened, told once; the tests look at it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.hosts = cluster, cluster.hosts
        self.growth: list[tuple[float, int]] = []  # seconds, bytes of event files
        self.tags: dict = {}
        self.open: dict[str, bool] = {}

    def tell(self) -> None:
        """Live it."""
        cluster = self.cluster
        cluster.tell(f"hosts: {', '.join(f'{n} {a}' for n, a in self.hosts.address.items())}")
        cluster.tell(f"SETTINGS={SETTINGS.strip()}")
        cluster.short.append((SETTINGS, " $SETTINGS"))
        cluster.up()
        self.answers = [self.answered(token) for token in ("", "RAY_AUTH_TOKEN=guessed ")]
        for name, options in SWEEPS.items():
            command = f"python sweeps/pareto.py --address auto {options} --out results/{name}"
            line = f"{command} --storage {self.hosts.shared}/sweeps{SETTINGS}"
            if name == "smoke":
                cluster.execute(line)
            else:
                self.watch(cluster.start(line), name)
            cluster.tell(f"  {counts(self.out('head', name))}")
        self.places = sorted(path.name for path in (self.hosts.shared / "places").iterdir())
        self.code = {path.read_text() for path in (self.hosts.shared / "places").iterdir()}
        cluster.tell(f"  workers as RANK-HOST: {', '.join(self.places)}")
        self.fetch()
        self.before = {name: len(cluster.of_ray(name)) for name in ("head", "worker")}
        cluster.tell(f"processes of Ray: {self.before}")
        self.survivors = cluster.down()
        began = time.monotonic()
        while time.monotonic() < began + 60 and any(map(cluster.of_ray, ("head", "worker"))):
            time.sleep(1.0)
        self.left = {name: cluster.of_ray(name) for name in ("head", "worker", LAPTOP)}
        told = {name: len(left) for name, left in self.left.items()}
        cluster.tell(f"  processes that are left {time.monotonic() - began:.0f} s later: {told}")
        for name, options in SWEEPS.items():
            self.alone(name, options)

    def watch(self, sweep, name: str) -> None:
        """Look at the event files and through a tunnel at TensorBoard while a sweep runs."""
        cluster, events = self.cluster, self.out("head", name) / "tb"
        board, began = None, time.monotonic()
        while sweep.poll() is None:
            size = sum(path.stat().st_size for path in events.rglob("*") if path.is_file())
            if not self.growth or size != self.growth[-1][1]:
                self.growth.append((time.monotonic() - began, size))
            if size and board is None:
                line = f"tensorboard --logdir results/{name}/tb --port {PORT} --reload_interval 2"
                board = cluster.start(line, options=f" --port-forward {PORT}")
            if board is not None and not self.tags.get("t0000"):
                self.tags = self.ask("scalars/tags")
                if self.tags.get("t0000"):
                    self.open = {p: self.reached(p) for p in (22, PORT, 8265)}
            time.sleep(1.0)
        cluster.tell(f"  took {time.monotonic() - began:.0f} s, exit status {sweep.returncode}")
        grown = ", ".join(f"{size} at {seconds:.0f} s" for seconds, size in self.growth[1::4])
        cluster.tell(f"  bytes of TensorBoard events: {grown}")
        said = "; ".join(f"{run}: {len(tags)} tags" for run, tags in sorted(self.tags.items()))
        cluster.tell(f"  TensorBoard through the tunnel, while it ran: {said}")
        cluster.tell(f"  the head's ports that answer from the network: {self.open}")
        assert sweep.returncode == 0, (self.hosts.folder / "background.log").read_text()[-4000:]
        for pid in cluster.pids(LAPTOP, f"{PORT}:localhost:{PORT}"):
            os.kill(pid, signal.SIGTERM)  # the tunnel: TensorBoard goes with its terminal
        if board is not None:
            board.wait(60)

    def ask(self, what: str) -> dict:
        """What TensorBoard answers to the laptop; {} while it does not."""
        url = f"http://127.0.0.1:{PORT}/data/plugin/{what}"
        script = (
            f"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())"
        )
        said = self.cluster.laptop(f'python -c "{script}" 2> /dev/null || echo {{}}', shown=False)
        return json.loads(said)

    def reached(self, port: int) -> bool:
        """Whether a port of the head's address answers to the network."""
        address = self.hosts.address["head"]
        line = (
            f"timeout 5 bash -c '< /dev/tcp/{address}/{port}' 2> /dev/null && echo yes || echo no"
        )
        return self.cluster.laptop(line, shown=False).strip() == "yes"

    def answered(self, token: str) -> bool:
        """Whether the cluster answers to the network, with our token or with another."""
        address = f"{self.hosts.address['head']}:6379"
        line = f"RAY_AUTH_MODE=token {token}timeout 60 ray status --address {address}"
        said = self.cluster.laptop(f"{line} 2>&1 | grep -c ^Active || true")
        self.cluster.tell(f"  answered: {said.strip() == '1'}")
        return said.strip() == "1"

    def fetch(self) -> None:
        """Results and predictions to the laptop, and the report there."""
        cluster, home, name = self.cluster, self.hosts.home, "demo"
        there, here = f"{home}/erm-gap/results/{name}/", f"{home}/results/{name}/"
        cluster.laptop(f"mkdir -p {here}")
        cluster.laptop(f"ray rsync-down {cluster.file} {there} {here}")
        cluster.laptop(f"ray rsync-down {cluster.file} {self.hosts.shared}/sweeps/{name}/ {here}")
        self.analysis = cluster.laptop(f"python -m analysis {here} --plots {home}/plots")

    def alone(self, name: str, options: str) -> None:
        """The same sweep on one host without a cluster."""
        command = f"python {ROOT}/sweeps/pareto.py {options} --out results/{name}"
        storage = f" --storage {self.hosts.shared}/alone"
        path = f"export PATH={sys.prefix}/bin:$PATH ERMGAP_TEST={self.hosts.home}; "
        with self.cluster.timed(f"alone$ {command}{storage}{SETTINGS}"):
            self.hosts.run("alone", f"{path}{command}{storage}{SETTINGS}", timeout=1500)
        same = rows(self.out("alone", name)) == rows(self.out("head", name))
        self.cluster.tell(
            f"  {counts(self.out('alone', name))}, equal to those of two hosts: {same}"
        )

    def out(self, host: str, name: str) -> Path:
        """The folder of a sweep on a host's disk."""
        code = "" if host == "alone" else "erm-gap"
        return self.cluster.disk(host) / code / "results" / name


def rows(folder: Path) -> list[dict]:
    """The committed rows without what is measured, by trial and epoch."""
    every = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    kept = [{key: row[key] for key in row if key not in MEASURED} for row in every]
    return sorted(kept, key=lambda row: (row["trial_id"], row["epoch"]))


def counts(folder: Path) -> str:
    """What a sweep left, in numbers."""
    every = rows(folder)
    last = {row["trial_id"]: row["status"] for row in every}
    epochs = sum("dev" in row for row in every)
    told = ", ".join(f"{trial} {status}" for trial, status in sorted(last.items()))
    return f"{len(last)} trials ({told}), {epochs} epochs, {len(every)} rows"


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """The whole story; /tmp keeps the paths of sockets short."""
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="up", dir="/tmp") as folder:
        with Hosts(Path(folder), ["head", "worker", "alone"], bashrc=LAPTOP_RC) as hosts:
            cluster = Cluster(hosts, head="head", workers=["worker"])
            told = Story(cluster)
            try:
                told.tell()
            finally:
                text = "\n".join(cluster.lines) + "\n"
                print(text)
                if path := os.environ.get("ERMGAP_TRANSCRIPT"):
                    Path(path).write_text(text)
            yield told


def test_the_workers_of_a_slot_lie_on_two_hosts_and_run_the_files_that_were_mounted(story):
    assert len(story.places) == 2
    assert {place.split("-")[0] for place in story.places} == {"0", "1"}
    assert {place.split("-")[1] for place in story.places} == {"head", "worker"}
    assert story.code == {f"{story.hosts.home}/erm-gap/ermgap/__init__.py"}


@pytest.mark.parametrize("name", SWEEPS)
def test_every_trial_ends(story, name):
    last = {row["trial_id"]: row["status"] for row in rows(story.out("head", name))}
    assert len(last) == 3 and set(last.values()) <= {"finished", "degenerate", "stopped"}
    assert (story.out("head", name) / "DONE").exists()


def test_tensorboard_fills_while_the_sweep_runs_and_answers_through_the_tunnel_alone(story):
    sizes = [size for _, size in story.growth]
    assert sizes == sorted(sizes) and len(sizes) > 5
    assert {"dev/acc", "dev/max_gap"} <= set(story.tags["t0000"])
    assert story.open == {22: True, PORT: False, 8265: False}


def test_the_results_are_read_on_the_laptop_without_the_shared_folder(story):
    assert re.search(r"written: .*report\.html", story.analysis)
    assert (story.cluster.disk(LAPTOP) / "plots" / "demo" / "pareto.png").exists()


def test_a_guessed_token_is_refused(story):
    assert story.answers == [True, False]


def test_ray_down_and_the_workers_own_stop_leave_no_process(story):
    assert min(story.before.values()) > 2
    assert story.survivors["head"] == 0
    assert story.left == {"head": [], "worker": [], LAPTOP: []}


@pytest.mark.parametrize("name", SWEEPS)
def test_two_hosts_give_the_trials_and_records_of_one(story, name):
    assert rows(story.out("head", name)) == rows(story.out("alone", name))
    for trial in ("t0000", "t0001", "t0002"):
        kept = [
            pd.read_parquet(story.hosts.shared / place / name / "predictions" / f"{trial}.parquet")
            for place in ("sweeps", "alone")
        ]
        pd.testing.assert_frame_equal(*kept, check_exact=True)
