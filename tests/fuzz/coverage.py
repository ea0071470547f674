"""Fuzz by coverage, with atheris where it is installed: ``python -m tests.fuzz.coverage --seconds 120``.

Atheris is optional (``pip install atheris``): it changes bytes at random and keeps those that reach new code. The first
byte chooses what they are for; the checks are those of :mod:`tests.fuzz.targets`, and an escape ends the run with its
input in a file. Without atheris one line says so, and the status is 0.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: nothing was fuzzed by coverage (pip install atheris)", file=sys.stderr)
        return 0
    with atheris.instrument_imports(include=["schemas", "streams"]):
        from streams.log import LogRecord

        from .material import ALL_RAW, ARRIVAL, CATALOGUE_TOML, CONFIG_TOML, MAPPING_TOML, good_record
        from .targets import CodesTarget, ConfigTarget, IntakeTarget, check_gtin, check_uscc

    intake, config, folder = IntakeTarget(), ConfigTarget(), Path(tempfile.mkdtemp(prefix="tocsin-fuzz-"))
    toml = (config.read_config, config.read_catalogue, config.read_severity, config.read_mapping)
    texts = (CONFIG_TOML, CATALOGUE_TOML, "", MAPPING_TOML)

    def one(data: bytes) -> None:
        choice, rest = data[0] % 16 if data else 0, data[1:]
        if choice < len(ALL_RAW):
            list(intake.feed(ALL_RAW[choice], [LogRecord(0, ARRIVAL, None, rest, ())]))
        elif choice < len(ALL_RAW) + len(toml):
            text = rest.decode("utf-8", "surrogateescape")
            config.judged(toml[choice - len(ALL_RAW)], text, folder / "a.toml")
        else:
            CodesTarget._judged((check_uscc, check_gtin)[choice % 2], rest.decode("utf-8", "replace"))

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, topic in enumerate(ALL_RAW):
        record = json.dumps(good_record(topic, number, random.Random(number)), ensure_ascii=False).encode()
        (corpus / topic).write_bytes(bytes([number]) + record)
    for number, text in enumerate(texts):
        (corpus / f"toml-{number}").write_bytes(bytes([len(ALL_RAW) + number]) + text.encode())
    options = [
        f"-max_total_time={given.seconds}",
        f"-seed={given.seed}",
        "-max_len=4096",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
