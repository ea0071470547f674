"""Two runs side by side: episodes against a brute force, the laws of exchange, and the command on a real record."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_world import accident, fails, fill, inspections, invoke, succeeds, write_ndjson

from schemas.alerts import Alert, AlertKind, Provenance, Text
from schemas.catalogue import Catalogue
from streams.compare import Life, compare, lives
from streams.config import Config
from streams.trials import Record, Run, Trial, run_trials

START = datetime(2024, 1, 1, tzinfo=UTC)
NOWHERE = Text(zh="", en="")
EXCHANGED = {"lost": "gained", "gained": "lost", "earlier": "later", "later": "earlier", "same": "same"}


def revisions(
    name: str, opened: int, ended: int | None, *, kind: AlertKind = "pass-rate", product: str = "F0101",
    region: str = "120110", level: int = 3, raised: int | None = None,
) -> list[Alert]:  # fmt: skip
    """An alert that is opened on a day, perhaps raised to a level on the next, and resolved on another."""
    at = START + timedelta(days=opened)
    first = Alert(
        id=name, revision=1, status="opened", level=level, grade="III", colour="yellow", kind=kind, scope="cell",
        product=product, product_name=NOWHERE, region=region, region_name=NOWHERE, onset=at, as_of=at,
        headline=NOWHERE, provenance=Provenance(config="c", version="1", catalogue="t"),
    )  # fmt: skip
    found = [first]
    if raised is not None:
        found.append(msgspec.structs.replace(first, revision=2, status="raised", level=raised))
    if ended is not None:
        last, day = found[-1], START + timedelta(days=ended)
        found.append(msgspec.structs.replace(last, revision=last.revision + 1, status="resolved", as_of=day))
    return found


@st.composite
def runs(draw: st.DrawFn, letter: str) -> list[Alert]:
    """Alerts of a few subjects; those of one subject follow one another, as they do in a run."""
    found: list[Alert] = []
    for product in draw(st.lists(st.sampled_from(["F0101", "F0102", "F02"]), unique=True)):
        day = 0
        for number in range(draw(st.integers(0, 4))):
            day += draw(st.integers(0, 5)) + (number > 0)
            ends = draw(st.integers(1, 6))
            endless = draw(st.booleans()) and number == 3
            name = f"{letter}-{product}-{number}"
            found += revisions(name, day, None if endless else day + ends, product=product)
            day += ends
            if endless:
                break
    return found


def together(one: Life, other: Life) -> bool:
    """Overlap, by looking at every half day."""
    far = 200
    days = [n / 2 for n in range(2 * far)]

    def stands(life: Life, day: float) -> bool:
        at = START + timedelta(days=day)
        return life.opened <= at and (life.ended is None or at <= life.ended)

    return one.subject == other.subject and any(stands(one, day) and stands(other, day) for day in days)


@given(runs("a"), runs("b"))
def test_episodes_are_the_connected_parts_of_the_graph_of_overlaps(before: list[Alert], after: list[Alert]) -> None:
    every = lives([*before, *after])
    part = {life.first.id: life.first.id for life in every}
    for one, other in combinations(every, 2):
        if together(one, other):
            old, new = part[one.first.id], part[other.first.id]
            part = {name: new if root == old else root for name, root in part.items()}
    wanted: dict[str, set[str]] = {}
    for name, root in part.items():
        wanted.setdefault(root, set()).add(name)
    found = [{life.first.id for life in (*one.before, *one.after)} for one in compare(before, after)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, wanted.values()))


@given(runs("a"), runs("b"))
def test_every_alert_counts_once_and_exchanging_the_runs_exchanges_the_words(
    before: list[Alert], after: list[Alert]
) -> None:
    there, back = compare(before, after), compare(after, before)
    assert Counter(EXCHANGED[one.change] for one in there) == Counter(one.change for one in back)
    ids = [life.first.id for one in there for life in (*one.before, *one.after)]
    assert sorted(ids) == sorted({alert.id for alert in (*before, *after)})


@given(runs("a"))
def test_a_run_against_itself_is_all_the_same(one: list[Alert]) -> None:
    again = compare(one, one)
    assert {episode.change for episode in again} <= {"same"}
    assert all(len(set(episode.levels)) == 1 for episode in again)


def test_shift_and_levels_are_told() -> None:
    (one,) = compare(revisions("a", 5, 20), revisions("b", 3, 9, raised=2))
    assert (one.change, one.shift, one.levels, one.level) == ("earlier", timedelta(days=-2), (3, 2), 2)
    (one,) = compare(revisions("a", 5, 20), revisions("b", 20, None))
    assert (one.change, one.shift) == ("later", timedelta(days=15))


def test_another_region_source_or_grave_event_is_another_subject() -> None:
    assert len(compare(revisions("a", 1, 5), revisions("b", 1, 5, region="120111"))) == 2
    graves = [revisions(f"g{n}", 1, 5, kind="grave-event") for n in (1, 2)]
    assert [one.change for one in compare(*graves)] == ["lost", "gained"]
    assert [one.change for one in compare(graves[0], graves[0])] == ["same"]


def test_what_moved_to_a_cell_above_or_below_is_named() -> None:
    catalogue = Catalogue.builtin("tianjin")
    narrow, wide = revisions("a", 1, 9), revisions("b", 4, 9, product="F01", region="120000")
    assert [one.beside for one in compare(narrow, wide, catalogue)] == ["b", "a"]
    assert [one.beside for one in compare(narrow, revisions("b", 10, 12, product="F01"), catalogue)] == ["", ""]
    assert [one.beside for one in compare(narrow, revisions("b", 4, 9, product="F02"), catalogue)] == ["", ""]
    assert [one.beside for one in compare(narrow, wide)] == ["", ""]


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    return fill(folder / "data", folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The record's own configuration, one that is deaf to pass rates, and one that waits longer."""
    folder = tmp_path_factory.mktemp("configs")
    texts = {
        "own": "",
        "deaf": "[pass_rate]\nmin_failed = 1000000\n",
        "slow": "[pass_rate]\nmin_failed = 35\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    incidents = "incident,product,region,since\nDongli,F0,^120110$,2024-01-21\nelsewhere,F0,^120101$,2024-01-10\n"
    (folder / "incidents.csv").write_text(incidents)
    return {name: folder / f"{name}.toml" for name in texts} | {"incidents": folder / "incidents.csv"}


def compared(*args: object) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.json.decode(succeeds("compare", "--json", *args).stdout_bytes)
    return told


def test_the_same_configuration_changes_nothing(data: Path, files: dict[str, Path]) -> None:
    told = compared(files["own"], files["own"], "--data", data, "--jobs", 1)
    assert {one["change"] for one in told["episodes"]} == {"same"}
    assert {one["kind"] for one in told["episodes"]} >= {"pass-rate", "grave-event"}
    assert told["runs"][0]["config"] == Config().digest
    assert told["runs"][0]["events"] == 121


def test_two_processes_say_what_one_says_and_what_was_lost_is_lost(data: Path, files: dict[str, Path]) -> None:
    args = (files["own"], files["deaf"], "--data", data, "--incidents", files["incidents"])
    one, two = (compared(*args, "--jobs", jobs) for jobs in (1, 2))
    assert one == two
    assert {(e["kind"], e["change"]) for e in one["episodes"]} == {("pass-rate", "lost"), ("grave-event", "same")}
    scores = [run["score"] for run in one["runs"]]
    assert [score["found"] for score in scores] == [1, 0]
    assert [score["visible"] for score in scores] == [2, 2]
    assert scores[0]["incidents"][0]["days"] in range(-1, 5)
    assert scores[1]["false"] == 0


def test_a_slower_configuration_is_later_and_the_tables_say_so(data: Path, files: dict[str, Path]) -> None:
    args = ("compare", files["own"], files["slow"], "--data", data, "--incidents", files["incidents"], "--jobs", 1)
    told = succeeds(*args).stdout
    assert "B  " in told
    assert "later" in told
    row = next(line for line in told.splitlines() if line.startswith("Dongli"))
    before, after = (int(word) for word in row.split() if word.startswith(("+", "-")) and word[1:].isdigit())
    assert before < after
    assert "missed" in next(line for line in told.splitlines() if line.startswith("elsewhere"))
    assert "1 of 2" in told


def test_files_are_a_record_too(tmp_path: Path, files: dict[str, Path]) -> None:
    events = write_ndjson(tmp_path / "i.ndjson", [*inspections(), {"bad": 1}])
    grave = write_ndjson(tmp_path / "a.ndjson", [accident()])
    result = invoke("compare", "--json", files["own"], files["deaf"], f"inspections={events}", f"accidents={grave}")
    assert result.exit_code == 0, result.stderr
    told = msgspec.json.decode(result.stdout_bytes)
    assert [run["events"] for run in told["runs"]] == [121, 121]
    assert "1 rows rejected" in result.stderr


def test_wrong_calls_are_one_line(data: Path, files: dict[str, Path], tmp_path: Path) -> None:
    own, bad = files["own"], tmp_path / "bad.toml"
    bad.write_text("[counts]\nalfa = 1e-5\n")
    assert "unknown field `alfa`" in fails("compare", own, bad, "--data", data).line
    assert "no such file" in fails("compare", own, tmp_path / "no.toml", "--data", data).line
    assert "--config has no place here" in fails("compare", own, own, "--data", data, "--config", own).line
    assert "name the file" in fails("compare", own, own, "--data", data, "--dataset", "d").line
    assert "nothing has been published" in fails("compare", own, own, "--data", tmp_path / "no").line
    lines = fails("compare", own, own, "--data", data, "--incidents", own).line
    assert "has no column incident" in lines


def test_a_trial_that_fails_in_its_process_fails_the_command(data: Path) -> None:
    gone = Trial(Config().replace(catalogue="absent.toml"), Record(data, 4))
    with pytest.raises(Exception, match=r"absent\.toml"):
        run_trials([Trial(Config(), Record(data, 4)), gone], jobs=2)


def test_progress_counts_all_records_of_all_trials(data: Path) -> None:
    seen: list[tuple[int, int]] = []
    found: list[Run] = run_trials([Trial(Config(), Record(data, 4))] * 2, 1, lambda *at: seen.append(at))
    assert seen[-1] == (242, 242)
    assert seen == sorted(seen)
    assert found[0].alerts == found[1].alerts
