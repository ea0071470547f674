// Speaking to the service: the token goes in a header, and stays in this tab's memory of this session.

const KEY = "tocsin-token";
let token = sessionStorage.getItem(KEY) ?? "";

/** What the service refused, with its status and the kind of problem. */
export class Refused extends Error {
  constructor(status, problem, detail, after) {
    super(detail);
    this.status = status;
    this.problem = problem;
    this.after = after;
  }
}

export const signedIn = () => token !== "";

export function useToken(text) {
  token = text;
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

async function ask(path, options = {}) {
  const headers = { Accept: "application/json", ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(`/v1/board${path}`, {
    ...options, headers, cache: "no-store", credentials: "omit", redirect: "error",
  });
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({}));
  const problem = String(said.type ?? "").split(":").pop();
  throw new Refused(answer.status, problem, String(said.detail ?? answer.status), Number(answer.headers.get("Retry-After")));
}

export const about = () => ask("");
export const news = (since, wait, signal) =>
  ask(`/news?since=${encodeURIComponent(since)}&wait=${wait}`, { signal });
export const detail = (id) => ask(`/alerts/${encodeURIComponent(id)}`);
export const evidence = (id) => ask(`/alerts/${encodeURIComponent(id)}/evidence`);
export const dispose = (id, what) =>
  ask(`/alerts/${encodeURIComponent(id)}/dispositions`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(what),
  });
