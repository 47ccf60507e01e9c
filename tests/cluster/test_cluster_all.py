"""What holds for every file of cluster/: versions, secrets, ports, files, tokens, the dashboard."""

from __future__ import annotations

import os
import re
import shlex
import subprocess

import cluster_files as files
import pytest

every_file = pytest.mark.parametrize("name", files.FILES)
ray_up = pytest.mark.parametrize("name", files.RAY_UP)


def test_the_files_are_those_that_this_tests():
    assert set(files.FILES) == {
        *files.RAY_UP, "kuberay.yaml", "slurm.sh", "Dockerfile", "README.md", "cost.py", "fetch.py",
        "head-policy.json",
    }  # fmt: skip


@ray_up
def test_rays_validator_accepts_the_file(name):
    config = files.load(name)
    prepared = files.validate(config)
    kinds = config.get("available_node_types", ["local.cluster.node"])
    assert set(prepared["available_node_types"]) == set(kinds)


@ray_up
@pytest.mark.parametrize("key", ["idle_timeout_minuets", "node_types"])
def test_rays_validator_refuses_a_misspelt_key(name, key):
    from jsonschema import ValidationError

    config = files.load(name) | {key: 10}
    with pytest.raises(ValidationError, match=key):
        files.validate(config)


@every_file
def test_versions_equal_constraints(name):
    assert files.wrong_versions(files.text(name)) == []


@pytest.mark.parametrize("name", [*files.RAY_UP, "kuberay.yaml", "slurm.sh", "Dockerfile"])
def test_the_version_of_ray_or_torch_is_named_and_another_one_is_noticed(name):
    content = files.text(name)
    assert {package for package, _ in files.named_versions(content)} & {"ray", "torch"}
    for package in ("ray", "torch"):
        version = files.pinned()[package]
        if version in content:
            assert files.wrong_versions(content.replace(version, "1.2.3"))
    assert files.wrong_versions(content.replace("py311", "py310")) or "py311" not in content


@every_file
def test_no_secret_is_in_the_file(name):
    assert files.secrets(files.text(name)) == []


@pytest.mark.parametrize(
    "secret",
    [
        "AK" + "IA" + "ABCDEFGHIJKLMNOP",
        "aws_secret" + "_access_key = x",
        "AI" + "za" + "b" * 35,
        "-----" + "BEGIN RSA",
        "h" + "f_" + "c" * 30,
        "0123456789abcdef" * 4,
        "RAY_AUTH_TOKEN" + "=x",
        "pass" + "word: x",
    ],
)
def test_a_secret_is_noticed(secret):
    assert files.secrets(f"    - --env {secret}\n")


@every_file
def test_no_port_is_opened(name):
    found = files.openings(files.without_comments(files.text(name)))
    # In Kubernetes the operator asks for a job's state; test_cluster_kuberay.py has who else may.
    assert found == (["a dashboard on every address"] if name == "kuberay.yaml" else [])


@pytest.mark.parametrize(
    "line",
    [
        "ray start --head --dashboard-host=0.0.0.0",
        'dashboard-host: "0.0.0.0"',
        "tensorboard --logdir results --bind_all",
        "ssh -gL 6006:localhost:6006 head",
        "serviceType: LoadBalancer",
        "gcloud compute firewall-rules create all --allow tcp",
    ],
)
def test_an_open_port_is_noticed(line):
    assert files.openings(line)


@every_file
def test_every_file_that_is_named_exists(name):
    assert files.missing_files(files.text(name)) == []


def test_a_file_that_is_not_there_is_noticed():
    assert files.missing_files("run `cluster/gpus.yaml` or pip install -r needs.txt") == [
        "cluster/gpus.yaml",
        "needs.txt",
    ]


@ray_up
def test_what_the_set_up_needs_is_mounted_and_exists(name):
    config = files.load(name)
    assert files.unmounted(config) == []
    for remote in [path for path in config["file_mounts"] if path.endswith("constraints.txt")]:
        config["file_mounts"][remote.replace("constraints", "constraint")] = "constraint.txt"
        del config["file_mounts"][remote]
    assert files.unmounted(config) == ["constraint.txt", "constraints.txt"]


def unauthenticated(config: dict) -> list[str]:
    """Which of the two things is missing that make every process of a node ask for the token."""
    options = config.get("docker", {}).get("run_options", [])
    told = "--env RAY_AUTH_MODE=token" in options or (
        all(". ~/erm-gap/env.sh" in line for line in starts(config))
        and any("RAY_AUTH_MODE=token" in line for line in config["setup_commands"])
    )
    mounts = {path for path in config["file_mounts"] if path.endswith("/.ray/auth_token")}
    same = mounts and all(config["file_mounts"][path] == "~/.ray/auth_token" for path in mounts)
    return ["mode"] * (not told) + ["token"] * (not same)


def starts(config: dict) -> list[str]:
    return [line for line in files.commands(config) if "ray start" in line]


@ray_up
def test_every_node_asks_for_the_same_token(name):
    config = files.load(name)
    assert unauthenticated(config) == []
    config["file_mounts"] = {
        path: local for path, local in config["file_mounts"].items() if "auth_token" not in path
    }
    config.setdefault("docker", {})["run_options"] = []
    config["setup_commands"] = []
    assert unauthenticated(config) == ["mode", "token"]


@ray_up
def test_the_dashboard_listens_on_loopback_only(name):
    (head,) = [line for line in starts(files.load(name)) if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in shlex.split(head)


@pytest.mark.parametrize("name", ["gpu.yaml", "gcp.yaml"])
def test_both_clouds_run_the_same_commands_in_the_same_containers(name):
    one, other = files.load("gpu.yaml"), files.load(name)
    for key in ("head_start_ray_commands", "worker_start_ray_commands", "setup_commands", "docker"):
        assert one[key] == other[key], key
    assert one["file_mounts"] == other["file_mounts"]


def shell_commands(readme: str) -> list[str]:
    """Every line of the README's shell blocks, and what stands between backquotes."""
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", readme, flags=re.S))


def unread_by_ray(line: str) -> str:
    """Why Ray's own command line would not read a line; "" if it would, or it is no such line."""
    import click
    from ray.scripts.scripts import cli

    words = shlex.split(line, comments=True)
    while words and "=" in words[0]:
        words = words[1:]
    if words[:1] != ["ray"] or len(words) < 3:  # `ray up` in a sentence is no command
        return ""
    try:
        command, rest = cli.commands[words[1]], words[2:]
        if isinstance(command, click.Group):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context(words[1], rest)
    except (KeyError, click.ClickException) as problem:
        return f"{line}: {problem}"
    return ""


def unread_by_us(line: str) -> str:
    """Why sweeps/pareto.py would not read the options that a line gives it."""
    from ermgap.errors import UserError
    from sweeps.setup import command_line as cli

    found = re.search(r"sweeps/pareto\.py ([^'`]*)", line)
    try:
        given = found[1].replace(" ...", "").split() if found else []
        cli.parse(cli.options("", many=True), given)
    except UserError as problem:
        return f"{line}: {problem}"
    return ""


def test_commands_of_the_readme_are_read_by_ray_and_by_our_command_line():
    lines = shell_commands(files.text("README.md"))
    assert sum(line.startswith("ray ") for line in lines) >= 8
    assert sum("sweeps/pareto.py" in line for line in lines) >= 3
    assert [line for line in lines if unread_by_ray(line) or unread_by_us(line)] == []


def test_a_command_that_nobody_would_read_is_noticed():
    assert unread_by_ray("ray exec cluster/gpu.yaml --port-forwards 6006 'x'")
    assert unread_by_ray("ray upp cluster/gpu.yaml")
    assert unread_by_us("ray exec x 'python sweeps/pareto.py --store /mnt'")


def syntax_errors(config: dict) -> list[str]:
    return [
        line
        for line in files.commands(config)
        if subprocess.run(["bash", "-n"], input=line, text=True, capture_output=True).returncode
    ]


@ray_up
def test_the_commands_of_every_node_are_sound_shell(name):
    config = files.load(name)
    assert syntax_errors(config) == []
    config["setup_commands"].append("if true; then echo")
    assert syntax_errors(config) == ["if true; then echo"]


def test_the_environment_of_local_yaml_is_one_that_a_shell_reads(tmp_path):
    commands = files.load("local.yaml")["setup_commands"]
    (write,) = [line for line in commands if line.endswith("> ~/erm-gap/env.sh")]
    (tmp_path / "erm-gap" / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "erm-gap" / ".venv" / "bin" / "activate").write_text("export ACTIVE=yes\n")
    told = subprocess.run(
        ["bash", "-c", f'{write}; . ~/erm-gap/env.sh; echo "$RAY_AUTH_MODE $ACTIVE"'],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert told.stdout.split() == ["token", "yes"] and told.stderr == ""


def test_names_of_the_files_occur_in_the_readme_and_its_names_in_the_files():
    readme = files.text("README.md")
    for word in ("ray up cluster/gpu.yaml", "ray down cluster/gpu.yaml", "--address auto"):
        assert word in readme
    assert [name for name in files.FILES if name not in readme and name != "README.md"] == []
    kinds = set(files.load("gpu.yaml")["available_node_types"])
    assert set(re.findall(r"`(gpu_\w+)`", readme)) <= kinds
