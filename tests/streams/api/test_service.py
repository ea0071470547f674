"""The API over real sockets: every way in, every bound, and what is said when something is wrong."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import CATALOGUE, CONFIG, EVENT, Client, desk, letters, medium, records, running, service

from streams.api.limits import Limits
from streams.api.service import Service
from streams.api.submit import Desk
from streams.log import LogError
from streams.tokens import add_token, revoke_token

CSV = (
    b"event_id,source,reported_at,product,region,lab,verdict\nR-1,lab-07,2026-03-02T09:30:00,F0201,120110,lab-07,fail\n"
)
CLOUD = {
    "specversion": "1.0", "id": "R-1", "source": "lab-07", "type": "cn.lab.inspection", "time": EVENT["reported_at"],
    "data": {name: EVENT[name] for name in ("product", "region", "lab", "verdict")},
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def client(data: Path) -> Iterator[Client]:
    with running(service(data)) as port:
        yield Client(port)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def lines(*events: Any) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


# --- ways in -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", EVENT),
        ("application/json; charset=utf-8", [EVENT]),
        ("application/x-ndjson", lines(EVENT)),
        ("application/jsonl", lines(EVENT)[:-1]),
        ("text/csv", CSV),
        ("text/csv; charset=GBK", CSV.replace(b"fail\n", b"fail,\n").replace(b"verdict", "verdict,备注".encode("gbk"))),
        ("text/csv", b"\xef\xbb\xbf" + CSV),
        ("text/tab-separated-values", CSV.replace(b",", b"\t")),
        ("application/cloudevents+json", CLOUD),
        ("application/cloudevents-batch+json", [CLOUD]),
    ],
)
def test_every_way_in_leads_to_the_same_event(client: Client, data: Path, content_type: str, body: Any) -> None:
    answer = client.post(body, content_type, query="?verdicts=all")
    assert answer.status == 202, answer.body
    receipt = answer.json()
    assert (receipt["accepted"], receipt["rejected"], receipt["reasons"]) == (1, 0, {})
    (verdict,) = receipt["verdicts"]
    assert verdict["verdict"] == "accepted"
    (value,) = records(data, "inspections")
    found = json.loads(value)
    assert {**found, "reported_at": found["reported_at"][:19]} == {**EVENT, "reported_at": "2026-03-02T09:30:00"}


def test_a_cloudevent_in_binary_mode_has_its_attributes_in_headers(client: Client, data: Path) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "R%2D1", "ce-source": "lab-07", "ce-type": "cn.lab.inspection"}
    body = {**CLOUD["data"], "reported_at": EVENT["reported_at"]}  # type: ignore[dict-item]
    sent = json.dumps(body).encode()
    path, json_type = "/v1/events/inspection", {"Content-Type": "application/json"}
    assert client.ask("POST", path, sent, {**headers, **json_type}).status == 202
    assert [json.loads(value) for value in records(data, "inspections")] == [EVENT]
    wrong = client.ask("POST", path, sent, {**headers, **json_type, "ce-type": "cn.lab.injury"})
    assert (wrong.status, wrong.json()["verdicts"][0]["field"]) == (422, "type")
    del headers["ce-id"]
    assert client.ask("POST", path, sent, {**headers, **json_type}).problem == "malformed-request"
    csv = client.ask("POST", path, sent, {"ce-id": "1", "ce-specversion": "1.0", "ce-source": "s", "ce-type": "loss",
                                          "Content-Type": "text/csv"})  # fmt: skip
    assert csv.problem == "wrong-type"


def test_what_the_event_says_itself_goes_before_the_attributes(client: Client, data: Path) -> None:
    told = {**CLOUD, "data": {**EVENT, "event_id": "mine"}}
    assert client.post(told, "application/cloudevents+json").status == 202
    assert json.loads(records(data, "inspections")[0])["event_id"] == "mine"


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ({"specversion": "0.3"}, "unknown-value", "specversion"),
        ({"id": ""}, "bad-length", "id"),
        ({"type": "cn.lab.nothing"}, "unknown-kind", "type"),
        ({"type": "cn.lab.injury"}, "wrong-topic", "type"),
        ({"datacontenttype": "text/xml"}, "wrong-type", "datacontenttype"),
        ({"data": None}, "wrong-type", ""),
        ({"data": []}, "wrong-type", ""),
        ({"data_base64": "e30="}, "wrong-type", "data_base64"),
        ({"data": {"product": "F0201"}}, "missing-field", "region"),
    ],
)
def test_a_cloudevent_that_is_none_is_a_rejected_row(
    client: Client, change: dict[str, Any], reason: str, field: str
) -> None:
    answer = client.post([{**CLOUD, **change}, CLOUD], "application/cloudevents-batch+json")
    assert answer.status == 207
    (verdict,) = answer.json()["verdicts"]
    assert (verdict["line"], verdict["reason"], verdict.get("field", "")) == (1, reason, field)


# --- verdicts ------------------------------------------------------------------------------------------------------


def test_good_rows_go_through_beside_bad_ones_and_every_bad_one_is_told_and_kept(client: Client, data: Path) -> None:
    rows = [EVENT, {**EVENT, "product": "F9999"}, {**EVENT, "event_id": "R-2"}, {"x": 1}]
    answer = client.post(lines(*rows) + b"nonsense\n", "application/x-ndjson", query="?verdicts=all")
    assert answer.status == 207
    receipt = answer.json()
    assert (receipt["accepted"], receipt["rejected"]) == (2, 3)
    assert receipt["reasons"] == {"malformed-json": 1, "missing-field": 1, "unknown-code": 1}
    told = [(one["line"], one["verdict"], one.get("field")) for one in receipt["verdicts"]]
    assert told == [
        (1, "accepted", None), (2, "rejected", "product"), (3, "accepted", None), (4, "rejected", "event_id"),
        (5, "rejected", None),
    ]  # fmt: skip
    name = f"upload-{answer.headers['x-request-id']}.ndjson"
    assert [(letter.origin, letter.reason) for letter in letters(data)] == [
        (f"{name}:2", "unknown-code"), (f"{name}:4", "missing-field"), (f"{name}:5", "malformed-json"),
    ]  # fmt: skip


def test_where_nothing_is_good_the_answer_is_a_problem_with_all_verdicts(client: Client, data: Path) -> None:
    answer = client.post([{}, {**EVENT, "region": "999999"}])
    assert (answer.status, answer.problem) == (422, "all-refused")
    assert [one["line"] for one in answer.json()["verdicts"]] == [1, 2]
    assert records(data, "inspections") == []
    assert len(letters(data)) == 2


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""), ("application/json", b"7"), ("application/json", b"["), ("application/json", b"[]"),
        ("application/json", b"[1]" * 2), ("application/json", b"\xff\xfe{}"), ("application/json", b"[" * 100_000),
        ("application/x-ndjson", b""), ("application/x-ndjson", b"\n\n"), ("text/csv", b""), ("text/csv", b"\n"),
        ("text/csv", CSV.partition(b"\n")[0]), ("text/csv", b"a,b\n1,2\n"), ("text/csv", CSV.decode().encode("utf-16")),
        ("text/csv; charset=gb18030", b"event_id,\xff\xff\n"), ("application/cloudevents+json", [CLOUD]),
        ("application/cloudevents-batch+json", CLOUD),
    ],
)  # fmt: skip
def test_a_body_that_is_not_what_it_is_said_to_be_is_refused_as_a_whole(
    client: Client, data: Path, content_type: str, body: Any
) -> None:
    answer = client.post(body, content_type)
    assert (answer.status, answer.problem) == (400, "malformed-body")
    assert answer.json()["instance"].endswith(answer.headers["x-request-id"])
    assert "/tmp" not in answer.json()["detail"]  # noqa: S108
    assert not records(data, "inspections")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "", "application/json; charset=utf-16"])
def test_other_content_types_are_refused_with_a_list_of_those_that_are_taken(client: Client, content_type: str) -> None:
    answer = client.post(b"{}", content_type)
    assert (answer.status, answer.problem) == (415, "wrong-type")


def test_addresses_methods_and_parameters_that_there_are_not(client: Client) -> None:
    assert client.get("/v1/nothing").problem == "not-found"
    assert client.post(EVENT, kind="inspections").problem == "not-found"
    other = client.get("/v1/events/inspection")
    assert (other.status, other.headers["allow"]) == (405, "POST")
    assert client.post(EVENT, query="?verdicts=some").problem == "malformed-request"
    assert client.post(CSV, "text/csv", query="?mapping=fda-caers").problem == "malformed-request"
    assert client.post(CSV, "text/csv", query="?mapping=/etc/passwd.toml").problem == "malformed-request"


# --- bounds --------------------------------------------------------------------------------------------------------


def test_gzip_is_unpacked_and_a_bomb_is_not(data: Path) -> None:
    limits = Limits(body_bytes=20_000, unpacked_bytes=500_000)
    with running(service(data, limits=limits)) as port:
        client = Client(port)
        assert client.post(gzip.compress(CSV), "text/csv", Content_Encoding="gzip").status == 202
        bomb = gzip.compress(b"\n" * 10_000_000)
        assert len(bomb) < limits.body_bytes
        answer = client.post(bomb, "text/csv", Content_Encoding="gzip")
        assert (answer.status, answer.problem) == (413, "too-large")
        for broken in (CSV, gzip.compress(CSV)[:-9], b"", gzip.compress(CSV) + b"x"):
            assert client.post(broken, "text/csv", Content_Encoding="gzip").problem == "malformed-body"
        assert client.post(CSV, "text/csv", Content_Encoding="br").problem == "wrong-type"
    assert len(records(data, "inspections")) == 1


def test_too_many_bytes_are_refused_announced_or_not(data: Path) -> None:
    with running(service(data, limits=Limits(body_bytes=10_000, document_bytes=2_000))) as port:
        client = Client(port)
        assert client.post(b"{" * 10_001).status == 413
        pieces = (b"x" * 1_000 for _ in range(20))
        chunked = client.ask("POST", "/v1/events/loss", pieces, {"Content-Type": "text/csv"}, encode_chunked=True)
        assert (chunked.status, chunked.problem) == (413, "too-large")
        assert client.post([EVENT] * 40).problem == "too-large"
        assert client.post(lines(*[EVENT] * 40), "application/x-ndjson").status == 202


def test_too_many_rows_are_refused_before_any_is_published(data: Path) -> None:
    with running(service(data, limits=Limits(rows=3))) as port:
        client = Client(port)
        assert client.post([EVENT] * 4).problem == "too-large"
        assert client.post(lines(*[EVENT] * 5), "application/x-ndjson").problem == "too-large"
        assert client.post(CSV + CSV.splitlines(True)[1] * 3, "text/csv").problem == "too-large"
        assert records(data, "inspections") == []
        assert client.post([EVENT] * 3).status == 202


def test_a_body_that_stands_still_is_given_up(data: Path) -> None:
    with running(service(data, limits=Limits(idle_seconds=0.2))) as port, _connection(port) as raw:
        raw.sendall(b"POST /v1/events/loss HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/csv\r\n"
                    b"Content-Length: 100\r\n\r\nevent_id")  # fmt: skip
        assert raw.recv(64).startswith(b"HTTP/1.1 408")


def test_a_connection_that_never_asks_is_closed(data: Path) -> None:
    limits = Limits(head_seconds=0.3)
    with running(service(data, limits=limits)) as port, _connection(port) as silent, _connection(port) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""


def test_of_too_many_connections_the_longest_idle_is_closed(data: Path) -> None:
    limits = Limits(connections=2)
    with running(service(data, limits=limits)) as port, _connection(port) as first:
        time.sleep(1.2)
        with _connection(port), _connection(port):
            assert first.recv(1) == b""


@contextmanager
def _connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        yield raw


def test_uploads_at_once_are_bounded_and_the_others_told_when_to_come_back(data: Path) -> None:
    with running(service(data, limits=Limits(uploads=1, uploads_per_token=1))) as port, _connection(port) as slow:
        slow.sendall(b"POST /v1/events/inspection HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/csv\r\n"
                     + f"Content-Length: {len(CSV)}\r\n\r\n".encode() + CSV[:10])  # fmt: skip
        client = Client(port)
        busy = _until(lambda: client.post(EVENT), 503)
        assert (busy.problem, busy.headers["retry-after"]) == ("busy", "5")
        slow.sendall(CSV[10:])
        assert slow.recv(64).startswith(b"HTTP/1.1 202")
        assert client.post(EVENT).status == 202


def _until(ask: Any, status: int) -> Any:
    for _ in range(100):
        answer = ask()
        if answer.status == status:
            return answer
        time.sleep(0.02)
    raise AssertionError(answer)


def test_a_token_that_comes_too_often_waits_and_others_do_not(data: Path, tokens: Path) -> None:
    limits = Limits(requests_per_minute=6, burst=2)
    (_, first), (_, second) = (add_token(tokens, name, ("submit",)) for name in "ab")
    with running(service(data, tokens, limits=limits)) as port:
        assert [Client(port, first).post(EVENT).status for _ in range(3)] == [202, 202, 429]
        answer = Client(port, first).post(EVENT)
        assert answer.problem == "too-many-requests"
        assert 1 <= int(answer.headers["retry-after"]) <= 10
        assert Client(port, second).post(EVENT).status == 202


# --- who may -------------------------------------------------------------------------------------------------------


def test_only_a_token_in_force_opens(data: Path, tokens: Path) -> None:
    grant, token = add_token(tokens, "a", ("submit",))
    with running(service(data, tokens)) as port:
        for said in (None, "", token[:-1], "tocsin_000000000000_" + "A" * 43):
            answer = Client(port, said).post(EVENT)
            assert (answer.status, answer.problem) == (401, "no-token")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert Client(port).post(EVENT, Authorization=f"Basic {token}").status == 401
        assert Client(port, token).post(EVENT).status == 202
        revoke_token(tokens, grant.id)
        assert Client(port, token).post(EVENT).status == 401
        tokens.unlink()
        gone = Client(port, token).post(EVENT)
        assert (gone.status, gone.problem) == (503, "tokens-unavailable")
    assert len(records(data, "inspections")) == 1


def test_a_token_is_for_its_role_its_kinds_its_labs_and_its_regions(data: Path, tokens: Path) -> None:
    _, reads = add_token(tokens, "a", ("read", "dispose"))
    _, token = add_token(tokens, "b", ("submit",), kinds=("inspection",), labs=("lab-07",), regions=("120110",))
    with running(service(data, tokens)) as port:
        assert Client(port, reads).post(EVENT).problem == "not-allowed"
        assert Client(port, token).post({**EVENT, "site": "s"}, kind="injury").problem == "not-allowed"
        answer = Client(port, token).post([{**EVENT, "lab": "lab-08"}, EVENT, {**EVENT, "region": "120111"}])
        assert answer.status == 207
        told = [(one["line"], one["field"], one["reason"]) for one in answer.json()["verdicts"]]
        assert told == [(1, "lab", "not-allowed"), (3, "region", "not-allowed")]


def test_without_tokens_a_page_of_another_site_cannot_send_events(client: Client, data: Path) -> None:
    assert client.post(EVENT, Origin="https://evil.example").problem == "other-site"
    assert client.post(EVENT, Sec_Fetch_Site="cross-site").problem == "other-site"
    assert client.ask("GET", "/", headers={"Host": "evil.example"}).problem == "other-site"
    assert client.post(EVENT, Origin="null").problem == "other-site"
    assert records(data, "inspections") == []
    assert client.post(EVENT, Origin=f"http://127.0.0.1:{client.port}").status == 202
    assert client.post(EVENT, Sec_Fetch_Site="same-origin").status == 202


def test_every_answer_has_its_id_and_forbids_what_browsers_could_do(client: Client) -> None:
    seen = set()
    for answer in (
        client.get("/healthz"),
        client.get("/nothing"),
        client.post(EVENT),
        client.get("/"),
        client.post({}),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["server"] == "tocsin"
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 5


# --- the log -------------------------------------------------------------------------------------------------------


def test_what_was_answered_is_in_the_log_when_others_write_to_it_too(client: Client, data: Path) -> None:
    stop = threading.Event()

    def disturb() -> None:
        with medium(data) as other:
            while not stop.is_set():
                with other.log.transaction():
                    other.log.set_meta("floor", 0)
                time.sleep(0.005)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for number in range(5):
            assert client.post({**EVENT, "event_id": f"R-{number}"}).status == 202
            assert len(records(data, "inspections")) == number + 1
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    "error", [LogError("secret/path: full"), sqlite3.OperationalError("disk I/O"), OSError(28, "x")]
)
def test_where_the_log_fails_nobody_is_told_otherwise(
    data: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    good = desk(data)

    class Failing:
        def write(self, topic: str, rows: Any) -> None:
            raise error

    @contextmanager
    def failing() -> Iterator[Any]:
        yield Failing()

    broken = Service(Desk(CONFIG, CATALOGUE, failing), None)
    with running(broken) as port:
        answer = Client(port).post(EVENT)
    assert (answer.status, answer.problem) == (503, "log-unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "secret" not in answer.body.decode()
    assert str(error) in caplog.text
    with running(Service(good, None)) as port:
        assert Client(port).post(EVENT).status == 202


def test_the_log_of_requests_holds_no_token_no_address_and_nothing_of_an_event(
    data: Path, tokens: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    grant, token = add_token(tokens, "An Organisation", ("submit",))
    with running(service(data, tokens)) as port:
        answer = Client(port, token).post([EVENT, {"lab": "a name"}], query="?verdicts=all&who=me")
        with _connection(port) as raw:
            raw.sendall(b"POST / HTTP/1.1\r\nAuthorization: Bearer " + token.encode() + b"\0\r\n\r\n")
            assert b" 400 " in raw.recv(64)
    line = next(one for one in caplog.messages if answer.headers["x-request-id"] in one)
    assert f"token={grant.id}" in line
    assert "accepted=1 rejected=1" in line
    for secret in (token.split("_", 2)[2], "127.0.0.1", "a name", "An Organisation", "who=me", EVENT["lab"]):
        assert secret not in caplog.text


def test_who_hangs_up_in_the_middle_of_a_body_leaves_nothing(client: Client, data: Path) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=10)
    connection.putrequest("POST", "/v1/events/inspection")
    connection.putheader("Content-Type", "text/csv")
    connection.putheader("Content-Length", str(len(CSV)))
    connection.endheaders(CSV[:-3])
    connection.close()
    time.sleep(0.2)
    assert client.post(EVENT).status == 202
    assert len(records(data, "inspections")) == 1
