"""A sweep: what ``--vary`` means, which points are on the front, and the command on a real record."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from small_world import fails, fill, invoke, succeeds

from schemas.errors import ConfigError, TocsinError
from streams import curve
from streams.config import Config
from streams.incidents import Score
from streams.sweep import Point, Setting, front, keys, parse_vary, settings

CONFIG = Config()


def varied(text: str) -> tuple[Any, ...]:
    return parse_vary(text, CONFIG).values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("counts.alpha=1e-6..1e-3:log4", (1e-6, 1e-5, 1e-4, 1e-3)),
        ("counts.alpha=1e-3..1e-6:log4", (1e-3, 1e-4, 1e-5, 1e-6)),
        ("multiplicity.false_alarms_per_month=0.5..4.5:lin3", (0.5, 2.5, 4.5)),
        ("pass_rate.min_failed=3..9:lin4", (3, 5, 7, 9)),
        ("pass_rate.min_failed=4,2", (4, 2)),
        ("counts.detector=surge, farrington", ("surge", "farrington")),
        ("scan.enabled=true,false", (True, False)),
        ("tick_seconds=3600,86400", (3600, 86400)),
    ],
)
def test_values_are_read(text: str, values: tuple[Any, ...]) -> None:
    assert varied(text) == values
    assert [type(value) for value in varied(text)] == [type(value) for value in values]


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.integers(2, 40), st.sampled_from(["lin", "log"]))
def test_a_span_goes_from_end_to_end_in_even_steps(low: float, high: float, steps: int, scale: str) -> None:
    assume(abs(math.log(high / low)) > 1e-2)  # nearer ends would give the same six digits twice
    found = varied(f"multiplicity.false_alarms_per_month={low!r}..{high!r}:{scale}{steps}")
    assert (found[0], found[-1], len(found)) == (low, high, steps)
    scaled = [math.log(value) if scale == "log" else value for value in found]
    even = [(1 - at / (steps - 1)) * scaled[0] + at / (steps - 1) * scaled[-1] for at in range(steps)]
    assert scaled == pytest.approx(even, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("counts.alfa=1", "no such key; the nearest is counts.alpha"),
        ("alpha=1", "no such key; the nearest is "),
        ("partitions=2", "cannot change an alert"),
        ("counts=1", "no such key"),
        ("counts.alpha", "values are missing"),
        ("counts.alpha=", "values are missing"),
        ("counts.alpha=1..2", "is no span; write it as LOW..HIGH:linN"),
        ("counts.alpha=0..1:log3", "needs ends above 0"),
        ("counts.alpha=1e-3..1e-6:log1", "1 steps; 2 to 1,000"),
        ("counts.alpha=1e-3..1e-6:log9999", "9999 steps"),
        ("counts.alpha=small", "'small' is no number"),
        ("counts.alpha=nan", "'nan' is no number"),
        ("counts.min_recent=1.5", "is no whole number"),
        ("pass_rate.min_failed=1..2:lin5", "a value stands there twice"),
        ("scan.enabled=yes", "is neither true nor false"),
        ("counts.detector=a..b:lin2", "is no number and has no span"),
    ],
)
def test_what_cannot_be_varied_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as failed:
        varied(text)
    assert said in str(failed.value)


def test_every_key_of_the_configuration_that_holds_one_value_can_be_varied() -> None:
    known = keys(CONFIG)
    assert {"tick_seconds", "counts.alpha", "scan.enabled", "grades.severity"} <= set(known)
    assert not {"partitions", "name", "topic_prefix", "pass_rate.windows_days"} & set(known)
    for key, value in known.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        assert varied(f"{key}={text}") == (value,)


def test_all_combinations_are_made_the_first_key_slowest() -> None:
    found = settings(
        CONFIG, [parse_vary(text, CONFIG) for text in ("counts.min_recent=3,4", "scan.enabled=true,false")]
    )
    assert [dict(one.values) for one in found] == [
        {"counts.min_recent": recent, "scan.enabled": scan} for recent in (3, 4) for scan in (True, False)
    ]
    assert [(one.config.counts.min_recent, one.config.scan.enabled) for one in found] == [
        (3, True), (3, False), (4, True), (4, False),
    ]  # fmt: skip
    assert len({one.config.digest for one in found}) == 4


def test_too_many_runs_a_key_twice_and_a_value_out_of_range_are_refused() -> None:
    many = parse_vary("counts.alpha=1e-6..1e-3:log65", CONFIG)
    with pytest.raises(ConfigError, match="makes 65 runs, at most 64"):
        settings(CONFIG, [many])
    with pytest.raises(ConfigError, match="stands there twice"):
        settings(CONFIG, [many, many], most=10_000)
    with pytest.raises(ConfigError, match=r"counts\.alpha=2\.0.*<= 1|counts\.alpha=2\.0.*< 1"):
        settings(CONFIG, [parse_vary("counts.alpha=0.5,2", CONFIG)])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_a_point_is_on_the_front_when_none_is_better(costs: list[tuple[int, int]]) -> None:
    worth = Score((), 0, 1, None, 0.0, 0, 0.0, 1.0)
    points = [Point(Setting((), CONFIG), 0, replace(worth, mean_days=a, false_a_year=b)) for a, b in costs]
    for one, (a, b) in zip(front(points), costs, strict=True):
        assert one.front is not any((c <= a and d <= b) and (c < a or d < b) for c, d in costs)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data directory and a file with the one incident that it shows."""
    folder = tmp_path_factory.mktemp("tune")
    incidents = folder / "incidents.csv"
    incidents.write_text("incident,product,region,since\nDongli,F0,^120110$,2024-01-21\n")
    return fill(folder / "data", folder), incidents


def test_a_sweep_shows_the_price_of_waiting_and_hangs_on_no_number_of_processes(
    world: tuple[Path, Path], tmp_path: Path
) -> None:
    data, incidents = world
    args = (
        "tune", "--data", data, "--incidents", incidents, "--vary", "pass_rate.min_failed=5,35,1000000", "--csv",
        tmp_path / "curve.csv", "--json",
    )  # fmt: skip
    one, two = (msgspec.json.decode(succeeds(*args, "--jobs", jobs).stdout_bytes) for jobs in (1, 2))
    assert one == two
    points = one["points"]
    assert [point["values"]["pass_rate.min_failed"] for point in points] == [5, 35, 1_000_000]
    assert [point["score"]["found"] for point in points] == [1, 1, 0]
    delays = [point["score"]["mean_days"] for point in points]
    assert delays[0] < delays[1] < delays[2] == 63
    assert points[0]["front"]
    with (tmp_path / "curve.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean_days"]) for row in rows] == delays
    assert [row["front"] == "1" for row in rows] == [point["front"] for point in points]


def test_the_table_and_the_picture(world: tuple[Path, Path], tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed: the picture of a sweep is not tested")
    data, incidents = world
    picture = tmp_path / "curve.html"
    told = succeeds(
        "tune", "--data", data, "--incidents", incidents, "--vary", "pass_rate.min_failed=5,35", "--plot", picture,
        "--jobs", 1,
    ).stdout  # fmt: skip
    assert [line[0] for line in told.splitlines()[1:3]] == ["*", " "]
    text = picture.read_text("utf-8")
    assert "pass_rate.min_failed=35" in text
    assert "<script src=" not in text  # self-contained


def test_a_picture_that_cannot_be_drawn_is_told_before_the_sweep(
    world: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, incidents = world
    args = ("tune", "--data", data, "--incidents", incidents, "--vary", "counts.alpha=1e-5", "--plot")
    assert "name it .html or .png" in fails(*args, "curve.pdf").line

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(curve, "import_module", absent)
    assert "needs the package plotly" in fails(*args, tmp_path / "c.html").line
    monkeypatch.undo()
    pytest.importorskip("plotly", reason="plotly is not installed")
    monkeypatch.setattr(curve, "find_spec", lambda name: None)
    with pytest.raises(TocsinError, match="needs the package kaleido"):
        curve.check_plot(tmp_path / "c.png")


def test_wrong_calls_are_one_line(world: tuple[Path, Path], tmp_path: Path) -> None:
    data, incidents = world
    args = ("tune", "--data", data, "--incidents", incidents)
    assert "Missing option '--vary'" in fails(*args).line
    assert "the nearest is counts.alpha" in fails(*args, "--vary", "counts.alfa=1").line
    assert "makes 3 runs, at most 2" in fails(*args, "--vary", "counts.min_recent=1,2,3", "--max-runs", 2).line
    bad = tmp_path / "no" / "c.csv"
    assert "cannot be written" in invoke(*args, "--vary", "counts.alpha=1e-5", "--csv", bad).stderr
