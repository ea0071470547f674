"""The reasons for which a record is refused, in one small family of exceptions."""

from __future__ import annotations

__all__ = ["CatalogueError", "ConfigError", "Rejection", "TocsinError"]


class TocsinError(Exception):
    """Base of every error that Tocsin raises on purpose. Its text is one line a person can act on."""


class ConfigError(TocsinError):
    """The configuration cannot be used; the text names the key and the way to mend it."""


class CatalogueError(TocsinError):
    """A catalogue file cannot be used; the text names the entry and the way to mend it."""


class Rejection(TocsinError):
    """One record is refused.

    Parameters
    ----------
    reason
        A short stable token (``"missing-field"``, ``"bad-check-digit"``); safe as a metric label.
    field
        The JSON path of the field at fault (``"producer"``, ``"items[2].value"``), empty for the whole record.
    detail
        A sentence for a person: what was found and how to mend it.
    """

    def __init__(self, reason: str, field: str, detail: str) -> None:
        super().__init__(f"{field or 'record'}: {detail}")
        self.reason = reason
        self.field = field
        self.detail = detail
