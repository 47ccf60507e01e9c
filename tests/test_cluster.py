"""The cluster files, checked without a cloud: Ray's validator, AWS's shapes, versions, ports.

Ray's validator sees the top level only, so a mistake inside `node_config` or `security_group` is
caught by validating the very requests that Ray's AWS provider would send, against the shapes that
botocore carries.
"""

from __future__ import annotations

import copy
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GPU = ROOT / "cluster" / "gpu.yaml"


@pytest.fixture
def cluster() -> dict:
    return yaml.safe_load(GPU.read_text(encoding="utf-8"))


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def validate(config: dict) -> dict:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def aws_shape(operation: str):
    """The input shape of an EC2 operation, from the data that botocore carries."""
    loaders = pytest.importorskip("botocore.loaders", reason="botocore is not installed")
    from botocore.model import ServiceModel

    description = loaders.Loader().load_service_model("ec2", "service-2")
    return ServiceModel(description, "ec2").operation_model(operation).input_shape


def errors_of(request: dict, operation: str) -> str:
    shape = aws_shape(operation)
    from botocore.validate import ParamValidator

    return ParamValidator().validate(request, shape).generate_report()


def launch_request(node_config: dict) -> dict:
    return {**node_config, "MinCount": 1, "MaxCount": 1}


def test_rays_validator_accepts_the_file_and_keeps_every_node_type(cluster):
    prepared = validate(cluster)
    assert set(prepared["available_node_types"]) == set(cluster["available_node_types"])
    assert prepared["docker"]["head_image"] == cluster["docker"]["head_image"]


@pytest.mark.parametrize("key", ["idle_timeout_minuets", "node_types"])
def test_rays_validator_refuses_a_misspelt_key(cluster, key):
    from jsonschema import ValidationError

    cluster[key] = 10
    with pytest.raises(ValidationError, match=key):
        validate(cluster)


def test_every_node_type_is_a_launch_request_that_aws_would_read(cluster):
    for name, node_type in cluster["available_node_types"].items():
        assert errors_of(launch_request(node_type["node_config"]), "RunInstances") == "", name


def test_a_mistake_inside_a_node_config_is_caught(cluster):
    request = launch_request(cluster["available_node_types"]["head"]["node_config"])
    request["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": "200GB"}}]
    request["InstanceMarketOption"] = {}
    report = errors_of(request, "RunInstances")
    assert "VolumeSize" in report and "InstanceMarketOption" in report


def test_only_ssh_is_open_and_the_rules_are_a_request_that_aws_would_read(cluster):
    rules = cluster["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in rules] == [
        (22, 22, "tcp")
    ]
    assert errors_of({"IpPermissions": rules}, "AuthorizeSecurityGroupIngress") == ""


def test_the_rules_that_ray_adds_by_itself_open_nothing_else_to_the_world(cluster):
    config = pytest.importorskip("ray.autoscaler._private.aws.config", reason="needs boto3")
    extra = cluster["provider"]["security_group"]["IpPermissions"]
    rules = config._create_default_inbound_rules({"sg-1"}, extra)
    assert {rule["ToPort"] for rule in rules if rule.get("IpRanges")} == {22}


def test_the_dashboard_listens_on_loopback_only(cluster):
    (start,) = [line for line in cluster["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in shlex.split(start)


def test_every_node_starts_with_token_authentication_and_the_same_token(cluster):
    assert "--env RAY_AUTH_MODE=token" in cluster["docker"]["run_options"]
    assert cluster["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_the_head_offers_no_gpu_and_workers_start_from_zero(cluster):
    types = dict(cluster["available_node_types"])
    head = types.pop(cluster["head_node_type"])
    assert head["resources"]["GPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(
        kind["min_workers"] == 0 and kind["resources"]["GPU"] == 1 for kind in types.values()
    )


def test_workers_are_spot_first_with_an_on_demand_type_to_fall_back_to(cluster):
    workers = [kind for kind in cluster["available_node_types"].values() if "priority" in kind]
    spot = ["InstanceMarketOptions" in kind["node_config"] for kind in workers]
    assert any(spot) and not all(spot)
    first = max(workers, key=lambda kind: kind["priority"])
    last = min(workers, key=lambda kind: kind["priority"])
    assert "InstanceMarketOptions" in first["node_config"]
    assert "InstanceMarketOptions" not in last["node_config"] and last["max_workers"] > 0
    # The autoscaler compares priorities only between types that fit a request equally well.
    assert len({str(sorted(kind["resources"].items())) for kind in workers}) == 1


def test_every_node_type_has_200_gb_of_gp3_and_imdsv2(cluster):
    for kind in cluster["available_node_types"].values():
        (disk,) = kind["node_config"]["BlockDeviceMappings"]
        assert (disk["Ebs"]["VolumeSize"], disk["Ebs"]["VolumeType"]) == (200, "gp3")
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_versions_in_the_file_equal_constraints(cluster):
    commands = [line for key in cluster if key.endswith("_commands") for line in cluster[key]]
    named = dict(re.findall(r"([A-Za-z0-9_-]+)==([0-9][\w.]*)", "\n".join(commands)))
    assert "torch" in named
    assert named == {name: pinned()[name] for name in named}
    images = [value for key, value in cluster["docker"].items() if key.endswith("image")]
    assert len(images) == 2
    assert {re.search(r":([\d.]+)-py311-", image)[1] for image in images} == {pinned()["ray"]}


def test_every_local_file_that_is_mounted_exists(cluster):
    local = [path for path in cluster["file_mounts"].values() if not path.startswith("~")]
    assert [path for path in local if not (ROOT / path).exists()] == []


def test_what_the_set_up_commands_install_from_is_mounted(cluster):
    mounted = {remote.rsplit("/", 1)[1] for remote in cluster["file_mounts"]}
    commands = "\n".join(cluster["setup_commands"])
    needed = set(re.findall(r"-[cr] (\S+\.txt)", commands))
    needed |= {"pyproject.toml", "README.md", "ermgap", "sweeps", "analysis"}
    assert needed <= mounted


def test_names_of_the_file_occur_in_the_readme(cluster):
    readme = (ROOT / "cluster" / "README.md").read_text(encoding="utf-8")
    for word in ("ray up cluster/gpu.yaml", "ray down cluster/gpu.yaml", "--address auto"):
        assert word in readme
    named = re.findall(r"`(gpu_\w+)`", readme)
    assert set(named) <= set(cluster["available_node_types"])
