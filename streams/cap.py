"""Alerts in the Common Alerting Protocol, version 1.2 (OASIS): one XML message for each revision of an alert.

How an alert becomes a message (the standard's section 3.2 names the elements):

``identifier``, ``references``, ``incidents``
    ``<id>.<revision>``; the messages of all earlier revisions; the alert's id.
``sent``
    The revision's ``as_of``: the end of the tick that decided it, not the time of the export. The same record gives the
    same bytes.
``msgType``
    An opened alert is an ``Alert``, a resolved one a ``Cancel``, all between is an ``Update``.
``scope``
    ``Restricted``: alerts go to those who act on them. What the public is told, a person decides.
``info``
    Twice: in Chinese (``zh-CN``) and in English (``en-US``).
``category``
    ``Health`` for injuries and new hazards, ``Other`` for satisfaction, losses, labs and sources, ``Safety`` for the
    rest.
``severity``
    I ``Extreme``, II ``Severe``, III ``Moderate``, IV ``Minor``.
``urgency``
    I ``Immediate`` (report at once), II and III ``Expected`` (report within hours), IV ``Future``; resolved ``Past``.
``certainty``
    A grave event is ``Observed``. Statistical evidence is ``Likely``: it has passed a control under which chance alone
    opens few alerts (one a month over all cells by default). A lab that drifts and a source that is silent are
    ``Possible``: the figures say that something is unlike, not what.
``responseType``
    ``AllClear`` for a resolved alert, ``Execute`` for a grave event, else ``Assess`` down to level III and ``Monitor``
    for IV.
``onset``, ``expires``
    The alert's onset; as long after ``sent`` as the alert stands without further evidence (``escalate.hold_days``,
    ``grave_hold_days``). A resolved one expires when it is sent.
``parameter``
    Grade, colour, scope, product and what else the alert says in figures, under names that begin with ``tocsin:``.
``area``
    The region's name, with its code of GB/T 2260 where it is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from schemas.alerts import Alert, Text
from schemas.errors import TocsinError
from streams.config import EscalateRules
from streams.outputs import explained
from streams.wording import SUBJECTS

__all__ = ["NAMESPACE", "CapError", "Status", "message", "messages", "write_messages"]

NAMESPACE: Final = "urn:oasis:names:tc:emergency:cap:1.2"
Status = Literal["Actual", "Exercise", "System", "Test", "Draft"]
_RESTRICTION: Final = "authorities for product-quality and safety supervision"
_SEVERITY: Final = ("Extreme", "Severe", "Moderate", "Minor")
_URGENCY: Final = ("Immediate", "Expected", "Expected", "Future")
_HEALTH: Final = ("injury-surge", "new-hazard")
_OTHER: Final = ("satisfaction", "quality-loss", "lab-drift", "silent-source")
_UNSURE: Final = ("lab-drift", "silent-source")
_SENDER = re.compile(r"[^\s,<&]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REGION = re.compile(r"\d{6}")


class CapError(TocsinError):
    """An alert cannot become a message; the text says why."""


def messages(
    revisions: Iterable[Alert], rules: EscalateRules, sender: str, status: Status = "Actual"
) -> list[tuple[str, bytes]]:
    """(identifier, XML) of every revision, in the order of alerts and revisions.

    Parameters
    ----------
    revisions
        All revisions of some alerts, in any order.
    rules
        They say how long an alert stands.
    sender
        Who sends, as the standard wants it: unique, without blanks, commas, ``<`` and ``&``.
    """
    by_id: dict[str, list[Alert]] = {}
    for alert in revisions:
        by_id.setdefault(alert.id, []).append(alert)
    out = []
    for name in sorted(by_id):
        mine = sorted(by_id[name], key=lambda alert: alert.revision)
        for at, alert in enumerate(mine):
            out.append((_identifier(alert), message(alert, mine[:at], rules, sender, status)))
    return out


def message(
    alert: Alert, earlier: Sequence[Alert], rules: EscalateRules, sender: str, status: Status = "Actual"
) -> bytes:
    """One revision as a message that refers to those of the ``earlier`` ones.

    Raises
    ------
    CapError
        The sender or the alert's id has characters that the standard forbids.
    """
    if _SENDER.fullmatch(sender) is None:
        raise CapError(f"sender {sender!r}: 1 to 128 characters, with no blank, comma, < or & among them")
    root = Element("alert", xmlns=NAMESPACE)
    _add(root, "identifier", _identifier(alert))
    _add(root, "sender", sender)
    _add(root, "sent", _time(alert.as_of))
    _add(root, "status", status)
    kind = {"opened": "Alert", "resolved": "Cancel"}.get(alert.status, "Update")
    # A message that refers to none must be an Alert: the first one may have been lost to retention.
    _add(root, "msgType", kind if earlier else "Alert")
    _add(root, "scope", "Restricted")
    _add(root, "restriction", _RESTRICTION)
    if alert.reason:
        _add(root, "note", alert.reason)
    if earlier:
        _add(root, "references", " ".join(f"{sender},{_identifier(one)},{_time(one.as_of)}" for one in earlier))
    _add(root, "incidents", alert.id)
    for language in ("zh-CN", "en-US"):
        _info(SubElement(root, "info"), alert, rules, language)
    indent(root)
    text: bytes = tostring(root, "utf-8")
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + text + b"\n"


def _info(info: Element, alert: Alert, rules: EscalateRules, language: str) -> None:
    def said(text: Text) -> str:
        return text.zh if language == "zh-CN" else text.en

    over = alert.status == "resolved"
    _add(info, "language", language)
    _add(info, "category", "Health" if alert.kind in _HEALTH else "Other" if alert.kind in _OTHER else "Safety")
    _add(info, "event", said(SUBJECTS[alert.kind]))
    _add(info, "responseType", _response(alert))
    _add(info, "urgency", "Past" if over else _URGENCY[alert.level - 1])
    _add(info, "severity", _SEVERITY[alert.level - 1])
    grave, unsure = alert.kind == "grave-event", alert.kind in _UNSURE
    _add(info, "certainty", "Observed" if grave else "Possible" if unsure else "Likely")
    _pair(info, "eventCode", "tocsin:kind", alert.kind)
    _add(info, "onset", _time(alert.onset))
    days = rules.grave_hold_days if grave else rules.hold_days
    _add(info, "expires", _time(alert.as_of if over else alert.as_of + timedelta(days=days)))
    _add(info, "senderName", "Tocsin")
    _add(info, "headline", said(alert.headline))
    if alert.evidence:
        _add(info, "description", _evidence(alert))
    if alert.actions:
        _add(info, "instruction", "\n".join(_steps(alert, language)))
    for name, value in _parameters(alert):
        _pair(info, "parameter", f"tocsin:{name}", value)
    area = SubElement(info, "area")
    _add(area, "areaDesc", said(alert.region_name) or alert.region or "-")
    if _REGION.fullmatch(alert.region):
        _pair(area, "geocode", "GB/T 2260", alert.region)


def _response(alert: Alert) -> str:
    if alert.status == "resolved":
        return "AllClear"
    return "Execute" if alert.kind == "grave-event" else "Assess" if alert.level < 4 else "Monitor"


def _evidence(alert: Alert) -> str:
    """The evidence in figures, a line a detector: they read the same in every language."""
    lines = []
    for one in alert.evidence:
        observed = f"{one.observed:g}" + (f"/{one.tested}" if one.tested is not None else "")
        facts = [f"observed {observed}"]
        facts += [f"expected {one.expected:.4g}"] if one.expected is not None else []
        facts += [f"rate {one.rate:.4g}"] if one.rate is not None else []
        facts += [f"p {one.p_value:.3g}"] if one.p_value is not None else []
        window = f", {one.window_days} d" if one.window_days else ""
        lines.append(f"{one.detector} ({one.against}{window}): {', '.join(facts)}")
    return "\n".join(lines)


def _steps(alert: Alert, language: str) -> list[str]:
    steps = []
    for action in alert.actions:
        text = action.text.zh if language == "zh-CN" else action.text.en
        if action.deadline_hours is not None:
            hours = f"{action.deadline_hours:g}"
            text += f"（{hours}小时内）" if language == "zh-CN" else f" (within {hours} h)"
        steps.append(text)
    return steps


def _parameters(alert: Alert) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = [
        ("status", alert.status),
        ("grade", alert.grade),
        ("colour", alert.colour),
        ("scope", alert.scope),
    ]
    optional = (
        ("product", alert.product), ("source", alert.source), ("hazard", alert.hazard),
        ("p-value", "" if alert.p_value is None else f"{alert.p_value:g}"),
        ("acknowledged-by", alert.acknowledged_by or ""), ("config", alert.provenance.config),
    )  # fmt: skip
    found += [(name, value) for name, value in optional if value]
    return found + [(f"contributor-{one.role}", f"{one.code} ({one.adverse})") for one in alert.contributors]


def _identifier(alert: Alert) -> str:
    if _NAME.fullmatch(alert.id) is None:
        raise CapError(f"alert id {alert.id!r}: has characters that no identifier may have")
    return f"{alert.id}.{alert.revision}"


def _time(moment: datetime) -> str:
    """To the second, with the offset; the standard wants UTC as -00:00."""
    text = moment.isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "-00:00" if text.endswith("+00:00") else text


def _add(parent: Element, name: str, text: str) -> None:
    """An element with a text; what XML cannot hold shows as the replacement character."""
    SubElement(parent, name).text = _NOT_XML.sub("\ufffd", text)


def _pair(parent: Element, name: str, key: str, value: str) -> None:
    pair = SubElement(parent, name)
    _add(pair, "valueName", key)
    _add(pair, "value", value)


def write_messages(folder: Path, made: Iterable[tuple[str, bytes]]) -> int:
    """Write each message to ``<identifier>.xml`` of a folder; returns how many."""
    count = 0
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made:
            (folder / f"{name}.xml").write_bytes(text)
            count += 1
    return count
