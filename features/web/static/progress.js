// How far an answer is: sending a clip can be measured, decoding it cannot.
import { announce, button, el } from "./dom.js";

/** Return {element, sent(share), end()}: how far an answer is, and a button that gives it up. */
export function progressBox(uploads, stop) {
  const started = performance.now();
  const said = el("p", { class: "stage-words" });
  const line = el("progress", { max: "1", "aria-label": "Progress" });
  const element = el("div", { class: "progress" }, said, line, button("Stop", stop, { class: "quiet" }));
  let text = "";
  const tell = (now) => {
    text = now;
    said.textContent = now;
    announce(now);
  };
  tell(uploads ? "Sending the clip" : "Looking at the frames");
  if (uploads) line.value = 0;
  const clock = setInterval(() => {
    const spent = Math.round((performance.now() - started) / 1000);
    if (spent >= 2) said.textContent = `${text} · ${spent} s`;
  }, 1000);
  return {
    element,
    end: () => clearInterval(clock),
    sent(share) {
      if (share < 1) line.value = share;
      else if (line.hasAttribute("value")) {
        line.removeAttribute("value"); // how long decoding takes nobody knows
        tell("Decoding it and looking at the frames");
      }
    },
  };
}
