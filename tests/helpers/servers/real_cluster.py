"""A cluster that `ray up` starts from cluster/local.yaml on hosts of the test's own.

    cluster = Cluster(hosts, head="head", workers=["worker"])
    cluster.up()
    cluster.execute("python sweeps/pareto.py --address auto --smoke-test --storage /mnt/shared")
    cluster.down()

Everything is asked from the laptop, as cluster/README.md tells it; what was asked, how long it took
and what came of it goes to a transcript without a path of this machine.
"""

from __future__ import annotations

import copy
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import yaml
from cluster_hosts import LAPTOP, Hosts, in_namespace

ROOT = Path(__file__).resolve().parents[3]
CODE = "~/erm-gap"  # where local.yaml puts the project's files on every machine
SMALL = "--num-cpus=1 --object-store-memory=200000000"
RAY = re.compile(r"\bray(let|::|\b)|gcs_server|pareto\.py|tensorboard", re.IGNORECASE)
LIMIT_S = 1500.0
# ray up says no word of the second autoscaler's workers that never join: see cluster/local.yaml.
LAPTOP_RC = f"export PATH={sys.prefix}/bin:$PATH RAY_UP_enable_autoscaler_v2=0 NO_COLOR=1\n"


def derive(local: dict, *, head: str, workers: list[str], key: Path, environment: str) -> dict:
    """cluster/local.yaml with its EDIT lines filled in, for hosts without a package index.

    Args:
        local: the file's content.
        head, workers: addresses.
        key: the private key that reaches all of them.
        environment: `NAME=value ...` that is added to env.sh.

    In place of a new environment the one that runs this test is used, and every `ray start` is kept
    to one CPU and little memory.
    """
    config = copy.deepcopy(local)
    config["provider"] |= {"head_ip": head, "worker_ips": workers}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
    activate = f"{CODE}/.venv/bin/activate"
    config["setup_commands"] = [
        f"mkdir -p {CODE}/.venv/bin; echo 'export PATH={sys.prefix}/bin:$PATH' > {activate}",
        *(line for line in local["setup_commands"] if not re.search(r"pip install|-m venv", line)),
        f"echo 'export PYTHONPATH={CODE} {environment}' >> {CODE}/env.sh",
    ]
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[name] = [re.sub(r"\bray start\b", f"ray start {SMALL}", s) for s in local[name]]
    return config


class Cluster:
    """What a person does with a cluster, from the laptop.

    Args:
        hosts: running ones.
        head: name of a host.
        workers: names of others.
    """

    def __init__(self, hosts: Hosts, *, head: str, workers: list[str]) -> None:
        self.hosts, self.head, self.workers = hosts, head, workers
        self.file = hosts.folder / "local.yaml"
        self.lines: list[str] = []
        self.began = time.monotonic()
        self.short: list[tuple[str, str]] = []  # what the transcript shortens, and to what
        local = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text(encoding="utf-8"))
        config = derive(
            local,
            head=hosts.address[head],
            workers=[hosts.address[name] for name in workers],
            key=hosts.folder / "user_key",
            environment=f"ERMGAP_TEST={hosts.shared}",
        )
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))

    # The transcript -----------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Add to the transcript, with the minutes since it began; paths become names."""
        for path, name in (
            *self.short,
            (str(self.file), "local.yaml"),
            (f"-i {self.hosts.folder}/user_key ", ""),
            (str(self.hosts.shared), "/mnt/shared"),
            (str(self.hosts.home), "~"),
            (str(ROOT), "erm-gap"),
        ):
            text = text.replace(path, name)
        seconds = int(time.monotonic() - self.began)
        stamp = f"{seconds // 60:02d}:{seconds % 60:02d}"
        for number, line in enumerate(text.splitlines()):
            self.lines.append(f"{stamp if not number else '     '}  {line}")

    @contextmanager
    def timed(self, asked: str):
        """Tell what is asked, and how long it took."""
        self.tell(asked)
        start = time.monotonic()
        yield
        self.tell(f"  took {time.monotonic() - start:.0f} s")

    # What a person does -------------------------------------------------------------------------

    def laptop(self, line: str, *, shown: bool = True) -> str:
        """Run a line on the laptop, from the repository's root; returns what it printed."""
        if not shown:
            return self._run(line)
        with self.timed(f"laptop$ {line}"):
            return self._run(line)

    def _run(self, line: str) -> str:
        return self.hosts.run(LAPTOP, f"cd {ROOT}; {line}", timeout=LIMIT_S)

    def up(self) -> str:
        """`ray up`, then wait until every node is there."""
        self.laptop("ray get-auth-token --generate > /dev/null")
        said = self.laptop(f"ray up -y {self.file}")
        with self.timed(f"waiting for {1 + len(self.workers)} nodes in `ray status`"):
            self.until(lambda: self.nodes() == 1 + len(self.workers), every=2.0)
        return said

    def down(self) -> dict[str, int]:
        """`ray down`, then `ray stop` on the workers; returns what the first left, by host.

        With machines of one's own `ray down` stops the head's Ray only. The order matters: the
        head's autoscaler would start the workers again.
        """
        self.laptop(f"ray down -y {self.file}")
        left = {name: len(self.of_ray(name)) for name in (self.head, *self.workers)}
        self.tell(f"  processes of Ray that it leaves: {left}")
        trust = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        for name in self.workers:
            there = f"-i {self.hosts.folder}/user_key root@{self.hosts.address[name]}"
            self.laptop(f"ssh {trust} {there} '. erm-gap/env.sh; ray stop'")
        return left

    def execute(self, line: str, *, shown: bool = True, options: str = "") -> str:
        """`ray exec` of a line in the project's folder on the head; returns what it printed."""
        return self.laptop(self._exec(line, options), shown=shown)

    def start(self, line: str, *, options: str = "") -> subprocess.Popen:
        """The same in the background, its output to a file beside the cluster's."""
        asked = self._exec(line, options)
        self.tell(f"laptop$ {asked} &")
        log = open(self.hosts.folder / "background.log", "ab")  # noqa: SIM115, the child's
        return subprocess.Popen(
            self.hosts.command(LAPTOP, f"cd {ROOT}; {asked}"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def _exec(self, line: str, options: str) -> str:
        return f"ray exec{options} {self.file} 'cd erm-gap && . ./env.sh && {line}'"

    def nodes(self) -> int:
        """Active nodes, as `ray status` says on the head."""
        said = self.execute("ray status", shown=False)
        active = said.partition("Active:")[2].partition("Pending:")[0]
        return sum(int(number) for number in re.findall(r"^\s*(\d+) \S", active, re.MULTILINE))

    # What is seen from outside ------------------------------------------------------------------

    def disk(self, name: str) -> Path:
        """A host's home folder, as it is seen from outside."""
        return self.hosts.folder / "hosts" / name / "home"

    def of_ray(self, name: str) -> list[str]:
        """The processes on a host that Ray, a sweep or TensorBoard started."""
        return [line[:120] for line in self.hosts.processes(name)[1:] if RAY.search(line)]

    def pids(self, name: str, word: str) -> list[int]:
        """Ids, seen from outside, of a host's processes whose command line holds a word."""
        return [pid for pid, line in in_namespace(self.hosts.spaces[name]) if word in line]

    @staticmethod
    def until(condition: Callable[[], object], *, every: float, limit: float = 600.0) -> None:
        """Wait for a condition."""
        end = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < end, f"waited {limit:.0f} s in vain"
            time.sleep(every)
