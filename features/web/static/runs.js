// How the cache came to be: its spec, and the runs that filled it.
import { count, el, facts, heading, shown, words } from "./dom.js";

const OUTER = ["run", "ended", "state", "videos", "seconds"];

export function runsView(about) {
  const { address, fingerprint, spec = {}, counts = {}, runs = [] } = about.cache;
  const element = el("div", { class: "view" },
    heading("Runs and spec"),
    el("p", { class: "soft" }, words(address)),
    about.cache.random_weights ? el("p", { class: "note" },
      "The network has random weights: it has never been trained, and its features mean little.") : null,
    el("section", { class: "tiles" }, Object.entries(counts).map(([name, many]) =>
      el("div", { class: "card tile" }, el("b", {}, count(many)), el("span", {}, words(name))))),
    el("section", {}, el("h2", {}, "Spec"),
      el("p", {}, "What every feature in here was made with. Features of another spec are refused."),
      el("div", { class: "card" },
        facts([...Object.entries(spec), ["fingerprint", fingerprint]]))),
    el("section", {}, el("h2", {}, "Runs"),
      runs.length ? el("div", { class: "runs" }, runs.map(runCard))
        : el("p", { class: "soft" }, "No run has ended yet.")));
  return { title: "Runs and spec", element, update: () => false };
}

function runCard(run) {
  const { counts = {}, ...rest } = run;
  const outer = OUTER.filter((name) => name in rest && name !== "run");
  const inner = Object.keys(rest).filter((name) => !OUTER.includes(name));
  const told = Object.entries(counts ?? {}).map(([name, many]) => [name, shown(many)]);
  return el("article", { class: "card" },
    el("h3", {}, words(shown(run.run))),
    facts([...outer.map((name) => [name, rest[name]]), ...told]),
    inner.length ? el("details", {}, el("summary", {}, "All that it noted"),
      facts(inner.map((name) => [name, rest[name]]))) : null);
}
