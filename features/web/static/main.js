// Opens the page: asks the server what it has, and shows the view that the address names.
import { announce, el, words } from "./dom.js";
import { errorBox, get } from "./server.js";
import { place } from "./router.js";
import { askView } from "./ask.js";
import { clipsView } from "./clips.js";
import { clipView } from "./clip.js";
import { quarantineView } from "./quarantine.js";
import { duplicatesView } from "./duplicates.js";
import { mapView } from "./map.js";
import { runsView } from "./runs.js";

// A view is made once, of what the server has, and keeps what it shows while others are looked at:
// {title, element, update(params)}, where `update` may change the title.
const VIEWS = {
  ask: { label: "Ask", make: askView, needs: "model" },
  clips: { label: "Clips", make: clipsView, needs: "cache" },
  clip: { label: "", make: clipView, needs: "cache", under: "clips" },
  map: { label: "Map", make: mapView, needs: "cache" },
  duplicates: { label: "Duplicates", make: duplicatesView, needs: "cache" },
  quarantine: { label: "Quarantine", make: quarantineView, needs: "cache" },
  runs: { label: "Runs", make: runsView, needs: "cache" },
};
const main = document.getElementById("main");
const made = {};
const scrolls = {};
let shown = "";
let shownHash = "";

/** Return what the server has; of its cache what it tells too. */
async function ask() {
  const about = await get("/api/about");
  if (about.cache) about.cache = { ...about.cache, ...(await get("/api/cache/about")) };
  return about;
}

function tellAbout(about) {
  const model = about.model && [about.model.name, about.model.version].filter(Boolean).join(" · ");
  const told = model || about.cache?.address || "";
  document.getElementById("about").replaceChildren(words(told, { title: told }));
}

function buildNavigation(about) {
  document.getElementById("nav").replaceChildren(
    ...Object.entries(VIEWS)
      .filter(([, view]) => view.label && about[view.needs])
      .map(([name, view]) => el("a", { href: `#/${name}`, "data-view": name }, view.label)),
  );
}

function show(about, { first = false } = {}) {
  let { name, params } = place();
  if (!VIEWS[name] || !about[VIEWS[name].needs]) name = about.model ? "ask" : "clips";
  scrolls[shownHash] = scrollY;
  shownHash = location.hash;
  const view = (made[name] ??= VIEWS[name].make(about));
  const moved = name !== shown;
  const changed = view.update(params);
  document.title = `${view.title} – ${about.title || "Framebank"}`;
  if (!moved && !changed) return;
  shown = name;
  for (const one of document.querySelectorAll("#nav a")) {
    const here = one.dataset.view === (VIEWS[name].under ?? name);
    if (here) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  main.replaceChildren(view.element);
  if (first) return;
  scrollTo(0, scrolls[shownHash] ?? 0);
  view.element.querySelector("h1")?.focus({ preventScroll: true });
}

/** A server that wants its token is told it once, and sets a cookie. */
function tokenForm() {
  const token = el("input", { name: "token", id: "token", required: true, autocomplete: "off",
    spellcheck: "false" });
  return el("form", { action: "/login", method: "get", class: "card token" },
    el("label", { for: "token" }, "The server's token"), token,
    el("button", { class: "main-button" }, "Open"));
}

async function open() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the view
    main.focus();
  });
  let about;
  try {
    about = await ask();
  } catch (error) {
    main.replaceChildren(el("h1", {}, "Framebank"), errorBox(error));
    if (error.status === 401 || error.status === 403) main.append(tokenForm());
    return;
  }
  tellAbout(about);
  if (!about.model && !about.cache) {
    main.replaceChildren(el("h1", {}, "Framebank"),
      el("p", {}, "This server has neither a model nor a cache to show."));
    return;
  }
  buildNavigation(about);
  show(about, { first: true });
  addEventListener("hashchange", () => show(about));
  announce("");
}

history.scrollRestoration = "manual";
open();
