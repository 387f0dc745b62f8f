"""The manifests hold to Kubernetes' schemas, and agree with each other, with the image and with the server."""

import re
import shutil
import subprocess
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import kubernetes_validate
import pytest
import yaml

from deploy.prometheus.kubernetes import render as render_rules
from service.app import create_app
from service.config import Settings, load_settings
from service.loading import Opener
from service.specs import SPECS
from tests.fakes import FakeEngine
from tests.image import ROOT, dockerfile, image_environment, read_yaml

Manifest: TypeAlias = dict[str, Any]

FOLDER = ROOT / "deploy" / "kubernetes"
BASE, PROMETHEUS, EXAMPLE = FOLDER / "base", FOLDER / "components" / "prometheus", FOLDER / "overlays" / "example"
OLDEST = "1.30"  # has the sleep action of preStop
NO_MANIFEST = {PROMETHEUS / "adapter-rule.yaml"}
PARTS = pytest.mark.parametrize("folder", [BASE, PROMETHEUS, EXAMPLE], ids=lambda folder: folder.name)
COMPLETE = pytest.mark.parametrize("folder", [BASE, EXAMPLE], ids=lambda folder: folder.name)


def documents(file: Path) -> list[Manifest]:
    """Return the manifests of a file."""
    return list(yaml.safe_load_all(file.read_text()))


def kustomization(folder: Path) -> Manifest:
    """Return what a folder consists of."""
    (found,) = documents(folder / "kustomization.yaml")
    return found


def written(folder: Path) -> list[Manifest]:
    """Return the complete manifests that a folder's own files hold."""
    files = [folder / name for name in kustomization(folder)["resources"] if name.endswith(".yaml")]
    return list(chain.from_iterable(map(documents, files)))


def render(folder: Path) -> list[Manifest]:
    """Return the manifests that would be applied. Skips the test where there is no kubectl to ask."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl, which renders overlays, is not here")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def only(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the one manifest of a kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


def pod() -> Manifest:
    """Return the base's pod template."""
    template: Manifest = only(written(BASE), "Deployment")["spec"]["template"]
    return template


def container() -> Manifest:
    """Return the base's one container."""
    (found,) = pod()["spec"]["containers"]
    return dict(found)


def check(manifest: Manifest, version: str) -> None:
    """Hold a manifest to the schema of its kind, unknown fields refused."""
    if manifest["kind"] not in {"PrometheusRule", "ServiceMonitor"}:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    # The Prometheus operator's: by hand, as far as they are used here.
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
    if manifest["kind"] == "PrometheusRule":
        assert set(manifest["spec"]) == {"groups"}  # which promtool has checked
        return
    assert set(manifest["spec"]) == {"jobLabel", "selector", "endpoints"}
    for endpoint in manifest["spec"]["endpoints"]:
        assert set(endpoint) == {"port", "path", "interval"}
        assert re.fullmatch(r"[1-9][0-9]*s", endpoint["interval"])


@PARTS
@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_manifest_is_valid(folder: Path, version: str) -> None:
    """What the files hold is accepted by the oldest Kubernetes that will do and by the newest."""
    for manifest in written(folder):
        check(manifest, version)


@COMPLETE
def test_every_rendered_manifest_is_valid(folder: Path) -> None:
    """What kubectl makes of base and overlay is accepted too."""
    rendered = render(folder)
    assert len(rendered) >= len(written(BASE))
    for manifest in rendered:
        check(manifest, OLDEST)


def test_misspelt_field_is_found() -> None:
    """The check refuses a field that Kubernetes would ignore."""
    deployment = only(written(BASE), "Deployment")
    deployment["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        check(deployment, OLDEST)


@PARTS
def test_every_file_is_used(folder: Path) -> None:
    """Each file of a folder is listed in its kustomization, and each that is listed is there."""
    listed = kustomization(folder)
    names = [
        *listed["resources"],
        *listed.get("components", []),
        *(patch["path"] for patch in listed.get("patches", [])),
    ]
    assert all((folder / name).exists() for name in names)
    files = {(folder / name) for name in names if name.endswith(".yaml")}
    assert set(folder.iterdir()) - NO_MANIFEST == files | {folder / "kustomization.yaml"}


@pytest.mark.parametrize("folder", [PROMETHEUS, EXAMPLE], ids=lambda folder: folder.name)
def test_every_patch_has_a_target(folder: Path) -> None:
    """Patches name kinds, names and containers of the base."""
    base = {(each["kind"], each["metadata"]["name"]) for each in written(BASE)}
    for patch in kustomization(folder)["patches"]:
        if "target" in patch:
            assert (patch["target"]["kind"], patch["target"]["name"]) in base
            continue
        for each in documents(folder / patch["path"]):
            assert (each["kind"], each["metadata"]["name"]) in base
            containers = each["spec"].get("template", {}).get("spec", {}).get("containers", [])
            assert {one["name"] for one in containers} <= {container()["name"]}


def test_everything_selects_the_pods() -> None:
    """Deployment, Service, budget, policy, spread, autoscaler and monitor mean the same pods."""
    labels = pod()["metadata"]["labels"]
    base = written(BASE)
    deployment, service = only(base, "Deployment"), only(base, "Service")
    spread = pod()["spec"]["topologySpreadConstraints"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert only(base, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert only(base, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert [each["labelSelector"]["matchLabels"] for each in spread] == [labels, labels]
    target = only(base, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {key: deployment[key] for key in ("apiVersion", "kind")} | {"name": deployment["metadata"]["name"]}
    monitor = only(written(PROMETHEUS), "ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["jobLabel"] in service["metadata"]["labels"]


def test_ports_agree() -> None:
    """Service, policy, probes and monitor use the container's named port, which is the image's."""
    (port,) = container()["ports"]
    assert str(port["containerPort"]) == image_environment()["DIN_PORT"]
    base = written(BASE)
    (offered,) = only(base, "Service")["spec"]["ports"]
    (rule,) = only(base, "NetworkPolicy")["spec"]["ingress"]
    (scraped,) = only(written(PROMETHEUS), "ServiceMonitor")["spec"]["endpoints"]
    probes = [container()[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "liveness", "readiness")]
    assert {offered["targetPort"], scraped["port"], *probes} == {offered["name"]} == {port["name"]}
    assert [each["port"] for each in rule["ports"]] == [port["name"]]


def test_paths_are_routes(tmp_path: Path) -> None:
    """Each probe asks its own question, and with Prometheus what the server answers to GET."""
    app = create_app(Settings(model_dir=tmp_path), Opener(lambda *_: FakeEngine()))
    routes = {path for path, methods in app.openapi()["paths"].items() if "get" in methods}
    probes = {kind: container()[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert probes == {"startup": "/health/started", "liveness": "/health/live", "readiness": "/health/ready"}
    (scraped,) = only(written(PROMETHEUS), "ServiceMonitor")["spec"]["endpoints"]
    assert {*probes.values(), scraped["path"]} <= routes


@pytest.mark.parametrize(
    "file",
    [ROOT / "docker-compose.yml", *FOLDER.parent.rglob("*.y*ml")],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_variables_are_settings(file: Path) -> None:
    """Whatever a file of the deployment calls DIN_something, comments included, is a setting."""
    named = {name.removeprefix("DIN_").lower() for name in re.findall(r"DIN_[A-Z_]*[A-Z]", file.read_text())}
    assert named <= set(Settings.model_fields)


@COMPLETE
def test_server_takes_the_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the image's variables and the pod's the server would start, an executor for each CPU requested."""
    manifests = written(BASE) if folder is BASE else render(folder)
    (server,) = only(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value", server["resources"]["requests"]["cpu"]) for each in server["env"]}
    for name, value in (image_environment() | given).items():
        if name.startswith("DIN_"):
            monkeypatch.setenv(name, value)
    assert load_settings().executors == int(server["resources"]["requests"]["cpu"])


def test_kill_comes_after_the_server_has_stopped() -> None:
    """The grace period is longer than preStop, drain delay, and the grace time of connections and of executors."""
    values = {each["name"]: float(each["value"]) for each in container()["env"] if each["name"].endswith("_S")}
    stop_s = container()["lifecycle"]["preStop"]["sleep"]["seconds"] + values["DIN_DRAIN_DELAY_S"]
    assert stop_s + 2 * values["DIN_GRACE_S"] < pod()["spec"]["terminationGracePeriodSeconds"]


def test_production_has_no_playground() -> None:
    """The page for people is off."""
    assert {"name": "DIN_PLAYGROUND", "value": "false"} in container()["env"]


def test_pod_is_confined() -> None:
    """The pod runs as the image's user, on a read-only image, without rights, token or other services' variables."""
    spec = pod()["spec"]
    user, group = map(int, dockerfile()["USER"][-1].split(":"))
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert {key: spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert only(written(BASE), "NetworkPolicy")["spec"]["egress"] == []


def test_what_the_server_writes_is_a_volume() -> None:
    """The temporary folder and the rollout file's are volumes; models are mounted where the image looks, read-only."""
    mounts = {each["mountPath"]: each["name"] for each in container()["volumeMounts"]}
    environment = image_environment()
    assert set(mounts) == {"/tmp", str(Path(environment["DIN_ROLLOUT_FILE"]).parent)}  # noqa: S108  inside the pod
    assert set(mounts.values()) == {each["name"] for each in pod()["spec"]["volumes"]}
    (patch,) = documents(EXAMPLE / "models.yaml")
    (models,) = patch["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert (models["mountPath"], models["readOnly"]) == (environment["DIN_MODEL_DIR"], True)


def test_memory_is_reserved_and_cpus_are_whole() -> None:
    """No pod holds more memory than it asked for, or part of a CPU, or is held to a quota of CPU time."""
    resources = container()["resources"]
    assert resources["limits"] == {"memory": resources["requests"]["memory"]}
    assert resources["requests"]["cpu"].isdigit()


def test_autoscaler_reads_a_metric_of_the_server() -> None:
    """The queue's length that the autoscaler asks for is a gauge, and what the adapter's rule offers."""
    (patch,) = read_yaml(PROMETHEUS / "queue-metric.yaml")
    (rule,) = read_yaml(PROMETHEUS / "adapter-rule.yaml")["rules"]
    name = patch["value"]["pods"]["metric"]["name"]
    assert {spec.name: (spec.kind, spec.labels) for spec in SPECS}[name] == ("gauge", ())
    assert rule["seriesQuery"].partition("{")[0] == name


def test_rules_are_those_of_prometheus() -> None:
    """`python -m deploy.prometheus.kubernetes` would change nothing, and the alerts' job is the monitor's."""
    assert (PROMETHEUS / "prometheus-rule.yaml").read_text() == render_rules()
    monitor = only(written(PROMETHEUS), "ServiceMonitor")["spec"]
    job = only(written(BASE), "Service")["metadata"]["labels"][monitor["jobLabel"]]
    assert set(re.findall(r'job="([^"]+)"', render_rules())) == {job}
