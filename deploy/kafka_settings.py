"""What the broker of ``deploy/kafka.py`` is told in files: ``server.properties``, and how it logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
HOST = "127.0.0.1"

# The short broker session is for restarts: after a crash the controller refuses the broker's new life until
# the session of its former one has run out.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=4194304
"""

LOGGING = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


def server_properties(
    *,
    data: Path,
    port: int,
    sasl_port: int,
    controller_port: int,
    users: Mapping[str, str],
    settings: Mapping[str, str],
) -> str:
    """``server.properties`` of a broker; with users it has the second listener, which asks for SASL."""
    listeners = {"PLAINTEXT": port, "CONTROLLER": controller_port}
    lines = [_SETTINGS.format(host=HOST, controller_port=controller_port, data=data / "log")]
    if users:
        listeners["SASL_PLAINTEXT"] = sasl_port
        scope = "listener.name.sasl_plaintext"
        module = "org.apache.kafka.common.security"
        known = " ".join(f'user_{user}="{_quoted(word)}"' for user, word in users.items())
        lines.append(f"sasl.enabled.mechanisms={','.join(SASL_MECHANISMS)}")
        lines.append(f"{scope}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {known};")
        lines += [
            f"{scope}.{mechanism.lower()}.sasl.jaas.config={module}.scram.ScramLoginModule required;"
            for mechanism in SASL_MECHANISMS[1:]
        ]
    protocols = {"CONTROLLER": "PLAINTEXT"}
    mapping = ",".join(f"{name}:{protocols.get(name, name)}" for name in listeners)
    addresses = {name: f"{name}://{HOST}:{port}" for name, port in listeners.items()}
    lines.append(f"listener.security.protocol.map={mapping}")
    lines.append(f"listeners={','.join(addresses.values())}")
    public = [address for name, address in addresses.items() if name != "CONTROLLER"]
    lines.append(f"advertised.listeners={','.join(public)}")
    lines += [f"{key}={value}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside a JAAS string inside a properties file: escaped for the one, then for the other."""
    if not text.isprintable() or not text.isascii():
        raise ValueError("users and passwords must be printable ASCII")
    jaas = text.replace("\\", "\\\\").replace('"', '\\"')
    return jaas.replace("\\", "\\\\")
