"""A tree of codes: products below their classes, districts below their city.

A closed tree lists every code; ``path`` of a listed code is one dict lookup. An open tree also takes codes
that it has never seen and reads their ancestors from a separator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from schemas.errors import CatalogueError, Rejection

__all__ = ["MAX_DEPTH", "MEMO_LIMIT", "Label", "Tree"]

MAX_DEPTH: Final = 8
"""Levels a tree may have: each one costs a roll-up for every event."""

MEMO_LIMIT: Final = 1 << 16
"""Codes that an open tree remembers: strangers choose them, so there is an end. What is beyond it is cut up again."""

_LONGEST_SUGGESTED: Final = 32
_MOST_SUGGESTED: Final = 3

Label = tuple[str, str]
"""A name in Chinese and in English."""


class Tree:
    """A tree of codes, closed or open. Built once, never changed.

    What an open tree has learned is a memory of pure answers and cannot be listed: a list would depend on the
    order of arrival, and a replay would differ from the live run.

    Parameters
    ----------
    field
        The event field that these codes stand in, named in rejections.
    labels
        The known codes with their names.
    parents
        The parent of each known code that has one.
    separator
        Of an open tree; None makes it closed.
    neighbours
        Which codes touch which.
    """

    __slots__ = (
        "_children",
        "_field",
        "_labels",
        "_memo",
        "_neighbours",
        "_paths",
        "_separator",
        "_similar",
        "codes",
        "leaves",
    )

    codes: tuple[str, ...]
    """Every listed code, sorted."""
    leaves: tuple[str, ...]
    """The listed codes without children, sorted."""

    def __init__(
        self,
        field: str,
        labels: Mapping[str, Label],
        parents: Mapping[str, str],
        separator: str | None = None,
        neighbours: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._field = field
        self._labels = dict(labels)
        self._separator = separator
        self._neighbours = {code: tuple(sorted(near)) for code, near in (neighbours or {}).items()}
        self._paths = {code: _climb(field, code, parents) for code in labels}
        self._memo: dict[str, tuple[str, ...]] = {}
        children: dict[str, list[str]] = {}
        for code in sorted(labels):
            if len(self._paths[code]) > 1:
                children.setdefault(self._paths[code][-2], []).append(code)
        self._children = {code: tuple(below) for code, below in children.items()}
        self.codes = tuple(sorted(labels))
        self._similar: dict[str, list[str]] | None = None
        self.leaves = tuple(code for code in self.codes if code not in children)

    @property
    def is_open(self) -> bool:
        """Whether codes that are not listed are accepted."""
        return self._separator is not None

    def path(self, code: str) -> tuple[str, ...]:
        """The codes from the top branch down to the code itself.

        Raises
        ------
        Rejection
            ``"unknown-code"`` with the closest known codes in a closed tree; ``"bad-code"`` for an empty
            segment or more than :data:`MAX_DEPTH` levels in an open one.

        Examples
        --------
        >>> Tree("product", {}, {}, separator="/").path("25/PETER/PETER PAN")
        ('25', '25/PETER', '25/PETER/PETER PAN')
        """
        known = self._paths.get(code) or self._memo.get(code)
        return known if known is not None else self._unlisted(code)

    def parent(self, code: str) -> str | None:
        """The code's direct ancestor, None for a top branch; raises as :meth:`path` does."""
        path = self.path(code)
        return path[-2] if len(path) > 1 else None

    def children(self, code: str) -> tuple[str, ...]:
        """The listed codes directly below a code, sorted."""
        return self._children.get(code, ())

    def label(self, code: str) -> Label:
        """The code's name in Chinese and English.

        An unlisted code is its own name; in an open tree its last segment is.
        """
        known = self._labels.get(code)
        if known is not None:
            return known
        name = code.rsplit(self._separator, 1)[-1] if self._separator is not None else code
        return name, name

    def neighbours(self, code: str) -> tuple[str, ...]:
        """The codes that touch this one, sorted; empty where the catalogue says nothing."""
        return self._neighbours.get(code, ())

    def _unlisted(self, code: str) -> tuple[str, ...]:
        if self._separator is None:
            raise Rejection("unknown-code", self._field, self._suggest(code))
        segments = code.split(self._separator)
        if not all(segment.strip() for segment in segments):
            raise Rejection("bad-code", self._field, f"{code!r} has an empty segment between {self._separator!r}")
        if len(segments) > MAX_DEPTH:
            raise Rejection("bad-code", self._field, f"{code!r} has {len(segments)} levels, {MAX_DEPTH} are the most")
        path = tuple(self._separator.join(segments[: depth + 1]) for depth in range(len(segments)))
        if len(self._memo) < MEMO_LIMIT:
            self._memo[code] = path
        return path

    def _suggest(self, code: str) -> str:
        # Looked up, not searched: a flood of rubbish must not slow the stream.
        close = self._close(code) if len(code) <= _LONGEST_SUGGESTED else []
        hint = f"the closest are {', '.join(close[:_MOST_SUGGESTED])}" if close else "nothing comes close"
        return f"{code!r} is not in the catalogue ({hint}): correct it, or add it there"

    def _close(self, code: str) -> list[str]:
        """The listed codes that are one typing error (a wrong, missing, needless or swapped character) away; else those
        below the longest listed code that this one begins with."""
        if self._similar is None:
            self._similar = {}
            for known in self.codes:
                for short in _shortened(known):
                    self._similar.setdefault(short, []).append(known)
        typing_errors = {near for short in _shortened(code) for near in self._similar.get(short, ())}
        if typing_errors:
            return sorted(typing_errors, key=lambda near: (sorted(near) != sorted(code), near))  # swapped ones first
        begins = (code[:length] for length in range(len(code) - 1, 0, -1))
        return next((list(self._children[start]) for start in begins if start in self._children), [])


def _shortened(code: str) -> set[str]:
    """A code and all that is left of it without one character. Two codes that share one differ by a typing error."""
    return {code, *(code[:at] + code[at + 1 :] for at in range(len(code)))}


def _climb(field: str, code: str, parents: Mapping[str, str]) -> tuple[str, ...]:
    path = [code]
    while (parent := parents.get(path[-1])) is not None:
        if parent in path or len(path) == MAX_DEPTH:
            raise CatalogueError(
                f"{field}s.nodes.{code}: its ancestors form a ring or exceed {MAX_DEPTH} levels; mend parent"
            )
        path.append(parent)
    return tuple(reversed(path))
