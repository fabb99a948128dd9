// Pictures of clips: a poster over the strip of its contact sheet. Sheets are made when they are
// first asked for, so few are asked for at once, nearest first, and never one that is out of sight:
// a browser has six connections to a server, and filters must not wait behind pictures.
import { el } from "./dom.js";
import { picture } from "./server.js";

const AT_ONCE = 3;
const MOST = 8; // frames of a sheet
const waiting = new Set();
let loading = 0;

const seen = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) waiting.add(target);
      else waiting.delete(target);
    }
    loadNext();
  },
  { rootMargin: "300px" },
);

function loadNext() {
  for (const image of waiting) {
    if (loading >= AT_ONCE) return;
    waiting.delete(image);
    seen.unobserve(image);
    if (!image.isConnected) continue;
    loading += 1;
    const done = () => {
      loading -= 1;
      loadNext();
    };
    image.addEventListener("load", done, { once: true });
    image.addEventListener("error", done, { once: true });
    image.src = image.dataset.src;
  }
}

/** Return an image that loads `src` when it comes into sight; `missing` hears that there is none. */
export function lazyImage(src, { alt = "", missing = () => {}, loaded = () => {} } = {}) {
  const image = el("img", { alt, decoding: "async" });
  image.dataset.src = src;
  image.addEventListener("load", () => loaded(image), { once: true });
  image.addEventListener("error", () => missing(image), { once: true });
  seen.observe(image);
  return image;
}

/** Forget the pictures in `root`, which leaves the page: what still waits is not asked for. */
export function forget(root) {
  for (const image of root.querySelectorAll("img[data-src]")) {
    waiting.delete(image);
    seen.unobserve(image);
  }
}

/**
 * Return the poster of a clip, one frame, with the whole sheet as a strip below. A pointer that
 * moves over it goes through the frames. It says nothing that is not in the text beside it.
 */
export function poster(videoId, { frames = MOST, strip = true } = {}) {
  const many = Math.max(1, Math.min(MOST, frames || MOST));
  const box = el("div", { class: "poster", "aria-hidden": "true" });
  const missing = () => {
    box.classList.add("gone");
    box.replaceChildren(el("span", {}, "no picture"));
  };
  const loaded = (image) => {
    const window_ = el("div", { class: "poster-frame" }, image);
    const ratio = image.naturalWidth / many / image.naturalHeight;
    window_.style.aspectRatio = String(ratio);
    window_.classList.toggle("upright", ratio < 4 / 3);
    image.style.width = `${many * 100}%`;
    const show = (number) => (image.style.left = `${-number * 100}%`);
    show(Math.floor(many / 2));
    const stage = el("div", { class: "stage" }, window_);
    stage.addEventListener("pointermove", (event) => {
      const edges = stage.getBoundingClientRect();
      const share = (event.clientX - edges.left) / edges.width;
      show(Math.max(0, Math.min(many - 1, Math.floor(share * many))));
    });
    stage.addEventListener("pointerleave", () => show(Math.floor(many / 2)));
    box.replaceChildren(stage);
    if (strip && many > 1) box.append(el("img", { class: "strip", src: image.src, alt: "" }));
    box.classList.add("loaded");
  };
  const src = picture("/api/cache/sheet", { video_id: videoId });
  box.append(lazyImage(src, { missing, loaded }));
  return box;
}
