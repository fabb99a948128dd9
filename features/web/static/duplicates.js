// Pairs of clips that are nearly the same, by the cosine of their features.
import { announce, clipName, count, el, field, heading } from "./dom.js";
import { forget, poster } from "./posters.js";
import { go, link } from "./router.js";
import { errorBox, get } from "./server.js";

const LEAST = 0.999;
const MOST = 100;
const AGAIN_MS = 3000; // after which a search that goes on is looked at again

export function duplicatesView() {
  const least = el("input", {
    type: "number", min: "0.9", max: "1", step: "any", inputmode: "decimal", required: true,
  });
  const form = el("form", { class: "tools" },
    field("Cosine at least", least, { hint: "0.9 to 1, which is the same" }),
    el("button", { class: "main-button" }, "Look"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go("duplicates", { least: least.value });
  });
  const total = el("p", { class: "total soft" });
  const results = el("div", { class: "results" });
  let loaded = null;
  let running = new AbortController();
  let drawn = ""; // what is shown, which is not drawn anew when nothing is new

  function load(value) {
    running.abort();
    running = new AbortController();
    drawn = "";
    total.textContent = "Looking …";
    results.setAttribute("aria-busy", "true");
    find(value, running.signal);
  }

  async function find(value, signal) {
    try {
      const found = await get("/api/cache/duplicates", { least: value, limit: MOST }, { signal });
      show(found);
      if (found.searching) setTimeout(() => signal.aborted || find(value, signal), AGAIN_MS);
    } catch (error) {
      if (error.name === "AbortError") return;
      total.textContent = "";
      results.replaceChildren(errorBox(error));
    }
    results.removeAttribute("aria-busy");
  }

  function show({ pairs, complete, searching, total: all = pairs.length }) {
    const first = all > pairs.length ? `The nearest ${count(pairs.length)} of ` : "";
    const more = searching ? ", still looking" : complete === false ? "; there may be more" : "";
    total.textContent = `${first}${count(all, "pair")}${more}`;
    const told = JSON.stringify(pairs);
    if (told === drawn) return;
    drawn = told;
    announce(total.textContent);
    forget(results);
    results.replaceChildren(pairs.length
      ? el("ul", { class: "pairs" }, pairs.map(({ a, b, cosine }) => el("li", { class: "card pair" },
        half(a), el("span", { class: "pair-cosine" }, el("span", { class: "unseen" }, "cosine "),
          cosine.toFixed(4)), half(b))))
      : el("p", { class: "nothing" },
        searching ? "None so far." : "No two clips are as alike as this."));
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
    el("a", { class: "clip-name", href: link("clip", { video_id: videoId }) }, clipName(videoId)));
}
