// One alert, all of it: evidence in words, chart, who contributes, what to do, what was done; and the answer to it.

import { badge, status } from "./alerts.js";
import { chart } from "./chart.js";
import { button, by, element, moment } from "./dom.js";
import * as server from "./server.js";
import { number, pick, say } from "./text.js";

const ACTIONS = ["acknowledge", "assess", "dispose", "close"];
const place = by("detail");
let shown = null; // { id, detail, behind }
let may = () => false;
let done = () => {};

export function start(mayDispose, whenClosed) {
  may = mayDispose;
  done = whenClosed;
}

export const shownId = () => shown?.id ?? "";

/** Open an alert's page; the heading gets the focus where `focus` says so. */
export async function open(id, focus = true) {
  shown = { id, detail: null, behind: null };
  place.hidden = false;
  by("detail-body").replaceChildren(element("p", "", say("loading")));
  const mine = shown;
  try {
    mine.detail = await server.detail(id);
    if (shown !== mine) return;
    draw();
    if (focus) {
      by("detail-title").focus({ preventScroll: true });
      place.scrollIntoView({ block: "nearest" });
      if (innerWidth < 1000) place.scrollIntoView();
    }
    mine.behind = await server.evidence(id);
    if (shown === mine) drawChart();
  } catch (error) {
    if (shown !== mine) return;
    const text = error.status === 404 ? say("gone") : say("failed", { why: error.message });
    if (mine.detail) by("chart-place")?.replaceChildren(element("p", "", text));
    else by("detail-body").replaceChildren(element("p", "", text), button(say("back"), "plain", close));
  }
}

export function close() {
  shown = null;
  place.hidden = true;
  done();
}

/** The alert has changed: what is shown of it is read again, without its chart. */
export async function refresh(id) {
  if (shown?.id !== id || !shown.detail) return;
  const mine = shown;
  const fresh = await server.detail(id).catch(() => null);
  if (fresh && shown === mine) {
    mine.detail = fresh;
    redraw();
  }
}

export function redraw() {
  if (!shown?.detail) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.act ?? "title" : "";
  draw();
  if (shown.behind) drawChart();
  if (focused) (place.querySelector(`[data-act="${focused}"]`) ?? by("detail-title")).focus({ preventScroll: true });
}

const heading = (name) => element("h3", "", say(name));

function draw() {
  const { row } = shown.detail;
  const title = element("h2", "", badge(row.grade), " ", pick(row.headline));
  title.id = "detail-title";
  title.tabIndex = -1;
  const back = button(say("back"), "plain back", close);
  back.dataset.act = "back";
  by("detail-body").replaceChildren(back, title, element("p", "statuses", ...status(row)), answers(row),
    facts(shown.detail), heading("evidence"), ...evidence(), heading("chart"), chartPlace(), ...contributors(),
    heading("steps"), steps(), heading("history"), history());
}

function answers(row) {
  const line = element("p", "buttons");
  if (row.status === "resolved") return line;
  if (!may()) return element("p", "help", say("may-not"));
  for (const action of ["acknowledge", "close"]) {
    const made = button(say(`ask-${action}`), action === "close" ? "plain" : "", () => answer(row, action));
    made.dataset.act = action;
    line.append(made);
  }
  return line;
}

function facts(detail) {
  const { row } = detail;
  const list = element("dl", "facts");
  const note = (name, text) => text && list.append(element("div", "", element("dt", "", say(name)), element("dd", "", text)));
  note("product", `${pick(row.product_name)} ${row.product}`);
  note("region", `${pick(row.region_name)} ${row.region}`);
  note("kind", `${say(row.kind)}, ${say(`scope-${row.scope}`)}`);
  note("source", detail.source);
  note("hazard", detail.hazard);
  note("since", moment(row.onset));
  note("as-of", moment(row.as_of));
  note("number", row.id);
  return list;
}

function evidence() {
  const found = shown.detail.evidence;
  if (!found.length) return [element("p", "", say("no-evidence"))];
  const chance = (one) => one.evidence.p_value ?? 1;
  const [chief, ...rest] = found.toSorted((a, b) => chance(a) - chance(b));
  if (!rest.length) return [element("p", "evidence", pick(chief.words))];
  return [element("p", "evidence", pick(chief.words)), element("details", "",
    element("summary", "", say("more-evidence", { n: rest.length })),
    element("ul", "evidence", ...rest.map((one) => element("li", "", pick(one.words)))))];
}

function chartPlace() {
  const made = element("div", "", element("p", "", say("loading")));
  made.id = "chart-place";
  return made;
}

function drawChart() {
  const { chart: drawn, why, said } = shown.behind;
  by("chart-place").replaceChildren(drawn ? chart(drawn, said, by("chart-place").clientWidth) : element("p", "help", say(why)));
}

function contributors() {
  const found = shown.detail.contributors;
  if (!found.length) return [];
  const column = (name) => {
    const cell = element("th", "", say(name));
    cell.scope = "col";
    return cell;
  };
  const lines = found.map((one) => element("tr", "", element("td", "", say(one.role)), element("td", "code", one.code),
    element("td", "num", number(one.adverse))));
  return [heading("contributors"), element("table", "figures",
    element("thead", "", element("tr", "", ...["role", "code", "adverse"].map(column))), element("tbody", "", ...lines))];
}

function steps() {
  return element("ol", "steps", ...shown.detail.steps.map((one) =>
    element("li", "", pick(one.text), one.due ? element("span", "due", ` ${say("due", { when: moment(one.due) })}`) : null)));
}

function history() {
  return element("ol", "history", ...shown.detail.history.toReversed().map((one) => element("li", "", badge(one.grade),
    ` ${moment(one.as_of)} ${say(one.status)}`, one.by && ["acknowledged", "resolved"].includes(one.status) ? ` · ${one.by}` : null,
    one.reason ? ` · ${one.reason}` : null)));
}

// --- answering ------------------------------------------------------------------------------------------------------

const dialog = by("answer");
let pending = null; // { id, key }: sent again, it is the same disposition

function answer(row, action) {
  pending = { id: row.id, key: crypto.randomUUID?.() ?? uuid() };
  by("answer-about").textContent = pick(row.headline);
  by("action").replaceChildren(...ACTIONS.map((one) => {
    const option = element("option", "", say(one));
    option.value = one;
    option.selected = one === action;
    return option;
  }));
  by("name").value = sessionStorage.getItem("tocsin-name") ?? "";
  by("reason").value = "";
  dialog.querySelector(".wrong").hidden = true;
  dialog.showModal();
  (by("name").value ? by("reason") : by("name")).focus();
}

/** Where the page is not served over TLS, browsers give no randomUUID. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = [...bytes].map((one) => one.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

dialog.querySelector("button.plain").addEventListener("click", () => dialog.close());
dialog.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const wrong = dialog.querySelector(".wrong");
  const send = dialog.querySelector("button:not(.plain)");
  const name = by("name").value.trim();
  const reason = by("reason").value.trim();
  if (!name || !pending) return;
  send.disabled = true;
  wrong.hidden = true;
  try {
    const what = { action: by("action").value, key: pending.key, name };
    const told = await server.dispose(pending.id, reason ? { ...what, reason } : what);
    sessionStorage.setItem("tocsin-name", name);
    dialog.close();
    by("live").append(element("p", "", say("sent-until", { when: moment(told.takes_effect) })));
  } catch (error) {
    wrong.textContent = error.message;
    wrong.hidden = false;
  } finally {
    send.disabled = false;
  }
});
