"""What the tests of cluster/ share: reading its files, and checks that tell what is wrong.

A check takes the text or the content of a file and returns a list of problems, so that a test can
also give it a file with a mistake put in.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
RAY_UP = ("gpu.yaml", "gcp.yaml", "local.yaml")  # files of `ray up`
FILES = tuple(sorted(path.name for path in CLUSTER.iterdir() if path.is_file()))

SECRETS = {
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "an AWS secret": r"(?i)aws_secret_access_key\W{1,4}\S",
    "a Google key": r"\bAIza[0-9A-Za-z_-]{35}|\bya29\.",
    "a private key": r"-----BEGIN|\"private_key\"",
    "a token of a hub": r"\b(?:hf_|ghp_|github_pat_|sk-)[A-Za-z0-9_-]{16,}",
    "a token of Ray": r"\b[0-9a-f]{64}\b|RAY_AUTH_TOKEN\s*[=:]",
    "a password": r"(?i)\bpassword\s*[=:]\s*\S",
}
# What makes a port reachable from outside of a machine, a pod or a cluster.
OPENINGS = {
    "a dashboard on every address": r"dashboard-host[=: ]+['\"]?(?:0\.0\.0\.0|::)",
    "TensorBoard on every address": r"--bind_all|--host[= ]0\.0\.0\.0",
    "a forwarding that others can use": r"\bssh\b[^\n]* -(?:\w*g\w*) |GatewayPorts",
    "a service of the outside": r"\b(?:LoadBalancer|NodePort|hostNetwork|hostPort)\b",
    "a rule of a firewall": r"firewall-rules create|authorize-security-group-ingress",
}


def text(name: str) -> str:
    return (CLUSTER / name).read_text(encoding="utf-8")


def load(name: str) -> dict:
    return yaml.safe_load(text(name))


def pinned() -> dict[str, str]:
    """The versions of constraints.txt, by package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def without_comments(content: str) -> str:
    """A YAML, shell or Docker file less its comments, whose lines say what not to do, too."""
    return "\n".join(re.sub(r"(^|\s)#.*$", "", line) for line in content.splitlines())


def validate(config: dict) -> dict:
    """Ray's own validator of `ray up` files: it sees the top level only."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def commands(config: dict) -> list[str]:
    """Every shell command of a `ray up` file."""
    return [line for key in config if key.endswith("_commands") for line in config[key]]


def named_versions(content: str) -> list[tuple[str, str]]:
    """(package, version) wherever a file names one: wheels, images, Ray's version on its own."""
    wheels = re.findall(r"([A-Za-z0-9_-]+)==([0-9][\w.]*[\w])", content)
    images = re.findall(r"rayproject/ray:([\w.]+)", content)
    alone = re.findall(r"(?:rayVersion: |ray_version=)['\"]?([\w.]+)", content)
    return wheels + [("ray", version) for version in images + alone]


def wrong_versions(content: str) -> list[str]:
    """What differs from constraints.txt, or from the Python that its versions were tested on."""
    pins = pinned()
    wrong = [
        f"{name} {version}"
        for name, version in named_versions(content)
        if pins.get(name) != version
    ]
    tags = re.findall(r"rayproject/ray:[\w.]+-(\w+)", content)
    return wrong + [f"image of {tag}" for tag in tags if tag != "py311"]


def secrets(content: str) -> list[str]:
    return [what for what, pattern in SECRETS.items() if re.search(pattern, content)]


def openings(content: str) -> list[str]:
    return [what for what, pattern in OPENINGS.items() if re.search(pattern, content)]


def missing_files(content: str) -> list[str]:
    """Paths within the repository that a file names and that are not there.

    The folder that runs write to is there only after one.
    """
    found = set(re.findall(r"(?<![\w/.-])((?:cluster|sweeps|tests|analysis)/[\w./*-]*\w)", content))
    found |= set(re.findall(r"-[cr] (\S+\.txt)", content))
    return sorted(found - {"analysis/plots"} - {path for path in found if any(ROOT.glob(path))})


def unmounted(config: dict) -> list[str]:
    """What the set-up of a `ray up` file installs or runs from and no mount brings."""
    mounts = config["file_mounts"]
    mounted = {remote.rsplit("/erm-gap/", 1)[-1] for remote in mounts}
    told = "\n".join(config["setup_commands"])
    needed = set(re.findall(r"-[cr] (\S+\.txt)", told)) | set(
        re.findall(r"erm-gap/(\S+\.py)", told)
    )
    needed |= {"pyproject.toml", "README.md", "ermgap", "sweeps", "analysis"}
    local = {path for path in mounts.values() if not path.startswith("~")}
    return sorted((needed - mounted) | {path for path in local if not (ROOT / path).exists()})
