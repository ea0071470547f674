"""The Tianjin catalogue, and every way in which a catalogue file can be wrong."""

import re
import time
from pathlib import Path

import pytest

from schemas.catalogue import Catalogue, Targets
from schemas.errors import CatalogueError, ConfigError, Rejection
from schemas.severity import Severity
from schemas.tree import MAX_DEPTH

SMALL = """
name = "small"
version = "1"
[products]
prefix_lengths = [1, 3]
[products.nodes]
A = { zh = "甲", en = "A" }
A01 = { zh = "甲一", en = "A one" }
[regions]
separator = "/"
"""


@pytest.fixture(scope="module")
def tianjin() -> Catalogue:
    return Catalogue.builtin("tianjin")


def load(tmp_path: Path, text: str) -> Catalogue:
    path = tmp_path / "catalogue.toml"
    path.write_text(text, encoding="utf-8")
    return Catalogue.load(path)


def test_tianjin_has_sixteen_districts_below_the_city(tianjin: Catalogue) -> None:
    assert len(tianjin.regions.leaves) == 16
    assert all(tianjin.regions.path(code) == ("120000", code) for code in tianjin.regions.leaves)
    assert tianjin.regions.path("120000") == ("120000",)
    assert tianjin.regions.label("120116") == ("滨海新区", "Binhai")


def test_every_tianjin_district_is_reached_by_its_neighbours(tianjin: Catalogue) -> None:
    reached, edge = set(), {"120119"}
    while edge:
        reached |= edge
        edge = {near for code in edge for near in tianjin.regions.neighbours(code)} - reached
    assert reached == set(tianjin.regions.leaves)


def test_tianjin_products_are_three_levels_with_every_pillar(tianjin: Catalogue) -> None:
    products = tianjin.products
    assert 100 <= len(products.leaves) <= 160
    assert all(len(products.path(code)) == 3 for code in products.leaves)
    tops = {products.label(code)[0] for code in products.codes if products.parent(code) is None}
    assert tops >= {"航空航天", "石油化工", "新能源新材料", "装备制造"}
    assert tops >= {"生物医药", "电子信息", "轻工纺织", "国防科技"}
    assert products.children("F02") == ("F0201", "F0202", "F0203")


@pytest.mark.parametrize(
    ("code", "stage", "indicator", "expected"),
    [
        ("P0101", None, "pass_rate", 0.98),
        ("F0201", None, "pass_rate", 0.98),
        ("F0601", None, "pass_rate", 0.90),
        ("L0502", "circulation", "pass_rate", 0.90),
        ("L0502", "export", "pass_rate", 1.0),
        ("F0201", "export", "pass_rate", 1.0),
        ("W0101", None, "pass_rate", None),
        ("W0101", "works-acceptance", "pass_rate", 1.0),
        ("W0601", "works-acceptance", "pass_rate", 1.0),
        ("W0501", None, "structural_accidents", 0),
        ("S0101", None, "satisfaction", 80.0),
        ("T0201", None, "satisfaction", 80.0),
        ("E04", "export", "loss_rate_falls", True),
        ("S0101", None, "pass_rate", None),
    ],
)
def test_targets_are_those_of_the_opinion(
    tianjin: Catalogue, code: str, stage: str | None, indicator: str, expected: float | None
) -> None:
    assert getattr(tianjin.targets_for(code, stage), indicator) == expected  # type: ignore[arg-type]


def test_key_supervision_is_inherited(tianjin: Catalogue) -> None:
    key = {code for code in tianjin.products.leaves if tianjin.key_supervision(code)}
    assert {"F0201", "L0301", "C0402", "N0401", "L0502", "B0501", "E0401"} <= key
    assert not {"A0101", "S0101", "I0201", "W0101"} & key
    assert tianjin.key_supervision("F")
    assert not tianjin.key_supervision("L")


def test_the_five_hotlines_are_known(tianjin: Catalogue) -> None:
    assert set(tianjin.hotlines) == {"12315", "12319", "12331", "12365", "8890"}


def test_an_unknown_code_is_refused_with_the_closest_known(tianjin: Catalogue) -> None:
    with pytest.raises(Rejection, match="F0201") as refusal:
        tianjin.products.path("F201")
    assert (refusal.value.reason, refusal.value.field) == ("unknown-code", "product")
    with pytest.raises(Rejection) as refusal:
        tianjin.regions.path("110101")
    assert (refusal.value.reason, refusal.value.field) == ("unknown-code", "region")
    for ask in (tianjin.targets_for, tianjin.key_supervision):
        with pytest.raises(Rejection):
            ask("x" * 160)


@pytest.mark.parametrize("slip", ["F201", "F02001", "F0021", "F0281", "F020", "F02012"])
def test_what_is_one_slip_away_is_suggested(tianjin: Catalogue, slip: str) -> None:
    with pytest.raises(Rejection, match=r"the closest are .*F0201"):
        tianjin.products.path(slip)


def test_a_flood_of_unknown_codes_costs_no_search_through_the_catalogue(tianjin: Catalogue) -> None:
    codes = [f"X{number:07d}" for number in range(5_000)]
    tried = [f"F{number:04d}" for number in range(9_000, 9_900)]  # near to many
    began = time.process_time()
    for code in (*codes, *tried):
        with pytest.raises(Rejection, match="is not in the catalogue"):
            tianjin.products.path(code)
    assert time.process_time() - began < 2.0  # it took some ten seconds once


def test_an_open_tree_learns_codes_by_their_separator() -> None:
    products = Catalogue.open("fda").products
    assert products.is_open
    assert products.path("25/PETER/PETER PAN") == ("25", "25/PETER", "25/PETER/PETER PAN")
    assert products.label("25/PETER/PETER PAN") == ("PETER PAN", "PETER PAN")
    assert products.parent("25/PETER") == "25"
    assert products.codes == ()  # what was learned is not listed
    assert Catalogue.open("x", separator=">").products.path("a>b") == ("a", "a>b")
    assert Catalogue.open("fda").targets_for("25/PETER") == Targets()


@pytest.mark.parametrize("code", ["", "/", "a//b", "a/", "/a", "a/ /b", "/".join("abcdefghi")])
def test_an_open_tree_refuses_empty_segments_and_great_depth(code: str) -> None:
    with pytest.raises(Rejection) as refusal:
        Catalogue.open("fda").products.path(code)
    assert refusal.value.reason == "bad-code"


def test_the_greatest_depth_is_accepted() -> None:
    assert len(Catalogue.open("fda").products.path("/".join("abcdefgh"))) == MAX_DEPTH


def test_nearest_target_wins_each_indicator_by_itself(tmp_path: Path) -> None:
    text = SMALL + (
        '[[targets]]\nproducts = ["A"]\npass_rate = 0.9\nsatisfaction = 80.0\n'
        '[[targets]]\nproducts = ["A01"]\npass_rate = 0.95\n'
        '[[targets]]\nproducts = ["A"]\nstage = "export"\npass_rate = 1.0\n'
    )
    catalogue = load(tmp_path, text)
    assert catalogue.targets_for("A01") == Targets(pass_rate=0.95, satisfaction=80.0)
    assert catalogue.targets_for("A01", "export") == Targets(pass_rate=1.0, satisfaction=80.0)
    assert catalogue.targets_for("A01", "import") == Targets(pass_rate=0.95, satisfaction=80.0)


def test_an_explicit_parent_goes_before_the_prefix(tmp_path: Path) -> None:
    text = SMALL.replace("[regions]", 'B01 = { zh = "乙", en = "B", parent = "A01" }\n[regions]')
    assert load(tmp_path, text).products.path("B01") == ("A", "A01", "B01")


def test_the_digest_changes_with_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, SMALL).digest != load(tmp_path, SMALL + "# more\n").digest
    assert Catalogue.open("a").digest != Catalogue.open("b").digest


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('version = "1"', "version = 1", "the file: Expected `str`, got `int`"),
        ('version = "1"', 'version = "1"\ncolour = "red"', "unknown field `colour`"),
        ('en = "A one"', 'en = "A one", key = true', "products.nodes.A01: .*unknown field `key`"),
        ('en = "A one" }', "}", "products.nodes.A01|TOML"),
        ("[regions]", '[products.neighbours]\nA = ["A01"]\n[regions]', "neighbours.A: 'A01' must"),
        ("[regions]", '[products.neighbours]\nA = ["B"]\n[regions]', "neighbours.A: 'B' is not"),
        ("[regions]", 'B01 = { zh = "b", en = "b" }\n[regions]', "B01: its parent 'B' is not listed"),
        ("[regions]", 'BB = { zh = "b", en = "b" }\n[regions]', "BB: has 2 characters"),
        ('en = "A" }', 'en = "A", parent = "A01" }', "form a ring"),
        ("prefix_lengths = [1, 3]", 'prefix_lengths = [1, 3]\nseparator = "/"', "exclude each other"),
        ("prefix_lengths = [1, 3]", 'prefix_lengths = [1, 3]\npad = "00"', "pad: is one character"),
        ('separator = "/"', 'separator = ""', "regions.separator: is empty"),
        ('separator = "/"', "", "regions.nodes: a closed tree lists"),
        ('separator = "/"', 'separator = "/"\nnodes = {"a/b" = {zh="", en="", parent="a"}}', "remove it"),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["Z"]\npass_rate = 1.0',
            "'Z' is not in",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["A"]',
            r"targets\[0\]: asks for nothing",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["A"]\npass_rate = 98.0',
            "give 0.98 for",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["A"]\nsatisfaction = 101.0',
            "0 to 100",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["A"]\nstructural_accidents = -1',
            "negative",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["A", "A"]\npass_rate = 1.0',
            "already",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[targets]]\nproducts = ["A"]\nstage = "x"\npass_rate = 1.0',
            "'x'",
        ),
        (
            'separator = "/"',
            'separator = "/"\n[[key_supervision]]\nzh="a"\nen="a"\nproducts=["Z"]',
            "'Z' is not",
        ),
        ('separator = "/"', 'separator = "/"\n[hotlines]\n12315 = "x"', "hotlines.12315"),
        ('name = "small"', 'name = "small', "is not TOML"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in SMALL
    with pytest.raises(CatalogueError, match=said) as refusal:
        load(tmp_path, SMALL.replace(old, new))
    assert re.search(r"catalogue\.toml: ", str(refusal.value))


def test_a_missing_file_and_an_unknown_builtin_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogueError, match="cannot be read"):
        Catalogue.load(tmp_path / "none.toml")
    with pytest.raises(CatalogueError, match="there is tianjin"):
        Catalogue.builtin("atlantis")


@pytest.mark.parametrize(
    ("code", "close"),
    [("F201", "F0201"), ("F01O1", "F0101"), ("0F101", "F0101"), ("F01011", "F0101"), ("F0199", "F0101, F0102, F0103")],
)
def test_a_suggestion_is_one_typing_error_away_or_a_sibling(tianjin: Catalogue, code: str, close: str) -> None:
    with pytest.raises(Rejection, match=f"the closest are .*{close}"):
        tianjin.products.path(code)


@pytest.mark.parametrize("lengths", ["[]", "[0, 3]", "[-1]"])
def test_lengths_of_prefixes_are_at_least_one(tmp_path: Path, lengths: str) -> None:
    file = tmp_path / "c.toml"
    tables = f'prefix_lengths = {lengths}\npad = "0"\nnodes = {{ A1 = {{ zh = "a", en = "a" }} }}\n'
    file.write_text(f'name = "c"\nversion = "1"\n[regions]\n{tables}[products]\nseparator = "/"\n', "utf-8")
    with pytest.raises(CatalogueError, match=r"regions\.prefix_lengths"):
        Catalogue.load(file)


@pytest.mark.parametrize("text", ["a = " + "9" * 5_000, "a = " + "[" * 5_000])
def test_toml_that_python_cannot_hold_is_refused_by_every_reader(tmp_path: Path, text: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(CatalogueError, match="not TOML"):
        Catalogue.load(file)
    with pytest.raises(ConfigError, match="not TOML"):
        Severity.load(file)
