// The list of open alerts, gravest first, and the counts by grade above it.

import { button, by, element, moment } from "./dom.js";
import { number, pick, say } from "./text.js";

const GRADES = ["I", "II", "III", "IV"];
const FIRST = 20; // so that the matrix below is not far
const PAGE = 100;
const body = by("alerts").tBodies[0];
const rows = new Map(); // id -> { element, alert }
let limit = FIRST;
let chosen = "";
let cell = null; // [product, region] that the list is bound to

export const badge = (grade) => element("span", `grade grade-${grade}`, grade);

/** What is said of where an alert stands, with a class. */
export function status(alert) {
  const parts = [element("span", `status ${alert.status}`, say(alert.status))];
  for (const one of alert.pending ?? []) {
    parts.push(element("span", "way", say("on-its-way", { action: say(one.action) })));
  }
  if (alert.by) parts.push(element("span", "who", alert.by));
  if (alert.due) {
    const late = Date.parse(alert.due) < Date.now();
    parts.push(element("span", late ? "due late" : "due", late ? `! ${say("overdue")}` : say("due", { when: moment(alert.due) })));
  }
  return parts;
}

function fill(alert, act) {
  const name = button(pick(alert.headline), "open", () => act(alert.id));
  name.dataset.id = alert.id;
  if (alert.id === chosen) name.setAttribute("aria-current", "true");
  const about = element("span", "about", `${say(alert.kind)} · ${say(`scope-${alert.scope}`)}`);
  const line = element("tr", alert.id === chosen ? "chosen" : "",
    element("td", "", badge(alert.grade)), element("td", "", name, about),
    element("td", "when", moment(alert.onset)), element("td", "", ...status(alert)));
  return line;
}

const rank = (a, b) => a.level - b.level || (a.as_of < b.as_of ? 1 : a.as_of > b.as_of ? -1 : a.id < b.id ? -1 : 1);

/** Show the alerts; `fresh` are the ids that have just come. */
export function list(alerts, fresh, act) {
  const standing = [...alerts.values()].filter((alert) => alert.status !== "resolved").sort(rank);
  const mine = cell ? standing.filter((one) => one.product === cell[0] && one.region === cell[1]) : standing;
  const shown = mine.slice(0, limit);
  const focused = document.activeElement?.dataset?.id;
  const wanted = new Set(shown.map((one) => one.id));
  for (const [id, held] of rows) {
    if (!wanted.has(id)) {
      held.element.remove();
      rows.delete(id);
    }
  }
  let before = null;
  for (const alert of shown) {
    let held = rows.get(alert.id);
    if (held?.alert !== alert) {
      const made = fill(alert, act);
      if (fresh.has(alert.id)) made.classList.add("fresh");
      held?.element.replaceWith(made);
      held = { element: made, alert };
      rows.set(alert.id, held);
    }
    const at = before ? before.nextSibling : body.firstChild;
    if (at !== held.element) body.insertBefore(held.element, at);
    before = held.element;
  }
  if (focused && document.activeElement?.dataset?.id !== focused) rows.get(focused)?.element.querySelector("button").focus();
  by("alerts").hidden = shown.length === 0;
  by("none").hidden = shown.length > 0;
  const rest = mine.length - shown.length;
  by("more").hidden = rest === 0;
  by("more").textContent = say("more", { n: Math.min(rest, PAGE) });
  grades(standing);
}

/** Draw every row anew: the language, or the minute, is another. */
export function redraw() {
  for (const held of rows.values()) held.alert = null;
}

/** Mark the alert whose page is open. */
export function choose(id) {
  chosen = id;
  for (const [name, { element: line }] of rows) {
    line.classList.toggle("chosen", name === id);
    const made = line.querySelector("button");
    if (name === id) made.setAttribute("aria-current", "true");
    else made.removeAttribute("aria-current");
  }
}

/** Bind the list to a cell, or to none. */
export function bind(product, region, said) {
  cell = product === undefined ? null : [product, region];
  by("filter").hidden = cell === null;
  if (cell) by("filter").firstElementChild.textContent = say("of-cell", { what: said });
}

export function longer() {
  limit += PAGE;
}

function grades(standing) {
  const items = GRADES.map((grade) => {
    const mine = standing.filter((alert) => alert.grade === grade);
    const open = mine.filter((alert) => !alert.by && !alert.pending?.length).length;
    const item = element("li", mine.length ? `tile grade-${grade}` : "tile",
      element("b", "", grade), element("span", "n", number(mine.length)));
    if (open) item.append(element("span", "m", say("unanswered", { m: open })));
    item.setAttribute("aria-label", say("grades", {
      grade, colour: say(`colour-${GRADES.indexOf(grade) + 1}`), n: mine.length, m: open }));
    item.setAttribute("role", "listitem");
    return item;
  });
  by("grades").replaceChildren(...items);
}
