// Pairs of clips that are nearly the same, by the cosine of their features.
import { announce, count, el, field, heading, words } from "./dom.js";
import { forget, poster } from "./posters.js";
import { go, link } from "./router.js";
import { errorBox, get } from "./server.js";

const LEAST = 0.999;
const MOST = 100;

export function duplicatesView() {
  const least = el("input", {
    type: "number", min: "0", max: "1", step: "any", inputmode: "decimal", required: true,
  });
  const form = el("form", { class: "tools" },
    field("Cosine at least", least, { hint: "1 is the same to the last digit" }),
    el("button", { class: "main-button" }, "Look"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go("duplicates", { least: least.value });
  });
  const total = el("p", { class: "total soft" });
  const results = el("div", { class: "results" });
  let loaded = null;
  let running = new AbortController();

  async function load(value) {
    running.abort();
    running = new AbortController();
    total.textContent = "Looking …";
    results.setAttribute("aria-busy", "true");
    try {
      const asked = { least: value, limit: MOST };
      show(await get("/api/cache/duplicates", asked, { signal: running.signal }));
    } catch (error) {
      if (error.name === "AbortError") return;
      total.textContent = "";
      results.replaceChildren(errorBox(error));
    }
    results.removeAttribute("aria-busy");
  }

  function show({ pairs, complete }) {
    total.textContent = complete === false
      ? `The first ${count(pairs.length, "pair")}; there may be more`
      : count(pairs.length, "pair");
    announce(total.textContent);
    forget(results);
    results.replaceChildren(pairs.length
      ? el("ul", { class: "pairs" }, pairs.map(({ a, b, cosine }) => el("li", { class: "card pair" },
        half(a), el("span", { class: "pair-cosine" }, el("span", { class: "unseen" }, "cosine "),
          cosine.toFixed(4)), half(b))))
      : el("p", { class: "nothing" }, "No two clips are as alike as this."));
  }

  const element = el("div", { class: "view" },
    heading("Near duplicates"),
    el("p", {}, "Clips of one source should lie on one side of a split: ",
      "a model that is judged on what it has seen looks better than it is."),
    form, total, results);
  return {
    title: "Duplicates",
    element,
    update(params) {
      const value = params.get("least") ?? String(LEAST);
      if (value === loaded) return false;
      loaded = value;
      least.value = value;
      load(value);
      return false;
    },
  };
}

function half(videoId) {
  return el("div", { class: "half" }, poster(videoId),
    el("a", { class: "clip-name", href: link("clip", { video_id: videoId }) }, words(videoId)));
}
