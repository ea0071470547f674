"""``tocsin catalogue``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.tree import Tree as Drawing

from schemas.errors import Rejection, TocsinError
from streams import datadir
from streams.commands.place import Place, placed
from streams.commands.screen import Lang, out, safe, say, words
from streams.config import Config

if TYPE_CHECKING:
    from schemas.catalogue import Catalogue
    from schemas.tree import Tree

__all__ = ["command"]


@click.group("catalogue")
def command() -> None:
    """Look up product and region codes."""


@command.command("show")
@click.argument("code", required=False)
@click.option("--lang", type=click.Choice(["zh", "en", "both"]), default="both", show_default=True)
@placed
def show(place: Place, code: str | None, lang: Lang) -> None:
    """The whole catalogue, or what lies at and below one CODE."""
    held = None if place.broker is not None else datadir.remembered(place.data)
    catalogue = place.wanted.over(held or Config()).load_catalogue()
    trees = {"products": catalogue.products, "regions": catalogue.regions}
    if code is not None:
        _show_code(catalogue, code, lang)
        return
    say(f"{catalogue.name} {catalogue.version} ({catalogue.digest[:12]})")
    for name, tree in trees.items():
        drawing = Drawing(f"{name}: {len(tree.codes):,} codes" + (", others are learned" if tree.is_open else ""))
        for top in (code for code in tree.codes if tree.parent(code) is None):
            _draw(drawing, tree, top, lang)
        out().print(drawing)


def _draw(drawing: Drawing, tree: Tree, code: str, lang: Lang) -> None:
    below = drawing.add(f"{safe(code)}  {words(*tree.label(code), lang)}")
    for child in tree.children(code):
        _draw(below, tree, child, lang)


def _show_code(catalogue: Catalogue, code: str, lang: Lang) -> None:
    known = [(name, tree) for name, tree in _trees(catalogue) if code in tree.codes]
    if not known:
        try:
            catalogue.products.path(code)
            known = [("product", catalogue.products)]
        except Rejection as error:
            raise TocsinError(f"{code}: {error.detail}") from None
    for name, tree in known:
        path = " > ".join(f"{safe(step)} {words(*tree.label(step), lang)}" for step in tree.path(code))
        say(f"{name}: {path}")
        if name == "product":
            _show_rules(catalogue, code)
        near = tree.neighbours(code)
        if near:
            say(f"touches: {', '.join(f'{one} {words(*tree.label(one), lang)}' for one in near)}")
        if tree.children(code):
            drawing = Drawing(safe(code))
            for child in tree.children(code):
                _draw(drawing, tree, child, lang)
            out().print(drawing)


def _show_rules(catalogue: Catalogue, code: str) -> None:
    targets = catalogue.targets_for(code)
    said = {
        "pass rate": targets.pass_rate,
        "satisfaction": targets.satisfaction,
        "structural accidents": targets.structural_accidents,
    }
    text = ", ".join(f"{name} {value:g}" for name, value in said.items() if value is not None)
    say(f"targets: {text or 'none'}" + ("; under key supervision" if catalogue.key_supervision(code) else ""))


def _trees(catalogue: Catalogue) -> list[tuple[str, Tree]]:
    return [("product", catalogue.products), ("region", catalogue.regions)]
