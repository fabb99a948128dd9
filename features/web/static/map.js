// The clips as points of a plane: those that are alike lie together. Beside it the same as a table.
import { announce, button, choice, clipName, count, el, field, heading, words } from "./dom.js";
import { brought } from "./clips.js";
import { poster } from "./posters.js";
import { go, link } from "./router.js";
import { mark, scatter } from "./scatter.js";
import { errorBox, get } from "./server.js";

const TABLE_ROWS = 50;
const AGAIN_MS = 4000; // after which a cache that is still being read is looked at again
const METHODS = { pca: "PCA: the two directions in which the clips differ most", umap: "UMAP" };
const SHAPES = ["round", "square", "pointed"];

export function mapView(about) {
  const { colours = [], counts = {} } = about.cache;
  let found = { points: [], video_ids: [], groups: [] };
  let hidden = new Set();
  let running = new AbortController();
  let loaded = null;

  const colour = choice([["", "nothing"], ...colours.map((name) => [name, name])], "",
    (name) => go("map", { colour: name || "none" }));
  const canvas = el("canvas", {
    tabindex: "0", role: "application", "aria-roledescription": "map of clips",
    "aria-label": "Clips as points. Arrow keys go from clip to clip, Enter opens one.",
  });
  const card = el("div", { class: "map-card card", hidden: true });
  const stage = el("div", { class: "map-stage" }, canvas, card);
  const legend = el("ul", { class: "legend", "aria-label": "Groups that are shown" });
  const about_ = el("p", { class: "soft" });
  const trouble = el("div");
  const tableBody = el("div");
  const table = el("details", { class: "map-table" }, el("summary", {}, "The same as a table"),
    tableBody);
  table.addEventListener("toggle", () => table.open && showTable(0));

  const plot = scatter(canvas, { selected: showCard, opened: (number) => open(number) });

  const open = (number) => go("clip", { video_id: found.video_ids[number] });

  let carded = null;
  function showCard(number, at) {
    card.hidden = number === null || !at;
    if (card.hidden) {
      carded = null;
      return;
    }
    const videoId = found.video_ids[number];
    const group = found.groups[found.points[number][2]];
    if (carded !== number) {
      carded = number;
      card.replaceChildren(poster(videoId, { strip: false }),
        el("a", { class: "clip-name", href: link("clip", { video_id: videoId }) }, clipName(videoId)),
        group === undefined ? null : el("p", { class: "soft" }, words(group)));
      announce(group === undefined ? videoId : `${videoId}, ${group}`);
    }
    // Beside the point, on the side where there is room.
    const { clientWidth: width, clientHeight: height } = stage;
    const left = at[0] > width / 2 ? at[0] - card.offsetWidth - 16 : at[0] + 16;
    const top = Math.min(Math.max(at[1] - 60, 8), height - card.offsetHeight - 8);
    card.style.left = `${Math.max(8, Math.min(left, width - card.offsetWidth - 8))}px`;
    card.style.top = `${Math.max(8, top)}px`;
  }

  function showLegend() {
    const many = found.groups.map(() => 0);
    for (const [, , group] of found.points) many[group] += 1;
    legend.hidden = found.groups.length < 2;
    legend.replaceChildren(...found.groups.map((name, group) => {
      const { colour: number, shape } = mark(group);
      const toggle = el("button", {
        type: "button", class: "legend-entry", "aria-pressed": String(!hidden.has(group)),
        on: { click: () => {
          if (!hidden.delete(group)) hidden.add(group);
          toggle.setAttribute("aria-pressed", String(!hidden.has(group)));
          plot.hide(hidden);
        } },
      }, el("span", { class: `swatch ${SHAPES[shape]} g${number}`, "aria-hidden": "true" }),
      words(name === "" ? "none" : name), el("span", { class: "soft" }, ` ${count(many[group])}`));
      return el("li", {}, toggle);
    }));
  }

  function showTable(page) {
    const from = page * TABLE_ROWS;
    const numbers = found.video_ids.map((_, number) => number).slice(from, from + TABLE_ROWS);
    const grouped = found.groups.length > 0;
    const to = (other, label, off) =>
      el("button", { type: "button", class: "quiet", disabled: off, on: { click: () => showTable(other) } }, label);
    tableBody.replaceChildren(
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Clips of the map" },
        el("table", { class: "plain" },
          el("thead", {}, el("tr", {}, ["Clip", grouped ? "Group" : null, "x", "y"].filter(Boolean)
            .map((name) => el("th", { scope: "col" }, name)))),
          el("tbody", {}, numbers.map((number) => {
            const [x, y, group] = found.points[number];
            const videoId = found.video_ids[number];
            return el("tr", {},
              el("td", {}, el("a", { href: link("clip", { video_id: videoId }) }, words(videoId))),
              grouped ? el("td", {}, words(found.groups[group] ?? "")) : null,
              el("td", { class: "number" }, x.toPrecision(3)),
              el("td", { class: "number" }, y.toPrecision(3)));
          })))),
      el("div", { class: "pager" },
        to(page - 1, "‹ Earlier", page === 0),
        el("span", {}, `${count(Math.min(from + 1, found.video_ids.length))} to ${count(from + numbers.length)} of ${count(found.video_ids.length)}`),
        to(page + 1, "Later ›", from + TABLE_ROWS >= found.video_ids.length)));
  }

  async function load(name) {
    running.abort();
    running = new AbortController();
    about_.textContent = "Laying out the clips …";
    trouble.replaceChildren();
    stage.setAttribute("aria-busy", "true");
    try {
      found = await get("/api/cache/map", { colour: name }, { signal: running.signal });
    } catch (error) {
      if (error.name === "AbortError") return;
      about_.textContent = "";
      trouble.replaceChildren(errorBox(error));
      return;
    } finally {
      stage.removeAttribute("aria-busy");
    }
    hidden = new Set();
    card.hidden = true;
    plot.hide(hidden);
    plot.show(found.points);
    showLegend();
    const drawn = found.of > found.points.length
      ? `${count(found.points.length)} of ${count(found.of)} clips, drawn at random`
      : count(found.points.length, "clip");
    about_.textContent = `${drawn} · ${METHODS[found.method] ?? found.method}`;
    announce(drawn);
    if (table.open) showTable(0);
    if (found.complete === false) {
      about_.textContent += " · still reading the cache";
      const { signal } = running;
      setTimeout(() => signal.aborted || load(name), AGAIN_MS);
    }
  }

  const element = el("div", { class: "view" },
    heading("Map"),
    el("p", {}, "Clips that look and move alike lie together.",
      about.cache.random_weights ? " The network has random weights, so it means little here." : ""),
    el("div", { class: "tools" }, field("Colour by", colour),
      el("div", { class: "row" },
        button("−", () => plot.zoom(0.5), { class: "quiet round", "aria-label": "Zoom out" }),
        button("+", () => plot.zoom(2), { class: "quiet round", "aria-label": "Zoom in" }),
        button("Whole map", () => plot.whole(), { class: "quiet" }))),
    trouble, legend, stage, about_, table);
  return {
    title: "Map",
    element,
    update(params) {
      const wanted = params.get("colour") ?? brought(colours)[0] ?? colours[0] ?? "";
      const name = colours.includes(wanted) ? wanted : "";
      if (name === loaded) return false;
      loaded = name;
      colour.value = name;
      if (counts.done !== 0) load(name);
      else about_.textContent = "There is no clip to lay out yet.";
      return false;
    },
  };
}
