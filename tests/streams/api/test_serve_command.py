"""``tocsin serve`` as a process: where it may listen, TLS, its end, and beside a run on the same directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import EVENT, Client, counted, records
from small_world import fails, invoke

ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def process(*args: object) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A serving process, its address, and the lines that it says."""
    command = [sys.executable, "-m", "streams.cli", "serve", "--port", "0", *map(str, args)]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TOCSIN_")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=clean) as running:
        assert running.stderr is not None
        said: list[str] = []
        try:
            for line in running.stderr:
                said.append(line)
                found = re.search(r"at (https?://\S+:\d+)/", line)
                if found:
                    yield running, found[1], said
                    break
        finally:
            if running.poll() is None:
                running.kill()


def test_without_tokens_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):  # noqa: S104
        failure = fails("serve", "--host", host, "--data", tmp_path / "data")
        assert "--tokens" in failure.line
        assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--tokens", "absent.json"), "tokens add"),
        (("--tls-cert", "a.pem"), "--tls-key"),
        (("--tls-cert", "a.pem", "--tls-key", "b.pem"), "PEM"),
        (("--mapping", "nothing"), "no mapping is called"),
        (("--mapping", "fda-caers"), "--catalogue open"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    assert said in fails("serve", "--data", tmp_path / "data", *args).line


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with process("--data", tmp_path / "data") as (_, address, _lines):
        port = address.rpartition(":")[2]
        failure = invoke("serve", "--data", tmp_path / "data", "--port", port)
    assert failure.exit_code == 1
    assert "cannot be listened on" in failure.stderr


def test_it_serves_beside_a_run_and_ends_with_what_was_answered_in_the_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with process("--data", data, "--log-format", "json") as (serving, address, _):
        client = Client(int(address.rpartition(":")[2]))
        assert client.post(EVENT).status == 202
        run = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", "run", "--data", str(data)], cwd=ROOT, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            for number in range(10):
                assert client.post([{**EVENT, "event_id": f"R-{number}-{part}"} for part in range(20)]).status == 202
            time.sleep(1)
            assert run.poll() is None
        finally:
            run.terminate()
            run.wait(60)
        assert client.post([{**EVENT, "event_id": f"R-0-{part}"} for part in range(20)]).status == 202
        serving.send_signal(signal.SIGTERM)
        assert serving.stderr is not None
        rest = serving.stderr.read().splitlines()
        assert serving.wait(30) == 0
    lines = [json.loads(line) for line in rest if line.startswith("{")]
    assert [line["status"] for line in lines] == [202] * 12
    assert all(line["logger"] == "tocsin.serve" and len(line["request_id"]) == 16 for line in lines)
    assert len(records(data, "inspections")) == 221
    cells = counted(data)
    assert cells["pass", "F0201", "120110", 20_514] == (201, 201)


def test_with_a_certificate_it_speaks_tls_only(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate of this test, and is not on PATH")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    with process("--data", tmp_path / "data", "--tls-cert", cert, "--tls-key", key) as (_, address, _lines):
        assert address.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(f"{address}/healthz", timeout=30, context=context) as answer:  # noqa: S310
            assert answer.status == 200
            assert "max-age" in answer.headers["Strict-Transport-Security"]
        with pytest.raises(OSError):
            _plain(address)


def _plain(address: str) -> Any:
    return urllib.request.urlopen(address.replace("https", "http") + "/healthz", timeout=10)  # noqa: S310
