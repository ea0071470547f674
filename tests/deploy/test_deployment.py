"""Compose and Kubernetes files: valid by the schemas of their makers, and in agreement with the program and each other.

No engine and no cluster runs here. Compose is checked by the compose-spec schema, Kubernetes' own kinds by its schemas;
the operators' kinds (Strimzi, KEDA, Prometheus) are checked for what we mean by them, as no package carries theirs.
"""

from __future__ import annotations

import copy
import json
import re
from importlib import resources
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from tooling import ROOT, Run, load

from schemas.topics import ALL_TOPICS, RAW_TOPICS
from streams.commands import board as board_command
from streams.commands import run as run_command
from streams.config import Config
from streams.kafka_security import BrokerAddress, Security

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
MADE_BY_OTHERS = {"./grafana-password"}
"""What whoever deploys puts there."""


def documents() -> list[dict[str, Any]]:
    """Every Kubernetes object."""
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))["resources"]
    return [one for name in names for one in yaml.safe_load_all((KUBERNETES / name).read_text("utf-8"))]


OBJECTS = documents()


def the(kind: str, name: str = "tocsin-worker") -> dict[str, Any]:
    (found,) = [one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in OBJECTS if one["kind"] == kind]


def known_variables() -> set[str]:
    """What `tocsin run` reads from the environment."""
    options = {str(option.envvar) for option in run_command.command.params if getattr(option, "envvar", None)}
    return options | {"TOCSIN_ALERTMANAGER_TOKEN_FILE"}


# --- Compose -------------------------------------------------------------------------------------------------------


def compose_errors(document: dict[str, Any]) -> list[str]:
    path = resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(path.read_text("utf-8"))
    return [error.message for error in jsonschema.validators.validator_for(schema)(schema).iter_errors(document)]


def test_compose_is_valid_by_the_compose_specification() -> None:
    assert compose_errors(COMPOSE) == []
    wrong = copy.deepcopy(COMPOSE)
    wrong["services"]["worker"]["depend_on"] = wrong["services"]["worker"].pop("depends_on")
    assert compose_errors(wrong) != []


def test_compose_names_only_what_is_there() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), (name, source)
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert re.fullmatch(r"\S+:v?\d+\.\d+\.\d+", service["image"]), f"{name}: pin the image"
    secret = COMPOSE["secrets"]["grafana-password"]["file"]
    assert secret == "${GRAFANA_PASSWORD_FILE:-./grafana-password}"


def test_compose_starts_the_program_as_it_wants_to_be_started() -> None:
    worker = COMPOSE["services"]["worker"]
    assert set(worker["environment"]) <= known_variables() | {"TOCSIN_BROKER"}
    assert worker["deploy"]["replicas"] == 2
    address = BrokerAddress.parse(worker["environment"]["TOCSIN_BROKER"])
    assert str(address) == "kafka:9092"
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text("utf-8"))["scrape_configs"]
    (found,) = scraped[0]["dns_sd_configs"]
    assert (found["names"], str(found["port"])) == (["worker"], worker["environment"]["TOCSIN_METRICS_PORT"])
    assert scraped[0]["job_name"] == "tocsin"


def test_the_board_in_compose_is_served_to_those_with_a_token_only() -> None:
    board = COMPOSE["services"]["board"]
    assert board["command"] == ["board"]
    known = {str(option.envvar) for option in board_command.command.params if getattr(option, "envvar", None)}
    assert set(board["environment"]) <= known_variables() | known
    (secret,) = board["secrets"]
    assert board["environment"]["TOCSIN_TOKENS_FILE"] == f"/run/secrets/{secret}"
    (port,) = board["ports"]
    default = next(option.default for option in board_command.command.params if option.name == "port")
    assert port == f"127.0.0.1:8090:{default}"
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "compose.yml").read_text("utf-8"))["scrape_configs"]
    (found,) = next(job["dns_sd_configs"] for job in scraped if job["job_name"] == "tocsin-board")
    assert (found["names"], str(found["port"])) == (["board"], board["environment"]["TOCSIN_METRICS_PORT"])


def test_promtool_accepts_the_configuration_inside_compose(promtool: Run) -> None:
    done = promtool("check", "config", "compose.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_given_the_dashboards_and_the_source_that_they_ask_for() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "tocsin.yml").read_text("utf-8"))["providers"]
    grafana = COMPOSE["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert source["url"] == "${PROMETHEUS_URL}"
    assert "PROMETHEUS_URL" in grafana["environment"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / home.rpartition("/")[2]).exists()
    for path in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        listed = json.loads(path.read_text("utf-8"))["templating"]["list"]
        assert [one["query"] for one in listed if one["type"] == "datasource"] == [source["type"]]


# --- Kubernetes ----------------------------------------------------------------------------------------------------

_CORE = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1")


def test_kubernetes_own_kinds_are_valid_by_its_schemas() -> None:
    core = [one for one in OBJECTS if one["apiVersion"] in _CORE]
    assert {one["kind"] for one in core} == {
        "Namespace", "ServiceAccount", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy",
    }  # fmt: skip
    version = kubernetes_validate.latest_version()
    for one in core:
        kubernetes_validate.validate(one, version, strict=True)
    wrong = copy.deepcopy(the("Deployment"))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_every_object_is_one_of_those_that_are_checked_and_stands_in_the_namespace() -> None:
    others = {one["kind"] for one in OBJECTS if one["apiVersion"] not in _CORE}
    strimzi = {"Kafka", "KafkaNodePool", "KafkaTopic", "KafkaUser"}
    assert others == strimzi | {"ScaledObject", "TriggerAuthentication", "ServiceMonitor", "PrometheusRule"}
    assert all(one["apiVersion"] == "kafka.strimzi.io/v1" for one in OBJECTS if one["kind"] in strimzi)
    assert all(one["kind"] == "Namespace" or one["metadata"]["namespace"] == "tocsin" for one in OBJECTS)
    names = [(one["kind"], one["metadata"]["name"]) for one in OBJECTS]
    assert len(names) == len(set(names))
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text("utf-8"))["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(path.name for path in KUBERNETES.glob("*.yaml"))


def test_topics_and_rules_are_those_of_the_program() -> None:
    generate = load("kubernetes/resources")
    for name, written in generate.rendered().items():
        assert (KUBERNETES / name).read_text("utf-8") == written, "run deploy/generate.py"
    assert [one["metadata"]["name"] for one in of_kind("KafkaTopic")] == [spec.name for spec in ALL_TOPICS]
    for one in (*of_kind("KafkaTopic"), *of_kind("KafkaUser"), *of_kind("KafkaNodePool")):
        assert one["metadata"]["labels"]["strimzi.io/cluster"] == the("Kafka", "tocsin")["metadata"]["name"]


def test_kafka_users_may_do_what_they_need_and_nothing_else() -> None:
    def may(name: str) -> dict[tuple[str, str], set[str]]:
        acls = the("KafkaUser", name)["spec"]["authorization"]["acls"]
        return {(a["resource"]["type"], a["resource"].get("name", "")): set(a["operations"]) for a in acls}

    assert may("tocsin-source") == {("topic", name): {"Describe", "Write"} for name in RAW_TOPICS}
    assert may("tocsin-officer") == {
        ("topic", "emergency-response"): {"Describe", "Read"},
        ("topic", "dispositions"): {"Describe", "Write"},
    }
    group = Config().name
    worker = may("tocsin-worker")
    assert worker["group", group] == {"Describe", "Read"}
    assert worker["transactionalId", f"{group}-"] == {"Describe", "Write"}
    assert "Delete" not in str(worker)
    assert "Create" not in str(worker)
    (listener,) = the("Kafka", "tocsin")["spec"]["kafka"]["listeners"]
    assert listener["tls"]
    assert listener["authentication"] == {"type": "tls"}


def test_the_worker_can_start_with_what_its_pod_has(tmp_path: Any) -> None:
    pod = the("Deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    security = {name for name in environment if name.startswith("TOCSIN_KAFKA_")}
    assert set(environment) - security <= known_variables() | {"TOCSIN_BROKER"}
    # The variables are understood by the program itself, with files where the pod mounts them.
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("CA_FILE", "CERT_FILE", "KEY_FILE"):
        path = environment[f"TOCSIN_KAFKA_{name}"]
        assert path.rpartition("/")[0] in mounts
        (tmp_path / name).write_text("")
        environment[f"TOCSIN_KAFKA_{name}"] = str(tmp_path / name)
    address = BrokerAddress.parse(environment["TOCSIN_BROKER"])
    Security.from_environment(environment, address)
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    config = yaml.safe_load(json.dumps(the("ConfigMap", "tocsin")))["data"]["tocsin.toml"]
    path = tmp_path / "tocsin.toml"
    path.write_text(config)
    assert Config.load(path).name == Config().name
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_selectors_ports_and_scaling_agree() -> None:
    deployment = the("Deployment")
    pod = deployment["spec"]["template"]["metadata"]["labels"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert str(port["containerPort"]) == next(
        one["value"] for one in container["env"] if one["name"] == "TOCSIN_METRICS_PORT"
    )
    assert deployment["spec"]["selector"]["matchLabels"].items() <= pod.items()
    assert the("Service")["spec"]["selector"].items() <= pod.items()
    assert the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= pod.items()
    policy = the("NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod.items()
    assert policy["ingress"][0]["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    monitor = the("ServiceMonitor")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= the("Service")["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] == the("Service")["spec"]["ports"][0]["name"]
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "port": port["name"]}
    scaled = the("ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["consumerGroup"] == Config().name
    topic = the("KafkaTopic", trigger["metadata"]["topic"])
    assert scaled["maxReplicaCount"] <= topic["spec"]["partitions"]
    assert scaled["minReplicaCount"] == deployment["spec"]["replicas"] == 2
    assert trigger["authenticationRef"]["name"] == of_kind("TriggerAuthentication")[0]["metadata"]["name"]
