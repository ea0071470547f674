// The board: it asks for news and waits, takes them over, and says aloud what is new.

import * as list from "./alerts.js";
import * as detail from "./detail.js";
import { by, element } from "./dom.js";
import * as matrix from "./matrix.js";
import * as server from "./server.js";
import { language, pick, say, switchLanguage } from "./text.js";

const WAIT = 25;
const LEAST_PAUSE = 300;
const SAID_AT_ONCE = 3;
const MOST_LINES = 20;

let me = null;
let alerts = new Map();
let version = "";
let leftOut = 0;
let where = "connecting";
let followed = false;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const standing = () => [...alerts.values()].filter((alert) => alert.status !== "resolved");

// --- words ------------------------------------------------------------------------------------------------------------

function words() {
  document.documentElement.lang = language();
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = say(one.dataset.text);
  by("language").textContent = say("other");
  by("language").lang = language() === "en" ? "zh-CN" : "en";
  by("search").placeholder = say("search-hint");
  by("legend").textContent = say("legend");
  tellState(where);
}

function tellState(name) {
  where = name;
  by("state").className = name;
  if (by("state").textContent !== say(name)) by("state").textContent = say(name); // else it would be read aloud again
  const who = me?.secured ? say("sign-out", { who: me.organisation }) : "";
  by("who").hidden = !who;
  by("who").textContent = who;
}

function notice(text) {
  by("notice").textContent = text;
  by("notice").hidden = !text;
}

/** Say aloud, to those who do not see it, what has changed. */
function announce(lines) {
  const said = lines.slice(0, SAID_AT_ONCE);
  if (lines.length > said.length) said.push(say("and-more", { n: lines.length - said.length }));
  by("live").append(...said.map((line) => element("p", "", line)));
  while (by("live").children.length > MOST_LINES) by("live").firstChild.remove();
}

// --- news -------------------------------------------------------------------------------------------------------------

function take(news) {
  const first = version === "";
  const before = alerts;
  const changed = news.rows.filter((row) => JSON.stringify(before.get(row.id)) !== JSON.stringify(row));
  alerts = news.whole ? new Map() : new Map(before);
  for (const row of news.rows) alerts.set(row.id, row);
  version = news.version;
  leftOut = news.left_out;
  followed ||= news.following;
  tellState(news.following ? "live" : followed ? "not-following" : "connecting");
  const fresh = new Set(first ? [] : changed.filter((row) => !before.has(row.id)).map((row) => row.id));
  if (news.whole) matrix.build(me.axes, standing(), choose);
  else matrix.update(changed);
  show(fresh);
  if (!first) announce(changed.map((row) => line(before.get(row.id), row)).filter(Boolean));
  if (changed.some((row) => row.id === detail.shownId())) detail.refresh(detail.shownId());
}

function line(was, row) {
  if (was?.revision === row.revision) return "";
  const name = { opened: "new-alert", raised: "raised-alert", acknowledged: "acknowledged-alert", resolved: "resolved-alert" }[row.status];
  return name && (was || row.status !== "resolved") ? say(name, { grade: row.grade, what: pick(row.headline) }) : "";
}

function show(fresh = new Set()) {
  list.list(alerts, fresh, openAlert);
  notice(leftOut ? say("left-out", { n: leftOut }) : "");
  const grave = standing().filter((alert) => alert.level <= 2 && !alert.by).length;
  document.title = `${grave ? `(${grave}) ` : ""}${say("title")} · Tocsin`;
}

async function follow() {
  let wait = 0;
  let failures = 0;
  for (;;) {
    const began = Date.now();
    try {
      if (!me) me = await server.about();
      take(await server.news(version, wait));
      wait = WAIT;
      failures = 0;
    } catch (error) {
      if (error.status === 401) {
        await signIn();
        continue;
      }
      if (error.status === 403) {
        notice(say("no-read"));
        await signIn();
        continue;
      }
      failures += 1;
      tellState("lost");
      await pause(1000 * (error.after || Math.min(failures, 10)));
    }
    await pause(Math.max(0, LEAST_PAUSE - (Date.now() - began)));
  }
}

// --- signing in -------------------------------------------------------------------------------------------------------

/** Nothing is left on the page of what a token, that holds no more, had let it see. */
function forget() {
  server.useToken("");
  alerts = new Map();
  if (me) matrix.build({ products: [], regions: [] }, [], choose);
  me = null;
  version = "";
  if (detail.shownId()) detail.close();
  by("detail-body").replaceChildren();
  by("live").replaceChildren();
  show();
}

function signIn() {
  const dialog = by("sign-in");
  const wrong = dialog.querySelector(".wrong");
  wrong.textContent = say("wrong-token");
  wrong.hidden = !server.signedIn();
  forget();
  by("token").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.oncancel = (event) => event.preventDefault();
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      server.useToken(by("token").value.trim());
      by("token").value = "";
      notice("");
      dialog.close();
      resolve();
    };
  });
}

by("who").addEventListener("click", () => {
  server.useToken("");
  location.reload();
});

// --- moving about -----------------------------------------------------------------------------------------------------

function openAlert(id, focus = true) {
  document.querySelector("main").className = "open";
  list.choose(id);
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  detail.open(id, focus);
  const alert = alerts.get(id);
  if (alert) matrix.reveal(alert.product, alert.region);
}

function choose(product, region, mine) {
  const [one] = mine;
  list.bind(product, region, `${pick(one.product_name)}, ${pick(one.region_name)}`);
  show();
  openAlert(mine.toSorted((a, b) => a.level - b.level)[0].id);
}

detail.start(() => me?.roles.includes("dispose") ?? false, () => {
  const last = decodeURIComponent(location.hash.slice(1));
  document.querySelector("main").className = "";
  history.replaceState(null, "", location.pathname + location.search);
  list.choose("");
  const from = [...document.querySelectorAll("#alerts button.open")].find((one) => one.dataset.id === last);
  (from ?? by("alerts-title")).focus();
});
by("filter").querySelector("button").addEventListener("click", () => {
  list.bind();
  show();
  by("alerts-title").focus();
});
by("more").addEventListener("click", () => {
  list.longer();
  show();
});
by("language").addEventListener("click", () => {
  switchLanguage();
  words();
  list.redraw();
  if (me) matrix.build(me.axes, standing(), choose);
  list.bind();
  show();
  detail.redraw();
});
addEventListener("hashchange", () => location.hash && openAlert(decodeURIComponent(location.hash.slice(1))));
setInterval(() => {
  list.redraw();
  show();
}, 60000); // what is due becomes overdue

words();
follow();
const asked = decodeURIComponent(location.hash.slice(1));
if (asked) {
  const ready = setInterval(() => {
    if (!version) return;
    clearInterval(ready);
    openAlert(asked);
  }, 100);
}
