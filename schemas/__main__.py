"""``python -m schemas`` writes the JSON Schema files and the AsyncAPI document; ``--check`` says which are
stale (exit 1 if any is)."""

from __future__ import annotations

import argparse
import sys

from schemas.asyncapi import FILE, stale_document, write_document
from schemas.json_schema import FOLDER, stale, write


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas", description="JSON Schema files of the Structs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    if parser.parse_args(arguments).check:
        lines = stale() + stale_document()
        print(
            "\n".join(lines) or f"every schema in {FOLDER}, and {FILE}, is current",
            file=sys.stderr if lines else sys.stdout,
        )
        return 1 if lines else 0
    for path in [*write(), write_document()]:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
