"""Tokens: who may do what, from a file that holds hashes only."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import START, body, encoded
from small_world import fails, succeeds

from schemas.errors import ConfigError, Rejection
from schemas.events import TOPICS, Kind
from streams.config import Config
from streams.decode import EventDecoder
from streams.tokens import EVERYTHING, Grant, TokenFile, add_token, revoke_token, stored_tokens

DECODER = EventDecoder(Config(), Config().load_catalogue())


def decoded(kind: Kind, **fields: Any) -> Any:
    return DECODER.decode(kind, encoded(body(TOPICS[kind], "e", START, **fields)))


def grant(**bounds: Any) -> Grant:
    return Grant(id="0123456789ab", organisation="o", roles=("submit",), **bounds)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_token_opens_what_it_was_made_for_and_stands_nowhere(file: Path) -> None:
    made, token = add_token(file, "Lab 07", ("submit", "read"), kinds=("inspection",), labs=("lab-07",))
    found = TokenFile(file).grant(token)
    assert found == made
    assert (made.organisation, made.roles, made.labs) == ("Lab 07", ("submit", "read"), ("lab-07",))
    text = file.read_text()
    secret = token.rpartition("_")[2] if token.count("_") == 2 else token.split("_", 2)[2]
    assert secret not in text
    assert len(secret) == 43
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_two_tokens_are_alike(file: Path) -> None:
    made = [add_token(file, "o", ("read",)) for _ in range(20)]
    assert len({token for _, token in made}) == len({one.id for one, _ in made}) == 20
    assert [one.id for one, _, _ in stored_tokens(file)] == [one.id for one, _ in made]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token.replace("tocsin_", "tocsin_f", 1)[:-1],
        lambda token: "tocsin_000000000000_" + token.split("_", 2)[2],
        lambda token: token.upper(),
        lambda token: token + "\n",
        lambda token: "\udcff" + token[1:],
        lambda token: "x" * 100_000,
    ],
)
def test_what_is_not_the_token_opens_nothing(file: Path, spoil: Any) -> None:
    _, token = add_token(file, "o", ("read",))
    assert TokenFile(file).grant(spoil(token)) is None


def test_the_secret_of_one_token_does_not_open_another(file: Path) -> None:
    (_, first), (_, second) = add_token(file, "a", ("read",)), add_token(file, "b", ("read",))
    mixed = "_".join([*first.split("_", 2)[:2], second.split("_", 2)[2]])
    assert TokenFile(file).grant(mixed) is None


def test_a_token_ends_when_it_was_said_to(file: Path) -> None:
    ends = datetime(2030, 1, 1, tzinfo=UTC)
    _, token = add_token(file, "o", ("read",), expires=ends)
    now = ends - timedelta(seconds=1)
    tokens = TokenFile(file, clock=lambda: now.timestamp())
    assert tokens.grant(token) is not None
    now = ends
    assert tokens.grant(token) is None


def test_a_running_service_takes_changes_at_once(file: Path) -> None:
    kept, token = add_token(file, "a", ("read",))
    tokens = TokenFile(file)
    other, second = add_token(file, "b", ("read",))
    assert tokens.grant(second) == other
    revoke_token(file, other.id)
    assert tokens.grant(second) is None
    assert tokens.grant(token) == kept


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"version":2,"tokens":[]}', '{"version":1,"tokens":[{"x":1}]}'])
def test_a_file_that_is_gone_or_broken_lets_nobody_in(file: Path, text: str | None) -> None:
    _, token = add_token(file, "o", ("read",))
    tokens = TokenFile(file)
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    for _ in range(2):
        with pytest.raises(ConfigError, match="tokens"):
            tokens.grant(token)
    _, again = add_token(file if text is None else _anew(file), "o", ("read",))
    assert tokens.grant(again) is not None


def _anew(file: Path) -> Path:
    file.unlink()
    return file


def test_a_file_that_others_may_write_is_refused(file: Path) -> None:
    add_token(file, "o", ("read",))
    os.chmod(file, 0o666)  # noqa: S103
    with pytest.raises(ConfigError, match="chmod go-w"):
        TokenFile(file)


def test_revoking_what_is_not_there_says_so(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        revoke_token(file, "0123456789ab")
    add_token(file, "o", ("read",))
    with pytest.raises(ConfigError, match="no token has the id"):
        revoke_token(file, "0123456789ab")
    assert len(stored_tokens(file)) == 1


# --- what a grant allows -------------------------------------------------------------------------------------------


def test_a_role_is_only_what_was_given() -> None:
    assert grant().has("submit")
    assert not grant().has("dispose")
    assert not Grant(id="", organisation="o", roles=("dispose",)).may_submit("inspection")
    assert EVERYTHING.has("dispose")
    assert EVERYTHING.may_submit("loss")


def test_kinds_bound_what_may_be_submitted() -> None:
    assert grant(kinds=("inspection",)).may_submit("inspection")
    assert not grant(kinds=("inspection",)).may_submit("injury")
    assert grant().may_submit("injury")


@pytest.mark.parametrize(
    ("bounds", "kind", "fields", "field"),
    [
        ({"sources": ("s",)}, "inspection", {}, None),
        ({"sources": ("t",)}, "inspection", {}, "source"),
        ({"regions": ("120101",)}, "injury", {}, None),
        ({"regions": ("120000",)}, "injury", {}, None),
        ({"regions": ("120102", "120104")}, "injury", {}, "region"),
        ({"regions": ("120101",)}, "injury", {"region": "120000"}, "region"),
        ({"labs": ("lab-1",)}, "inspection", {}, None),
        ({"labs": ("lab-2",)}, "inspection", {}, "lab"),
        ({"labs": ("lab-1",)}, "injury", {}, "site"),
        ({"labs": ("12315",)}, "complaint", {}, None),
        ({"labs": ("lab-1",)}, "complaint", {}, "channel"),
        ({"labs": ("lab-1",)}, "accident", {}, "authority"),
        ({"labs": ("lab-1",)}, "survey", {}, "surveyor"),
        ({"labs": ("lab-1",)}, "loss", {}, None),
        ({"labs": ("lab-1",), "sources": ("lab-1",)}, "loss", {}, "source"),
        ({"sources": ()}, "inspection", {}, "source"),
    ],
)
def test_an_event_outside_the_grant_is_refused_by_its_field(
    bounds: dict[str, Any], kind: Kind, fields: dict[str, Any], field: str | None
) -> None:
    if field is None:
        grant(**bounds).check(decoded(kind, **fields))
        return
    with pytest.raises(Rejection) as caught:
        grant(**bounds).check(decoded(kind, **fields))
    assert (caught.value.reason, caught.value.field) == ("not-allowed", field)


# --- the command ---------------------------------------------------------------------------------------------------


def test_tokens_are_made_listed_and_revoked_by_command(file: Path) -> None:
    made = succeeds("tokens", "add", "Lab 07", "--lab", "lab-07", "--kind", "inspection", "--days", 30,
                    "--tokens", file)  # fmt: skip
    token = made.stdout.strip()
    found = TokenFile(file).grant(token)
    assert found is not None
    assert (found.labs, found.sources, found.kinds) == (("lab-07",), ("lab-07",), ("inspection",))
    listed = succeeds("tokens", "list", "--tokens", file).stdout
    assert "Lab 07" in listed
    assert token not in listed
    succeeds("tokens", "revoke", found.id, "--tokens", file)
    assert TokenFile(file).grant(token) is None
    assert json.loads(file.read_text())["tokens"] == []


def test_whose_events_a_token_may_write_must_be_said(file: Path) -> None:
    assert "--any-source" in fails("tokens", "add", "o", "--tokens", file).line
    assert not file.exists()
    succeeds("tokens", "add", "o", "--any-source", "--tokens", file)
    succeeds("tokens", "add", "board", "--role", "dispose", "--tokens", file)
    assert [one.roles for one, _, _ in stored_tokens(file)] == [("submit",), ("dispose",)]


def test_a_kind_that_there_is_not_is_told(file: Path) -> None:
    assert "inspection" in fails("tokens", "add", "o", "--any-source", "--kind", "inspections", "--tokens", file).line
