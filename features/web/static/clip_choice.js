// Which clip is meant: a file that is dropped or chosen, or a clip of the cache.
import { announce, button, count, el, field, seconds, size, words } from "./dom.js";
import { forget, poster } from "./posters.js";
import { errorBox, get } from "./server.js";

const OFFERED = 6;
const TYPING_MS = 250;

/**
 * Return {element, clip(), choose(clip), describe(row), focus(), canSeek(), seek(time_s)}. A clip
 * is {file} or {videoId, row}, null of none; `changed` hears the one that was chosen.
 */
export function clipChoice({ hasCache, changed }) {
  let clip = null;
  let film = null;
  let address = "";
  const input = el("input", { type: "file", class: "unseen", id: "clip-file", tabindex: "-1",
    accept: "video/*,image/*,.mkv,.avi,.flv,.ts,.mts,.wmv,.mov", "aria-label": "Choose a clip" });
  input.addEventListener("change", () => input.files.length && choose({ file: input.files[0] }));
  const opener = button("Choose a file", () => input.click(), { class: "main-button" });
  const drop = el("div", { class: "drop" },
    el("p", { class: "drop-words" }, "Drop a clip here"), opener, input);
  const shelf = hasCache ? cacheSearch((row) => choose({ videoId: row.video_id, row })) : null;
  const empty = el("div", {}, drop, shelf);
  const chosen = el("div", { class: "chosen", hidden: true });
  const element = el("section", { class: "card clip-choice", "aria-label": "Clip" }, empty, chosen);

  // The whole card takes files, also over one that is there already.
  let depth = 0;
  const over = (step) => (event) => {
    event.preventDefault();
    depth = step === 0 ? 0 : depth + step;
    element.classList.toggle("dropping", depth > 0);
  };
  element.addEventListener("dragenter", over(1));
  element.addEventListener("dragleave", over(-1));
  element.addEventListener("dragover", (event) => event.preventDefault());
  element.addEventListener("drop", (event) => {
    over(0)(event);
    const [file] = event.dataTransfer.files;
    if (file) choose({ file });
  });

  // What is dropped beside it is not to take the page away.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());

  function choose(now) {
    clip = now;
    if (address) URL.revokeObjectURL(address);
    [address, film] = ["", null];
    forget(chosen);
    empty.hidden = clip !== null;
    chosen.hidden = clip === null;
    input.value = "";
    if (clip) {
      show();
      announce(`${nameOf(clip)} is chosen`);
    }
    changed(clip);
  }

  function show() {
    const other = button("Another clip", () => {
      choose(null);
      opener.focus();
    }, { class: "quiet" });
    chosen.replaceChildren(preview(), about(), other);
  }

  function preview() {
    if (!clip.file) return poster(clip.videoId, { frames: clip.row?.frames });
    address = URL.createObjectURL(clip.file);
    const still = clip.file.type.startsWith("image/");
    const shown = still
      ? el("img", { class: "film", src: address, alt: "" })
      : el("video", { class: "film", src: address, controls: true, muted: true, playsinline: true,
        preload: "metadata", "aria-label": "The clip that was chosen" });
    // What the browser cannot play, the server may well decode.
    shown.addEventListener("error", () => shown.replaceWith(
      el("p", { class: "film none soft" }, "This browser cannot play the clip; the server may.")));
    film = still ? null : shown;
    return shown;
  }

  function about() {
    const told = clip.file ? size(clip.file.size)
      : [seconds(clip.row?.duration_s), clip.row?.frames && count(clip.row.frames, "frame")]
        .filter(Boolean).join(" · ");
    return el("p", { class: "chosen-name" }, words(nameOf(clip)), el("span", { class: "soft" }, told));
  }

  return {
    element,
    clip: () => clip,
    choose,
    /** Show what the catalog has of the clip that is chosen. */
    describe(row) {
      clip.row = row;
      show();
    },
    focus: () => opener.focus(),
    /** Whether there is a film that this browser plays. */
    canSeek: () => Boolean(film?.isConnected),
    /** Show the film at a time. */
    seek(time_s) {
      film.pause();
      film.currentTime = time_s;
      film.scrollIntoView({ block: "nearest" });
    },
  };
}

export function nameOf(clip) {
  return clip.file ? clip.file.name : clip.videoId;
}

/** Return a search among the clips of the cache, a button for each that is found. */
function cacheSearch(found) {
  const search = el("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const list = el("ul", { class: "offers" });
  const body = el("details", { class: "shelf" },
    el("summary", {}, "or pick one of the cache"), field("Search by name", search), list);
  let running = new AbortController();
  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(look, TYPING_MS);
  });
  body.addEventListener("toggle", () => {
    if (!body.open) return;
    search.focus();
    if (!list.children.length) look();
  });

  async function look() {
    running.abort();
    running = new AbortController();
    const where = ["status=done", ...(search.value ? [`video_id~${search.value}`] : [])];
    try {
      const asked = { where, limit: OFFERED };
      const { total, rows } = await get("/api/cache/videos", asked, { signal: running.signal });
      forget(list);
      list.replaceChildren(...rows.map((row) => el("li", {},
        el("button", { type: "button", class: "offer", on: { click: () => found(row) } },
          poster(row.video_id, { frames: row.frames, strip: false }),
          el("span", { class: "offer-name" }, words(row.video_id)),
          el("span", { class: "soft" }, seconds(row.duration_s))))));
      announce(`${count(total, "clip")} found`);
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(el("li", {}, errorBox(error)));
    }
  }

  return body;
}
