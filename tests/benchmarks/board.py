"""How fluid the board is with 16 districts and 500 products, 400 of whose cells have an alert: in headless Chromium."""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.alerts import Action, Alert, Provenance, Text
from schemas.catalogue import Catalogue
from streams.board.service import Board
from streams.config import Config
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing
from tests.benchmarks.rates import Figures, Setting

__all__ = ["board"]

HERE: Final = Path(__file__).resolve().parents[1] / "streams"
DISTRICTS, PRODUCTS, ALERTS, BATCH = 16, 500, 400, 50
GRADES: Final = (("I", "red"), ("II", "orange"), ("III", "yellow"), ("IV", "blue"))
_FRAMES: Final = """
const [seconds, scroll] = arguments;
const view = document.querySelector("#map .scroll");
return new Promise((resolve) => {
  const gaps = [];
  let last = performance.now();
  const end = last + 1000 * seconds;
  const turn = (now) => {
    gaps.push(now - last);
    last = now;
    if (scroll) view.scrollTop = (view.scrollTop + 60) % (view.scrollHeight - view.clientHeight);
    if (now < end) requestAnimationFrame(turn);
    else resolve(gaps.slice(2));
  };
  requestAnimationFrame(turn);
});"""
_TIMED: Final = """
const [what] = arguments;
return new Promise((resolve) => {
  const began = performance.now();
  const search = document.querySelector("#search");
  if (what === "all") document.querySelector("#only").click();
  else {
    search.value = what;
    search.dispatchEvent(new Event("input"));
  }
  document.querySelector("#matrix").getBoundingClientRect();
  const work = performance.now() - began;
  requestAnimationFrame(() => setTimeout(() => resolve([work, performance.now() - began])));
});"""


def catalogue(folder: Path) -> Catalogue:
    """500 products in ten branches, and a city of 16 districts."""
    lines = ['name = "board"', 'version = "1"', "[products]", "prefix_lengths = [3, 6]", "[products.nodes]"]
    for branch in range(10):
        lines.append(f'P{branch:02d} = {{ zh = "门类{branch}", en = "Branch {branch}" }}')
        for number in range(PRODUCTS // 10 - 1):
            code = f"P{branch:02d}{number:03d}"
            lines.append(f'{code} = {{ zh = "产品{code}", en = "Product {code}" }}')
    lines += ["[regions]", "prefix_lengths = [1, 3]", "[regions.nodes]", 'R = { zh = "全市", en = "City" }']
    lines += [f'R{number:02d} = {{ zh = "第{number}区", en = "District {number}" }}' for number in range(DISTRICTS)]
    path = folder / "board.toml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return Catalogue.load(path)


def alert(number: int, revision: int, now: datetime) -> Alert:
    """One revision of the alert of a cell."""
    level = (number * 7 + revision) % 4 + 1
    grade: Any
    colour: Any
    grade, colour = GRADES[level - 1]
    product, region = f"P{number % 10:02d}{number // 10 % 49:03d}", f"R{(number * 5) % DISTRICTS:02d}"
    return Alert(
        id=f"pass-rate-{number:016x}", revision=revision, status="opened" if revision == 1 else "raised", level=level,
        grade=grade, colour=colour, kind="pass-rate", scope="cell", product=product,
        product_name=Text(f"产品{product}", f"Product {product}"), region=region,
        region_name=Text(f"第{region}区", f"District {region}"), onset=now, as_of=now + timedelta(minutes=revision),
        headline=Text(f"{region}·{product}：合格率异常", f"{product}, {region}: pass rate 91.20% over 30 days"),
        actions=[Action(text=Text("核对", "check"), deadline_hours=24.0)],
        provenance=Provenance(config="c", version="v", catalogue="k"),
    )  # fmt: skip


def send(data: Path, alerts: list[Alert]) -> None:
    with closing(EmbeddedMedium(SqliteLog(data, Config().partitions))) as medium:
        now = int(time.time() * 1_000)
        medium.write("emergency-response", [Outgoing(now, one.id.encode(), msgspec.json.encode(one)) for one in alerts])


def board(setting: Setting) -> Figures:
    """Times in milliseconds: one look at the whole matrix, frames while it scrolls and while alerts change."""
    sys.path[:0] = [str(HERE), str(HERE / "api")]
    import browser as driver
    from serving import running

    driver.find()
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, config, known = folder / "data", Config(), catalogue(folder)
        send(data, [alert(number, 1, now) for number in range(ALERTS)])

        def opened() -> Any:
            return closing(EmbeddedMedium(SqliteLog(data, config.partitions)))

        with running(Board(config, known, opened, opened, None)) as port, driver.browser(folder) as window:
            window.size(1_280, 900)
            window.go(f"http://127.0.0.1:{port}/?lang=en")
            while window.run("return document.querySelectorAll('#matrix button.cell').length") < ALERTS // 2:
                time.sleep(0.05)
            return _measured(window, data, now)


def _measured(window: Any, data: Path, now: datetime) -> Figures:
    figures: Figures = {}
    figures["show all rows"] = window.run(_TIMED, "all")[1]
    cells = window.run("return document.querySelectorAll('#matrix td').length")
    if cells != (PRODUCTS) * (DISTRICTS + 1):
        raise RuntimeError(f"the matrix has {cells} cells")
    figures["find products"] = window.run(_TIMED, "P03")[1]
    figures["show all again"] = window.run(_TIMED, "")[1]
    for name, seconds, scroll in (("at rest", 2, False), ("scrolling", 3, True)):
        _note(figures, name, window.run(_FRAMES, seconds, scroll))
    changing = threading.Thread(target=_change, args=(data, now))
    changing.start()
    _note(figures, f"{BATCH} alerts change", window.run(_FRAMES, 6, False))
    changing.join()
    return figures


def _change(data: Path, now: datetime) -> None:
    for turn in range(6):
        time.sleep(0.9)
        send(data, [alert(number, turn + 2, now) for number in range(turn * BATCH, (turn + 1) * BATCH)])


def _note(figures: Figures, name: str, gaps: list[float]) -> None:
    figures[f"{name}: frame, median"] = statistics.median(gaps)
    figures[f"{name}: frame, longest"] = max(gaps)
