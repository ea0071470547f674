"""Who may do what on the broker: one table of roles and their rights, and the commands that grant them.

Everything not granted here is refused by an authorizer that denies by default (``allow.everyone.if.no.acl.found`` is
false by default). ``tests/integration/test_kafka_rights.py`` runs the pipeline with exactly these rights, and tries
what they do not hold. Creating topics is left to the cluster's administrator.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from schemas.errors import ConfigError
from schemas.topics import ALL_TOPICS, RAW_TOPICS, topic_name

__all__ = ["ROLES", "Right", "Role", "kafka_acls_commands", "kafka_user", "rights_of"]

Role = Literal["lab", "worker", "analyst", "operator", "board"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

_LOOK: Final = ("Describe", "DescribeConfigs")
_READ: Final = ("Read", *_LOOK)
_WRITE: Final = ("Write", *_LOOK)
_BOTH: Final = ("Read", "Write", *_LOOK)
_INTERNAL: Final = tuple(spec.name for spec in ALL_TOPICS if spec.role == "internal")
_OUTPUTS: Final = tuple(spec.name for spec in ALL_TOPICS if spec.role == "output")

# What each role does on which topics.
#   lab       sends events; `tocsin publish` puts rows that it refuses into dead-letters
#   worker    intake, assess and escalate in one process, and its own watch on the end (`run --until-end`)
#   analyst   reads what came in and what came of it; replays into files, never into a topic
#   operator  reads alerts and their evidence, and answers alerts
#   board     shows that in browsers, with the counts behind it, which it takes from the stored state
_TOPICS: Final[dict[Role, tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]]] = {
    "lab": (((*RAW_TOPICS, "dead-letters"), _WRITE),),
    "worker": (
        ((*RAW_TOPICS, "dispositions"), _READ),
        ((*_INTERNAL, "signals"), _BOTH),
        (("emergency-response", "dead-letters"), _WRITE),
    ),
    "analyst": (((*RAW_TOPICS, "dispositions", *_OUTPUTS), _READ),),
    "operator": ((_OUTPUTS, _READ), (("dispositions",), _BOTH)),
    "board": ((("emergency-response", "signals", "assess-changelog"), _READ), (("dispositions",), _BOTH)),
}
_PRINCIPAL: Final = re.compile(r"User:[^\s\"'`$\\*]{1,200}")


@dataclass(frozen=True, slots=True)
class Right:
    """Operations on resources of one sort; ``prefixed`` where a name is the beginning of many."""

    resource: Literal["topic", "group", "transactional-id"]
    names: tuple[str, ...]
    operations: tuple[str, ...]
    prefixed: bool = False


def rights_of(role: Role, prefix: str = "", name: str = "tocsin") -> list[Right]:
    """The rights of a role.

    Parameters
    ----------
    prefix, name
        ``topic_prefix`` and ``name`` of the configuration: the group and its transactions are called after them.
    """
    rights = [
        Right("topic", tuple(topic_name(prefix, topic) for topic in topics), operations)
        for topics, operations in _TOPICS[role]
    ]
    if role == "worker":
        group = f"{prefix}{name}"
        rights.append(Right("group", (group,), ("Read", "Describe")))
        rights.append(Right("transactional-id", (f"{group}-",), ("Write", "Describe"), prefixed=True))
    return rights


def kafka_acls_commands(principal: str, rights: Iterable[Right], bootstrap: str) -> list[str]:
    """The ``kafka-acls.sh`` commands that grant rights to a principal (``User:lab-7``); ConfigError for none."""
    if not _PRINCIPAL.fullmatch(principal):
        raise ConfigError(f"principal {principal!r}: write User:NAME, a name without blanks, quotes and wildcards")
    lines = []
    for right in rights:
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap, "--command-config", "admin.properties", "--add"]
        words += ["--allow-principal", principal]
        words += [word for operation in right.operations for word in ("--operation", operation)]
        words += [word for name in right.names for word in (f"--{right.resource}", name)]
        words += ["--resource-pattern-type", "prefixed"] if right.prefixed else []
        lines.append(" ".join(map(shlex.quote, words)))
    return lines


_STRIMZI: Final = {"topic": "topic", "group": "group", "transactional-id": "transactionalId"}


def kafka_user(principal: str, rights: Iterable[Right]) -> str:
    """The same rights as Strimzi's ``KafkaUser``, in YAML."""
    if not re.fullmatch(r"User:[a-z0-9][a-z0-9.-]{0,62}", principal):
        raise ConfigError(f"principal {principal!r}: Kubernetes takes User:NAME of lower-case letters, digits, . and -")
    lines = [
        "apiVersion: kafka.strimzi.io/v1beta2",
        "kind: KafkaUser",
        "metadata:",
        f"  name: {principal.removeprefix('User:')}",
        "  labels: {strimzi.io/cluster: tocsin}",
        "spec:",
        "  authentication: {type: scram-sha-512}",
        "  authorization:",
        "    type: simple",
        "    acls:",
    ]
    for right, name in ((one, name) for one in rights for name in one.names):
        pattern = "prefix" if right.prefixed else "literal"
        resource = f'{{type: {_STRIMZI[right.resource]}, name: "{name}", patternType: {pattern}}}'
        lines.append(f"      - {{resource: {resource}, operations: [{', '.join(right.operations)}]}}")
    return "\n".join(lines) + "\n"
