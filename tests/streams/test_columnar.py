"""What is read as columns is what is read row by row: the same events, refusals and alerts, whatever a table holds."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.real_data import DATA
from builders import DAY, START, body, iso, settings_with
from column_rows import told
from small_world import accident, fails, inspections, invoke, succeeds, write_ndjson

from schemas.events import TOPICS
from schemas.topics import kind_of_topic
from streams.columnar import TableIntake
from streams.columns import EventColumns
from streams.commands.record import fill, load
from streams.config import Config
from streams.embedded import INPUTS
from streams.importers import import_rows
from streams.intake import Intake
from streams.mapping import Mapping
from streams.medium import EmbeddedMedium
from streams.replay import WHOLE, prepare, replay, scratch
from streams.slices import Slice, Sliced
from streams.spool import FileIntake, Spool
from streams.ticks import COMPLETE
from tests.fuzz.material import good_record
from tests.fuzz.mutate import mutated_value

EVENT_TOPICS = tuple(TOPICS.values())
CHINA = timezone(timedelta(hours=8))
ZONES = (None, "UTC", "+08:00", "-03:30", "Asia/Shanghai", "America/Havana")
Row = dict[str, Any]


# --- two ways ------------------------------------------------------------------------------------------------------


def by_a_log(config: Config, files: list[tuple[str, str]], folder: Path, part: Slice = WHOLE) -> dict[Any, Any]:
    """Per partition what intake makes of the files once they are published."""
    found = {}
    with scratch(folder, config) as medium:
        assert isinstance(medium, EmbeddedMedium)
        fill(medium, config, files, None)
        sliced = Sliced(medium, part)
        intake = Intake(config, config.load_catalogue())
        for origin, end in sliced.ends(INPUTS).items():
            records = [record for batch in sliced.read(origin, 0, end, 1_000) for record in batch]
            if records:
                result = intake.process(origin, records, -COMPLETE)
                graves = [(signal.alert_id, signal.level) for signal in result.grave]
                held = [(grave.alert_id, grave.level) for grave in result.columns.graves]
                found[origin] = (
                    len(records), told(result.columns), graves, held, len(result.dead), result.last_arrival,
                )  # fmt: skip
    return found


def by_columns(config: Config, files: list[tuple[str, str]], folder: Path, part: Slice = WHOLE) -> dict[Any, Any]:
    """The same by a spool."""
    found = {}
    with Spool(folder) as spool:
        intake = FileIntake(config, config.load_catalogue(), spool, part)
        load(intake, config.load_catalogue(), files, None)
        refused = spool.refused
        for origin in spool.origins():
            count, rows, graves, held, last = 0, [], [], [], 0
            for piece in spool.read(origin):
                count += piece.records
                rows += told(piece.result.columns)
                graves += [(signal.alert_id, signal.level) for signal in piece.result.grave]
                held += [(grave.alert_id, grave.level) for grave in piece.result.columns.graves]
                assert [rows for rows in piece.result.columns.graves if rows.row >= len(piece.result.columns)] == []
                last = piece.result.last_arrival
            found[origin] = (count, rows, graves, held, count - len(rows), last)
            refused -= count - len(rows)
        assert refused == 0
    return found


# --- tables --------------------------------------------------------------------------------------------------------


def made(topic: str, seed: int, count: int = 300, odd: float = 0.02) -> list[Row]:
    """Rows of one kind, some of them doubtful; a few are years old."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        row = good_record(topic, number, rng)
        row["source"] = rng.choice(("s", "t"))
        row["batch"] = rng.choice(("b-1", "b-2", None))
        if rng.random() < 0.7:
            row["withdrawn"] = False
        row["occurred_at"] = row.get("occurred_at")
        if rng.random() < 0.8:
            row.pop("items", None)
            if topic == "inspections":
                row["verdict"] = row["verdict"] if row.get("tested") is None and "verdict" in row else None
        if topic == "injuries":
            row["outcome"] = rng.choice(("admitted", "unknown", "died", None))
        if topic == "accidents" and rng.random() < 0.7:
            row |= {"deaths": 0, "structural": rng.random() < 0.3, "seriously_injured": rng.choice((0, 2, 60))}
        if rng.random() < 0.03:
            row["reported_at"] = "2021-03-01T00:00:00"
        for name in row:
            if rng.random() < odd:
                row[name] = mutated_value(row[name], rng)
        rows.append(row)
    return rows


def text_of(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if not isinstance(value, int) else str(value)


def column_of(name: str, values: list[Any], rng: random.Random) -> Any:
    """An Arrow column in one of the forms in which a file might have it; what does not fit is left out."""
    if name in ("reported_at", "occurred_at") and rng.random() < 0.7:
        zone, unit = rng.choice(ZONES), rng.choice(("s", "ms", "us", "ns"))
        return (
            pa.array([moment(value) for value in values], pa.timestamp("us", "UTC"))
            .cast(pa.timestamp(unit, zone or "UTC"), safe=False)
            .cast(pa.timestamp(unit, zone) if zone else pa.timestamp(unit, "UTC"))
        )
    if rng.random() < 0.5:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError):
            pass
    texts = pa.array([text_of(value) for value in values], pa.string())
    if sum(isinstance(value, int | float) for value in values) > len(values) // 3 and rng.random() < 0.4:
        numbers = [value if isinstance(value, int | float) and abs(value) < 1e18 else None for value in values]
        return pa.array([None if value is None else float(value) for value in numbers], pa.float64())
    return texts.dictionary_encode() if rng.random() < 0.3 else texts


def moment(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def written(rows: list[Row], to: Path, rng: random.Random, **options: Any) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    rng.shuffle(names)
    columns = {name: column_of(name, [row.get(name) for row in rows], rng) for name in names}
    pq.write_table(pa.table(columns), to, **options)
    return str(to)


def plain_share(topic: str, file: str, config: Config) -> float:
    """How much of a file is vouched for as columns."""
    catalogue = config.load_catalogue()
    taker = TableIntake(kind_of_topic(topic), Intake(config, catalogue).decoder, config, config.grades.load())
    table = pq.read_table(file)
    return len(taker.take(table, 2**60).rows) / int(table.num_rows)


# --- every kind ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("topic", EVENT_TOPICS)
def test_a_table_becomes_the_same_events_as_by_a_log(topic: str, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    file = written(made(topic, seed), tmp_path / "e.parquet", rng, row_group_size=rng.choice((50, 1_000)))
    config = settings_with(intake={"lateness_days": rng.choice((30, 400))})
    wanted = by_a_log(config, [(topic, file)], tmp_path)
    found = by_columns(config, [(topic, file)], tmp_path)
    assert found.keys() == wanted.keys()
    for origin, (count, rows, *rest) in wanted.items():
        assert found[origin][1] == rows
        assert found[origin][0] == count
        assert list(found[origin][2:]) == rest


@pytest.mark.parametrize("topic", EVENT_TOPICS)
def test_ordinary_rows_need_no_way_of_their_own(topic: str, tmp_path: Path) -> None:
    rows = [body(topic, f"e{at}", START + at * 1_000) for at in range(200)]
    if topic == "inspections":
        rows += [{**body(topic, f"v{at}", START), "tested": None, "failed": None, "verdict": "fail"} for at in range(9)]
        rows = [{"verdict": None, **row} for row in rows]
    table = pa.Table.from_pylist(rows)
    at = table.column_names.index("reported_at")
    times = pa.array([datetime.fromisoformat(row["reported_at"]) for row in rows], pa.timestamp("us", "UTC"))
    pq.write_table(table.set_column(at, "reported_at", times), tmp_path / "e.parquet")
    assert plain_share(topic, str(tmp_path / "e.parquet"), Config()) == 1.0


def test_doubtful_tables_still_have_ordinary_rows(tmp_path: Path) -> None:
    shares = [
        plain_share(topic, written(made(topic, 1, odd=0.0), tmp_path / f"{topic}.parquet", random.Random(3)), Config())
        for topic in EVENT_TOPICS
    ]
    assert min(shares) > 0.3


def test_nothing_is_vouched_for_where_records_must_be_short(tmp_path: Path) -> None:
    file = written(made("complaints", 1), tmp_path / "e.parquet", random.Random(1))
    config = settings_with(intake={"max_record_bytes": 1_024})
    assert plain_share("complaints", file, config) == 0.0
    assert by_columns(config, [("complaints", file)], tmp_path) == by_a_log(config, [("complaints", file)], tmp_path)


# --- files, parts and orders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        Slice(until=START + 20 * DAY), Slice(since=START + 9 * DAY), Slice(START + 3 * DAY, START + 4 * DAY),
        Slice(ranges={("complaints", None): (10, 40), ("complaints", 1): (3, None), ("surveys", 0): (0, 5)}),
        Slice(START + 2 * DAY, START + 22 * DAY, {("complaints", 2): (5, 30)}),
    ],
)  # fmt: skip
def test_a_part_of_a_file_is_the_part_of_its_log(part: Slice, tmp_path: Path) -> None:
    rng = random.Random(4)
    files = []
    for name, topic in (("a", "complaints"), ("b", "complaints"), ("c", "surveys")):
        products = ("F0101", "F0102", "L0101", "C0101", "N0101")
        rows = [
            body(topic, f"{name}{at}", START + rng.randrange(30 * DAY), product=rng.choice(products))
            for at in range(90)
        ]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet", row_group_size=40)
        files.append((topic, str(tmp_path / f"{name}.parquet")))
    config = Config()
    assert by_columns(config, files, tmp_path, part) == by_a_log(config, files, tmp_path, part)


def test_a_file_of_lines_fares_alike(tmp_path: Path) -> None:
    rows = [body("injuries", f"e{at}", START + at * DAY, severity=1 + at % 6) for at in range(60)]
    files = [("injuries", str(write_ndjson(tmp_path / "i.ndjson", rows)))]
    assert by_columns(Config(), files, tmp_path) == by_a_log(Config(), files, tmp_path)


@pytest.mark.parametrize("memory", [100, 12_000])
def test_a_large_spool_goes_to_disk_and_comes_back(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.spool._IN_MEMORY", memory)
    held, disk = list[int](), list[int]()
    add, write = Spool.add, Spool._write
    monkeypatch.setattr(Spool, "add", lambda spool, *piece: held.append(1) or add(spool, *piece))
    monkeypatch.setattr(Spool, "_write", lambda spool, data: disk.append(1) or write(spool, data))
    file = written(made("losses", 2), tmp_path / "e.parquet", random.Random(2))
    assert by_columns(Config(), [("losses", file)], tmp_path) == by_a_log(Config(), [("losses", file)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["e.parquet"]
    assert disk
    assert (len(disk) < len(held)) == (memory > 100)


@pytest.mark.parametrize("most", [0, 2, 12])
def test_pieces_on_disk_have_the_dictionaries_of_their_file_back(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.spool._IN_MEMORY", 0)
    monkeypatch.setattr("streams.spool._MOST_SHARED", most)
    trimmed = EventColumns.trimmed
    kept: list[int] = []
    monkeypatch.setattr(
        EventColumns, "trimmed", lambda columns, whole=(): kept.append(len(whole)) or trimmed(columns, whole)
    )
    file = written(made("inspections", 3, 3_000, odd=0.0), tmp_path / "e.parquet", random.Random(3))
    config = Config().replace(partitions=2)
    files = [("inspections", file)]
    assert by_columns(config, files, tmp_path) == by_a_log(config, files, tmp_path)
    assert max(kept) == (3 if most == 12 else most)


def parquet_of(rows: list[Row], to: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), to)
    return to


@pytest.mark.parametrize("options", [(), ("--as-of", "2024-01-24"), ("--since", "2024-01-05")])
def test_a_replay_of_tables_gives_the_bytes_of_a_replay_by_a_log(options: tuple[str, ...], tmp_path: Path) -> None:
    events = parquet_of(inspections(), tmp_path / "i.parquet")
    died = [body("injuries", f"d{day}", START + day * DAY, outcome="died") for day in range(0, 30, 7)]
    grave = parquet_of([accident()], tmp_path / "a.parquet")
    sources = [f"inspections={events}", f"accidents={grave}", f"injuries={parquet_of(died, tmp_path / 'd.parquet')}"]
    succeeds("replay", *sources, "--out", tmp_path / "new", *options)
    config = Config()
    out = tmp_path / "old"
    prepare(out, config)
    parsed = {name: int(datetime.fromisoformat(text).replace(tzinfo=CHINA).timestamp() * 1_000)
              for name, text in zip(options[::2], options[1::2], strict=True)}  # fmt: skip
    part = Slice(parsed.get("--since"), parsed.get("--as-of"))
    with scratch(tmp_path / "log", config) as medium:
        fill(medium, config, [tuple(source.split("=")) for source in sources], None)  # type: ignore[misc]
        replay(medium, config, config.load_catalogue(), out, part=part)
    assert (tmp_path / "new" / "alerts.ndjson").read_bytes() == (out / "alerts.ndjson").read_bytes()
    assert len((out / "alerts.ndjson").read_bytes().splitlines()) > 3
    lines = [sorted((tmp_path / name / "signals.ndjson").read_bytes().splitlines()) for name in ("new", "old")]
    assert lines[0] == lines[1] != []


def test_the_times_of_a_table_are_read_alike_in_every_unit_and_zone() -> None:
    rng = random.Random(8)
    config = settings_with(utc_offset="-03:30")
    intake = Intake(config, config.load_catalogue())
    for power, unit in enumerate(("s", "ms", "us", "ns")):
        for zone in ZONES:
            ticks = [rng.randrange(1_600_000_000, 1_700_000_000) * 1_000**power + 7 for _ in range(50)]
            column = pa.array(ticks, pa.timestamp(unit, zone))
            rows = [body("surveys", f"e{at}", START, occurred_at=None) for at in range(50)]
            table = pa.Table.from_pylist(rows)
            table = table.set_column(table.column_names.index("reported_at"), "reported_at", column)
            taken = TableIntake("survey", intake.decoder, config, config.grades.load()).take(table, 2**60)
            moments = column.cast(pa.timestamp("us", zone), safe=False).to_pylist()
            local = timezone(-timedelta(hours=3, minutes=30))
            wanted = [(at if at.tzinfo else at.replace(tzinfo=local)).timestamp() * 1_000 // 1 for at in moments]
            assert taken.reported.tolist() == wanted


SHARED = {
    "fda-caers": "fda_caers_2004_2010", "eu-rasff": "eu_rasff_2020_2024", "cpsc-neiss": "neiss_2014_sample",
    "city-of-chicago": "chicago_food_inspections_2011_2014",
}  # fmt: skip


@pytest.mark.shared_data
@pytest.mark.parametrize("name", SHARED)
def test_real_events_in_a_table_fare_as_by_a_log(name: str, tmp_path: Path) -> None:
    source = DATA / f"{SHARED[name]}.parquet"
    if not source.exists():
        pytest.skip(f"absent from ../shared/data: {source.name}")
    mapping = Mapping.builtin(name)
    values = [row.value for rows in import_rows(source, mapping) for row in rows if row.rejection is None][:8_000]
    events = [msgspec.json.decode(value) for value in values]
    names = sorted({field for event in events for field in event})
    table = pa.Table.from_pylist([{field: event.get(field) for field in names} for event in events])
    pq.write_table(table, tmp_path / "e.parquet")
    files = [(TOPICS[mapping.kind], str(tmp_path / "e.parquet"))]
    config = Config().replace(catalogue="open")
    assert by_columns(config, files, tmp_path) == by_a_log(config, files, tmp_path)


# --- what is wrong with a file -------------------------------------------------------------------------------------


def test_a_table_without_a_required_column_is_refused_with_its_columns(tmp_path: Path) -> None:
    rows = [{"event_id": "e", "source": "s", "reported_at": iso(START), "region": "120101", "lab": "l"}]
    line = fails("replay", f"inspections={parquet_of(rows, tmp_path / 'e.parquet')}", "--out", tmp_path / "o").line
    assert "the file has no column for field product" in line
    empty = pa.table({"event_id": pa.array([], pa.string())})
    pq.write_table(empty, tmp_path / "none.parquet")
    line = fails("replay", f"inspections={tmp_path / 'none.parquet'}", "--out", tmp_path / "p").line
    assert "the file has no column for field" in line


def test_refused_rows_are_told(tmp_path: Path) -> None:
    rows = [body("surveys", "e", START), body("surveys", "f", START, region="990000"), {"event_id": "g"}]
    file = parquet_of(rows, tmp_path / "e.parquet")
    result = invoke("replay", f"surveys={file}", "--out", tmp_path / "o")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 records, 0 refused")
    assert "2 rows rejected (1 missing-field, 1 unknown-code)" in result.stderr


def test_a_text_that_is_not_utf8_is_told_of_the_file(tmp_path: Path) -> None:
    rows = [body("surveys", f"e{at}", START) for at in range(3)]
    table = pa.Table.from_pylist(rows)
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ab", b"\xff\xfe", b"cd"], pa.binary()).buffers())
    table = table.set_column(table.column_names.index("surveyor"), "surveyor", bad)
    pq.write_table(table, tmp_path / "e.parquet")
    assert (
        "cannot be read as parquet"
        in fails("replay", f"surveys={tmp_path / 'e.parquet'}", "--out", tmp_path / "o").line
    )
