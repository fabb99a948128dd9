// What could not be used, and why: class, stage, message.
import { announce, choice, count, el, field, heading, words } from "./dom.js";
import { pager } from "./pager.js";
import { go, link } from "./router.js";
import { errorBox, get } from "./server.js";

const PAGE = 60;

export function quarantineView(about) {
  const { columns = [], counts = {} } = about.cache;
  const classes = columns.find(({ name }) => name === "error_class")?.values ?? [];
  const kinds = choice(
    [["", "all classes"], ...classes.filter(Boolean).map((kind) => [kind, kind])], "",
    (kind) => go("quarantine", { class: kind }));
  const total = el("p", { class: "total soft" });
  const results = el("div", { class: "results" });
  const pages = pager("Pages of the quarantine");
  let loaded = null;
  let running = new AbortController();

  async function load(kind, page) {
    running.abort();
    running = new AbortController();
    const where = ["status=quarantined", ...(kind ? [`error_class=${kind}`] : [])];
    const asked = { where, offset: (page - 1) * PAGE, limit: PAGE };
    try {
      const found = await get("/api/cache/videos", asked, { signal: running.signal });
      show(found, kind, page);
    } catch (error) {
      if (error.name !== "AbortError") results.replaceChildren(errorBox(error));
    }
  }

  function show({ total: many, rows }, kind, page) {
    total.textContent = `${count(many, "clip")} in quarantine`;
    announce(total.textContent);
    results.replaceChildren(many ? el("ul", { class: "card held-list" }, rows.map(heldRow))
      : el("p", { class: "nothing" }, kind ? "None of this class." : "Every clip could be used."));
    pages.show(page, Math.ceil(many / PAGE),
      (other) => link("quarantine", { class: kind, page: other > 1 ? other : "" }));
  }

  const element = el("div", { class: "view" },
    heading("Quarantine"),
    el("p", {}, "Clips that could not be used. None of their frames is in the cache; the next ",
      el("code", {}, "framebank extract"), " tries those again that have changed."),
    counts.quarantined ? el("div", { class: "tools" }, field("Class", kinds)) : null,
    total, results, pages.element);
  return {
    title: "Quarantine",
    element,
    update(params) {
      if (params.toString() === loaded) return false;
      loaded = params.toString();
      kinds.value = params.get("class") ?? "";
      load(kinds.value, Math.max(1, Number.parseInt(params.get("page") ?? "1", 10) || 1));
      return false;
    },
  };
}

function heldRow(row) {
  return el("li", {},
    el("a", { class: "clip-name", href: link("clip", { video_id: row.video_id }) },
      words(row.video_id)),
    el("p", {}, el("span", { class: "tag wrong" }, words(row.error_class || row.class || "")),
      row.stage ? el("span", { class: "soft" }, ` at ${row.stage}`) : null),
    el("p", { class: "soft" }, words(row.message ?? "")));
}
