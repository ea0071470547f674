"""What is fuzzed: each target makes inputs, feeds them to the real code, and says what became of each.

Every input has exactly one verdict: ``accepted``, or the reason for which it was refused. Whatever else the code does
with it, an exception of another class, an accepted record that the published JSON Schema does not allow, a dead letter
that lacks its reason or origin, sums that do not add up, is an *escape*, told with the input that brought it about.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jsonschema
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.alerts import DeadLetter
from schemas.catalogue import Catalogue
from schemas.codes import check_gtin, check_region_shape, check_uscc
from schemas.errors import Rejection, TocsinError
from schemas.events import EVENT_TYPES, KINDS
from schemas.json_schema import schema_of
from schemas.personal import has_personal_number, is_personal_key
from schemas.severity import Severity
from schemas.topics import kind_of_topic
from streams.columns import EventColumns
from streams.config import Config
from streams.importers import import_rows, native_rows
from streams.intake import Intake
from streams.log import LogRecord
from streams.mapping import Mapping
from streams.wire import Keyed, Routed, Told, kind_of

from .material import (
    ALL_RAW,
    ARRIVAL,
    CATALOGUE_TOML,
    CLINIC_HEADER,
    CONFIG_TOML,
    EVENT_TOPICS,
    clinic_row,
    good_code,
    good_record,
    mapping_texts,
    toml_of,
)
from .mutate import MARKER, dumped, mutated, mutated_bytes, mutated_lines, mutated_text, odd_value

__all__ = ["TARGETS", "Escape", "IntakeTarget", "Target", "Verdict"]

BATCH: Final = 200
_SAMPLE: Final = 40
_REASON: Final = re.compile(r"[a-z][a-z0-9-]{2,31}")

Verdict = tuple[str, int]
"""What became of inputs, and of how many."""


class Escape(Exception):
    """Something that must not happen, and the input that made it happen."""

    def __init__(self, what: str, given: object) -> None:
        super().__init__(f"{what}; input {repr(given)[:2_000]}")


class Target:
    """One thing to fuzz. ``run`` makes about ``count`` inputs from ``rng`` and yields what became of them."""

    name: str

    def run(self, rng: random.Random, count: int) -> Iterator[Verdict]:
        raise NotImplementedError


def escaped(error: BaseException, given: object) -> Escape:
    return error if isinstance(error, Escape) else Escape(f"{type(error).__name__}: {error}", given)


# --- intake --------------------------------------------------------------------------------------------------------


@dataclass
class IntakeTarget(Target):
    """Records of every raw topic through :class:`streams.intake.Intake`, in batches with good ones among them."""

    name: str = "intake"
    config: Config = field(default_factory=Config)
    checked: int = 0

    def __post_init__(self) -> None:
        closed = Intake(self.config, self.config.load_catalogue())
        self._intakes = (closed, Intake(self.config, Catalogue.open("open")))
        names = {topic: "disposition" if topic == "dispositions" else kind_of_topic(topic) for topic in ALL_RAW}
        self._schemas = {topic: validator(name) for topic, name in names.items()}
        self._letters = validator("dead-letter")

    def run(self, rng: random.Random, count: int) -> Iterator[Verdict]:
        number = 0
        while number < count:
            topic = rng.choice(ALL_RAW)
            good = [good_record(topic, number + n, rng) for n in range(min(BATCH, count - number))]
            plain = [json.dumps(record).encode() for record in good[:20]]
            records = [
                LogRecord(n, ARRIVAL + rng.randrange(-3_600_000, 3_600_000), *self._record(record, rng, plain))
                for n, record in enumerate(good)
            ]
            number += len(records)
            yield from self.feed(topic, records, self._intakes[rng.random() < 0.2])

    @staticmethod
    def _record(good: dict[str, Any], rng: random.Random, others: Sequence[bytes]) -> tuple[Any, Any, Any]:
        value: bytes | None
        match rng.randrange(20):
            case 0:
                value = json.dumps(good).encode()
            case 1:
                value = rng.choice((None, b"", rng.randbytes(rng.randrange(400))))
            case 2 | 3 | 4 | 5 | 6 | 7:
                value = mutated_bytes(json.dumps(good, ensure_ascii=False).encode(), rng, others)
            case 8:
                value = mutated_bytes(dumped(mutated(good, rng), rng), rng, others)
            case _:
                value = dumped(mutated(good, rng), rng)
        key = rng.choice((None, b"k", rng.randbytes(3)))
        headers: tuple[tuple[str, Any], ...] = ()
        if rng.random() < 0.1:
            kind = rng.choice((*KINDS, "party", "")).encode()
            headers = (
                ("ce_type", rng.choice((b"cn.tocsin." + kind, kind, None, b"\xff"))),
                ("ce_id", rng.randbytes(4)),
            )
        return key, value, headers

    def feed(self, topic: str, records: Sequence[LogRecord], intake: Intake | None = None) -> Iterator[Verdict]:
        """Put records through intake and check all that must hold of the outcome."""
        intake = intake or self._intakes[0]
        try:
            result = intake.process((topic, 3), records, ARRIVAL)
        except Exception as error:
            raise self._culprit(topic, records, intake, error) from error
        if topic == "dispositions":
            accepted = {record.offset for record in records} - {letter.offset for letter in result.dead}
            if len(accepted) != len(result.dispositions):
                raise Escape("dispositions and dead letters do not add up", [r.value for r in records])
        else:
            accepted = set(result.columns["offset"].tolist())
        dead = {letter.offset: letter for letter in result.dead}
        if len(accepted) + len(dead) != len(records) or accepted & dead.keys() or len(dead) != len(result.dead):
            raise Escape(
                f"{len(records)} records, {len(accepted)} accepted, {len(dead)} dead", [r.value for r in records]
            )
        if result.next_offset != records[-1].offset + 1 or result.last_arrival < ARRIVAL:
            raise Escape("the batch's end is not where its records end", records[-1])
        for record in records:
            letter = dead.get(record.offset)
            if letter is None:
                self._check_accepted(topic, record)
                yield "accepted", 1
            else:
                self._check_letter(topic, record, letter)
                yield letter.reason, 1

    @staticmethod
    def _culprit(topic: str, records: Sequence[LogRecord], intake: Intake, error: Exception) -> Escape:
        for record in records:
            try:
                intake.process((topic, 3), [record], ARRIVAL)
            except Exception as own:
                return escaped(own, (topic, record))
        return escaped(error, (topic, "only together", [record.value for record in records]))

    def _check_accepted(self, topic: str, record: LogRecord) -> None:
        self.checked += 1
        if self.checked % _SAMPLE:
            return
        try:
            document = json.loads(record.value or b"")
        except ValueError as error:
            raise Escape(f"accepted, yet it is no JSON: {error}", record.value) from error
        fault = next(self._schemas[topic].iter_errors(document), None)
        if fault is not None:
            raise Escape(f"accepted, yet {topic}'s schema says: {fault.message}", record.value)

    def _check_letter(self, topic: str, record: LogRecord, letter: DeadLetter) -> None:
        if not _REASON.fullmatch(letter.reason) or not letter.detail or "\n" in letter.detail:
            raise Escape(f"a dead letter without reason or in more than a line: {letter.reason!r}", record)
        origin = (letter.topic, letter.partition, letter.offset, letter.timestamp, letter.stage)
        if origin != (topic, 3, record.offset, record.timestamp, "intake") or letter.size != len(record.value or b""):
            raise Escape(f"a dead letter of another origin: {origin}", record)
        if not letter.redacted and (letter.key, letter.value) != (record.key, record.value and record.value[:65_536]):
            raise Escape("a dead letter that lost bytes", record)
        if letter.redacted and MARKER in _beside_envelope(letter):
            raise Escape("a redacted dead letter that tells what was redacted", record)
        if letter.reason == "personal-data" and not (letter.redacted and letter.field):
            raise Escape("personal data without its field", record)
        self.checked += 1
        if self.checked % _SAMPLE == 0:
            text = msgspec.json.encode(letter)
            fault = next(self._letters.iter_errors(json.loads(text)), None)
            if fault is not None or msgspec.json.decode(text, type=DeadLetter) != letter:
                raise Escape(f"a dead letter that its schema does not allow: {fault}", record)


def _beside_envelope(letter: DeadLetter) -> str:
    """All that a redacted letter says, but for the fields that name the record (a swap may have put anything there)."""
    fields = json.loads(letter.value or b"null")
    told = {k: v for k, v in fields.items() if k not in ("event_id", "source")} if isinstance(fields, dict) else fields
    return f"{msgspec.structs.replace(letter, value=None)} {told}"


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(schema_of(name))


# --- codes ---------------------------------------------------------------------------------------------------------


class CodesTarget(Target):
    """Check digits, shapes, trees of codes, and what is taken for personal data."""

    name = "codes"

    def __init__(self) -> None:
        self._closed, self._open = Config().load_catalogue(), Catalogue.open("open")

    def run(self, rng: random.Random, count: int) -> Iterator[Verdict]:
        checks: tuple[tuple[str, Callable[[str], Any]], ...] = (
            ("uscc", check_uscc), ("gtin", check_gtin), ("region", check_region_shape),
            ("region", self._closed.regions.path),
            ("region", self._closed.products.path), ("region", self._open.regions.path),
            ("uscc", self._open.products.path),
        )  # fmt: skip
        for number in range(count):
            kind, check = rng.choice(checks)
            good = good_code(kind, rng)
            text = good if number % 10 == 0 else mutated_text(good, rng)
            if number % 50 == 1:
                text = str(odd_value(rng))
            yield self._judged(check, text), 1

    @staticmethod
    def _judged(check: Callable[[str], Any], text: str) -> str:
        try:
            if is_personal_key(text) not in (True, False) or has_personal_number(text) not in (True, False):
                raise Escape("neither personal nor not", text)
            check(text)
        except Rejection as error:
            if "\n" in error.detail:
                raise Escape("a detail of more than one line", text) from None
            return error.reason
        except Exception as error:
            raise escaped(error, (check, text)) from error
        if check is check_uscc and not _is_uscc(text):
            raise Escape("a wrong USCC was accepted", text)
        if check is check_gtin and not _is_gtin(text):
            raise Escape("a wrong GTIN was accepted", text)
        return "accepted"


def _is_uscc(text: str) -> bool:
    """By the congruence of GB 32100 over all eighteen characters, rather than by the check character."""
    values = {character: place for place, character in enumerate("0123456789ABCDEFGHJKLMNPQRTUWXY")}
    if len(text) != 18 or not set(text) <= values.keys():
        return False
    return sum(values[c] * pow(3, place, 31) for place, c in enumerate(text[:17])) % 31 == -values[text[17]] % 31


def _is_gtin(text: str) -> bool:
    """GS1's sum over all digits, the check digit among them, is a multiple of ten."""
    if len(text) not in (8, 12, 13, 14) or not set(text) <= set("0123456789"):
        return False
    return sum(int(c) * (1, 3)[place % 2] for place, c in enumerate(reversed(text))) % 10 == 0


# --- files ---------------------------------------------------------------------------------------------------------


class ImportersTarget(Target):
    """CSV, NDJSON, Parquet and gzip files, native and foreign, and the mappings that turn them into events."""

    name = "importers"
    rows_a_file = 40

    def run(self, rng: random.Random, count: int) -> Iterator[Verdict]:
        mappings = mapping_texts()
        with tempfile.TemporaryDirectory() as folder:
            done = 0
            while done < count:
                topic = rng.choice(EVENT_TOPICS)
                if rng.random() < 0.3:
                    given, suffix = self._foreign(rng)
                else:
                    given, suffix = self._native(topic, rng)
                if rng.random() < 0.8:
                    given = mutated_bytes(given, rng)
                file = Path(folder) / f"rows{suffix}"
                file.write_bytes(given)
                text = rng.choice(mappings[:1] * 5 + mappings)
                mapping = mutated_lines(text, rng) if rng.random() < 0.5 else text
                for verdict in self.read(file, topic, mapping if rng.random() < 0.5 else None, given):
                    done += verdict[1]
                    yield verdict

    def _native(self, topic: str, rng: random.Random) -> tuple[bytes, str]:
        rows = [good_record(topic, n, rng) for n in range(self.rows_a_file)]
        rows = [row if rng.random() < 0.5 else mutated(row, rng) for row in rows]
        match rng.randrange(3):
            case 0:
                return b"\n".join(dumped(row, rng) for row in rows), rng.choice((".ndjson", ".jsonl", ".txt"))
            case 1:
                return _csv([{k: _cell(v) for k, v in row.items()} for row in rows]), rng.choice((".csv", ".tsv"))
            case _:
                return _parquet([{k: _cell(v) for k, v in row.items()} for row in rows]), ".parquet"

    def _foreign(self, rng: random.Random) -> tuple[bytes, str]:
        rows = [clinic_row(n, rng) for n in range(self.rows_a_file)]
        for row in rows:
            if rng.random() < 0.3:
                key = rng.choice(CLINIC_HEADER)
                row[key] = mutated_text(row[key], rng)
        if rng.random() < 0.3:
            return b"\n".join(json.dumps(row).encode() for row in rows), ".ndjson"
        return _csv(rows), ".csv"

    @staticmethod
    def read(file: Path, topic: str, mapping_text: str | None, given: object) -> Iterator[Verdict]:
        """Read a file; each of its rows has a verdict, or the file as a whole has one."""
        kind = kind_of_topic(topic)
        verdicts: list[str] = []
        try:
            mapping = None if mapping_text is None else Mapping.parse(mapping_text, "mapping.toml")
            kind = kind if mapping is None else mapping.kind
            decode = msgspec.json.Decoder(EVENT_TYPES[kind]).decode
            batches = native_rows(file, kind) if mapping is None else import_rows(file, mapping)
            for row in (row for batch in batches for row in batch):
                if row.rejection is None:
                    decode(row.value)
                    verdicts.append("accepted")
                elif _REASON.fullmatch(row.rejection.reason) and "\n" not in row.rejection.detail and row.origin:
                    verdicts.append(row.rejection.reason)
                else:
                    raise Escape(f"a rejection without reason: {row.rejection!r}", row)
        except TocsinError as error:
            if "\n" in str(error):
                raise Escape(f"an error of more than a line: {error}", given) from None
            verdicts.append(f"file: {type(error).__name__}")
        except Exception as error:
            raise escaped(error, (file.suffix, topic, given, mapping_text)) from error
        for verdict in verdicts or ["nothing in it"]:
            yield verdict, 1


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, default=str)


def _csv(rows: list[dict[str, str]]) -> bytes:
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([row.get(name, "") for name in header] for row in rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _parquet(rows: list[dict[str, str]]) -> bytes:
    header = list(dict.fromkeys(name for row in rows for name in row))
    out = io.BytesIO()
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in header}
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


# --- configuration -------------------------------------------------------------------------------------------------


class ConfigTarget(Target):
    """The TOML files of an installation: configuration, catalogue, severity rules, mappings; and headers of records."""

    name = "config"

    def __init__(self) -> None:
        self._severity = toml_of("schemas", "severity", "default")
        self._probe = [
            LogRecord(0, ARRIVAL, None, json.dumps(good_record("injuries", 0, random.Random(1))).encode(), ())
        ]

    def run(self, rng: random.Random, count: int) -> Iterator[Verdict]:
        readers: tuple[tuple[str, Callable[[str, Path], Any]], ...] = (
            (CONFIG_TOML, self.read_config), (CONFIG_TOML, self.read_config), (CATALOGUE_TOML, self.read_catalogue),
            (self._severity, self.read_severity), *((text, self.read_mapping) for text in mapping_texts()),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "fuzz.toml"
            for number in range(count):
                text, reader = rng.choice(readers)
                if number % 20:
                    text = mutated_lines(text, rng)
                if rng.random() < 0.3:
                    text = mutated_bytes(text.encode(), rng).decode("utf-8", "surrogateescape")
                yield self.judged(reader, text, file), 1

    @staticmethod
    def judged(reader: Callable[[str, Path], Any], text: str, file: Path) -> str:
        try:
            reader(text, file)
        except TocsinError as error:
            if not str(error):
                raise Escape("an error without a word", text) from None
            return type(error).__name__
        except Exception as error:
            raise escaped(error, (reader.__name__, text)) from error
        return "accepted"

    def read_config(self, text: str, file: Path) -> None:
        """An accepted configuration must be good for work: hashed, and events go through intake under it."""
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        config = Config.load(file)
        if not config.digest or Config.parse(config.to_dict(), "again") != config:
            raise Escape("a configuration that does not survive its own dictionary", text)
        result = Intake(config, config.load_catalogue()).process(("injuries", 0), self._probe, ARRIVAL)
        if len(result.columns) + len(result.dead) != 1:
            raise Escape("an event vanished", text)

    @staticmethod
    def read_catalogue(text: str, file: Path) -> None:
        """An accepted catalogue must answer for each of its own codes."""
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        catalogue = Catalogue.load(file)
        for code in ("F0101", "F01", "120101", "x", ""):
            for ask in (
                catalogue.products.path,
                catalogue.regions.path,
                catalogue.targets_for,
                catalogue.key_supervision,
            ):
                try:
                    ask(code)
                except Rejection:
                    continue

    @staticmethod
    def read_severity(text: str, file: Path) -> None:
        """Accepted rules must grade every accident."""
        rules = Severity.parse(text.encode("utf-8", "surrogateescape"), "fuzz.toml")
        for deaths, loss in ((0, 0.0), (1, 1e3), (50, 1e12)):
            if rules.accident_level(deaths, 0, loss) not in (1, 2, 3, 4):
                raise Escape("an accident without a grade", text)

    @staticmethod
    def read_mapping(text: str, file: Path) -> None:
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        Mapping.load(file).headers()


# --- internal topics -----------------------------------------------------------------------------------------------


class WireTarget(Target):
    """Records of the internal topics. Nobody but Tocsin may write there; what is damaged is refused, never half read.

    A decoder answers with ValueError (of which msgspec's errors are a kind) or not at all.
    """

    name = "wire"

    def __init__(self) -> None:
        intake = IntakeTarget()
        rng = random.Random(7)
        rows = [
            LogRecord(n, ARRIVAL, None, json.dumps(good_record("injuries", n, rng)).encode(), ()) for n in range(30)
        ]
        columns = intake._intakes[0].process(("injuries", 0), rows, ARRIVAL).columns
        packed = columns.pack()
        keyed = msgspec.msgpack.encode(Keyed(1, [("injuries", 0, ARRIVAL, ARRIVAL)], ("injuries", 0), packed))
        self._readers: tuple[tuple[bytes, Callable[[bytes], Any]], ...] = (
            (packed, self._columns),
            (keyed, msgspec.msgpack.Decoder(Keyed).decode),
            (b'{"tick": 3, "tally": [[], [], [], []]}', msgspec.json.Decoder(Told).decode),
            (b'{"arrival": 1, "disposition": {}}', msgspec.json.Decoder(Routed).decode),
            (b"12", lambda value: kind_of([("tocsin-type", value), ("tocsin-partition", value)])),
        )

    @staticmethod
    def _columns(value: bytes) -> None:
        columns = EventColumns.unpack(value)
        if len({len(column) for column in columns.columns.values()}) != 1:
            raise Escape("columns of different lengths were read", value)

    def run(self, rng: random.Random, count: int) -> Iterator[Verdict]:
        for _ in range(count):
            good, reader = rng.choice(self._readers)
            given = mutated_bytes(good, rng)
            try:
                reader(given)
            except ValueError as error:
                yield type(error).__name__, 1
            except Exception as error:
                raise escaped(error, (reader, given)) from error
            else:
                yield "accepted", 1


TARGETS: Final[dict[str, Callable[[], Target]]] = {
    "intake": IntakeTarget,
    "codes": CodesTarget,
    "importers": ImportersTarget,
    "config": ConfigTarget,
    "wire": WireTarget,
}
