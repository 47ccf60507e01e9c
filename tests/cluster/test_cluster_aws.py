"""What Ray makes of cluster/gpu.yaml, and fetch.py of a bucket, on moto's simulated AWS.

Simulated are IAM, EC2's networks, security groups and instances, and S3: all that `ray up` asks AWS
for, from the role to the tags of a disk. It knows neither capacity nor quotas nor whether the
machine image's name leads anywhere, and starts no machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import cluster_files as files
import pytest

moto = pytest.importorskip("moto", reason="is not installed")
boto3 = pytest.importorskip("boto3", reason="is not installed")

REGION = "us-west-2"
KEYS = {
    "AWS_ACCESS_KEY_ID": "simulated",
    "AWS_SECRET_ACCESS_KEY": "simulated",
    "AWS_DEFAULT_REGION": REGION,
}


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """A simulated account without anything but its default network."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes a key pair there
        patch.setattr("ray.autoscaler._private.aws.config.time", SimpleNamespace(sleep=id))
        with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
            yield


def bootstrap(**provider) -> dict:
    """gpu.yaml as `ray up` completes it; `provider` replaces parts of that section."""
    from ray.autoscaler._private.aws.config import bootstrap_aws

    config = files.validate(files.load("gpu.yaml"))
    config["provider"] |= provider
    return bootstrap_aws(config)


@pytest.fixture(scope="module")
def cluster(account) -> dict:
    return bootstrap()


@pytest.fixture(scope="module")
def instances(cluster) -> dict[str, dict]:
    """An instance of each node type, launched by Ray's provider."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    provider = AWSNodeProvider(dict(cluster["provider"]), cluster["cluster_name"])
    for name, kind in cluster["available_node_types"].items():
        tags = {"ray-user-node-type": name, "ray-node-name": name}
        provider.create_node(dict(kind["node_config"]), tags, 1)
    found = boto3.client("ec2", region_name=REGION).describe_instances()["Reservations"]
    launched = [instance for reservation in found for instance in reservation["Instances"]]
    return {tags_of(one)["ray-user-node-type"]: one for one in launched}


def tags_of(thing: dict) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def test_every_node_type_is_launched_as_the_file_says(cluster, instances):
    assert set(instances) == set(cluster["available_node_types"])
    for name, kind in cluster["available_node_types"].items():
        found = instances[name]
        assert found["InstanceType"] == kind["node_config"]["InstanceType"]
        assert (found.get("InstanceLifecycle") == "spot") == ("_spot_" in name), name
        assert found["MetadataOptions"]["HttpTokens"] == "required"
        assert tags_of(found)["project"] == tags_of(found)["ray-cluster-name"] == "ermgap"


def test_ray_makes_the_role_for_the_head_and_workers_carry_it(cluster, instances):
    made = cluster["head_node"]["IamInstanceProfile"]["Arn"]
    workers = [one for name, one in instances.items() if name != cluster["head_node_type"]]
    assert {one["IamInstanceProfile"]["Arn"] for one in workers} == {made}
    # The README's command, for which the role must be there.
    boto3.client("iam").put_role_policy(
        RoleName=made.rsplit("/", 1)[1],
        PolicyName="ermgap",
        PolicyDocument=files.text("head-policy.json"),
    )


def test_disks_are_those_of_the_file_and_bear_its_tag(instances):
    volumes = boto3.client("ec2", region_name=REGION).describe_volumes()["Volumes"]
    assert len(volumes) == len(instances)
    for disk in volumes:
        assert (disk["Size"], disk["VolumeType"], tags_of(disk)) == (
            200,
            "gp3",
            {"project": "ermgap"},
        )


def test_ssh_alone_is_open_to_the_world(instances):
    (group,) = boto3.client("ec2", region_name=REGION).describe_security_groups(
        Filters=[{"Name": "group-name", "Values": ["ermgap"]}]
    )["SecurityGroups"]
    world = [rule["ToPort"] for rule in group["IpPermissions"] if rule["IpRanges"]]
    assert world == [22]
    assert all(
        [one["GroupId"] for one in found["SecurityGroups"]] == [group["GroupId"]]
        for found in instances.values()
    )


def test_every_zone_of_the_region_is_tried(cluster):
    subnets = boto3.client("ec2", region_name=REGION).describe_subnets()["Subnets"]
    for kind in cluster["available_node_types"].values():
        assert set(kind["node_config"]["SubnetIds"]) == {one["SubnetId"] for one in subnets}


def test_an_ssh_rule_beside_rays_own_would_end_ray_up(account):
    from botocore.exceptions import ClientError

    everyone = {"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ssh = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp"} | everyone
    with pytest.raises(ClientError, match="already exists"):
        bootstrap(security_group={"GroupName": "other", "IpPermissions": [ssh]})


def test_fetch_copies_the_data_of_a_bucket_and_says_so_where_there_is_none(tmp_path):
    server = pytest.importorskip("moto.server", reason="moto's server is not installed")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running.start()
    try:
        address = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
        environment = os.environ | KEYS | {"AWS_ENDPOINT_URL": address}
        s3 = boto3.client(
            "s3", endpoint_url=address, region_name=REGION, aws_access_key_id="simulated",
            aws_secret_access_key="simulated",
        )  # fmt: skip
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": REGION})
        for name in ("data/MELD-ST/a.wav", "data/MELD-ST/de/b.csv", "sweeps/large"):
            s3.put_object(Bucket="bucket", Key=f"ermgap/{name}", Body=name.encode())

        def fetch(bucket: str) -> subprocess.CompletedProcess:
            command = [sys.executable, files.CLUSTER / "fetch.py", tmp_path / "data"]
            told = environment | {"ERMGAP_BUCKET": bucket}
            return subprocess.run(command, env=told, capture_output=True, text=True)

        assert "2 files copied" in fetch("s3://bucket/ermgap").stdout
        assert "holds all 2 files" in fetch("s3://bucket/ermgap").stdout
        found = {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {"a.wav": "data/MELD-ST/a.wav", "b.csv": "data/MELD-ST/de/b.csv"}
        for missing in ("s3://bucket/other", "s3://nowhere/ermgap"):
            ended = fetch(missing)
            assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    finally:
        running.stop()
