"""The reference says of every key what the configuration itself does: defaults, bounds, and that nothing is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_world import succeeds

from schemas.errors import ConfigError
from streams.config import Config
from streams.config_reference import reference

ROOT = Path(__file__).resolve().parents[2]


def rows() -> dict[str, dict[str, list[str]]]:
    """Section, key, the cells of its row: read back from the Markdown."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in reference().splitlines():
        heading = re.fullmatch(r"## (?:Top level|`\[(\w+)\]`)", line)
        if heading:
            section = heading[1] or ""
        elif line.startswith("| `"):
            key, *cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.setdefault(section, {})[key.strip("`")] = cells
    return found


def flat(whole: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        (section if isinstance(value, dict) else "", key): one
        for section, value in whole.items()
        for key, one in (value.items() if isinstance(value, dict) else [(section, value)])
    }


def test_every_key_is_there_with_its_default_and_a_meaning() -> None:
    told = {(section, key): cells for section, keys in rows().items() for key, cells in keys.items()}
    defaults = flat(Config().to_dict())
    assert told.keys() == defaults.keys()
    for place, (default, _, bounds, meaning) in told.items():
        value = defaults[place]
        assert json.loads(default.strip("`")) == (list(value) if isinstance(value, tuple) else value)
        assert bounds
        assert meaning.endswith(".")
        assert len(meaning) > 15


@pytest.mark.parametrize(("sign", "beyond"), [("≥ ", -1), ("> ", 0), ("≤ ", 1), ("< ", 0)])
def test_what_lies_beyond_a_stated_bound_is_refused(sign: str, beyond: int) -> None:
    tried = 0
    for section, keys in rows().items():
        for key, (default, _, bounds, _) in keys.items():
            found = re.search(rf"{sign}([\d.,]+)", bounds)
            if found is None:
                continue
            held = json.loads(default.strip("`"))
            number = float(found[1].replace(",", "")) + beyond * (1 if isinstance(held, int) else 1e-3)
            value: Any = int(number) if float(number).is_integer() and isinstance(held, int) else number
            wrong = [value] * len(held) if isinstance(held, list) else value
            data = {section: {key: wrong}} if section else {key: wrong}
            with pytest.raises(ConfigError):
                Config.parse(data, "test")
            tried += 1
    assert tried >= 5


def test_the_command_prints_it_and_the_file_in_the_repository_is_current() -> None:
    assert succeeds("config", "reference").stdout == reference()
    assert (ROOT / "deploy" / "CONFIGURATION.md").read_text("utf-8") == reference(), "run deploy/generate.py"
    checked = subprocess.run(
        [sys.executable, ROOT / "deploy" / "generate.py", "--check"], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_deadlines_of_disposal_change_no_alert() -> None:
    base = Config()
    assert base.replace(deadlines={"assess_hours": [1, 1, 1, 1]}).digest == base.digest
    assert base.replace(counts={"alpha": 1e-6}).digest != base.digest
