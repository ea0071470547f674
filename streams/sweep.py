"""A sweep over parameters: which configurations it has, and the trade-off that their runs show.

Each ``--vary KEY=VALUES`` names one key of the configuration, with its section before a dot, and the values to try:

    counts.alpha=1e-6..1e-3:log5      five values, evenly spread on a logarithmic scale, both ends among them
    pass_rate.min_failed=3..9:lin4    four values, evenly spread
    counts.detector=surge,farrington  these
    scan.enabled=true,false

All combinations are run, the first key varying slowest. More detection costs more false alerts: a configuration is on
the *front* when no other finds the incidents as soon (mean delay, a missed one counted in full) with as few false
alerts a year, and sooner or with fewer.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from schemas.errors import ConfigError
from streams.config import Config
from streams.incidents import Score

__all__ = ["MOST_RUNS", "Point", "Setting", "Vary", "front", "keys", "parse_vary", "settings"]

MOST_RUNS: Final = 64
_MOST_STEPS: Final = 1_000
_SPAN = re.compile(r"(?P<low>[^.,:]+(?:\.\d[^.,:]*)?)\.\.(?P<high>[^,:]+):(?P<scale>lin|log)(?P<steps>\d{1,4})")
_FIXED: Final = ("name", "topic_prefix", "partitions")
"""Keys that cannot change an alert."""

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Vary:
    """A key and the values to try, in order."""

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration of a sweep, and the values that make it."""

    values: tuple[tuple[str, Value], ...]
    config: Config


@dataclass(frozen=True, slots=True)
class Point:
    """A setting and what it is worth."""

    setting: Setting
    alerts: int
    score: Score
    front: bool = False


def keys(config: Config) -> dict[str, Any]:
    """Every key that can be varied, with its value in ``config``; a section's key has the section before a dot."""
    found: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": held for inner, held in value.items()}
        elif name not in _FIXED:
            found[name] = value
    return {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}


def parse_vary(text: str, config: Config) -> Vary:
    """One ``KEY=VALUES``.

    Raises
    ------
    ConfigError
        Naming the key that is nearest to an unknown one, or what is wrong with the values.
    """
    key, equals, said = text.partition("=")
    known = keys(config)
    if key not in known:
        if key in _FIXED:
            raise ConfigError(f"--vary {key}: cannot change an alert; name a key that can")
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
        raise ConfigError(f"--vary {key}: there is no such key; the nearest is {near[0]}")
    if not equals or not said:
        raise ConfigError(f"--vary {key}: values are missing, as in {key}=1,2 or {key}=1e-6..1e-3:log5")
    values = _values(key, said, known[key])
    if len(set(values)) < len(values):
        raise ConfigError(f"--vary {key}: a value stands there twice ({said}); a whole number's steps must be whole")
    return Vary(key, values)


def _values(key: str, said: str, now: Value) -> tuple[Value, ...]:
    span = _SPAN.fullmatch(said)
    if span is None:
        if ".." in said:
            raise ConfigError(f"--vary {key}: {said!r} is no span; write it as LOW..HIGH:linN or LOW..HIGH:logN")
        return tuple(_value(key, one, now) for one in said.split(","))
    if isinstance(now, bool | str):
        raise ConfigError(f"--vary {key}: is no number and has no span; list its values, divided by commas")
    low, high = (_number(key, span[end]) for end in ("low", "high"))
    steps, logarithmic = int(span["steps"]), span["scale"] == "log"
    if not 2 <= steps <= _MOST_STEPS:
        raise ConfigError(f"--vary {key}: {steps} steps; 2 to {_MOST_STEPS:,} can be taken")
    if logarithmic and (low <= 0 or high <= 0):
        raise ConfigError(f"--vary {key}: a logarithmic scale needs ends above 0; take :lin{steps}")
    return tuple(_step(low, high, at, steps, logarithmic, whole=isinstance(now, int)) for at in range(steps))


def _step(low: float, high: float, at: int, steps: int, logarithmic: bool, *, whole: bool) -> Value:
    """The step at a place, in six digits, so that it can be written down and taken again."""
    share = at / (steps - 1)
    value = (
        math.exp((1 - share) * math.log(low) + share * math.log(high)) if logarithmic else low + share * (high - low)
    )
    value = float(f"{value:.6g}") if 0 < at < steps - 1 else (high if at else low)
    return round(value) if whole else value


def _number(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"--vary {key}: {text!r} is no number")
    return value


def _value(key: str, text: str, now: Value) -> Value:
    text = text.strip()
    if isinstance(now, str):
        return text
    if isinstance(now, bool):
        if text not in ("true", "false"):
            raise ConfigError(f"--vary {key}: {text!r} is neither true nor false")
        return text == "true"
    value = _number(key, text)
    if isinstance(now, int):
        if value != round(value):
            raise ConfigError(f"--vary {key}: {text!r} is no whole number")
        return round(value)
    return value


def settings(base: Config, varied: Sequence[Vary], most: int = MOST_RUNS) -> list[Setting]:
    """Every combination laid over ``base``, the first key varying slowest.

    Raises
    ------
    ConfigError
        There are too many, a key stands twice, or a value is not one that the key can have.
    """
    names = [vary.key for vary in varied]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--vary {name}: stands there twice; list all its values at once")
    runs = math.prod(len(vary.values) for vary in varied)
    if runs > most:
        raise ConfigError(f"--vary: makes {runs:,} runs, at most {most:,} are done; take fewer values, or --max-runs")
    found = []
    for values in product(*(vary.values for vary in varied)):
        whole = base.to_dict()
        for name, value in zip(names, values, strict=True):
            section, dot, inner = name.rpartition(".")
            (whole[section] if dot else whole)[inner] = value
        said = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        config = Config.parse(whole, f"--vary {said}")
        found.append(Setting(tuple(zip(names, values, strict=True)), config))
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """The same points, those on the front marked."""
    costs = [(one.score.mean_days or 0.0, one.score.false_a_year) for one in points]

    def beaten(mine: tuple[float, float]) -> bool:
        return any(other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in costs)

    return [replace(one, front=not beaten(cost)) for one, cost in zip(points, costs, strict=True)]
