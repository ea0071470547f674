"""Small pieces of HTML; whatever came from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

__all__ = ["badge", "cell", "code", "head", "signed", "table", "text"]

_GRADES: Final = ("I", "II", "III", "IV")


def text(value: object) -> str:
    """A value as text of the page."""
    return escape(str(value))


def code(value: str) -> str:
    """A code or a name from outside, set apart."""
    return f'<span class="code">{escape(value)}</span>'


def badge(level: int) -> str:
    """The grade, I to IV, in its colour."""
    return f'<span class="grade l{level}">{_GRADES[level - 1]}</span>'


def cell(content: str, kind: str = "") -> str:
    """A cell of a table; ``content`` is HTML."""
    return f'<td class="{kind}">{content}</td>' if kind else f"<td>{content}</td>"


def head(*columns: tuple[str, str]) -> str:
    """A head of one line: (text, class) of each column."""
    cells = (
        f'<th scope="col" class="{kind}">{text(name)}</th>' if kind else f'<th scope="col">{text(name)}</th>'
        for name, kind in columns
    )  # fmt: skip
    return f"<tr>{''.join(cells)}</tr>"


def table(header: str, rows: Iterable[str], kind: str = "") -> str:
    """A table that scrolls by itself where it is too wide; ``header`` and ``rows`` are HTML."""
    name = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll" tabindex="0"><table{name}><thead>{header}</thead><tbody>{"".join(rows)}</tbody></table>'
        "</div>"
    )


def signed(value: float, decimals: int) -> str:
    """A change with its sign.

    Examples
    --------
    >>> signed(0.5, 2), signed(-1.25, 2), signed(-0.001, 2)
    ('+0.50', '−1.25', '±0.00')
    """
    rounded = round(value, decimals)
    sign = "±" if rounded == 0 else "+" if rounded > 0 else "−"
    return f"{sign}{abs(rounded):,.{decimals}f}"


def row(cells: Sequence[str], kind: str = "") -> str:
    """A row of ready cells."""
    return f'<tr class="{kind}">{"".join(cells)}</tr>' if kind else f"<tr>{''.join(cells)}</tr>"
