"""cluster/gpu.yaml, checked without a cloud: Ray's validator, AWS's shapes, roles, tags, ports.

Ray's validator sees the top level only, so a mistake inside `node_config` or `security_group` is
caught by validating the very requests that Ray's AWS provider would send, against the shapes that
botocore carries. What holds for every file of cluster/ is in test_cluster_all.py.
"""

from __future__ import annotations

import json
import re

import cluster_files as files
import pytest


@pytest.fixture
def cluster() -> dict:
    return files.load("gpu.yaml")


def service():
    """EC2 as botocore describes it."""
    loaders = pytest.importorskip("botocore.loaders", reason="botocore is not installed")
    from botocore.model import ServiceModel

    return ServiceModel(loaders.Loader().load_service_model("ec2", "service-2"), "ec2")


def errors_of(request: dict, operation: str) -> str:
    shape = service().operation_model(operation).input_shape
    from botocore.validate import ParamValidator

    return ParamValidator().validate(request, shape).generate_report()


def launch_request(node_config: dict) -> dict:
    """What Ray sends for a node type; it merges its own tags with those of the file."""
    provider = pytest.importorskip("ray.autoscaler._private.aws.node_provider", reason="boto3")
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "ray-node-type", "Value": "worker"}]}]
    provider.AWSNodeProvider._merge_tag_specs(tags, node_config.get("TagSpecifications", []))
    return {**node_config, "MinCount": 1, "MaxCount": 1, "TagSpecifications": tags}


def unknown_types(cluster: dict) -> list[str]:
    known = service().shape_for("InstanceType").enum
    kinds = cluster["available_node_types"].values()
    return [
        kind["node_config"]["InstanceType"]
        for kind in kinds
        if kind["node_config"]["InstanceType"] not in known
    ]


@pytest.fixture
def workers(cluster) -> list[dict]:
    """The node types but the head's, the one that is tried first in front."""
    kinds = [kind for name, kind in cluster["available_node_types"].items() if name != "head"]
    return sorted(kinds, key=lambda kind: -kind["priority"])


def test_every_node_type_is_a_launch_request_that_aws_would_read(cluster):
    for name, node_type in cluster["available_node_types"].items():
        assert errors_of(launch_request(node_type["node_config"]), "RunInstances") == "", name


def test_a_mistake_inside_a_node_config_is_caught(cluster):
    request = launch_request(cluster["available_node_types"]["head"]["node_config"])
    request["BlockDeviceMappings"] = [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": "200GB"}}]
    request["InstanceMarketOption"] = {}
    request["TagSpecifications"] = [{"ResourceType": "instance", "Tags": [{"Name": "project"}]}]
    report = errors_of(request, "RunInstances")
    assert all(name in report for name in ("VolumeSize", "InstanceMarketOption", "Name"))


def test_every_instance_type_is_one_of_ec2(cluster):
    assert unknown_types(cluster) == []
    cluster["available_node_types"]["head"]["node_config"]["InstanceType"] = "m7i.3xlarge"
    assert unknown_types(cluster) == ["m7i.3xlarge"]


def test_rays_tags_and_ours_are_on_every_instance_and_ours_on_every_disk(cluster):
    for name, kind in cluster["available_node_types"].items():
        specs = launch_request(kind["node_config"])["TagSpecifications"]
        tags = {spec["ResourceType"]: {tag["Key"] for tag in spec["Tags"]} for spec in specs}
        assert tags == {"instance": {"ray-node-type", "project"}, "volume": {"project"}}, name


def group_problems(extra: list[dict]) -> list[str]:
    """What is wrong with the rules that Ray makes of its own and those of the file."""
    config = pytest.importorskip("ray.autoscaler._private.aws.config", reason="needs boto3")
    rules = config._create_default_inbound_rules({"sg-1"}, extra)
    found = [errors_of({"IpPermissions": rules}, "AuthorizeSecurityGroupIngress")]
    found += ["a rule twice"] * any(rules.count(rule) > 1 for rule in rules)  # EC2 refuses that
    for rule in rules:
        if (rule.get("IpRanges") or rule.get("Ipv6Ranges")) and rule.get("ToPort") != 22:
            found.append(f"{rule['ToPort']} is open")
    return [one for one in found if one]


def test_ssh_alone_is_open_by_rules_that_aws_takes(cluster):
    group = cluster["provider"]["security_group"]
    assert group_problems(group.get("IpPermissions", [])) == []
    ssh = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp"}
    everyone = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    assert group_problems([ssh | everyone]) == ["a rule twice"]
    assert group_problems([ssh | everyone | {"ToPort": 8265}]) == ["8265 is open"]
    assert "CidrIP" in group_problems([ssh | {"IpRanges": [{"CidrIP": "192.0.2.0/24"}]}])[0]


def test_the_head_offers_no_gpu_and_is_alone_in_offering_head(cluster, workers):
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert (head["resources"]["GPU"], head["resources"]["head"]) == (0, 1)
    assert "InstanceMarketOptions" not in head["node_config"]
    assert all(kind["min_workers"] == 0 for kind in workers)
    assert all(kind["resources"].keys() == {"CPU", "GPU"} for kind in workers)


def test_ray_takes_the_heads_resources_from_the_file(cluster, monkeypatch):
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec

    # As the launcher hands them to `ray start`, which the file calls with --num-gpus=0.
    told = cluster["available_node_types"]["head"]["resources"]
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps(told))
    offered = ResourceAndLabelSpec(num_gpus=0).resolve(is_head=True).to_resource_dict()
    assert {name: offered.get(name, 0) for name in told} == told


def test_workers_are_spot_first_with_an_on_demand_type_to_fall_back_to(workers):
    first, last = workers[0], workers[-1]
    assert "InstanceMarketOptions" in first["node_config"] and first["max_workers"] == 8
    assert "InstanceMarketOptions" not in last["node_config"] and last["max_workers"] > 0
    # The autoscaler compares priorities only between types that fit a request equally well.
    assert len({str(sorted(kind["resources"].items())) for kind in workers}) == 1


def test_every_node_type_has_200_gb_of_gp3_and_imdsv2(cluster):
    for kind in cluster["available_node_types"].values():
        (disk,) = kind["node_config"]["BlockDeviceMappings"]
        assert (disk["Ebs"]["VolumeSize"], disk["Ebs"]["VolumeType"]) == (200, "gp3")
        assert kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_workers_have_the_role_that_ray_makes_and_the_head_leaves_it_to_ray(cluster, workers):
    config = pytest.importorskip("ray.autoscaler._private.aws.config", reason="needs boto3")
    roles = {kind["node_config"]["IamInstanceProfile"]["Name"] for kind in workers}
    assert roles == {config.DEFAULT_RAY_INSTANCE_PROFILE}
    # Named for the head, too, Ray would take it as given and not make it.
    assert "IamInstanceProfile" not in cluster["available_node_types"]["head"]["node_config"]
    (passing,) = [
        one
        for one in json.loads(files.text("head-policy.json"))["Statement"]
        if one["Action"] == "iam:PassRole"
    ]
    assert passing["Resource"].endswith(f":role/{config.DEFAULT_RAY_IAM_ROLE}")


def test_a_newcomer_edits_two_lines_at_most():
    marks = re.findall(r"EDIT (\d)\b", re.sub(r"\(EDIT \d\)", "", files.text("gpu.yaml")))
    assert sorted(marks) == ["1", "2"]
    assert files.text("gpu.yaml").count("us-west-2 # EDIT 2") == 1
