"""The Kubernetes files that follow from others: topics.yaml from schemas/topics.py, rules.yaml from the rules.

deploy/generate.py writes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from schemas.topics import ALL_TOPICS
from streams.config import Config
from streams.kafka_topics import topic_settings

FOLDER: Final = Path(__file__).resolve().parent
REPLICAS: Final = 3
_HEAD: Final = "# Written by deploy/generate.py: change what it is made from.\n"


def topics() -> list[dict[str, Any]]:
    """A KafkaTopic for each of ours, with the settings that `tocsin topics create` gives."""
    return [
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": spec.name, "namespace": "tocsin", "labels": {"strimzi.io/cluster": "tocsin"}},
            "spec": {
                "partitions": spec.partitions or Config().partitions,
                "replicas": REPLICAS,
                "config": topic_settings(spec, history=False, replicas=REPLICAS),
            },
        }
        for spec in ALL_TOPICS
    ]


def rules() -> list[dict[str, Any]]:
    """A PrometheusRule with all groups of deploy/prometheus."""
    source = FOLDER.parent / "prometheus"
    groups = [
        group
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((source / name).read_text("utf-8"))["groups"]
    ]
    about = {"name": "tocsin", "namespace": "tocsin", "labels": {"app.kubernetes.io/name": "tocsin-worker"}}
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": about,
        "spec": {"groups": groups},
    }
    return [made]


def rendered() -> dict[str, str]:
    """Each file's name and text."""
    found = {"topics.yaml": topics(), "rules.yaml": rules()}
    return {
        name: _HEAD + yaml.safe_dump_all(made, sort_keys=False, width=110, allow_unicode=True)
        for name, made in found.items()
    }
