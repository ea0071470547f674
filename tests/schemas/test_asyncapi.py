"""The AsyncAPI document is current, complete, and valid by the parser of those who make the standard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from schemas import asyncapi
from schemas.__main__ import main
from schemas.asyncapi import FILE, document, stale_document, write_document
from schemas.events import TOPICS
from schemas.json_schema import PUBLISHED
from schemas.topics import ALL_TOPICS

PARSER = "@asyncapi/parser@3.6.6"
CHECK = """
const { Parser } = require("@asyncapi/parser");
const text = require("fs").readFileSync(0, "utf8");
new Parser().parse(text).then(({ document, diagnostics }) => {
  console.log(JSON.stringify({
    diagnostics: diagnostics.map(d => ({ severity: d.severity, message: d.message, path: d.path })),
    channels: document ? document.channels().all().map(c => c.address()) : [],
    sends: document ? document.operations().all().filter(o => o.isSend()).length : -1,
    payloads: document ? document.channels().all().map(c => c.messages().all().map(m => m.hasPayload())) : [],
  }));
});
"""


def parsed(folder: Path, text: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "-e", CHECK], input=text, capture_output=True, text=True, cwd=folder, timeout=120, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def parser() -> Path:
    """A folder in which the parser is installed, kept for the next time."""
    for needed in ("npm", "node"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed: the AsyncAPI document is not parsed")
    kept = os.environ.get("TOCSIN_TOOLS")
    folder = (Path(kept) if kept else Path(__file__).resolve().parents[2] / ".tools") / "asyncapi-parser"
    if not (folder / "node_modules" / "@asyncapi" / "parser" / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), PARSER]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=300)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{PARSER} cannot be installed ({error}): the AsyncAPI document is not parsed")
    return folder


def test_the_committed_document_is_current(tmp_path: Path) -> None:
    assert stale_document() == []
    assert write_document(tmp_path / "a.json").read_bytes() == FILE.read_bytes()


def test_the_check_command_covers_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(asyncapi.stale_document, "__defaults__", (Path("absent.json"),))
    assert main(["--check"]) == 1
    assert "absent.json: is missing; run python -m schemas" in capsys.readouterr().err


def test_a_document_that_differs_is_stale(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    assert stale_document(tmp_path / "a.json") == ["a.json: differs from the topics and Structs; run python -m schemas"]


def test_every_topic_that_is_not_internal_is_there_with_the_schema_of_what_it_carries() -> None:
    made = document()
    public = {spec.name for spec in ALL_TOPICS if spec.role != "internal"}
    assert set(made["channels"]) == public
    assert set(made["components"]["schemas"]) == set(PUBLISHED)
    for kind, topic in TOPICS.items():
        assert list(made["channels"][topic]["messages"]) == [kind]
        assert made["operations"][f"receive-{topic}"]["action"] == "receive"
    assert made["operations"]["send-emergency-response"]["action"] == "send"


def test_references_lead_to_what_is_there_and_schemas_judge_as_those_that_are_published() -> None:
    made = document()

    def resolved(reference: str) -> Any:
        at: Any = made
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
        return at

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [one for inner in value.values() for one in references(inner)]
        return [one for inner in value for one in references(inner)] if isinstance(value, list) else []

    found = references(made)
    assert len(found) > 30
    for reference in found:
        assert resolved(reference) is not None
    judge = jsonschema.Draft202012Validator({"$ref": "#/components/schemas/injury", "components": made["components"]})
    good = {
        "event_id": "e", "source": "s", "reported_at": "2024-03-01T08:00:00+08:00", "product": "F02", "region": "1",
        "site": "h", "severity": 3,
    }  # fmt: skip
    assert judge.is_valid(good)
    assert not judge.is_valid({**good, "severity": 9})


def test_the_parser_of_the_standards_makers_finds_no_fault_and_every_channel(parser: Path) -> None:
    told = parsed(parser, FILE.read_text("utf-8"))
    assert [one for one in told["diagnostics"] if one["severity"] == 0] == []
    assert sorted(told["channels"]) == sorted(document()["channels"])
    assert told["sends"] == 3
    assert all(told["payloads"])
    broken = {**document(), "operations": {"x": {"action": "fly", "channel": {"$ref": "#/channels/absent"}}}}
    assert any(one["severity"] == 0 for one in parsed(parser, json.dumps(broken))["diagnostics"])
