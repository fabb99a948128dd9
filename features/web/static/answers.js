// What a model answered: the answers with bars and percentages, a number, or segments of time.
import { bar, count, el, percent, seconds, words } from "./dom.js";

/** Return what stands there before anything was asked. */
export function waitingWords(asks) {
  return el("div", { class: "nothing" },
    el("p", {}, asks ? "Choose a clip and ask: the answer comes here."
      : "Choose a clip: what it shows comes here."));
}

/**
 * Return the parts of an answer: `one` of those that the server `told`, whose answers are `rows`,
 * to a `question`, "" of a model that is asked nothing.
 */
export function answerParts(one, rows, told, question) {
  const [first] = rows;
  if (!first) return [el("p", { class: "soft" }, "The model found nothing to say.")];
  const counted = first.number !== undefined && first.number !== null;
  const video = told.video ?? {};
  const parts = [
    question ? el("p", { class: "soft asked-question" }, words(question)) : null,
    el("p", { class: "headline" }, words(first.answer),
      counted ? el("span", { class: "sure" }, `rounded from ${first.number.toFixed(2)}`)
        : el("span", { class: "sure" }, percent(first.probability))),
  ];
  if (!counted) {
    parts.push(el("ul", { class: "answers" }, rows.map((row, number) =>
      el("li", { class: number ? null : "first" }, words(row.answer), bar(row.probability),
        el("span", { class: "number" }, percent(row.probability))))));
  }
  parts.push(...remarks(one));
  if (told.model?.random_weights) {
    parts.push(el("p", { class: "note" }, "The network has random weights: answers mean little."));
  }
  const segments = one.segments ?? told.segments ?? [];
  if (segments.length) parts.push(segmentTable(segments));
  const looked = [video.frames && `${count(video.frames, "frame")} looked at`,
    seconds(video.duration_s),
    told.model?.name && `${told.model.name} ${told.model.version ?? ""}`.trim()];
  parts.push(el("p", { class: "soft looked" }, words(looked.filter(Boolean).join(" · "))));
  return parts.filter(Boolean);
}

/** Return what the server remarks, of words that the model does not know in words of this page. */
function remarks({ unknown_words: unknown = [], warnings = [] }) {
  const texts = warnings.map((text) => text.replace(/^[A-Z]+: /, ""));
  const others = texts.filter((text) => !text.startsWith("the model does not know these words"));
  const parts = others.map((text) => [words(text.charAt(0).toUpperCase() + text.slice(1))]);
  const isSaid = others.some((text) => text.startsWith("the model knows none of the words of the"));
  if (unknown.length && !isSaid) {
    parts.push(["The model does not know ", unknown.length === 1 ? "this word: " : "these words: ",
      unknown.flatMap((word, number) => [number ? ", " : "", el("b", {}, words(word))])]);
  }
  return parts.map((part) => el("p", { class: "note" }, part));
}

function segmentTable(segments) {
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Segments" },
    el("table", { class: "plain" },
      el("caption", {}, "What happens, and when"),
      el("thead", {}, el("tr", {}, ["From", "To", "What", "Score"].map((name) =>
        el("th", { scope: "col" }, name)))),
      el("tbody", {}, segments.map((one) => el("tr", {},
        el("td", {}, seconds(one.start_s)), el("td", {}, seconds(one.end_s)),
        el("td", {}, words(one.label)), el("td", {}, one.score?.toFixed(2)))))));
}
