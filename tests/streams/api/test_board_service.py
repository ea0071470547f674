"""The board's service: who may read and answer, what an answer becomes, news that wait, and bounds."""

from __future__ import annotations

import gzip
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from board_world import accident, alerts_of, board, fill_today, open_medium
from serving import Answer, Client, running
from small_world import fails, succeeds

from schemas.alerts import Disposition
from streams.api.limits import Limits
from streams.board import service as module
from streams.board.service import POLICY
from streams.outputs import read_values
from streams.tokens import add_token

KEY = "123e4567-e89b-12d3-a456-426614174000"
ANSWER = {"action": "acknowledge", "key": KEY, "name": "王芳", "reason": "已派人核查"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    accident(folder, tmp_path, "a-1")
    return folder


def post(client: Client, alert_id: str, body: Any, content_type: str = "application/json", **headers: str) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    path = f"/v1/board/alerts/{alert_id}/dispositions"
    return client.ask("POST", path, sent, {"Content-Type": content_type, **named})


def news(client: Client, since: str = "", wait: int = 0) -> Any:
    answer = client.get(f"/v1/board/news?since={since}&wait={wait}")
    assert answer.status == 200, answer.body
    return answer.json()


def until(client: Client, done: Any, seconds: float = 20.0) -> Any:
    """News of which something is so."""
    deadline = time.monotonic() + seconds
    while not done(found := news(client)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def dispositions(data: Path) -> list[Disposition]:
    with open_medium(data) as medium:
        return [msgspec.json.decode(value, type=Disposition) for _, _, value in read_values(medium, "dispositions")]


# --- who may -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "tokens.json"
    roles: dict[str, tuple[Any, ...]] = {
        "lab": ("submit",), "reader": ("read",), "officer": ("read", "dispose"), "blind": ("dispose",)
    }  # fmt: skip
    made = {name: add_token(file, f"Office {name}", mine, sources=())[1] for name, mine in roles.items()}
    made["heping"] = add_token(file, "Heping", ("read", "dispose"), regions=("120101",))[1]
    made["binhai"] = add_token(file, "Binhai", ("read", "dispose"), regions=("120116",))[1]
    return made


@pytest.mark.parametrize(
    ("who", "reads", "answers"),
    [("", 401, 401), ("wrong", 401, 401), ("lab", 403, 403), ("reader", 200, 403), ("blind", 403, 202),
     ("officer", 200, 202), ("heping", 200, 202), ("binhai", 200, 403)],
)  # fmt: skip
def test_who_may_read_and_answer_is_told_by_the_token(
    data: Path, tmp_path: Path, tokens: dict[str, str], who: str, reads: int, answers: int
) -> None:
    (alert_id,) = alerts_of(data)
    with running(board(data, tmp_path / "tokens.json")) as port:
        until(Client(port, tokens["reader"]), lambda found: found["rows"])
        token = tokens.get(who, f"tocsin_{'0' * 12}_{'x' * 43}" if who else None)
        client = Client(port, token)
        for path in ("", "/news", f"/alerts/{alert_id}", f"/alerts/{alert_id}/evidence"):
            assert client.get(f"/v1/board{path}").status == reads, path
        assert post(client, alert_id, ANSWER).status == answers
        for path in ("/", "/static/board.js", "/healthz"):
            assert client.get(path).status == 200, "the page itself says nothing"
    assert len(dispositions(data)) == (answers == 202)


def test_other_sites_cannot_send_an_answer_through_a_browser(data: Path) -> None:
    (alert_id,) = alerts_of(data)
    with running(board(data)) as port:
        client = Client(port)
        until(client, lambda found: found["rows"])
        assert post(client, alert_id, ANSWER, Sec_Fetch_Site="cross-site").problem == "other-site"
        assert post(client, alert_id, ANSWER, Origin="https://evil.example").problem == "other-site"
        for form in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert post(client, alert_id, ANSWER, form).problem == "wrong-type"
        assert client.get("/v1/board/news", Host="board.evil.example").problem == "other-site", "DNS rebinding"
        answer = client.get("/v1/board/news", Origin="https://evil.example")
        assert "access-control-allow-origin" not in answer.headers
    assert dispositions(data) == []


def test_without_tokens_only_this_machine_is_served(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):  # noqa: S104
        assert "--tokens" in fails("board", "--host", host, "--data", tmp_path / "data").line
    assert "--tls-key" in fails("board", "--tls-cert", "a.pem", "--data", tmp_path / "data").line


# --- answers -------------------------------------------------------------------------------------------------------


def test_an_answer_is_the_same_however_often_it_is_sent_and_comes_out_of_the_run(
    data: Path, tmp_path: Path, tokens: dict[str, str]
) -> None:
    (alert_id,) = alerts_of(data)
    with running(board(data, tmp_path / "tokens.json")) as port:
        client = Client(port, tokens["officer"])
        first = until(client, lambda found: found["rows"])
        assert first["rows"][0]["due"]
        told = [post(client, alert_id, ANSWER).json() for _ in range(3)]
        assert len({one["disposition_id"] for one in told}) == 1
        (row,) = until(client, lambda found: found["rows"][0].get("pending"))["rows"]
        assert (len(row["pending"]), row["pending"][0]["action"], row.get("due")) == (1, "acknowledge", None)
        succeeds("run", "--until-end", "--data", data)
        (row,) = until(client, lambda found: found["rows"][0]["status"] == "acknowledged")["rows"]
        assert (row["revision"], row["by"], row.get("pending", [])) == (2, "王芳 (Office officer)", [])
        detail = client.get(f"/v1/board/alerts/{alert_id}").json()
        assert detail["history"][-1]["reason"] == "已派人核查"
        assert detail["evidence"][0]["words"]["en"] == "Deaths 12: this rung of the ladder begins at 10."
        closing = {**ANSWER, "action": "close", "key": KEY.replace("1", "2")}
        assert post(client, alert_id, closing).status == 202
        succeeds("run", "--until-end", "--data", data)
        (row,) = until(client, lambda found: found["rows"][0]["status"] == "resolved")["rows"]
        assert post(client, alert_id, ANSWER).problem == "malformed-request"
    assert alerts_of(data)[alert_id].status == "resolved"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"action": "approve"}, "malformed-body"),
        ({"key": "1"}, "malformed-body"),
        ({"key": KEY + "0"}, "malformed-body"),
        ({"name": ""}, "malformed-body"),
        ({"name": "x" * 61}, "malformed-body"),
        ({"name": "a\nb"}, "malformed-body"),
        ({"reason": "x" * 201}, "malformed-body"),
        ({"reason": "a\x00b"}, "malformed-body"),
        ({"alert_id": "other"}, "malformed-body"),
        ({"by": "somebody else"}, "malformed-body"),
        ({"reason": "x" * 5_000}, "too-large"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(data: Path, change: dict[str, str], problem: str) -> None:
    (alert_id,) = alerts_of(data)
    with running(board(data)) as port:
        client = Client(port)
        until(client, lambda found: found["rows"])
        assert post(client, alert_id, {**ANSWER, **change}).problem == problem
        assert post(client, alert_id, b"\xff").problem == "malformed-body"
        assert post(client, "no-such", ANSWER).problem == "not-found"
    assert dispositions(data) == []


# --- news ----------------------------------------------------------------------------------------------------------


def test_news_wait_for_a_change_and_tell_it_to_everybody(data: Path, tmp_path: Path) -> None:
    with running(board(data)) as port:
        client = Client(port)
        version = until(client, lambda found: found["rows"] and found["following"])["version"]
        with ThreadPoolExecutor(5) as pool:
            waiting = [pool.submit(news, client, version, 25) for _ in range(5)]
            accident(data, tmp_path, "a-2", product="N0102")
            for one in waiting:
                told = one.result(30)
                assert (told["whole"], [row["product"] for row in told["rows"]]) == (False, ["N0102"])
        began = time.monotonic()
        assert news(client, news(client)["version"], 1)["rows"] == []
        assert time.monotonic() - began >= 0.9
        for wait in ("x", "-1", "1e9", "99999", "%C2%B2"):
            assert client.get(f"/v1/board/news?wait={wait}").problem == "malformed-request"


def test_the_service_ends_though_pages_wait(data: Path) -> None:
    with running(board(data)) as port:
        client = Client(port)
        version = until(client, lambda found: found["following"])["version"]
        waiting = threading.Thread(target=lambda: news(client, version, 25))
        waiting.start()
        time.sleep(0.3)
        began = time.monotonic()
    waiting.join(10)
    assert time.monotonic() - began < 10


def test_too_many_pages_are_told_to_come_back(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 2)
    with running(board(data)) as port:
        client = Client(port)
        version = until(client, lambda found: found["following"])["version"]
        with ThreadPoolExecutor(2) as pool:
            held = [pool.submit(news, client, version, 2) for _ in range(2)]
            time.sleep(0.5)
            refused = client.get(f"/v1/board/news?since={version}&wait=1")
            assert (refused.status, refused.problem) == (503, "busy")
            assert [one.result(10)["rows"] for one in held] == [[], []]


def test_a_token_that_comes_too_often_is_told_to_wait(data: Path) -> None:
    with running(board(data, limits=Limits(requests_per_minute=60, burst=3))) as port:
        statuses = [Client(port).get("/v1/board").status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_a_log_that_begins_anew_is_read_anew(data: Path, tmp_path: Path) -> None:
    """What the board followed was deleted and made again: nothing of the old alerts is shown."""
    other = tmp_path / "other"
    accident(other, tmp_path, "b-1", product="N0102")
    place = [data]
    made = board(data)
    made._watch._medium = lambda: open_medium(place[0])
    with running(made) as port:
        client = Client(port)
        until(client, lambda found: found["rows"])
        made._watch._at["emergency-response", 0] = 10_000  # as if more had been read than there is now
        place[0] = other
        until(client, lambda found: len(found["rows"]) == 1)


def test_what_is_long_travels_packed_and_what_a_page_has_to_know_has_bounds(data: Path) -> None:
    with running(board(data)) as port:
        answer = Client(port).get("/v1/board", Accept_Encoding="gzip")
        assert answer.headers["content-encoding"] == "gzip"
        about = json.loads(gzip.decompress(answer.body))
    assert (about["secured"], about["roles"]) == (False, ["submit", "dispose", "read"])
    assert len(about["axes"]["regions"]) == 17
    assert about["axes"]["regions"][0] == {"code": "120000", "name": {"zh": "天津市", "en": "Tianjin"}, "depth": 0}
    assert len(about["axes"]["products"]) == 238


def test_the_page_comes_from_here_alone_and_under_a_strict_policy(data: Path) -> None:
    with running(board(data)) as port:
        client = Client(port)
        page = client.get("/")
        assert page.headers["content-security-policy"] == POLICY
        assert "unsafe" not in POLICY
        for name in ("../service.py", "..%2fservice.py", "board.html", "x.js"):
            assert client.get(f"/static/{name}").status == 404
        texts = [page.body.decode()] + [client.get(f"/static/{name}").body.decode() for name in module._STATIC]
    for text in texts:
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "style=" not in text


def test_a_board_on_a_directory_that_is_worked_on_shows_its_alerts_with_a_chart(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill_today(data, tmp_path)
    with running(board(data)) as port:
        client = Client(port)
        (row,) = until(client, lambda found: found["rows"])["rows"]
        assert (row["kind"], row["region"]) == ("pass-rate", "120110")
        behind = client.get(f"/v1/board/alerts/{row['id']}/evidence").json()
    chart = behind["chart"]
    assert (behind["why"], chart["unit"]) == (None, "rate")
    assert len({len(chart[name]) for name in ("days", "value", "lower", "upper", "limit", "alarm", "tested")}) == 1
    assert chart["alarm"][-1]
    assert chart["value"][-1] <= chart["limit"][-1] < chart["expected"][-1]
