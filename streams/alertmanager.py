"""Open alerts for Prometheus' Alertmanager (API v2), and what its silences say: pure conversion, and the client.

Alertmanager knows an alert by its labels, and forgets it at ``endsAt``. So

- labels are what an alert is about, and its level: when the level changes, the old label set is ended and a new one
  begins, in one request;
- :func:`plan` compares what stands with what Alertmanager holds, rather than with what was sent before: after a restart
  on either side, whatever has been resolved meanwhile is ended, and whatever is missing is there again;
- a silence that names one alert by ``alert_id="..."`` is an acknowledgement (:func:`acknowledgements`). Broader ones,
  of a level or a district say, only keep things quiet: nobody has looked at each alert.

:mod:`streams.alertmanager_link` carries all that out beside a running pipeline.
"""

from __future__ import annotations

import http.client
import os
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from schemas.alerts import Alert, AlertKind, Disposition
from schemas.errors import ConfigError, TocsinError
from streams.risk_series import label

__all__ = [
    "MAX_PUSHED",
    "NAMES",
    "RUNBOOK",
    "AlertmanagerError",
    "Client",
    "Held",
    "HeldStatus",
    "Matcher",
    "Silence",
    "acknowledgements",
    "annotations_of",
    "board_address",
    "labels_of",
    "plan",
]

MAX_PUSHED: Final = 1_000
"""Open alerts that are pushed, the gravest first."""
RUNBOOK: Final = "deploy/RUNBOOK.md#risk-alert"
NAMES: Final[dict[AlertKind, str]] = {
    "pass-rate": "TocsinPassRate",
    "injury-surge": "TocsinInjurySurge",
    "complaint-surge": "TocsinComplaintSurge",
    "satisfaction": "TocsinSatisfaction",
    "quality-loss": "TocsinQualityLoss",
    "new-hazard": "TocsinNewHazard",
    "lab-drift": "TocsinLabDrift",
    "silent-source": "TocsinSilentSource",
    "grave-event": "TocsinGraveEvent",
}
_SEVERITY: Final = {"I": "critical", "II": "critical", "III": "warning", "IV": "warning"}
_LONGEST_TEXT: Final = 1_000
_LONGEST_REASON: Final = 200
_LONGEST_NAME: Final = 100
_AT_ONCE: Final = 200
_MAX_ANSWER: Final = 32 << 20
_Labels = frozenset[tuple[str, str]]
_Answer = TypeVar("_Answer")


class AlertmanagerError(TocsinError):
    """Alertmanager cannot be reached, or refuses what it is told; it will be tried again."""


class HeldStatus(msgspec.Struct, rename="camel"):
    """Whether an alert that Alertmanager holds is silenced, and by which silences."""

    state: str
    silenced_by: list[str] = []


class Held(msgspec.Struct, rename="camel"):
    """An alert that Alertmanager holds."""

    labels: dict[str, str]
    starts_at: datetime
    status: HeldStatus
    annotations: dict[str, str] = {}

    @property
    def identity(self) -> _Labels:
        return frozenset(self.labels.items())


class Matcher(msgspec.Struct, rename="camel"):
    """One condition of a silence."""

    name: str
    value: str
    is_regex: bool
    is_equal: bool = True


class Silence(msgspec.Struct, rename="camel"):
    """A silence that somebody made."""

    id: str
    matchers: list[Matcher]
    starts_at: datetime
    created_by: str = ""
    comment: str = ""

    def names(self, alert_id: str) -> bool:
        """Whether it is about this one alert."""
        return any(
            one.name == "alert_id" and one.is_equal and not one.is_regex and one.value == alert_id
            for one in self.matchers
        )


# --- conversion ----------------------------------------------------------------------------------------------------


def labels_of(alert: Alert, group: str) -> dict[str, str]:
    """What an alert is about, and how grave it is: its identity there.

    All values are words of our own schemas or codes that are cut to a bound; none names a person or a source.
    """
    return {
        "alertname": NAMES[alert.kind],
        "alert_id": label(alert.id),
        "level": alert.grade,
        "colour": alert.colour,
        "severity": _SEVERITY[alert.grade],
        "kind": alert.kind,
        "scope": alert.scope,
        "product": label(alert.product),
        "region": label(alert.region),
        "tocsin_group": group,  # whole: of two deployments that begin alike, neither may end the other's alerts
    }


def annotations_of(alert: Alert, board: str = "") -> dict[str, str]:
    """What a person reads: headline and first action in Chinese and English, names, where to look."""
    first = alert.actions[0] if alert.actions else None
    said = {
        "summary": f"[{alert.grade}] {alert.headline.zh} / {alert.headline.en}",
        "headline_zh": alert.headline.zh,
        "headline_en": alert.headline.en,
        "product_zh": alert.product_name.zh,
        "product_en": alert.product_name.en,
        "region_zh": alert.region_name.zh,
        "region_en": alert.region_name.en,
        "action_zh": first.text.zh if first else "",
        "action_en": first.text.en if first else "",
        "deadline_hours": f"{first.deadline_hours:g}" if first and first.deadline_hours is not None else "",
        "status": alert.status,
        "revision": str(alert.revision),
        "as_of": alert.as_of.isoformat(),
        "acknowledged": "no" if alert.acknowledged_by is None else "yes",
        "runbook": RUNBOOK,
        "board": _page(board, alert),
    }
    return {name: _text(value, _LONGEST_TEXT) for name, value in said.items() if value}


def board_address(url: str) -> str:
    """The board's address with a path, as Alertmanager insists on one; ConfigError where it is no address."""
    parts = urllib.parse.urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.netloc or parts.fragment or "@" in parts.netloc):
        raise ConfigError(f"--board-url {url!r}: an address like https://tocsin.example/board is needed")
    return parts._replace(path=parts.path or "/").geturl() if url else ""


def _page(board: str, alert: Alert) -> str:
    return f"{board}#{urllib.parse.quote(alert.id, safe='')}" if board else ""


def _text(text: str, longest: int) -> str:
    """Printable and short."""
    return "".join(char if char.isprintable() else " " for char in text[:longest])


def plan(
    standing: Iterable[Alert],
    held: Sequence[Held],
    now: datetime,
    *,
    group: str,
    hold: timedelta,
    refresh: bool,
    board: str = "",
) -> list[dict[str, Any]]:
    """What to post, so that Alertmanager holds exactly what stands.

    Parameters
    ----------
    standing
        All open alerts, each as last revised.
    held
        What Alertmanager holds of this group.
    now
        The wall clock.
    group
        The deployment's name; several may share an Alertmanager.
    hold
        How long it is to keep an alert of which it hears no more.
    refresh
        Post all of them; else only those that it lacks or knows otherwise.
    board
        The address of the board, for links.
    """
    wanted: dict[_Labels, Alert] = {}
    for alert in sorted(standing, key=lambda one: (one.level, one.id))[:MAX_PUSHED]:
        wanted[frozenset(labels_of(alert, group).items())] = alert
    known = {one.identity: one for one in held}
    posted = []
    for identity, alert in wanted.items():
        said = annotations_of(alert, board)
        there = known.get(identity)
        if refresh or there is None or there.annotations != said:
            # An alert about the future, which only a clock that runs behind can show, is refused there.
            starts = min(alert.onset, now)
            posted.append(_postable(dict(identity), said, starts, now + hold, said.get("board", "")))
    levels = {alert.id: alert.grade for alert in wanted.values()}
    for identity, one in known.items():
        if identity not in wanted:
            level = levels.get(one.labels.get("alert_id", ""))
            ended = "resolved" if level is None else f"now level {level}"
            posted.append(_postable(one.labels, {**one.annotations, "ended": ended}, min(one.starts_at, now), now))
    return posted


def _postable(
    named: Mapping[str, str], said: Mapping[str, str], starts: datetime, ends: datetime, page: str = ""
) -> dict[str, Any]:
    posted = {
        "labels": dict(sorted(named.items())),
        "annotations": dict(said),
        "startsAt": starts.astimezone(UTC).isoformat(),
        "endsAt": ends.astimezone(UTC).isoformat(),
    }
    return {**posted, "generatorURL": page} if page else posted


def acknowledgements(
    standing: Mapping[str, Alert], held: Sequence[Held], silences: Sequence[Silence]
) -> list[Disposition]:
    """The dispositions that silences amount to, for alerts that nobody has acknowledged.

    The same silence gives the same ``disposition_id``, whoever reads it and however often.
    """
    by_id = {silence.id: silence for silence in silences}
    said: dict[str, Disposition] = {}
    for one in held:
        alert = standing.get(one.labels.get("alert_id", ""))
        if alert is None or alert.acknowledged_by is not None:
            continue
        for name in sorted(one.status.silenced_by):
            silence = by_id.get(name)
            if silence is not None and silence.names(alert.id):
                said[name] = Disposition(
                    disposition_id=_text(f"silence-{name}", _LONGEST_NAME),
                    alert_id=alert.id,
                    action="acknowledge",
                    by=_text(silence.created_by, _LONGEST_NAME).strip() or "alertmanager",
                    at=silence.starts_at,
                    reason=_text(silence.comment, _LONGEST_REASON).strip() or None,
                )
    return [said[name] for name in sorted(said)]


# --- the client ----------------------------------------------------------------------------------------------------


class Client:
    """Speaks to one Alertmanager. Every request has a connection of its own, a time limit and a bound on the answer.

    Parameters
    ----------
    url
        ``http://host:9093`` or ``https://...``, with the route prefix where it has one.
    token
        Sent as a bearer token.
    timeout
        Seconds for one request.

    Raises
    ------
    ConfigError
        The address cannot be used.
    """

    def __init__(self, url: str, token: str = "", *, timeout: float = 10.0) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.query or parts.fragment:
            raise ConfigError(f"--alertmanager {url!r}: an address like http://localhost:9093 is needed")
        if parts.username is not None or parts.password is not None:
            raise ConfigError("--alertmanager: no name or password in the address; use TOCSIN_ALERTMANAGER_TOKEN_FILE")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._host, self._port = parts.hostname, port
        self._path = parts.path.rstrip("/") + "/api/v2"
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout

    @classmethod
    def from_environment(cls, url: str, environment: Mapping[str, str] = os.environ) -> Client:
        """The client, with the token that TOCSIN_ALERTMANAGER_TOKEN_FILE or TOCSIN_ALERTMANAGER_TOKEN gives."""
        file = environment.get("TOCSIN_ALERTMANAGER_TOKEN_FILE")
        try:
            token = Path(file).read_text("utf-8") if file else environment.get("TOCSIN_ALERTMANAGER_TOKEN", "")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise ConfigError(f"TOCSIN_ALERTMANAGER_TOKEN_FILE: {file} cannot be read ({why})") from None
        token = token.strip()
        if not (token.isascii() and token.isprintable()):
            raise ConfigError("TOCSIN_ALERTMANAGER_TOKEN: the token must be one line of printable ASCII")
        return cls(url, token)

    def held(self, group: str) -> list[Held]:
        """The alerts of a group that it holds, silenced and inhibited ones too."""
        quoted = group.replace("\\", "\\\\").replace('"', '\\"')
        asked = urllib.parse.urlencode({"filter": f'tocsin_group="{quoted}"'})
        return self._decoded(self._ask("GET", f"/alerts?{asked}"), list[Held])

    def silences(self) -> list[Silence]:
        """All silences, expired ones too."""
        return self._decoded(self._ask("GET", "/silences"), list[Silence])

    def post(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Tell it of alerts; what is refused raises, so that it is tried again."""
        for start in range(0, len(alerts), _AT_ONCE):
            self._ask("POST", "/alerts", msgspec.json.encode(alerts[start : start + _AT_ONCE]))

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            if self._tls is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        )
        headers = {**self._headers, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, self._path + path, body, headers)
            answer = connection.getresponse()
            said = answer.read(_MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AlertmanagerError(f"Alertmanager at {self.url}: {str(error) or type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status != 200:
            text = _text(said.decode("utf-8", "replace"), _LONGEST_REASON).strip()
            raise AlertmanagerError(f"Alertmanager at {self.url}: status {answer.status}: {text}")
        if len(said) > _MAX_ANSWER:
            raise AlertmanagerError(f"Alertmanager at {self.url}: the answer is longer than {_MAX_ANSWER >> 20} MiB")
        return said

    def _decoded(self, said: bytes, wanted: type[_Answer]) -> _Answer:
        try:
            return msgspec.json.decode(said, type=wanted)
        except msgspec.MsgspecError as error:
            raise AlertmanagerError(f"Alertmanager at {self.url}: not what its API v2 answers: {error}") from None
