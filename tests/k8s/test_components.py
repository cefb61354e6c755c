"""Each component is enabled by one line, changes what it describes, and sets only what the services know."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from obstore.exceptions import UnknownConfigurationKeyError
from obstore.store import S3Store
from prometheus_client.parser import text_string_to_metric_families
from tests.support.kustomize import ROOT, Object, documents, rendered, resource_files
from tests.support.site import scraped_services

from accord.channel import TLS
from accord_controller.settings import ControllerSettings
from accord_preference.settings import PreferenceSettings
from accord_reward.settings import RewardSettings
from accord_rollout.settings import RolloutSettings
from accord_runtime.serving.settings import ServiceSettings
from accord_trainer.settings import TrainerSettings

pytestmark = pytest.mark.process

if TYPE_CHECKING:
    from obstore.store import S3Config

SETTINGS: dict[str, type[ServiceSettings]] = {
    "controller": ControllerSettings,
    "preference": PreferenceSettings,
    "rollout": RolloutSettings,
    "reward": RewardSettings,
    "trainer": TrainerSettings,
}
COMPONENTS = sorted(path.parent.name for path in ROOT.glob("components/*/kustomization.yaml"))


@pytest.fixture
def render(tmp_path: Path) -> Iterator[Any]:
    """Renders a user's overlay with these components."""

    def build(*components: str) -> list[Object]:
        k8s = os.path.relpath(ROOT, tmp_path)
        named = "".join(f"  - {k8s}/components/{name}\n" for name in ("engine-transformers", *components))
        text = f"namespace: accord\nresources: [{k8s}/base]\ncomponents:\n{named}"
        (tmp_path / "kustomization.yaml").write_text(text)
        rendered.cache_clear()
        return documents(rendered(os.path.relpath(tmp_path, ROOT)))

    yield build
    rendered.cache_clear()


def one(found: list[Object], kind: str, name: str) -> Object:
    (match,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return match


def pods(found: list[Object]) -> dict[str, Any]:
    """The pod of each workload, by component label."""
    return {
        each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]["spec"]
        for each in found
        if each["kind"] in ("Deployment", "StatefulSet")
    }


def environment(pod: Any) -> dict[str, Any]:
    """Of the first container: the value, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in pod["containers"][0]["env"]}


# What each kind of another project knows in its spec (cert-manager v1, Prometheus Operator v1, KEDA v2).
FOREIGN = {
    "Issuer": {"selfSigned", "ca"},
    "Certificate": {
        "secretName", "commonName", "dnsNames", "usages", "privateKey", "issuerRef", "isCA", "duration", "renewBefore",
    },
    "PodMonitor": {"selector", "podTargetLabels", "podMetricsEndpoints", "namespaceSelector", "jobLabel"},
    "PrometheusRule": {"groups"},
    "ScaledObject": {
        "scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "pollingInterval", "triggers",
    },
}  # fmt: skip


def test_kinds_of_other_projects_have_only_fields_that_these_know() -> None:
    seen = set()
    for path in resource_files():
        for document in documents(path.read_text()):
            if document["kind"] in FOREIGN:
                seen.add(document["kind"])
                assert set(document["spec"]) <= FOREIGN[document["kind"]], path
    assert seen == set(FOREIGN)


@pytest.mark.parametrize("component", [name for name in COMPONENTS if not name.startswith("engine-")])
def test_every_variable_of_a_component_is_a_setting_of_its_service(render: Any, component: str) -> None:
    for name, pod in pods(render(component)).items():
        if name not in SETTINGS:
            continue
        prefix = f"ACCORD_{name.upper()}_"
        for variable in environment(pod):
            if variable.startswith("ACCORD_TLS_"):
                assert variable.removeprefix("ACCORD_TLS_").lower() in TLS.__dataclass_fields__, variable
            elif variable.startswith("ACCORD_"):
                assert variable.startswith(prefix), f"{variable} in the pod of {name}"
                assert variable.removeprefix(prefix).lower() in SETTINGS[name].model_fields, variable


def test_store_postgres_keeps_nothing_in_sqlite_and_migrates_before_services_serve(render: Any) -> None:
    found = render("store-postgres")
    keys = one(found, "Secret", "database")["stringData"]
    for name in ("preference", "controller"):
        variables = environment(pods(found)[name])
        url = variables[f"ACCORD_{name.upper()}_DATABASE_URL"]["secretKeyRef"]
        assert url["name"] == "database"
        assert keys[url["key"]].startswith("postgresql://accord:"), "no SQLite file is left"
        assert keys[url["key"]].endswith("@postgres:5432/accord")
        assert keys["password"] in keys[url["key"]]
        assert variables[f"ACCORD_{name.upper()}_MIGRATIONS"] == "awaited"
        job = one(found, "Job", f"migrate-{name}")["spec"]["template"]["spec"]
        assert job["containers"][0]["command"] == ["python", "-m", f"accord_{name}.migrate"]
        assert job["containers"][0]["image"] == pods(found)[name]["containers"][0]["image"], (
            "schema and code are one release"
        )
        assert environment(job)[f"ACCORD_{name.upper()}_DATABASE_URL"]["secretKeyRef"] == url
    assert one(found, "Service", "postgres")["spec"]["ports"][0]["port"] == 5432
    allowed = one(found, "NetworkPolicy", "postgres")["spec"]["ingress"][0]["from"]
    assert {each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in allowed} == {
        "preference", "controller", "migrate",
    }  # fmt: skip


def test_object_store_gives_credentials_only_to_services_that_fetch_weights(render: Any) -> None:
    found = render("object-store")
    for name, pod in pods(found).items():
        given = [next(iter(each.values()))["name"] for each in pod["containers"][0].get("envFrom", [])]
        assert given == (["object-store", "object-store"] if name in ("rollout", "reward", "trainer") else []), name
    values = {**one(found, "ConfigMap", "object-store")["data"], **one(found, "Secret", "object-store")["stringData"]}
    # The store's client takes only what it knows by name.
    known = {key.lower(): value for key, value in values.items()}
    S3Store("bucket", config=cast("S3Config", known))
    with pytest.raises(UnknownConfigurationKeyError):
        S3Store("bucket", config=cast("S3Config", {**known, "fsspec_s3_endpoint_url": "x"}))
    assert values["AWS_ENDPOINT_URL"] == "http://minio.minio:9000"
    assert set(one(found, "Secret", "object-store")["stringData"]) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}


def test_gpu_and_spot_go_together_and_touch_only_what_they_name(render: Any) -> None:
    before, after = pods(render()), pods(render("gpu", "gpu-runtime-class", "spot"))
    assert {name for name in before if before[name] != after[name]} == {"rollout", "trainer"}
    for name in ("rollout", "trainer"):
        pod = after[name]
        assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 1}
        assert pod["containers"][0]["resources"]["requests"] == before[name]["containers"][0]["resources"]["requests"]
        assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert pod["runtimeClassName"] == "nvidia"
        assert "nvidia.com/gpu" in {each["key"] for each in pod["tolerations"]}
        assert environment(pod)[f"ACCORD_{name.upper()}_DEVICE"] == "cuda"
    spot = after["rollout"]
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot", "karpenter.sh/capacity-type"} <= {
        each["key"] for each in spot["tolerations"]
    }
    assert float(environment(spot)["ACCORD_ROLLOUT_DRAIN_SECONDS"]) < spot["terminationGracePeriodSeconds"] < 30
    assert "affinity" not in after["trainer"], "a trainer is not placed on preemptible machines"


def test_priority_evicts_rollouts_before_trainers_and_those_before_services_that_store_data(render: Any) -> None:
    found = render("operator", "store-postgres", "priority")
    value = {each["metadata"]["name"]: each["value"] for each in found if each["kind"] == "PriorityClass"}
    rank = {name: value[pod["priorityClassName"]] for name, pod in pods(found).items()}
    assert rank["rollout"] < rank["trainer"] == rank["reward"] < rank["controller"]
    assert rank["controller"] == rank["preference"] == rank["postgres"] == rank["operator"] == rank["console"]


@pytest.mark.parametrize("operator", [(), ("operator",)])
def test_mtls_leaves_no_plain_port_and_every_dialled_name_is_in_a_certificate(
    render: Any, operator: tuple[str, ...]
) -> None:
    found = render(*operator, "mtls")
    names = {
        each["spec"]["secretName"]: each["spec"]
        for each in found
        if each["kind"] == "Certificate" and not each["spec"].get("isCA")
    }
    for name, pod in pods(found).items():
        variables, container = environment(pod), pod["containers"][0]
        (volume,) = [each for each in pod["volumes"] if each["name"] == "tls"]
        issued = names[volume["secret"]["secretName"]]
        assert issued["dnsNames"][:3] == [name, f"{name}.accord", f"{name}.accord.svc"]
        assert {"server auth", "client auth"} <= set(issued["usages"])
        assert {"name": "tls", "mountPath": "/tls", "readOnly": True} in container["volumeMounts"]
        assert variables["ACCORD_TLS_ROOT_CERTIFICATES"] == "/tls/ca.crt"
        assert (variables["ACCORD_TLS_CERTIFICATE"], variables["ACCORD_TLS_KEY"]) == ("/tls/tls.crt", "/tls/tls.key")
        if name in SETTINGS:
            own = f"ACCORD_{name.upper()}_"
            assert f"{own}ALLOW_INSECURE" not in variables
            files = {"CERT": "tls.crt", "KEY": "tls.key", "CLIENT_CA": "ca.crt"}
            assert all(variables[f"{own}TLS_{key}"] == f"/tls/{file}" for key, file in files.items())
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]["grpc"]["port"] == int(variables[f"{own}HEALTH_PORT"]), name
    dialled = {
        address.partition(":")[0]
        for pod in pods(found).values()
        for variable, address in environment(pod).items()
        if variable.endswith("_ADDRESS")
    }
    assert {"preference", "controller"} & dialled
    assert dialled <= {name for issued in names.values() for name in issued["dnsNames"]}
    # The services of a Run are dialled as <run>-<service>.<namespace>.svc.
    for service in ("rollout", "reward", "trainer"):
        assert "*.accord.svc" in names[f"{service}-tls"]["dnsNames"]
    issuers = {each["metadata"]["name"] for each in found if each["kind"] == "Issuer"}
    assert {each["issuerRef"]["name"] for each in names.values()} <= issuers


@pytest.mark.parametrize("component", ["autoscaling", "autoscaling-keda"])
def test_autoscaling_follows_the_backlog_and_the_controller_knows_every_replica(render: Any, component: str) -> None:
    found = render(component)
    kind = "ScaledObject" if component.endswith("keda") else "HorizontalPodAutoscaler"
    target = one(found, kind, "rollout")["spec"]["scaleTargetRef"]
    deployment = one(found, target["kind"], target["name"])
    assert "replicas" not in deployment["spec"], "applying again would undo the scaling"
    address = environment(pods(found)["controller"])["ACCORD_CONTROLLER_ROLLOUT_ADDRESS"]
    assert address == "dns:///rollout-replicas:7001"
    service = one(found, "Service", "rollout-replicas")["spec"]
    assert service["clusterIP"] == "None"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert "accord_rollout_pending_samples" in json.dumps(one(found, kind, "rollout"))


def test_monitoring_gives_every_service_a_port_that_the_monitor_and_the_policy_name(render: Any) -> None:
    found = render("monitoring")
    (endpoint,) = one(found, "PodMonitor", "accord")["spec"]["podMetricsEndpoints"]
    policy = one(found, "NetworkPolicy", "metrics")["spec"]["ingress"][0]["ports"]
    (chosen,) = one(found, "PodMonitor", "accord")["spec"]["selector"]["matchExpressions"]
    assert (chosen["key"], chosen["operator"]) == ("app.kubernetes.io/component", "In")
    assert set(chosen["values"]) == set(SETTINGS)
    assert one(found, "NetworkPolicy", "metrics")["spec"]["podSelector"]["matchExpressions"] == [chosen]
    for each in found:
        if each["kind"] in ("Deployment", "StatefulSet"):
            name = each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
            if name in SETTINGS:
                ports = {port["name"]: port["containerPort"] for port in pods(found)[name]["containers"][0]["ports"]}
                port = environment(pods(found)[name])[f"ACCORD_{name.upper()}_METRICS_PORT"]
                assert str(ports[endpoint["port"]]) == port
                assert policy == [{"port": int(port)}]


@pytest.fixture
async def exported(tmp_path: Path) -> AsyncIterator[set[str]]:
    """Every name that the five services really export."""
    async with scraped_services(tmp_path) as texts:
        yield {
            sample.name
            for text in texts
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


async def test_alerts_the_dashboard_and_autoscaling_ask_only_for_what_services_export(
    render: Any, exported: set[str]
) -> None:
    found = render("monitoring", "autoscaling-keda")
    rules = one(found, "PrometheusRule", "accord")["spec"]["groups"]
    board = json.loads(one(found, "ConfigMap", "accord-dashboard")["data"]["dashboard.json"])
    asked = [rule["expr"] for group in rules for rule in group["rules"]]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [trigger["metadata"]["query"] for trigger in one(found, "ScaledObject", "rollout")["spec"]["triggers"]]
    (hpa,) = one(render("autoscaling"), "HorizontalPodAutoscaler", "rollout")["spec"]["metrics"]
    asked.append(hpa["pods"]["metric"]["name"])
    names = {name for expression in asked for name in re.findall(r"\b(?:accord|process)_\w+", expression)}
    assert len(names) >= 10
    assert names <= exported
    own = {name for name in exported if name.startswith("accord_") and not name.endswith(("_created", "_sum"))}
    assert own <= names | {"accord_call_seconds_bucket"}, "everything that services export is on the dashboard"
    assert one(found, "ConfigMap", "accord-dashboard")["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_production_holds_no_password_and_no_database_for_trials() -> None:
    found = documents(rendered("overlays/production"))
    assert not [each for each in found if each["kind"] == "Secret"]
    assert "postgres" not in pods(found)
    assert {each["kind"] for each in found} >= {"Certificate", "PodMonitor", "PriorityClass", "Job"}
    url = environment(pods(found)["preference"])["ACCORD_PREFERENCE_DATABASE_URL"]
    assert url == {"secretKeyRef": {"name": "database", "key": "preference-url"}}
