// The clips of the cache: a page of contact sheets, filtered and sorted as the address says.
import { announce, button, choice, clipName, count, el, field, heading, seconds, shown, words } from "./dom.js";
import { filterBar } from "./filters.js";
import { pager } from "./pager.js";
import { forget, poster } from "./posters.js";
import { go, link } from "./router.js";
import { errorBox, get } from "./server.js";

const PAGE = 60;
const TYPING_MS = 250;
const TAGS = 3;
// Columns of every catalog.
const OWN = new RegExp("^(status|folder|stage|error_class|message|partial|capped|checked|attempt|"
  + "run_id|time|shard|frames|decode_errors|source_.*)$");

/** Return the columns that came with the clips, and say what they are: labels, a split. */
export function brought(columns) {
  return columns.filter((name) => !OWN.test(name));
}

/** Return the state that the address holds. */
function stateOf(params) {
  return {
    search: params.get("q") ?? "",
    where: params.getAll("where"),
    sort: params.get("sort") ?? "",
    descending: params.get("descending") === "1",
    page: Math.max(1, Number.parseInt(params.get("page") ?? "1", 10) || 1),
  };
}

function addressOf({ search, where, sort, descending, page }) {
  return { q: search, where, sort, descending: descending ? 1 : "", page: page > 1 ? page : "" };
}

export function clipsView(about) {
  const { columns = [], counts = {}, colours = [] } = about.cache;
  let state = stateOf(new URLSearchParams());
  let loaded = null; // the address of what is shown
  let running = new AbortController();

  const change = (part, options) => go("clips", addressOf({ ...state, page: 1, ...part }), options);
  const filters = filterBar(columns, (where) => change({ where }));
  const search = el("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  let typing = 0;
  let typed = ""; // what the address has of it, which may be behind what stands there
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      typed = search.value;
      change({ search: typed }, { replace: true });
    }, TYPING_MS);
  });
  const sort = choice([["", "as listed"], ...columns.map(({ name }) => [name, name])], "",
    (column) => change({ sort: column }));
  const direction = button("", () => change({ descending: !state.descending }), { class: "quiet" });
  const total = el("p", { class: "total soft" });
  const results = el("div", { class: "results" });
  const pages = pager("Pages of clips");

  async function load() {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    results.setAttribute("aria-busy", "true");
    const where = state.search ? [...state.where, `video_id~${state.search}`] : state.where;
    const asked = {
      where, sort: state.sort, descending: state.descending ? 1 : "",
      offset: (state.page - 1) * PAGE, limit: PAGE,
    };
    try {
      const found = await get("/api/cache/videos", asked, { signal });
      showRows(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      total.textContent = "";
      pages.element.hidden = true;
      forget(results);
      results.replaceChildren(errorBox(error));
    }
    results.removeAttribute("aria-busy");
  }

  function showRows({ total: many, rows }) {
    const from = (state.page - 1) * PAGE;
    const filtered = state.search || state.where.length;
    const span = many > rows.length && rows.length
      ? `${count(from + 1)} to ${count(from + rows.length)} of ` : "";
    const said = `${span}${count(many, "clip")}${filtered ? " found" : ""}`;
    total.textContent = said;
    announce(said);
    forget(results);
    results.replaceChildren(rows.length
      ? el("ul", { class: "cards" }, rows.map((row) => el("li", {}, clipCard(row, { colours }))))
      : nothing(filtered));
    pages.show(state.page, Math.ceil(many / PAGE),
      (page) => link("clips", addressOf({ ...state, page })));
  }

  function nothing(filtered) {
    return el("div", { class: "nothing" },
      el("p", {}, filtered ? "No clip is like this." : "There is no clip on this page."),
      button("Show all clips", () => change({ where: [], search: "" })));
  }

  const told = [count(counts.done ?? 0, "clip")];
  if (counts.frames) told.push(count(counts.frames, "frame"));
  if (counts.quarantined) told.push(`${count(counts.quarantined)} in quarantine`);
  const element = el("div", { class: "view" },
    heading("Clips"),
    el("p", { class: "soft" }, told.join(" · ")),
    el("div", { class: "tools" },
      el("div", { class: "search" }, field("Search by name", search)),
      el("div", { class: "sorting" }, field("Sort by", sort), direction)),
    filters.element, total, results, pages.element);

  return {
    title: "Clips",
    element,
    update(params) {
      const address = params.toString();
      if (address === loaded) return false;
      const turned = loaded !== null && stateOf(params).page !== state.page;
      loaded = address;
      state = stateOf(params);
      if (state.search !== typed) search.value = typed = state.search;
      sort.value = state.sort;
      direction.textContent = state.descending ? "↓ largest first" : "↑ smallest first";
      filters.show(state.where);
      load();
      if (turned) {
        scrollTo(0, 0);
        element.querySelector("h1").focus({ preventScroll: true });
      }
      return false;
    },
  };
}

/** Return a clip in a grid: its poster, name and what matters about it. */
export function clipCard(row, { colours = [], more = null } = {}) {
  const held = row.status === "quarantined";
  const facts_ = held
    ? [row.stage && `at ${row.stage}`]
    : [seconds(row.duration_s), row.frames ? count(row.frames, "frame") : ""];
  const tags = brought(colours).filter((name) => shown(row[name]) !== "").slice(0, TAGS);
  return el("article", { class: "clip-card" },
    held ? el("div", { class: "poster held" }, el("span", {}, words(row.error_class || "quarantine")))
      : poster(row.video_id, { frames: row.frames }),
    el("div", { class: "clip-words" },
      el("a", { class: "clip-name", href: link("clip", { video_id: row.video_id }) },
        clipName(row.video_id)),
      el("p", { class: "soft" }, facts_.filter(Boolean).join(" · ")),
      more,
      tags.length ? el("p", { class: "tags" },
        tags.map((name) => el("span", { class: "tag", title: name }, words(shown(row[name]))))) : null));
}
