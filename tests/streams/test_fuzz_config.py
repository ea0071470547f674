"""Configuration, catalogue, severity rules and mappings of any values: used, or refused by our own error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fuzz.targets import ConfigTarget
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from streams.config import Config

TARGET = ConfigTarget()
QUIET = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "alpha", "windows_days"]), inner),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([*Config().to_dict(), "other"]), VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_values_of_any_kind_are_refused_by_name_or_used(document: dict[str, Any]) -> None:
    try:
        config = Config.parse(document, "c.toml")
    except ConfigError as error:
        said = str(error)
    else:
        assert Config.parse(config.to_dict(), "again") == config
        return
    assert said.startswith("c.toml: ")


@given(st.text(max_size=200), st.sampled_from(["read_config", "read_catalogue", "read_severity", "read_mapping"]))
@QUIET
def test_any_text_is_no_file_of_ours(tmp_path: Path, text: str, reader: str) -> None:
    verdict = TARGET.judged(getattr(TARGET, reader), text.encode("utf-8", "replace").decode(), tmp_path / "a.toml")
    assert verdict in ("accepted", "ConfigError", "CatalogueError")
