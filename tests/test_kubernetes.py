"""The manifests for Kubernetes: as kustomize builds them, by the schemas of several versions, with the least rights."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

VERSIONS = ("1.32", "1.34", "1.37")
OVERLAYS = ("base", "processors")
missing = [] if shutil.which("kubectl") else ["kubectl, which builds them"]
missing += [] if importlib.util.find_spec("kubernetes_validate") else ["kubernetes-validate, of the extra 'dev'"]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the manifests cannot be tested without {', '.join(missing)}")


def built(overlay: str) -> list[dict[str, Any]]:
    """What ``kubectl apply --kustomize`` would send."""
    command = ["kubectl", "kustomize", str(ROOT / "infra" / "kubernetes" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Every pod that they would start, by a name of ours: its whole template."""
    found = {}
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Job":
            found[document["metadata"]["name"]] = spec["template"]
        if document["kind"] == "RayCluster":
            found["head"] = spec["headGroupSpec"]["template"]
            found |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_what_kubernetes_takes(overlay: str, version: str) -> None:
    import kubernetes_validate

    documents = built(overlay)
    for document in documents:
        if document["apiVersion"].startswith("ray.io/"):
            continue  # KubeRay's own kind; the pods in it are checked below.
        kubernetes_validate.validate(document, version, strict=True)
    for name, template in pods(documents).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, version, strict=True)
    assert {document["metadata"].get("namespace", "dav2") for document in documents} == {"dav2"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_may_more_than_it_needs(overlay: str) -> None:
    documents = built(overlay)
    for name, template in pods(documents).items():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000, name
        assert spec["automountServiceAccountToken"] == (name == "head"), name
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert container["resources"]["limits"]["memory"]
            assert container["image"].count(":") == 1 and not container["image"].endswith(":latest")
            assert not any("value" in each and "SECRET" in each["name"] for each in container.get("env", []))
    rules = [rule for document in documents if document["kind"] == "Role" for rule in document["rules"]]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch", "patch"}
    assert [rule.get("resourceNames") for rule in rules if "patch" in rule["verbs"]] == [["dav2"]]
    assert not [document for document in documents if document["kind"].startswith("Cluster")]
    policy = next(document for document in documents if document["kind"] == "NetworkPolicy")
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"] and policy["spec"]["podSelector"] == {}


def test_gpus_are_asked_for_where_there_are_any() -> None:
    wanted = {
        overlay: {
            name: [each["resources"]["limits"].get("nvidia.com/gpu") for each in template["spec"]["containers"]]
            for name, template in pods(built(overlay)).items()
        }
        for overlay in OVERLAYS
    }
    assert wanted["base"] == {"dav2-train": ["8"], "head": [None], "gpu": ["8"]}
    assert wanted["processors"] == {"dav2-train": [None], "head": [None], "gpu": [None]}
