"""The command line: ``tocsin``. Commands live in :mod:`streams.commands`; here is how they end.

Whatever a user can cause is one line on standard error: status 2 where the command line makes no sense, 1 for all
else, 130 after Ctrl-C. A traceback means a bug in Tocsin.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final, NoReturn

import click

from schemas.errors import TocsinError
from streams.commands.screen import note

__all__ = ["cli", "main"]

# Where each command lives. Modules are imported when their command is called: `tocsin --help` does not wait for numpy.
_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("streams.commands.demo", "Run a simulated year with planted incidents, and show what was found."),
    "publish": ("streams.commands.publish", "Check the rows of files and append them to a topic."),
    "serve": ("streams.commands.serve", "Take events over HTTP, and serve a page for spreadsheets."),
    "tokens": ("streams.commands.tokens", "Make, list and revoke the tokens of those who use `serve` and `board`."),
    "run": ("streams.commands.run", "Turn events into alerts, on the embedded log or as a Kafka worker."),
    "alerts": ("streams.commands.alerts", "List, follow, show and export alerts."),
    "board": ("streams.commands.board", "Show what stands in a browser, and take dispositions from there."),
    "dispose": ("streams.commands.dispose", "Say what was done about an alert."),
    "dead-letters": (
        "streams.commands.dead_letters",
        "Show records that were refused, and send them again once mended.",
    ),
    "signals": ("streams.commands.signals", "Export the evidence behind the alerts."),
    "report": ("streams.commands.report", "Write an HTML report on a period: status, alerts, charts, data quality."),
    "replay": ("streams.commands.replay", "Run a record of events again, into files."),
    "compare": ("streams.commands.compare", "Run a record under two configurations: what changes in its alerts."),
    "tune": ("streams.commands.tune", "Sweep parameters over a record: delay against false alerts."),
    "evaluate": ("streams.commands.evaluate", "Measure the detectors on a benchmark, or score a series of your own."),
    "doctor": ("streams.commands.doctor", "Check everything that a run depends on, and say what to mend."),
    "state": ("streams.commands.state", "Build the state anew from the record, after an upgrade."),
    "topics": ("streams.commands.topics", "Create and list topics."),
    "catalogue": ("streams.commands.catalogue", "Look up product and region codes."),
    "config": ("streams.commands.config", "Show the configuration."),
}


class _Tocsin(click.Group):
    """The group of all commands, and the end of each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            raise click.UsageError(f"no such command {args[0]!r}; there are {', '.join(_COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> NoReturn:
        extra["standalone_mode"] = False
        sys.exit(self._run(args, prog_name or "tocsin", extra))

    def _run(self, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> int:
        """Run a command to its end and return the exit status."""
        try:
            # Under a locale without Chinese, show escapes rather than end in an encoding error.
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):
                    stream.reconfigure(errors="backslashreplace")
            status = super().main(args, prog_name, **extra)
            sys.stdout.flush()
            return status if isinstance(status, int) else 0
        except click.UsageError as error:
            about = error.ctx.command_path if error.ctx else prog_name
            note(f"{about}: {_one_line(error.format_message())}; see {about} --help")
            return error.exit_code
        except click.ClickException as error:
            note(f"{prog_name}: {_one_line(error.format_message())}")
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            note(f"{prog_name}: interrupted")
            return 130
        except BrokenPipeError:
            # Whoever read our output has gone. Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        except TocsinError as error:
            note(f"{prog_name}: {_one_line(str(error))}")
            return 1
        except (OSError, sqlite3.Error) as error:
            note(f"{prog_name}: {_one_line(str(error))}")
            return 1


def _one_line(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")


@click.group("tocsin", cls=_Tocsin, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("tocsin"), message="%(prog)s %(version)s")
def cli() -> None:
    """Tocsin watches product quality and safety risk, and rings the bell.

    Begin with `tocsin demo`. With your own events: `tocsin publish`, then `tocsin run`, then `tocsin alerts list`.
    """


def main() -> NoReturn:
    """The console script's entry point."""
    cli.main()


if __name__ == "__main__":
    main()
