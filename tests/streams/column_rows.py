"""Event columns as rows, for comparing what two ways of intake give."""

from __future__ import annotations

from typing import Any

from streams.columns import COLUMN_TYPES, TABLES, EventColumns


def told(columns: EventColumns) -> list[tuple[Any, ...]]:
    """Each row with its texts in the place of their numbers."""
    assert {name: columns[name].dtype for name in COLUMN_TYPES} == COLUMN_TYPES
    said = {name: columns[name].tolist() for name in COLUMN_TYPES}
    for name, table in TABLES:
        texts = getattr(columns, table)
        assert len(set(texts)) == len(texts)
        said[name] = [texts[code] if code >= 0 else None for code in said[name]]
    return list(zip(*said.values(), strict=True))
