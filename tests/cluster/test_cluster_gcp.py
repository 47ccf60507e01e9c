"""cluster/gcp.yaml against the schema of the Compute API, as google-api-python-client carries it.

Checked are names, types and enumerated values of every field of every `node_config`, as Ray's
provider sends it in `instances.insert`. Not checked, since the schema does not say it: whether a
machine type, an image or a zone exists, and which fields go together.
"""

from __future__ import annotations

import json
from pathlib import Path

import cluster_files as files
import pytest

TYPES = {"boolean": bool, "integer": int, "number": (int, float), "string": str}


@pytest.fixture(scope="module")
def schemas() -> dict:
    cache = pytest.importorskip(
        "googleapiclient.discovery_cache", reason="google-api-python-client is not installed"
    )
    document = Path(cache.__file__).parent / "documents" / "compute.v1.json"
    return json.loads(document.read_text(encoding="utf-8"))["schemas"]


@pytest.fixture
def cluster() -> dict:
    return files.load("gcp.yaml")


def problems(value, schema: dict, schemas: dict, where: str = "") -> list[str]:
    """What of a value a schema of a discovery document does not describe."""
    if "$ref" in schema:
        return problems(value, schemas[schema["$ref"]], schemas, where)
    kind = schema.get("type")
    if kind == "array":
        if not isinstance(value, list):
            return [f"{where} is no list"]
        found = [
            problems(one, schema["items"], schemas, f"{where}[{n}]") for n, one in enumerate(value)
        ]
        return sum(found, [])
    if kind == "object":
        if not isinstance(value, dict):
            return [f"{where} is no mapping"]
        told, rest = schema.get("properties", {}), schema.get("additionalProperties")
        return sum(
            (
                problems(one, told.get(name) or rest, schemas, f"{where}.{name}")
                if told.get(name) or rest
                else [f"{where}.{name} is unknown"]
                for name, one in value.items()
            ),
            [],
        )
    number = schema.get("format") in ("int64", "uint64")  # written as strings, read as numbers too
    if not isinstance(value, TYPES[kind]) and not (number and type(value) is int):
        return [f"{where} is no {kind}"]
    if schema.get("enum") and value not in schema["enum"]:
        return [f"{where} is none of {schema['enum']}"]
    return []


def insert_request(cluster: dict, name: str) -> dict:
    """The body that Ray's provider would send for a node type."""
    node = pytest.importorskip("ray.autoscaler._private.gcp.node", reason="needs googleapiclient")
    provider = cluster["provider"]
    sender = node.GCPCompute(None, "project", provider["availability_zone"], "ermgap")
    config = cluster["available_node_types"][name]["node_config"]
    return sender._convert_resources_to_urls(config) | {"name": "ray-ermgap-worker-1-compute"}


def all_problems(cluster: dict, schemas: dict) -> list[str]:
    instance = {"$ref": "Instance"}
    kinds = cluster["available_node_types"]
    return sum(
        (problems(insert_request(cluster, name), instance, schemas, name) for name in kinds), []
    )


def test_every_node_type_is_an_insert_request_that_the_api_would_read(cluster, schemas):
    assert all_problems(cluster, schemas) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("machineTipe",), "n2-standard-8"),
        (("disks", 0, "autoDelete"), "yes"),
        (("disks", 0, "initializeParams", "diskSizeGB"), 200),
        (("disks", 0, "type"), "SSD"),
        (("metadata", "items"), {"key": "value"}),
        (("labels", "project"), 1),
    ],
)
def test_a_mistake_inside_a_node_config_is_caught(cluster, schemas, path, value):
    place = cluster["available_node_types"]["head"]["node_config"]
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    found = all_problems(cluster, schemas)
    assert found and all(str(path[-1]) in line for line in found)


def test_scheduling_is_one_mapping_and_a_list_of_them_is_caught(cluster, schemas):
    cluster["available_node_types"]["gpu_spot_40gb"]["node_config"]["scheduling"] = [
        {"provisioningModel": "SPOT"}
    ]
    assert all_problems(cluster, schemas) == ["gpu_spot_40gb.scheduling is no mapping"]


def zones_of(cluster: dict) -> set[str]:
    disks = [
        disk["initializeParams"]["diskType"].split("/")[1]
        for kind in cluster["available_node_types"].values()
        for disk in kind["node_config"]["disks"]
    ]
    return {*disks, cluster["provider"]["availability_zone"]}


def test_the_zone_is_the_same_wherever_it_stands_and_lies_in_the_region(cluster):
    (zone,) = zones_of(cluster)
    assert zone.rsplit("-", 1)[0] == cluster["provider"]["region"]
    cluster["provider"]["availability_zone"] = "us-central1-b"
    assert len(zones_of(cluster)) == 2


def test_workers_are_spot_first_and_alone_reach_the_bucket_by_their_own_account(cluster):
    kinds = dict(cluster["available_node_types"])
    head = kinds.pop("head")
    assert "serviceAccounts" not in head["node_config"] and head["resources"]["GPU"] == 0
    assert head["resources"]["head"] == 1
    workers = sorted(kinds.values(), key=lambda kind: -kind["priority"])
    models = [kind["node_config"]["scheduling"].get("provisioningModel") for kind in workers]
    assert models == ["SPOT", "SPOT", None]
    assert all(kind["node_config"]["serviceAccounts"] for kind in workers)
    # A machine with a GPU cannot be moved: the API refuses any other policy.
    assert {kind["node_config"]["scheduling"]["onHostMaintenance"] for kind in workers} == {
        "TERMINATE"
    }
    assert len({str(kind["resources"]) for kind in workers}) == 1
