// The frames that the model saw, each with what the answer loses without it.
import { announce, bar, button, el, percent, seconds, words } from "./dom.js";
import { lazyImage } from "./posters.js";
import { errorBox, picture } from "./server.js";

/**
 * Return a section that asks `explain()` when it comes into sight and shows its frames. `seek`
 * shows the clip at a time, where there is a film; `videoId` is that of a clip of the cache.
 */
export function frameWeights({ explain, seek, videoId = null }) {
  const body = el("div", {}, el("p", { class: "soft waiting" }, "Leaving out each frame in turn …"));
  const section = el("section", { class: "weights", "aria-label": "Frames and their weight" },
    el("h2", {}, "What the answer leans on"), body);
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    load();
  });
  seen.observe(section);

  async function load() {
    try {
      const told = await explain();
      body.replaceChildren(...parts(told, { seek, videoId }));
      announce("The frames and their weights are shown");
    } catch (error) {
      const again = button("Try again", () => {
        body.replaceChildren(el("p", { class: "soft" }, "Leaving out each frame in turn …"));
        load();
      }, { class: "quiet" });
      body.replaceChildren(errorBox(error), again);
    }
  }

  return section;
}

function parts({ answer, number: counted, frames = [], pictures = [] }, { seek, videoId }) {
  if (!frames.length) return [el("p", { class: "soft" }, "There is no frame to leave out.")];
  const most = Math.max(...frames.map(({ weight }) => Math.abs(weight)), 1e-9);
  const isCount = Number.isFinite(counted);
  const best = frames.reduce((one, other) => (other.weight > one.weight ? other : one));
  const about = el("p", { class: "soft" },
    isCount ? "How much lower the number is" : ["How much of the probability of ",
      el("b", {}, words(answer ?? "the answer")), " is lost"],
    " when a frame is left out. ",
    best.weight > 0 ? `Most of all the frame at ${seconds(best.time_s)}.`
      : "No frame matters alone.");
  const list = el("ol", { class: "frames weighed" }, frames.map((frame, number) =>
    el("li", { class: frame === best && best.weight > 0 ? "frame best" : "frame" },
      still(frame, pictures[number], videoId, number),
      bar(Math.abs(frame.weight) / most, { negative: frame.weight < 0 }),
      el("span", { class: "frame-words" },
        time(frame, seek), el("span", { class: "number" }, signed(frame.weight, isCount))))));
  return [about, list];
}

function still(frame, address, videoId, row) {
  const alt = `Frame at ${seconds(frame.time_s)}`;
  if (address) {
    // Only what the server made: a picture that the policy lets in.
    return /^data:image\/(jpeg|png);base64,/.test(address) ? el("img", { src: address, alt }) : none();
  }
  if (!videoId) return none();
  return lazyImage(picture("/api/cache/frame", { video_id: videoId, index: row }), {
    alt, missing: (image) => image.replaceWith(none()),
  });
}

const none = () => el("span", { class: "no-picture" }, "no picture");

function time(frame, seek) {
  const told = seconds(frame.time_s);
  if (!seek) return el("span", { class: "time" }, told);
  return button(told, () => seek(frame.time_s), {
    class: "time seek", "aria-label": `Show the clip at ${told}`,
  });
}

function signed(weight, isCount) {
  if (isCount) return `${weight < 0 ? "+" : "−"}${Math.abs(weight).toFixed(2)}`;
  if (Math.abs(weight) < 0.0005) return "0 %";
  const share = percent(Math.abs(weight)).replace("< ", "");
  return `${weight < 0 ? "+" : "−"}${share}`;
}
