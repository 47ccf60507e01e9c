"""cluster/kuberay.yaml without a cluster: Kubernetes' schemas, Ray's reading, KubeRay's fields.

Pods, volume and policy are held against Kubernetes' own schemas (kubernetes-validate), which
refuse unknown fields. KubeRay's part has no schema in a package: its field names and which are
needed are written down here, as of KubeRay 1.6, for those levels that the file uses; of the values
only those that Ray's autoscaler reads are checked, by Ray's own code.
"""

from __future__ import annotations

import copy
import json
import shlex

import cluster_files as files
import pytest

KUBERNETES = "1.33"
# name: (all fields, needed fields) of ray.io/v1.
FIELDS = {
    "RayCluster": (
        "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions "
        "headGroupSpec headServiceAnnotations managedBy rayVersion suspend upgradeStrategy "
        "workerGroupSpecs",
        "headGroupSpec rayVersion",
    ),
    "RayJob": (
        "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint "
        "entrypointNumCpus entrypointNumGpus entrypointResources jobId managedBy metadata "
        "preRunningDeadlineSeconds rayClusterSpec runtimeEnvYAML shutdownAfterJobFinishes "
        "submissionMode submitterConfig submitterPodTemplate suspend ttlSecondsAfterFinished",
        "entrypoint rayClusterSpec",
    ),
    "head": (
        "enableIngress headService labels rayStartParams resources serviceType template",
        "template",
    ),
    "worker": (
        "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts rayStartParams "
        "replicas resources scaleStrategy suspend template",
        "groupName maxReplicas minReplicas template",
    ),
    "authOptions": ("enableK8sTokenAuth mode secretName", "mode"),
    "autoscalerOptions": (
        "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext "
        "upscalingMode version volumeMounts",
        "",
    ),
}


@pytest.fixture
def items() -> dict[str, dict]:
    """The manifests by kind."""
    return {one["kind"]: one for one in copy.deepcopy(files.load("kuberay.yaml")["items"])}


def specs(items: dict) -> list[dict]:
    """The two clusters: that of the RayCluster and that of the RayJob."""
    return [items["RayCluster"]["spec"], items["RayJob"]["spec"]["rayClusterSpec"]]


def groups(items: dict) -> list[tuple[str, dict]]:
    return [
        pair
        for spec in specs(items)
        for pair in [("head", spec["headGroupSpec"])]
        + [("worker", group) for group in spec["workerGroupSpecs"]]
    ]


def pods(items: dict) -> list[dict]:
    return [group["template"] for _, group in groups(items)]


def field_problems(items: dict) -> list[str]:
    """Fields of KubeRay's levels that are unknown or missing."""
    levels = [("RayJob", items["RayJob"]["spec"]), *groups(items)]
    for spec in specs(items):
        levels += [("RayCluster", spec)]
        levels += [(name, spec[name]) for name in ("authOptions", "autoscalerOptions")]
    found = set()
    for level, value in levels:
        known, needed = (set(names.split()) for names in FIELDS[level])
        found |= {f"{level}: {name} is unknown" for name in value.keys() - known}
        found |= {f"{level}: {name} is missing" for name in needed - value.keys()}
    return sorted(found)


def schema_problems(items: dict) -> list[str]:
    """What Kubernetes' schemas refuse of the volume, the policy and the pods."""
    validator = pytest.importorskip("kubernetes_validate", reason="is not installed")
    plain = [items["PersistentVolumeClaim"], items["NetworkPolicy"]]
    found = []
    for manifest in plain + [{"apiVersion": "v1", "kind": "Pod", **pod} for pod in pods(items)]:
        try:
            validator.validate(manifest, KUBERNETES, strict=True)
        except validator.ValidationError as problem:
            found.append(str(problem).splitlines()[0])
    return found


def as_ray_reads(cluster: dict) -> dict:
    """The node types that Ray's autoscaler makes of a RayCluster, validated by Ray."""
    from ray.autoscaler._private.kuberay import autoscaling_config
    from ray.autoscaler._private.util import validate_config

    cluster["metadata"]["namespace"] = "default"
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    validate_config(config)
    return config


def test_kubernetes_would_read_volume_policy_and_pods(items):
    assert schema_problems(items) == []


@pytest.mark.parametrize(
    ("place", "change"),
    [
        (lambda items: pods(items)[0]["spec"], {"containerz": []}),
        (lambda items: pods(items)[1]["spec"]["containers"][0], {"imagePullPolicy": 1}),
        (lambda items: pods(items)[1]["spec"]["tolerations"][0], {"effekt": "NoSchedule"}),
        (lambda items: items["PersistentVolumeClaim"]["spec"], {"accessModes": "ReadWriteMany"}),
        (lambda items: items["NetworkPolicy"]["spec"], {"podSelektor": {}}),
    ],
)
def test_a_mistake_in_what_kubernetes_reads_is_caught(items, place, change):
    place(items).update(change)
    assert schema_problems(items)


def test_kuberays_fields_are_known_and_none_is_missing(items):
    assert field_problems(items) == []


def test_a_mistake_in_kuberays_fields_is_caught(items):
    items["RayJob"]["spec"]["entrypoints"] = items["RayJob"]["spec"].pop("entrypoint")
    items["RayCluster"]["spec"]["authOptions"] = {"modus": "token"}
    del items["RayCluster"]["spec"]["workerGroupSpecs"][0]["groupName"]
    assert field_problems(items) == [
        "RayJob: entrypoint is missing",
        "RayJob: entrypoints is unknown",
        "authOptions: mode is missing",
        "authOptions: modus is unknown",
        "worker: groupName is missing",
    ]


def test_rays_autoscaler_reads_gpus_from_zero_and_a_head_that_never_trains(items):
    config = as_ray_reads(items["RayCluster"])
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])["resources"]
    assert (head["GPU"], head["head"]) == (0, 1)
    (worker,) = kinds.values()
    assert (worker["min_workers"], worker["max_workers"]) == (0, 8)
    assert worker["resources"]["GPU"] == 1 and "head" not in worker["resources"]
    assert config["idle_timeout_minutes"] == files.load("gpu.yaml")["idle_timeout_minutes"]


def test_ray_refuses_a_group_that_does_not_say_how_many_cpus_it_has(items):
    worker = items["RayCluster"]["spec"]["workerGroupSpecs"][0]
    worker["resources"] = {}
    worker["template"]["spec"]["containers"][0]["resources"] = {}
    with pytest.raises(ValueError, match="CPU"):
        as_ray_reads(items["RayCluster"])


def test_what_a_group_offers_is_what_its_pod_has(items):
    for _, group in groups(items):
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        told = group["resources"]
        assert (told["CPU"], told["GPU"]) == (limits["cpu"], limits.get("nvidia.com/gpu", "0"))


def test_both_clusters_authenticate_and_stay_inside(items):
    for spec in specs(items):
        assert spec["authOptions"] == {"mode": "token"}
        head = spec["headGroupSpec"]
        assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)
    hosts = [spec["headGroupSpec"]["rayStartParams"]["dashboard-host"] for spec in specs(items)]
    assert hosts == ["127.0.0.1", "0.0.0.0"]


def test_the_policy_covers_every_pod_and_lets_in_themselves_and_the_operator(items):
    policy = items["NetworkPolicy"]["spec"]
    ours = policy["podSelector"]["matchLabels"]
    assert all(ours.items() <= pod["metadata"]["labels"].items() for pod in pods(items))
    themselves, operator = policy["ingress"]
    assert themselves == {"from": [{"podSelector": {"matchLabels": ours}}]}
    (who,) = operator["from"]
    assert who["podSelector"]["matchLabels"] and operator["ports"] == [
        {"protocol": "TCP", "port": 8265}
    ]


def test_pods_mount_the_volume_that_is_claimed(items):
    claim = items["PersistentVolumeClaim"]["metadata"]["name"]
    for pod in pods(items):
        (volume,) = pod["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim
        (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
        assert mount["name"] == volume["name"]


def test_the_job_is_a_sweep_that_our_command_line_reads_pinned_to_the_head(items):
    from sweeps.setup import command_line

    spec = items["RayJob"]["spec"]
    python, script, *arguments = shlex.split(spec["entrypoint"])
    given = command_line.parse(command_line.options("", many=True), arguments)
    assert (python, script, given.address) == ("python", "sweeps/pareto.py", "auto")
    offered = as_ray_reads(items["RayCluster"])["available_node_types"]["headgroup"]["resources"]
    asked = json.loads(spec["entrypointResources"])
    assert asked and all(offered[name] >= amount for name, amount in asked.items())
    # The sweep's slots are the GPUs that may come.
    most = spec["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]
    assert f"sweep.slots={most}" in given.settings


def test_the_image_is_that_of_the_dockerfile_in_this_version():
    import tomllib

    version = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("kuberay.yaml", "Dockerfile"):
        assert f"/ermgap:{version}" in files.text(name)
