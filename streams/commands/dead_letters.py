"""``tocsin dead-letters``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from schemas.alerts import DeadLetter
from schemas.errors import TocsinError
from streams.commands.place import Place, placed
from streams.commands.screen import note, out, safe, say, table

if TYPE_CHECKING:
    from streams.config import Config
    from streams.letters import Letter
    from streams.medium import Medium
    from streams.requeue import Tally, Verdict

__all__ = ["command"]

_BYTES_SHOWN = 60
_TOLD = 20
_WHERE = click.option(
    "--where", "wheres", multiple=True, metavar="NAME=VALUE",
    help="Only those for which this holds: reason, field, topic, stage, kind, partition, offset, place, attempts "
    "(= or !=); after=TIME, before=TIME. May be repeated; all must hold.",
)  # fmt: skip


@click.group("dead-letters")
def command() -> None:
    """Records that were refused, with the reason, the field, and where they came from.

    A letter goes by its place on the topic. To mend and send again: export, edit, then requeue --from the file; or
    mend the cause and requeue --where ...
    """


def _chosen(medium: Medium, config: Config, wheres: tuple[str, ...]) -> Iterator[Letter]:
    from streams.letters import conditions, read_letters

    wanted = conditions(wheres, config)  # a condition that makes no sense is told before anything is read
    return (letter for letter in read_letters(medium) if all(one.holds(letter) for one in wanted))


# --- looking -------------------------------------------------------------------------------------------------------


@command.command("list")
@_WHERE
@click.option("--reason", metavar="REASON", help="Short for --where reason=REASON.")
@click.option("--json", "as_json", is_flag=True, help="Each as a line of JSON, whole.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True)
@placed
def list_letters(place: Place, wheres: tuple[str, ...], reason: str | None, as_json: bool, limit: int) -> None:
    """The refused records, oldest first."""
    from streams.letters import requeued_places

    config = place.present()
    wheres += (f"reason={reason}",) if reason is not None else ()
    with place.medium(config) as medium:
        wanted = _chosen(medium, config, wheres)
        before = requeued_places(medium)
        if as_json:
            for letter in islice(wanted, limit):
                sys.stdout.write(msgspec.json.encode(_as_dict(letter, before)).decode() + "\n")
            return
        shown = list(islice(wanted, limit))
        more = sum(1 for _ in wanted)
    if not shown:
        say("no dead letters" + (f" for {', '.join(wheres)}" if wheres else ""))
        return
    made = table("origin", "place", "reason", "field", "detail", "bytes", "requeued", fixed=("origin", "reason"))
    for letter in shown:
        about = letter.letter
        said = [safe(text) for text in (about.reason, about.field or "-", about.detail)]
        made.add_row(_origin(about), str(letter.place), *said, _bytes(about), _history(letter, before))
    out().print(made)
    if more:
        say(f"... and {more:,} more; --limit shows them, --json shows all of each")


def _as_dict(letter: Letter, before: Mapping[int, int]) -> dict[str, Any]:
    known = {"place": letter.place, "attempts": letter.attempts, "requeued": before.get(letter.place, 0)}
    return {**known, **msgspec.to_builtins(letter.letter)}


def _origin(letter: DeadLetter) -> str:
    from streams.letters import source

    return safe(source(letter))


def _bytes(letter: DeadLetter) -> str:
    if letter.value is None:
        return "(null)"
    if not letter.value:
        return "(empty)"
    head = safe(letter.value[:_BYTES_SHOWN].decode("utf-8", "backslashreplace"))
    return f"{head}... ({letter.size:,} bytes)" if letter.size > _BYTES_SHOWN else head


def _history(letter: Letter, before: Mapping[int, int]) -> str:
    """What became of it: refused again after so many attempts, written again since."""
    said = [f"refused after {letter.attempts}"] if letter.attempts else []
    times = before.get(letter.place, 0)
    return ", ".join([*said, *([f"yes, {times}x" if times > 1 else "yes"] if times else [])]) or "-"


@command.command("show")
@click.argument("at", metavar="PLACE", type=click.IntRange(0))
@click.option("--json", "as_json", is_flag=True, help="As a line of JSON, the bytes as base64.")
@click.option("--bytes", "as_bytes", is_flag=True, help="The original value alone, to the byte (not for terminals).")
@placed
def show(place: Place, at: int, as_json: bool, as_bytes: bool) -> None:
    """One letter, all of it: the fields, the original bytes with what a terminal would obey escaped, the headers."""
    from streams.letters import Gone, find, is_whole, original, requeued_places

    if as_json and as_bytes:
        raise click.UsageError("--json and --bytes are two forms; give one of them")
    with place.medium(place.present()) as medium:
        letter = find(medium, at)
        before = requeued_places(medium)
        try:
            first, gone = original(medium, letter.letter), ""
        except Gone as error:
            if as_bytes:
                raise
            first, gone = None, str(error)
    about = letter.letter
    if as_bytes:
        assert first is not None  # noqa: S101  # Gone was raised
        sys.stdout.flush()
        sys.stdout.buffer.write(first.value or b"")
        return
    if as_json:
        sys.stdout.write(msgspec.json.encode(_as_dict(letter, before)).decode() + "\n")
        return
    key, value = (about.key, about.value) if first is None else (first.key, first.value)
    headers = dict(about.headers).items() if first is None else first.headers
    facts: list[tuple[str, str]] = [
        ("place", str(letter.place)),
        ("from", _origin(about)),
        ("stage, kind", f"{about.stage}, {about.kind or '-'}"),
        ("reason", safe(about.reason)),
        ("field", safe(about.field or "-")),
        ("detail", safe(about.detail)),
        ("arrived", _moment(place, about.timestamp)),
        ("requeued", _history(letter, before)),
        ("size", f"{about.size:,} bytes" + (f", sha256 {safe(about.sha256)}" if about.sha256 else "")),
        ("key", _escaped(key)),
        *((f"header {safe(name)}", _escaped(text)) for name, text in headers),
    ]
    made = table("", "")
    made.show_header = False
    for name, said in facts:
        made.add_row(name, said)
    out().print(made)
    if gone:
        note(gone)
    elif first is not None and not is_whole(about):
        note(f"read from {_origin(about)}, for the letter does not hold all of it")
    say()
    say(_escaped(value))


def _escaped(data: bytes | None) -> str:
    return "(null)" if data is None else safe(data.decode("utf-8", "backslashreplace")) or "(empty)"


def _moment(place: Place, ms: int) -> str:
    from streams.ticks import Calendar

    config = place.present()
    return Calendar(config.tick_ms, config.offset_ms).moment(ms).isoformat(timespec="milliseconds")


# --- mending -------------------------------------------------------------------------------------------------------


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_WHERE
@placed
def export(place: Place, file: Path, wheres: tuple[str, ...]) -> None:
    """Write what was refused to FILE, to be mended there: a letter a line, NDJSON.

    Edit `value` (or `text`, where it was no JSON object) and take the lines out that are not to be sent again; `place`
    must stay. Then: tocsin dead-letters requeue --from FILE.
    """
    from streams.letters import Gone, original
    from streams.outputs import explained, replacing
    from streams.repair import export_line

    config = place.present()
    written, gone = 0, []
    with place.medium(config) as medium:
        wanted = _chosen(medium, config, wheres)
        with explained(file), replacing(file) as name, open(name, "wb", opener=_for_the_owner) as lines:
            for letter in wanted:
                try:
                    value = original(medium, letter.letter).value
                except Gone as error:
                    gone.append(f"place {letter.place}: {error}")
                    continue
                if value is not None:
                    lines.write(export_line(letter, value))
                    written += 1
    for line in gone[:_TOLD]:
        note(line)
    say(f"{written:,} letters written to {file}" + (f"; of {len(gone):,} the original is gone" if gone else ""))
    if gone:
        raise click.exceptions.Exit(1)


def _for_the_owner(path: str, flags: int) -> int:
    """Open a file for the owner's eyes only: whatever was sent stands in it."""
    return os.open(path, flags, 0o600)


@command.command("requeue")
@_WHERE
@click.option("--all", "everything", is_flag=True, help="All letters; instead of --where or --from.")
@click.option("--from", "repaired", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The letters of a file from `export`, with their values as they are there now.")  # fmt: skip
@click.option("--set", "sets", multiple=True, metavar="FIELD=TEXT|FIELD:=JSON",
              help="Set a field of each record, as in region=120110 or tested:=20. May be repeated.")  # fmt: skip
@click.option("--again", is_flag=True, help="Also those that were written again before, up to a bound.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
@placed
def requeue(
    place: Place, wheres: tuple[str, ...], everything: bool, repaired: Path | None, sets: tuple[str, ...],
    again: bool, dry_run: bool,
) -> None:  # fmt: skip
    """Write refused records to their raw topics again, once their cause is mended.

    Each is judged first, as intake would by the present configuration: what would only be refused again is not
    written. Headers say where it came from and how often it was tried; a letter is taken once, unless --again.
    """
    from streams.letters import requeued_places
    from streams.repair import parse_changes, read_repaired
    from streams.requeue import Requeue

    if not (wheres or everything or repaired):
        raise click.UsageError("which? give --where, --from or --all (and --dry-run, to see what would be done)")
    changes = parse_changes(sets)
    lines = None if repaired is None else read_repaired(repaired)
    config = place.present()
    with place.medium(config) as medium:
        wanted = _chosen(medium, config, wheres)
        if lines is not None:
            wanted = _of_file(wanted, set(lines), str(repaired), complete=not wheres)
        work = Requeue(
            medium, config, config.load_catalogue(), _given_times(place, config), requeued_places(medium),
            changes=changes, repaired=lines, again=again, write=not dry_run, tell=_teller(),
        )  # fmt: skip
        try:
            tally = work.run(wanted)
        except BaseException:
            if work.tally.ends:
                note(f"broken off; so far {_counts(work.tally, dry_run)}")
            raise
    say(_counts(tally, dry_run))
    if tally.failed:
        raise click.exceptions.Exit(1)


def _of_file(letters: Iterator[Letter], places: set[int], file: str, *, complete: bool) -> Iterator[Letter]:
    """The letters of a repaired file; one that is not there is an error, unless conditions may have left it out."""
    for letter in letters:
        if letter.place in places:
            places.discard(letter.place)
            yield letter
    if places and complete:
        raise TocsinError(f"{file}: no dead letter stands at place {min(places)} ({len(places)} such lines)")


def _given_times(place: Place, config: Config) -> Callable[[str], bool]:
    if place.broker is None:
        return lambda topic: True
    from schemas.topics import RAW_TOPICS

    states = place.broker.describe(config.topic_prefix, list(RAW_TOPICS))
    return lambda topic: topic in states and states[topic].given_times


def _teller() -> Callable[[Letter, Verdict, str], None]:
    """Tells of the first letters that are not written again, and why."""
    told = 0

    def tell(letter: Letter, verdict: Verdict, why: str) -> None:
        nonlocal told
        if verdict == "requeued":
            return
        told += 1
        if told <= _TOLD:
            note(f"place {letter.place}: {verdict}: {why}")
        elif told == _TOLD + 1:
            note("... and more")

    return tell


def _counts(tally: Tally, dry_run: bool) -> str:
    words: dict[Verdict, str] = {
        "requeued": "would be requeued" if dry_run else "requeued",
        "requeued-before": "left alone, requeued before",
        "attempts-spent": "left alone, tried too often",
        "original-gone": "without their original",
        "not-mended": "that cannot be mended so",
        "still-refused": "that would be refused again",
    }
    said = [f"{tally.ends[end]:,} {text}" for end, text in words.items() if tally.ends[end] or end == "requeued"]
    return ", ".join(said)
