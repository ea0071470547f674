"""Each fault of the embedded runtime for a short time; the long form is ``python -m tests.integration.faults``.

And the tests of the tests: with a protection taken out the same runs must fail.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from faults import embedded
from faults.command import main, run_once
from law import LONG

SCALE = 0.04
BLOWS = 11 if LONG else 2


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture
def own_disk(tmp_path: Path) -> None:
    """Skip, and say so, where no small disk of our own can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("DISK-FULL NOT RUN: mounting a small tmpfs needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"DISK-FULL NOT RUN: no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    subprocess.run(["umount", str(tmp_path)], check=True)


def done(fault: str, room: Path, blows: int = BLOWS) -> None:
    run = run_once(fault, embedded.FAULTS[fault], 1, SCALE, room, blows)
    assert run.clean, run.words
    assert run.blows
    assert run.events > 1_000


ALONE = ["duplicate", "reorder", "poison"]
"""Each alone in the long form; in the short one two of them at once."""


@pytest.mark.parametrize("fault", ["kill", "clock-jump", *(ALONE if LONG else ["reorder"])])
def test_a_fault_does_not_show_in_state_and_alerts(fault: str, room: Path) -> None:
    done(fault, room)


def test_copies_and_poison_at_once_do_not_show(room: Path) -> None:
    run = run_once("careless", embedded.careless, 1, SCALE, room, 1)
    assert run.clean, run.words
    assert run.events > 1_000


@pytest.mark.usefixtures("own_disk")
def test_a_full_disk_loses_nothing_and_is_said_in_one_line(room: Path) -> None:
    done("disk-full", room, BLOWS if LONG else 1)


def test_without_memory_of_what_was_counted_copies_count_twice_and_the_command_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--runtime", "embedded", "--fault", "duplicate", "--mutation", "forget"]) == 1
    assert "NOT CLEAN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mutation", "blows"),
    [
        ("commit-ahead", 2),
        pytest.param("torn", 20, marks=pytest.mark.skipif(not LONG, reason="needs many kills: set TOCSIN_LONG=1")),
    ],
)
def test_with_a_protection_taken_out_kills_show(mutation: str, blows: int, room: Path) -> None:
    # A kill may strike where the protection is not needed: more of them then.
    for seed in range(1_000, 1_005):
        place = room / f"{mutation}-{seed}"
        run = run_once("kill", embedded.FAULTS["kill"], seed, SCALE, place, blows, mutation=mutation)
        assert run.events > 1_000, run.words
        if run.lost or run.duplicated:
            break
    assert run.lost or run.duplicated
    if mutation == "commit-ahead":
        assert run.lost
        assert not run.duplicated


def test_what_is_no_fault_of_the_runtime_is_said_and_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runtime", "embedded", "--fault", "broker-kill"]) == 1  # nothing was shown, so nothing is claimed
    assert "not on the embedded runtime: there is no broker" in capsys.readouterr().out
    assert not set(embedded.FAULTS) & set(embedded.NOT_HERE)
