// The control chart: a picture for those who see it, and the same figures as a table for everybody.

import { element, shape } from "./dom.js";
import { number, say } from "./text.js";

let WIDTH = 640; // as wide as the place is, so that its letters are as large as others
const HEIGHT = 260;
const LEFT = 52;
const RIGHT = 10;
const TOP = 12;
const BOTTOM = 40;
const DAY = 86400000;
const LEAST_WEEKS = 11;

const known = (values) => (values ?? []).filter((value) => value !== null && value !== undefined);

/** The chart of an answer of the service, for a place that is so wide. */
export function chart(drawn, said, room) {
  WIDTH = Math.min(Math.max(room, 300), 760);
  const what = say(`chart-${drawn.unit}`, { days: drawn.window_days });
  const share = drawn.unit === "rate" || drawn.unit === "loss";
  const show = (value) => (value === null || value === undefined ? "–" : share ? `${number(100 * value)}%` : number(value));
  const scale = scales(drawn);
  const picture = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "chart" });
  const about = say("chart-said", {
    what, from: drawn.days[0], to: drawn.days.at(-1), last: show(drawn.value.at(-1)),
    expected: show(drawn.expected?.at(-1)), limit: show(drawn.limit?.at(-1)), n: (drawn.alarm ?? []).filter(Boolean).length,
  });
  picture.append(shape("title", {}, what), shape("desc", {}, about));
  axes(picture, drawn, scale, show);
  intervals(picture, drawn, scale);
  if (drawn.unit === "count") bars(picture, drawn, scale);
  line(picture, drawn.expected, drawn, scale, "expected");
  if (drawn.unit === "count") line(picture, drawn.limit, drawn, scale, "limit");
  else {
    strokes(picture, drawn.limit ?? [], scale, "limit");
    line(picture, drawn.value, drawn, scale, "value");
    dots(picture, drawn, scale);
  }
  const marked = alarms(picture, drawn, scale);
  const signals = marks(picture, drawn, said, scale);
  return element("figure", "", element("figcaption", "", what + (drawn.running ? ` (${say("running-week")})` : "")), picture,
    legend(drawn, marked, signals), element("p", "help", say(known(drawn.expected).length ? "chart-note" : "chart-plain")), figures(drawn, show, what));
}

function scales(drawn) {
  const values = known([...drawn.value, ...(drawn.expected ?? []), ...(drawn.limit ?? [])]);
  const ends = known([...(drawn.lower ?? []), ...(drawn.upper ?? [])]);
  let high = Math.max(...values, drawn.unit === "count" ? 4 : -Infinity);
  let low = drawn.unit === "count" || drawn.unit === "loss" ? 0 : Math.min(...values);
  if (drawn.unit !== "count") {
    const room = Math.max((high - low) * 0.6, drawn.unit === "index" ? 1 : 0.005);
    const most = { rate: 1, index: 100, loss: Infinity }[drawn.unit];
    high = Math.min(most, Math.max(high, Math.min(Math.max(...ends, high), high + room)));
    low = Math.max(0, Math.min(low, Math.max(Math.min(...ends, low), low - room)));
  }
  if (!(high > low)) high = low + 1;
  const step = tick((high - low) / 4);
  low = Math.floor(low / step + 1e-9) * step;
  high = Math.ceil(high / step - 1e-9) * step;
  const days = drawn.days.map((day) => Date.parse(day));
  const first = Math.min(days[0], days.at(-1) - LEAST_WEEKS * 7 * DAY) - 3.5 * DAY;
  const span = days.at(-1) + 3.5 * DAY - first;
  const wide = WIDTH - LEFT - RIGHT;
  return {
    low, high, step,
    x: (time) => LEFT + (wide * (time - first)) / span,
    y: (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - (Math.min(Math.max(value, low), high) - low) / (high - low)),
    days, wide: (wide * 7 * DAY) / span, first, last: first + span,
  };
}

/** A round step near a length. */
function tick(length) {
  const power = 10 ** Math.floor(Math.log10(length));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= length * 0.99) ?? power;
}

function axes(picture, drawn, scale, show) {
  for (let value = scale.low; value <= scale.high + scale.step / 2; value += scale.step) {
    const at = scale.y(value);
    picture.append(shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at, class: "grid" }),
      shape("text", { x: LEFT - 6, y: at + 4, class: "tick end" }, show(Number(value.toPrecision(6)))));
  }
  const months = Math.max(1, Math.ceil((scale.last - scale.first) / DAY / 30.4 / (WIDTH / 80)));
  const from = new Date(scale.first);
  for (let month = new Date(Date.UTC(from.getUTCFullYear(), from.getUTCMonth() + 1, 1)); month < scale.last;
    month = new Date(Date.UTC(month.getUTCFullYear(), month.getUTCMonth() + months, 1))) {
    const at = scale.x(month.getTime());
    picture.append(shape("line", { x1: at, x2: at, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 5, class: "grid" }),
      shape("text", { x: at, y: HEIGHT - BOTTOM + 18, class: "tick middle" }, month.toISOString().slice(0, 7)));
  }
}

/** The runs of weeks in which all of some values are there. */
function runs(...series) {
  const found = [];
  let run = [];
  for (let at = 0; at < series[0].length; at += 1) {
    if (series.every((values) => values[at] !== null && values[at] !== undefined)) run.push(at);
    else if (run.length) found.push(run.splice(0));
  }
  return run.length ? [...found, run] : found;
}

/** An interval a point: each has its own number of items behind it, so that what lies between two points says nothing. */
function intervals(picture, drawn, scale) {
  const wide = Math.max(scale.wide * 0.6, 2);
  (drawn.lower ?? []).forEach((low, at) => {
    if (low === null) return;
    const top = scale.y(drawn.upper[at]);
    picture.append(shape("rect", { x: (scale.x(scale.days[at]) - wide / 2).toFixed(1), y: top.toFixed(1), width: wide.toFixed(1),
      height: Math.max(scale.y(low) - top, 1).toFixed(1), class: "band" }));
  });
}

/** The alarm line of a share hangs on the items of each window by themselves: a stroke a point. */
function strokes(picture, values, scale, name) {
  const half = Math.max(scale.wide * 0.42, 2);
  values.forEach((value, at) => {
    if (value === null || value < scale.low) return;
    const [x, y] = [scale.x(scale.days[at]), scale.y(value)];
    picture.append(shape("line", { x1: (x - half).toFixed(1), x2: (x + half).toFixed(1), y1: y, y2: y, class: `stroke ${name}` }));
  });
}

function dots(picture, drawn, scale) {
  drawn.value.forEach((value, at) => {
    if (value === null) return;
    picture.append(shape("circle", { cx: scale.x(scale.days[at]).toFixed(1), cy: scale.y(value).toFixed(1), r: 2.5, class: "dot" }));
  });
}

function line(picture, values, drawn, scale, name) {
  if (!values?.length) return;
  for (const run of runs(values)) {
    const points = run.map((at) => `${scale.x(scale.days[at]).toFixed(1)},${scale.y(values[at]).toFixed(1)}`);
    if (run.length > 1) picture.append(shape("polyline", { points: points.join(" "), class: `line ${name}` }));
    else picture.append(shape("circle", { cx: points[0].split(",")[0], cy: points[0].split(",")[1], r: 2, class: `dot ${name}` }));
  }
}

function bars(picture, drawn, scale) {
  const wide = Math.max(scale.wide * 0.7, 1);
  drawn.value.forEach((value, at) => {
    const top = scale.y(value);
    const last = drawn.running && at === drawn.value.length - 1;
    picture.append(shape("rect", { x: (scale.x(scale.days[at]) - wide / 2).toFixed(1), y: top.toFixed(1), width: wide.toFixed(1),
      height: Math.max(HEIGHT - BOTTOM - top, 0).toFixed(1), class: last ? "bar running" : "bar" }));
  });
}

function alarms(picture, drawn, scale) {
  let count = 0;
  (drawn.alarm ?? []).forEach((alarm, at) => {
    if (!alarm || drawn.value[at] === null) return;
    count += 1;
    const x = scale.x(scale.days[at]);
    const y = Math.max(scale.y(drawn.value[at]) - 6, TOP - 4);
    picture.append(shape("path", { d: `M${x - 5},${y - 4}h10l-5,9z`, class: "alarm" }));
  });
  return count;
}

function marks(picture, drawn, said, scale) {
  let count = 0;
  for (const one of said) {
    const time = Date.parse(one.as_of);
    if (time < scale.first || time > scale.last) continue;
    count += 1;
    const x = scale.x(time);
    picture.append(shape("line", { x1: x, x2: x, y1: HEIGHT - 16, y2: HEIGHT - 8, class: "signal" }));
  }
  return count;
}

function legend(drawn, alarm, signals) {
  const sample = (...shapes) => shape("svg", { viewBox: "0 0 24 12", class: "sample", "aria-hidden": "true" }, ...shapes);
  const strip = (name) => sample(shape("line", { x1: 1, x2: 23, y1: 6, y2: 6, class: `line ${name}` }));
  const items = [];
  const note = (picture, text) => items.push(element("li", "", picture, text));
  if (drawn.unit === "count") note(sample(shape("rect", { x: 8, y: 1, width: 8, height: 10, class: "bar" })), say("observed"));
  else note(strip("value"), say("observed"));
  if (known(drawn.lower).length) note(sample(shape("rect", { x: 1, y: 2, width: 22, height: 8, class: "band" })), say("interval"));
  if (known(drawn.expected).length) note(strip("expected"), say("expected"));
  if (known(drawn.limit).length) note(drawn.unit === "count" ? strip("limit")
    : sample(shape("line", { x1: 4, x2: 20, y1: 6, y2: 6, class: "stroke limit" })), say(drawn.unit === "count" ? "limit-count" : "limit-rate"));
  if (alarm) note(sample(shape("path", { d: "M7,2h10l-5,9z", class: "alarm" })), say("alarm"));
  if (signals) note(sample(shape("line", { x1: 12, x2: 12, y1: 1, y2: 11, class: "signal" })), say("signal"));
  return element("ul", "legend", ...items);
}

function figures(drawn, show, what) {
  const names = ["week", "observed", ...(drawn.unit === "rate" || drawn.unit === "index" ? ["tested"] : []),
    ...(drawn.lower?.length ? ["interval"] : []), ...(known(drawn.expected).length ? ["expected"] : []),
    ...(known(drawn.limit).length ? ["limit"] : []), "alarm"];
  const cells = {
    week: (at) => drawn.days[at],
    observed: (at) => show(drawn.value[at]),
    tested: (at) => number(drawn.tested[at]),
    interval: (at) => (drawn.lower[at] === null ? "–" : `${show(drawn.lower[at])} – ${show(drawn.upper[at])}`),
    expected: (at) => show(drawn.expected[at]),
    limit: (at) => show(drawn.limit[at]),
    alarm: (at) => (drawn.alarm?.[at] ? `▼ ${say("alarm")}` : ""),
  };
  const head = element("tr", "", ...names.map((name) => {
    const cell = element("th", "", say(name));
    cell.scope = "col";
    return cell;
  }));
  const table = element("table", "figures", element("caption", "unseen", what), element("thead", "", head));
  const body = element("tbody");
  for (let at = drawn.days.length - 1; at >= 0; at -= 1) {
    const first = element("th", "", drawn.days[at]);
    first.scope = "row";
    body.append(element("tr", "", first, ...names.slice(1).map((name) => element("td", "", cells[name](at)))));
  }
  table.append(body);
  const scroll = element("div", "scroll", table);
  scroll.tabIndex = 0;
  return element("details", "", element("summary", "", say("figures")), scroll);
}
