// What the page asks of the server that it came from, and what goes wrong, in words.
import { el, words } from "./dom.js";

/** What the server refused: as its errors say it, `what`, `got`, `expected`, `todo`. */
export class ServerError extends Error {
  constructor(what, { kind = "", got = "", expected = "", todo = "", status = 0 } = {}) {
    super(what);
    Object.assign(this, { what, kind, got, expected, todo, status });
  }
}

const SILENT = () =>
  new ServerError("The server does not answer", {
    todo: "look whether the command that opened this page still runs, and start it again",
  });

// A server that will not have a clip may hang up before it has all of it.
const CUT_OFF = () =>
  new ServerError("The server stopped taking the clip before its end", {
    todo: "try a smaller clip, or look whether the command that opened this page still runs",
  });

function refusal(status, text, retryAfter) {
  let told = null;
  try {
    told = JSON.parse(text);
  } catch {
    // Not JSON: the status has to do.
  }
  const error = told?.error;
  if (error?.message) {
    const { message, class: kind, got, expected, todo } = error;
    return new ServerError(message, { kind, got, expected, todo: todo ?? later(retryAfter), status });
  }
  if (status === 401 || status === 403) {
    return new ServerError("This server wants its token", { status, todo: "open /login?token=…" });
  }
  if (status === 413) {
    return new ServerError("The clip is larger than this server takes", { status });
  }
  if (status === 429 || status === 503) {
    return new ServerError("The server is busy", { status, todo: later(retryAfter) });
  }
  const detail = typeof told?.detail === "string" ? told.detail : "";
  return new ServerError("The server could not do this", {
    status, got: detail || `HTTP status ${status}`,
  });
}

const later = (retryAfter) => (retryAfter ? `ask again in ${retryAfter} s` : "");

function address(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  return query.size ? `${path}?${query}` : path;
}

/** Return the address of a picture. */
export const picture = (path, params) => address(path, params);

/**
 * Return {blob, frames} of a picture, where the server says how many frames lie side by side in it;
 * else {reason}, and {laterS} where it is still being made.
 */
export async function pictureBlob(src, { signal = null } = {}) {
  let response;
  try {
    response = await fetch(src, { signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : SILENT();
  }
  if (response.ok) {
    const frames = Number.parseInt(response.headers.get("X-Sheet-Frames") ?? "0", 10) || 0;
    return { blob: await response.blob(), frames };
  }
  const wait = response.headers.get("Retry-After");
  const error = refusal(response.status, await response.text(), wait);
  const pending = response.status === 503 || response.status === 429;
  return { reason: error.what, laterS: pending ? Math.min(Number(wait) || 1, 10) : 0 };
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : SILENT();
  }
  const text = await response.text();
  if (!response.ok) throw refusal(response.status, text, response.headers.get("Retry-After"));
  return JSON.parse(text);
}

/** Return the JSON of a route; raises ServerError, and AbortError where `signal` says so. */
export function get(path, params = {}, { signal = null } = {}) {
  return answered(address(path, params), { signal, headers: { Accept: "application/json" } });
}

export function post(path, body, { signal = null } = {}) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  return answered(path, { method: "POST", signal, headers, body: JSON.stringify(body) });
}

/**
 * Send a form with a file. `progress` hears the share that has left, from 0 to 1: `fetch` tells
 * nothing of that, XMLHttpRequest does.
 */
export function upload(path, form, { signal = null, progress = () => {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    let sent = false;
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.upload.addEventListener("load", () => {
      sent = true;
      progress(1);
    });
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) {
        resolve(JSON.parse(request.responseText));
      } else {
        const again = request.getResponseHeader("Retry-After");
        reject(refusal(request.status, request.responseText, again));
      }
    });
    request.addEventListener("error", () => reject(sent ? SILENT() : CUT_OFF()));
    request.addEventListener("abort", () => reject(new DOMException("stopped", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** Return what is shown in place of what could not be had; nothing of what was stopped. */
export function errorBox(error) {
  if (error.name === "AbortError") return document.createDocumentFragment();
  const lines = error instanceof ServerError
    ? [["Got", error.got], ["Expected", error.expected], ["To do", error.todo]]
    : [["Got", error.stack ?? String(error)], ["To do", "reload the page; if it stays, report it"]];
  const what = error instanceof ServerError ? error.what : "The page met a fault of its own";
  return el("div", { class: "note fault", role: "alert" },
    el("strong", {}, words(what)),
    lines.filter(([, text]) => text).map(([name, text]) =>
      el("p", {}, el("span", { class: "soft" }, `${name}: `), words(text))));
}
