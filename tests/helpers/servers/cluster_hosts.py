"""Hosts of one's own for a real `ray up`: namespaces with a network, a disk and an sshd each.

    with Hosts(folder, ["head", "worker"]) as hosts:
        hosts.run("laptop", "ray up -y cluster.yaml")
        hosts.processes("worker")

Every host, and the `laptop` that `ray up` is called on, has network, process, mount, host name and
IPC namespaces. They share a bridge inside the laptop, so the machine's own network is not touched,
and see one file system with these exceptions: /tmp, /dev/shm, /etc/hosts, /etc/passwd and the home
folder `folder/home` are private. `folder/shared` plays the part of an NFS folder that the hosts
mount and the laptop does not. As on Debian and Ubuntu, a host's name stands for 127.0.1.1 in its
own /etc/hosts.

Ending the first
process of a namespace ends all others in it, so nothing is ever ended by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

LAPTOP = "laptop"
NETWORK = "10.77.0"
TOOLS = ("unshare", "nsenter", "ip", "ssh", "ssh-keygen", "sshd", "rsync", "mount")
SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
KINDS = ("--net", "--mount", "--pid", "--uts", "--ipc")

# First process of a host: mounts what is private, then waits; bash reaps what others leave behind.
# What lies under /tmp and all hosts see is bound into the private /tmp before that covers it.
INIT = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g,mode=1777 tmpfs {own}/tmp
for seen in {seen}; do
  case $seen in /tmp/*)
    mkdir -p {own}/tmp/${{seen#/tmp/}}; mount --rbind $seen {own}/tmp/${{seen#/tmp/}};;
  esac
done
mount --rbind {own}/tmp /tmp
mount --bind {own}/home {folder}/home
mount --bind {own}/hosts /etc/hosts
mount --bind {own}/passwd /etc/passwd
mount -t tmpfs -o size=1g,mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
mount -t tmpfs tmpfs {folder}/hosts
[ {name} != {laptop} ] || mount -t tmpfs tmpfs {folder}/shared
hostname {name}
ip link set lo up
touch {folder}/.up-{name}
{last}
"""


def why_not() -> str:
    """The reason why hosts cannot be made here; empty if they can."""
    missing = [tool for tool in TOOLS if tool != "sshd" and not shutil.which(tool)]
    missing += [] if SSHD else ["sshd"]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid():
        return "hosts in namespaces need root"
    trial = ["unshare", *KINDS, "--fork", "--mount-proc"]
    trial += ["ip", "link", "add", "br0", "type", "bridge"]
    done = subprocess.run(trial, capture_output=True, text=True)
    return f"namespaces are not allowed: {done.stderr.strip()}" if done.returncode else ""


class Hosts:
    """Hosts that live as long as the `with` block.

    Args:
        folder: an empty folder for homes, keys and what is shared; a short path.
        names: of the hosts; addresses are given in this order.
        bashrc: lines for the laptop's .bashrc; those of the hosts are empty.
    """

    def __init__(self, folder: Path, names: list[str], *, bashrc: str = "") -> None:
        self.folder, self.names, self.bashrc = folder, names, bashrc
        self.home, self.shared = folder / "home", folder / "shared"
        self.address = {LAPTOP: f"{NETWORK}.1"}
        self.address |= {name: f"{NETWORK}.{11 + n}" for n, name in enumerate(names)}
        self.outer: dict[str, subprocess.Popen] = {}
        self.first: dict[str, int] = {}  # process id, seen from outside, of each first process
        self.spaces: dict[str, str] = {}

    def __enter__(self) -> Hosts:
        self.home.mkdir()
        self.shared.mkdir()
        self._make_keys()
        try:
            for name in self.address:
                self._start(name)
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End every namespace by the process id of its first process."""
        for outer in self.outer.values():
            outer.kill()  # --kill-child: its namespace goes with it
            outer.wait()
        for name in self.first:
            while self.processes(name):
                time.sleep(0.05)

    # What a host is asked ----------------------------------------------------------------------

    def command(self, name: str, line: str) -> list[str]:
        """The argument list that runs a shell line on a host, as a login of its user would."""
        inside = ["nsenter", "--target", str(self.first[name]), *KINDS]
        clean = ["env", "-i", f"HOME={self.home}", "USER=root", "TERM=dumb", "LANG=C.UTF-8"]
        path = os.environ.get("PATH", "/usr/bin:/bin")
        return [*inside, *clean, f"PATH={path}", "bash", "-c", f"cd; source .bashrc; {line}"]

    def run(self, name: str, line: str, *, timeout: float = 300) -> str:
        """Run a shell line on a host; returns what it printed, fails with it."""
        done = subprocess.run(
            self.command(name, line),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, f"{name}: {line}: exit {done.returncode}\n{done.stdout}"
        return done.stdout

    def processes(self, name: str) -> list[str]:
        """Command lines of the processes in a host's namespace, as the kernel counts them."""
        return [line for _, line in in_namespace(self.spaces[name])]

    # How it is made -----------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        own = self.folder / "hosts" / name
        for part in ("home", "tmp"):
            (own / part).mkdir(parents=True)
        others = [f"{ip} {other}" for other, ip in self.address.items() if other != name]
        known = ["127.0.0.1 localhost", f"127.0.1.1 {name}", *others]
        (own / "hosts").write_text("\n".join(known) + "\n")
        (own / "passwd").write_text(self._passwd())
        (own / "home" / ".bashrc").write_text(self.bashrc if name == LAPTOP else "")
        seen = [self.folder, Path(__file__).resolve().parents[3], Path(sys.prefix)]
        sshd = f"{SSHD} -D -f {self.folder}/sshd_config -E {self.folder}/sshd-{name}.log & wait $!"
        script = INIT.format(
            own=own,
            folder=self.folder,
            name=name,
            laptop=LAPTOP,
            seen=" ".join(map(str, seen)),
            last="sleep infinity & wait $!" if name == LAPTOP else sshd,
        )
        with open(self.folder / f"{name}.log", "wb") as log:
            outer = subprocess.Popen(
                ["unshare", *KINDS, "--fork", "--kill-child", "--mount-proc", "bash", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.outer[name] = outer
        up, end = self.folder / f".up-{name}", time.monotonic() + 30
        while not up.exists():
            said = (self.folder / f"{name}.log").read_text()
            assert outer.poll() is None and time.monotonic() < end, f"{name} did not start: {said}"
            time.sleep(0.05)
        (inside,) = psutil.Process(outer.pid).children()
        self.first[name] = inside.pid
        self.spaces[name] = os.readlink(f"/proc/{inside.pid}/ns/pid")

    def _connect(self) -> None:
        """A bridge on the laptop with a cable to every host."""
        self.run(LAPTOP, f"ip link add br0 type bridge; ip addr add {NETWORK}.1/24 dev br0")
        for number, name in enumerate(self.names):
            end = f"cable{number}"
            # In the laptop's network but among the machine's process ids, one of which names the
            # other end's network.
            outside = ["nsenter", "--target", str(self.first[LAPTOP]), "--net", "ip", "link", "add"]
            cable = [end, "type", "veth", "peer", "name", "eth0", "netns", str(self.first[name])]
            subprocess.run([*outside, *cable], check=True, capture_output=True)
            self.run(LAPTOP, f"ip link set {end} master br0; ip link set {end} up")
            # Ray asks the kernel which address it would take to the world, so there is a route.
            self.run(
                name,
                f"ip addr add {self.address[name]}/24 dev eth0; ip link set eth0 up; "
                f"ip route add default via {NETWORK}.1",
            )
        self.run(LAPTOP, "ip link set br0 up")

    def _make_keys(self) -> None:
        for name in ("host_key", "user_key"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(make, check=True)
        (self.folder / "sshd_config").write_text(
            f"HostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/user_key.pub\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            "StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 50\n"
        )

    def _passwd(self) -> str:
        """The machine's, with another home and shell for its root."""
        lines = Path("/etc/passwd").read_text().splitlines()
        own = f"root:x:0:0:root:{self.home}:/bin/bash"
        return "\n".join([own, *(line for line in lines if not line.startswith("root:"))]) + "\n"


def in_namespace(space: str) -> list[tuple[int, str]]:
    """Process id, seen from outside, and command line of every process of a pid namespace."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.readlink(f"/proc/{process.pid}/ns/pid") == space:
                found.append((process.pid, " ".join(process.cmdline()) or process.name()))
        except (OSError, psutil.Error):
            continue  # it has ended
    return found
