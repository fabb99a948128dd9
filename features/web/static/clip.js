// One clip: its frames with their times, what is like it, what is asked about it, or why it is in
// quarantine.
import {
  announce, bar, breakable, button, count, el, facts, heading, seconds, shown, words,
} from "./dom.js";
import { clipCard } from "./clips.js";
import { forget, lazyImage } from "./posters.js";
import { link } from "./router.js";
import { errorBox, get, picture } from "./server.js";

const FRAMES = 48; // that are shown at once
const NEIGHBOURS = 12;
const AGAIN_MS = 3000; // after which the server, still reading the cache, is asked again
// Columns that say how the cache keeps a clip, not what it is.
const INNER = new Set([
  "video_id", "status", "key", "fingerprint", "offset", "length", "record", "shard", "generation",
  "stage", "error_class", "message", "attempt", "run_id", "time", "content_sha256", "uri", "checked",
  "decode_errors", "capped", "size_bytes",
]);

export function clipView(about) {
  const element = el("div", { class: "view" });
  let running = new AbortController();
  let loaded = null;
  const view = { title: "Clip", element, update };

  function update(params) {
    const videoId = params.get("video_id") ?? "";
    view.title = videoId;
    if (videoId === loaded) return false;
    loaded = videoId;
    running.abort();
    running = new AbortController();
    forget(element);
    element.replaceChildren(
      el("p", { class: "crumb" }, el("a", { href: "#/clips" }, "‹ All clips")),
      heading(breakable(videoId)));
    load(videoId, running.signal);
    return true;
  }

  async function load(videoId, signal) {
    try {
      const clip = await get("/api/cache/video", { video_id: videoId }, { signal });
      element.append(...sections(clip, about, signal));
      announce(`${videoId} is shown`);
    } catch (error) {
      if (error.name !== "AbortError") element.append(errorBox(error));
    }
  }

  return view;
}

function sections(clip, about, signal) {
  const { row, frames = [], questions = [], quarantine = null } = clip;
  return [
    quarantine ? quarantineNote(row, quarantine, frames.at(-1)) : summary(row, about),
    clip.damage ? el("p", { class: "note fault" }, words(clip.damage)) : null,
    frames.length ? framesSection(row, frames, clip) : null,
    questions.length ? questionsSection(questions) : null,
    quarantine ? null : neighboursSection(row.video_id, about, signal),
    rowSection(row),
  ].filter(Boolean);
}

function summary(row, about) {
  const told = [
    seconds(row.duration_s), row.frames ? count(row.frames, "frame") : "",
    row.source_width ? `${row.source_width} × ${row.source_height}` : "",
    row.source_codec,
  ];
  return el("div", { class: "summary" },
    el("p", { class: "soft" }, words(told.filter(Boolean).join(" · "))),
    row.message ? el("p", { class: "note" }, words(row.message)) : null,
    about.model ? el("a", { class: "main-button", href: link("ask", { video_id: row.video_id }) },
      about.model.asks === false ? "Classify this clip" : "Ask about this clip") : null);
}

/** Return why a clip is in quarantine, and up to where it was intact. */
function quarantineNote(row, { stage, class: kind, message, last_intact_s }, last) {
  const intact = last_intact_s ?? last?.time_s;
  return el("section", { class: "card held-card" },
    el("h2", {}, "In quarantine: ", el("span", { class: "wrong" }, el("strong", {}, words(kind)))),
    el("p", {}, words(message)),
    facts([
      ["Stage", stage],
      ["Last intact frame", Number.isFinite(intact) ? `at ${seconds(intact)}` : "none is known"],
    ]),
    last ? el("div", { class: "frame" },
      lazyImage(picture("/api/cache/frame", { video_id: row.video_id, index: last.index }),
        { alt: `The last intact frame, at ${seconds(last.time_s)}`,
          missing: (image) => image.remove() })) : null);
}

function framesSection(row, frames, { has_source: hasSource, quarantine }) {
  const list = el("ol", { class: "frames" });
  const more = button("", () => showMore(), { class: "quiet" });
  let shownFrames = 0;
  function showMore() {
    const next = frames.slice(shownFrames, shownFrames + FRAMES);
    list.append(...next.map((frame) => el("li", { class: "frame" },
      hasSource === false ? null : lazyImage(
        picture("/api/cache/frame", { video_id: row.video_id, index: frame.index }),
        { alt: `Frame at ${seconds(frame.time_s)}`, missing: (image) => image.remove() }),
      el("span", { class: "time" }, seconds(frame.time_s)))));
    shownFrames += next.length;
    more.hidden = shownFrames >= frames.length;
    more.textContent = `Show more of ${count(frames.length, "frame")}`;
  }
  showMore();
  return el("section", {},
    el("h2", {}, quarantine ? "Frames that are intact" : "Frames that the network saw"),
    hasSource === false
      ? el("p", { class: "soft" }, "The source video is not there any more: only times are known.")
      : null,
    list, more);
}

function questionsSection(questions) {
  return el("section", {},
    el("h2", {}, "Questions and answers"),
    el("ul", { class: "card questions" }, questions.map((one) => {
      const told = one.prediction !== undefined && one.prediction !== null;
      const right = told && one.prediction === one.answer;
      return el("li", {},
        el("p", { class: "question" }, words(one.question || "What is it?")),
        el("p", {}, el("span", { class: "soft" }, "answer "), el("b", {}, words(shown(one.answer)))),
        told ? el("p", { class: right ? "right" : "wrong" },
          el("strong", {}, right ? "✓ predicted " : "✗ predicted "), words(shown(one.prediction)))
          : null);
    })));
}

/** Return the clips that are nearest to this one, which are looked for when they come into sight. */
function neighboursSection(videoId, about, signal) {
  const body = el("div", { class: "results" }, el("p", { class: "soft" }, "Looking …"));
  const how = el("p", { class: "soft" });
  const section = el("section", { class: "neighbours" },
    el("h2", {}, "Clips like this one"), how, body);
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    find();
  }, { rootMargin: "400px" });
  seen.observe(section);

  async function find() {
    if (signal.aborted) return;
    try {
      const asked = { video_id: videoId, count: NEIGHBOURS };
      const found = await get("/api/cache/neighbours", asked, { signal });
      const among = found.complete === false
        ? `, among the ${count(found.of ?? 0)} clips read so far`
        : found.method === "exact" ? ", of all clips" : ", found by an index";
      how.textContent = `Nearest by the cosine of their features${among}.`;
      forget(body);
      body.replaceChildren(found.neighbours.length
        ? el("ul", { class: "cards small" }, found.neighbours.map((one) =>
          el("li", {}, neighbourCard(one))))
        : el("p", { class: "soft" }, "There is no other clip yet."));
      if (found.complete === false) setTimeout(find, AGAIN_MS);
    } catch (error) {
      body.replaceChildren(errorBox(error));
    }
  }

  return section;
}

function neighbourCard({ video_id, cosine, ...row }) {
  const near = el("p", { class: "cosine" },
    bar(Math.max(cosine, 0)), el("span", { class: "number" }, cosine.toFixed(3)));
  return clipCard({ video_id, ...row }, { more: near });
}

function rowSection(row) {
  const names = Object.keys(row);
  const outer = names.filter((name) => !INNER.has(name));
  const inner = names.filter((name) => INNER.has(name));
  return el("section", {},
    el("h2", {}, "In the catalog"),
    facts(outer.map((name) => [name, row[name]])),
    el("details", {}, el("summary", {}, "How the cache keeps it"),
      facts(inner.map((name) => [name, row[name]]))));
}
