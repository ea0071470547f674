// The matrix: a row a product, a column a district, a cell the gravest of its open alerts.
// Rows are made once; news touch only the cells that they are about. Where only what has alerts is to be shown, the
// other products have no row at all, and on a narrow screen the other districts no column.

import { by, element } from "./dom.js";
import { pick, say } from "./text.js";

const GRADES = ["", "I", "II", "III", "IV"];
const EVERYWHERE = "*";
const MOST_UNLISTED = 2000;
const table = by("matrix");
let open = () => {};
let products = new Map(); // code -> { node, row, cells: Map(region -> td), text }
let regions = [];
let cells = new Map(); // "product\u0000region" -> Set of alerts' rows
let stop = null; // the one button of the matrix that Tab reaches
let given = null; // the axes of the catalogue
const narrow = matchMedia("(max-width: 62.5rem)");

const key = (product, region) => `${product}\u0000${region}`;

/** Begin: the catalogue's axes, the open alerts; `act` is called with product, region and the alerts of a chosen cell. */
export function build(axes, alerts, act) {
  open = act;
  given = axes;
  cells = new Map();
  for (const alert of alerts) add(alert);
  draw();
}

function draw() {
  if (!given) return;
  const alerts = [...cells.values()].flatMap((mine) => [...mine.values()]);
  const only = by("only").checked;
  regions = listed(given.regions, alerts, "region", only && narrow.matches);
  products = new Map();
  stop = null;
  const body = element("tbody");
  for (const node of listed(given.products, alerts, "product", only)) body.append(makeRow(node, only));
  table.style.setProperty("--columns", regions.length);
  table.replaceChildren(head(), body);
  for (const name of cells.keys()) paint(name);
  filter();
}

/** The nodes of an axis, or those of them that have alerts; codes of open catalogues, which are listed nowhere, follow. */
function listed(nodes, alerts, code, only) {
  const names = new Map(alerts.map((alert) => [alert[code], alert[`${code}_name`]]));
  const found = only ? nodes.filter((node) => names.has(node.code)) : [...nodes];
  for (const node of nodes) names.delete(node.code);
  for (const [more, name] of [...names].slice(0, MOST_UNLISTED)) found.push({ code: more, name, depth: 0 });
  return found;
}

function head() {
  const line = element("tr", "", element("th", "corner", say("product")));
  line.firstChild.scope = "col";
  for (const region of regions) {
    const cell = element("th", "district", element("span", "", region.code === EVERYWHERE ? "*" : pick(region.name)));
    cell.scope = "col";
    line.append(cell);
  }
  return element("thead", "", line);
}

function makeRow(node, flat) {
  const name = element("th", `product depth-${flat ? "none" : Math.min(node.depth, 3)}`, pick(node.name) || node.code);
  name.scope = "row";
  name.title = node.code;
  const row = element("tr", "", name);
  const mine = new Map();
  for (const region of regions) {
    const cell = document.createElement("td");
    mine.set(region.code, cell);
    row.append(cell);
  }
  const text = `${node.code} ${node.name.zh} ${node.name.en}`.toLowerCase();
  products.set(node.code, { node, row, cells: mine, text });
  return row;
}

function add(alert) {
  const name = key(alert.product, alert.region);
  if (!cells.has(name)) cells.set(name, new Map());
  cells.get(name).set(alert.id, alert);
  return name;
}

/** Take changed alerts over; where one lies outside the axes, or leaves a row that is there for it, they are drawn anew. */
export function update(changed) {
  const touched = new Set();
  let outside = false;
  for (const alert of changed) {
    const name = key(alert.product, alert.region);
    if (alert.status !== "resolved") add(alert);
    else if (cells.get(name)?.delete(alert.id) && !cells.get(name).size) {
      cells.delete(name);
      outside ||= by("only").checked;
    }
    outside ||= alert.status !== "resolved" && !products.get(alert.product)?.cells.has(alert.region);
    touched.add(name);
  }
  if (outside) draw();
  else for (const name of touched) paint(name);
  if (touched.size) filter();
}

/** Bring the cell of the alert that is looked at into view, inside the matrix. */
export function reveal(product, region) {
  const cell = products.get(product)?.cells.get(region);
  if (!cell) return;
  const view = table.parentElement;
  const left = cell.offsetLeft - view.clientWidth / 2;
  view.scrollTo({ left, top: cell.parentElement.offsetTop - view.clientHeight / 2 });
}

function paint(name) {
  const [product, region] = name.split("\u0000");
  const entry = products.get(product);
  const cell = entry?.cells.get(region);
  if (!cell) return;
  const alerts = [...(cells.get(name)?.values() ?? [])];
  const had = cell.firstChild;
  if (!alerts.length) {
    if (had) {
      if (stop === had) stop = null;
      cell.replaceChildren();
    }
    return;
  }
  const grade = GRADES[Math.min(...alerts.map((alert) => alert.level))];
  const answered = alerts.every((alert) => alert.by || alert.pending?.length);
  let made = had;
  if (!made) {
    made = element("button");
    made.type = "button";
    made.tabIndex = -1;
    made.dataset.cell = name;
    cell.append(made);
  }
  made.className = `cell grade-${grade}${answered ? " answered" : ""}`;
  made.textContent = grade + (alerts.length > 1 ? `·${alerts.length}` : "") + (answered ? "✓" : "");
  const where = regions.find((one) => one.code === region);
  made.setAttribute("aria-label", say("cell", {
    product: pick(entry.node.name) || product, region: pick(where.name), n: alerts.length, grade,
  }) + (answered ? say("all-answered") : ""));
}

/** Show the rows that are asked for. */
export function filter() {
  const wanted = by("search").value.trim().toLowerCase();
  let shown = 0;
  for (const { row, text } of products.values()) {
    const hidden = wanted !== "" && !text.includes(wanted);
    if (row.hidden !== hidden) row.hidden = hidden;
    if (!hidden) shown += 1;
  }
  by("no-rows").hidden = shown > 0;
  table.parentElement.hidden = shown === 0;
  if (!stop?.isConnected || stop.closest("tr").hidden) reach(visible()[0]);
}

function visible() {
  return [...table.querySelectorAll("tbody tr:not([hidden]) button.cell")];
}

/** Tab reaches one button of the matrix; the arrow keys the others. */
function reach(made) {
  if (stop) stop.tabIndex = -1;
  stop = made ?? null;
  if (stop) stop.tabIndex = 0;
}

function move(from, step) {
  const place = (one) => [one.closest("tr").rowIndex, one.parentElement.cellIndex];
  const [row, column] = place(from);
  const distance = {
    ArrowRight: ([r, c]) => (r === row && c > column ? c - column : Infinity),
    ArrowLeft: ([r, c]) => (r === row && c < column ? column - c : Infinity),
    ArrowDown: ([r, c]) => (r > row ? (r - row) * 1000 + Math.abs(c - column) : Infinity),
    ArrowUp: ([r, c]) => (r < row ? (row - r) * 1000 + Math.abs(c - column) : Infinity),
    Home: ([r, c]) => r * 1000 + c,
    End: ([r, c]) => 1e9 - r * 1000 - c,
  }[step];
  let best = null;
  let least = Infinity;
  for (const one of visible()) {
    const far = distance(place(one));
    if (far < least) [best, least] = [one, far];
  }
  if (best) {
    reach(best);
    best.focus();
  }
}

table.addEventListener("keydown", (event) => {
  const from = event.target.closest("button.cell");
  if (!from || !/^(Arrow|Home|End)/.test(event.key)) return;
  event.preventDefault();
  move(from, event.key);
});
table.addEventListener("click", (event) => {
  const chosen = event.target.closest("button.cell");
  if (!chosen) return;
  reach(chosen);
  const [product, region] = chosen.dataset.cell.split("\u0000");
  open(product, region, [...cells.get(chosen.dataset.cell).values()]);
});
by("search").addEventListener("input", filter);
by("only").addEventListener("change", draw);
narrow.addEventListener("change", draw);
