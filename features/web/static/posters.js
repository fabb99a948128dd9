// Pictures of clips: a poster over the strip of its contact sheet. Sheets are made when they are
// first asked for, so few are asked for at once, nearest first, and never one that is out of sight:
// a browser has six connections to a server, and filters must not wait behind pictures.
import { el } from "./dom.js";
import { picture, pictureBlob } from "./server.js";

const AT_ONCE = 3;
const MOST = 8; // frames of a sheet
const TRIES = 20; // at a picture that is still being made

const waiting = new Set();
const asking = new Map(); // image → AbortController
const jobs = new WeakMap(); // image → what loads it, given a signal
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
    if (!image.isConnected) continue; // it may come back with its view, and is seen again then
    seen.unobserve(image);
    load(image);
  }
}

async function load(image) {
  const control = new AbortController();
  asking.set(image, control);
  loading += 1;
  try {
    await jobs.get(image)(control.signal);
  } finally {
    asking.delete(image);
    loading -= 1;
    loadNext();
  }
}

/** Show a blob in an image; resolves when it is shown, rejects where it is no picture. */
function showBlob(image, blob) {
  const address = URL.createObjectURL(blob);
  return new Promise((resolve, reject) => {
    image.addEventListener("load", resolve, { once: true });
    image.addEventListener("error", () => reject(new Error("no picture")), { once: true });
    image.src = address;
  }).finally(() => URL.revokeObjectURL(address));
}

/** Return what `pictureBlob` does, asked again while the server is still making it. */
async function whenMade(src, signal) {
  for (let left = TRIES; ; left -= 1) {
    const found = await pictureBlob(src, { signal });
    if (found.blob || !found.laterS || !left) return found;
    await new Promise((resolve) => setTimeout(resolve, found.laterS * 1000));
  }
}

/**
 * Return an image that loads `src` when it comes into sight. `missing` hears the reason why there
 * is none, `loaded` the image, how many frames lie in it (0: not told) and the blob.
 */
export function lazyImage(src, { alt = "", missing = () => {}, loaded = () => {} } = {}) {
  const image = el("img", { alt, decoding: "async", class: "pending" });
  jobs.set(image, async (signal) => {
    try {
      const { blob, frames, reason } = await whenMade(src, signal);
      if (!blob) return missing(image, reason);
      await showBlob(image, blob);
      image.classList.remove("pending");
      return loaded(image, frames, blob);
    } catch (error) {
      return error.name === "AbortError" ? null : missing(image, error.what ?? error.message);
    }
  });
  seen.observe(image);
  return image;
}

/** Forget the pictures in `root`, which leaves the page: what still waits is not asked for. */
export function forget(root) {
  for (const image of root.querySelectorAll("img.pending")) {
    waiting.delete(image);
    seen.unobserve(image);
    asking.get(image)?.abort();
  }
}

/**
 * Return the poster of a clip, one frame, with the whole sheet as a strip below. A pointer that
 * moves over it goes through the frames. It says nothing that is not in the text beside it.
 */
export function poster(videoId, { frames = MOST, strip = true } = {}) {
  const box = el("div", { class: strip ? "poster" : "poster bare", "aria-hidden": "true" });
  const missing = (_, reason) => {
    box.classList.add("gone");
    box.title = reason ?? "";
    box.replaceChildren(el("span", {}, "no picture"));
  };
  const loaded = (image, told, blob) => {
    const many = told || Math.max(1, Math.min(MOST, frames || MOST));
    box.replaceChildren(stage(image, many));
    box.classList.add("loaded");
    if (!strip) return;
    const whole = el("img", { class: "strip", alt: "" });
    box.append(whole);
    showBlob(whole, blob).catch(() => whole.remove());
  };
  const src = picture("/api/cache/sheet", { video_id: videoId });
  box.append(lazyImage(src, { missing, loaded }));
  return box;
}

/** Return a frame of a sheet of `many`, the middle one until a pointer says otherwise. */
function stage(image, many) {
  const pane = el("div", { class: "poster-frame" }, image);
  const ratio = image.naturalWidth / many / image.naturalHeight;
  pane.style.aspectRatio = String(ratio);
  pane.classList.toggle("upright", ratio < 4 / 3);
  image.style.width = `${many * 100}%`;
  const show = (number) => (image.style.left = `${-number * 100}%`);
  show(Math.floor(many / 2));
  const node = el("div", { class: "stage" }, pane);
  const move = (event) => {
    const edges = node.getBoundingClientRect();
    const share = (event.clientX - edges.left) / edges.width;
    show(Math.max(0, Math.min(many - 1, Math.floor(share * many))));
  };
  // In a card it is the card that hears the pointer: its link lies over the poster.
  queueMicrotask(() => {
    const listener = node.closest("article") ?? node;
    listener.addEventListener("pointermove", move);
    listener.addEventListener("pointerleave", () => show(Math.floor(many / 2)));
  });
  return node;
}
