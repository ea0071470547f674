"""The API keeps to its own description: schemathesis makes requests from it, good and bad, and checks every answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from serving import EVENT, Client, medium, running, service

from schemas.events import KINDS
from streams.api.limits import Limits
from streams.api.openapi import EXAMPLES
from streams.tokens import add_token

LONG = os.environ.get("TOCSIN_LONG") == "1"
HERE = Path(__file__).parent
SETTINGS = """\
[checks]
# Codes, clocks and rules between fields are not in the schema: what it allows may be rejected, row by row.
positive_data_acceptance.expected-statuses = ["2xx", 400, 413, 415, 422]
# A good row beside a bad one is accepted.
negative_data_rejection.expected-statuses = [207, "4xx"]
"""
PLENTY = Limits(requests_per_minute=1_000_000, burst=1_000_000)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Client]:
    tokens = tmp_path / "tokens.json"
    _, token = add_token(tokens, "everybody", ("submit",))
    # Thousands of commits; whether the disk holds them is not the question here.
    memory = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        data = Path(folder) / "data"
        with medium(data), running(service(data, tokens, limits=PLENTY)) as port:
            yield Client(port, token)


@pytest.fixture
def document(served: Client) -> dict[str, Any]:
    return served.get("/openapi.json").json()


def test_the_document_has_an_operation_for_every_kind_and_bodies_that_the_published_schemas_describe(
    document: dict[str, Any],
) -> None:
    assert document["openapi"] == "3.1.0"
    assert {f"/v1/events/{kind}" for kind in KINDS} < set(document["paths"])
    body = document["paths"]["/v1/events/inspection"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    judge = Draft202012Validator({**body, "components": document["components"]})
    assert judge.is_valid(EVENT)
    assert judge.is_valid([EVENT, EVENT])
    assert not judge.is_valid({**EVENT, "severity": "grave"})
    assert not judge.is_valid([])


def test_receipts_and_refusals_are_as_described(served: Client, document: dict[str, Any]) -> None:
    answers = document["paths"]["/v1/events/inspection"]["post"]["responses"]
    for sent, status in (([EVENT], 202), ([EVENT, {}], 207), ([{}], 422), ([], 400)):
        answer = served.post(sent)
        assert answer.status == status
        (content,) = answers[str(status)]["content"].items()
        assert answer.headers["content-type"] == content[0]
        schema = {**content[1]["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(answer.json())


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_of_every_kind_is_taken(served: Client, kind: str) -> None:
    assert served.post(EXAMPLES[kind], kind=kind).status == 202  # type: ignore[index]


def test_schemathesis_finds_no_fault(served: Client, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(SETTINGS)
    url = f"http://127.0.0.1:{served.port}/openapi.json"
    # Kinds differ in nothing but their schema: the short run takes the one with the fewest fields.
    which = [] if LONG else ["--include-path-regex", "(survey|healthz|openapi.json)$"]
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", url,
            "-H", f"Authorization: Bearer {served.token}", "--max-examples", "100" if LONG else "4", "--seed", "7",
            "--no-color", *which,
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=3_600,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    tested = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert tested is not None, done.stdout
    assert int(tested[1]) == int(tested[2]) > 300
