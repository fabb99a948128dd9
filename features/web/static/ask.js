// A clip, a question, the model's answers, and what they lean on.
import {
  announce, bar, button, count, el, field, heading, percent, seconds, words,
} from "./dom.js";
import { clipChoice, nameOf } from "./clip_choice.js";
import { frameWeights } from "./frame_weights.js";
import { asked, forgetAll, remember } from "./history.js";
import { go } from "./router.js";
import { errorBox, get, post, upload } from "./server.js";

export function askView(about) {
  const { model, cache } = about;
  const asks = model.asks !== false;
  const chooses = model.head === "choice";
  const title = asks ? "Ask about a clip" : "Classify a clip";
  let running = null;

  const choice = clipChoice({ hasCache: Boolean(cache), changed: () => setReady() });
  const question = el("input", {
    type: "text", maxlength: "500", list: "asked-before", autocomplete: "off",
    placeholder: "what is the man doing?",
  });
  const before = el("datalist", { id: "asked-before" });
  const candidates = el("textarea", { rows: "3" });
  const send = el("button", { class: "main-button wide" }, asks ? "Ask" : "Classify");
  const form = el("form", { class: "card question-form" },
    asks ? field("Question", question) : null, asks ? before : null,
    chooses ? field("Answers to choose from", candidates, { hint: "one a line, two at least" }) : null,
    send);
  const result = el("section", { class: "card result", "aria-label": "Answer" }, waitingWords(asks));
  const weights = el("div", { class: "weights-place" });
  const history = el("section", { class: "history" });

  function setReady() {
    result.replaceChildren(waitingWords(asks));
    weights.replaceChildren();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });

  /** Return what is lacking before anything can be asked, and the control that takes it. */
  function lacking() {
    if (!choice.clip()) return ["Choose a clip first.", choice];
    if (asks && !question.value.trim()) return ["Type a question first.", question];
    if (chooses && choices().length < 2) return ["Give two answers to choose from.", candidates];
    return null;
  }

  const choices = () => candidates.value.split("\n").map((one) => one.trim()).filter(Boolean);

  async function start() {
    const lack = lacking();
    if (lack) {
      result.replaceChildren(el("p", { class: "note", role: "alert" }, lack[0]));
      lack[1].focus();
      return;
    }
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    const clip = choice.clip();
    const words_ = asks ? question.value.trim() : "";
    const stages = progressBox(Boolean(clip.file), () => running.abort());
    weights.replaceChildren();
    result.replaceChildren(stages.element);
    result.scrollIntoView({ block: "nearest" }); // on a phone it is below
    send.disabled = true;
    try {
      const asked_ = request(clip, words_, chooses ? choices() : []);
      const told = await asked_(asks ? "/v1/ask" : "/v1/classify", {
        signal, progress: stages.sent,
      });
      show(told, clip, words_, asked_);
    } catch (error) {
      result.replaceChildren(error.name === "AbortError"
        ? el("p", { class: "soft" }, "Stopped.") : errorBox(error));
    } finally {
      stages.end();
      send.disabled = false;
    }
  }

  function show(told, clip, question_, asked_) {
    const one = told.answers?.[0] ?? { answers: [] };
    const rows = Array.isArray(one.answers) ? one.answers : [];
    result.replaceChildren(...answerParts(one, rows, told, question_));
    const [first] = rows;
    if (first) {
      announce(`The answer is ${first.answer}`);
      remember({
        time: Date.now(), clip: nameOf(clip), video_id: clip.videoId ?? null, question: question_,
        answer: String(first.answer), probability: first.probability ?? null,
      });
      showHistory();
    }
    if (first?.probability === undefined) return;
    weights.replaceChildren(frameWeights({
      explain: () => asked_("/v1/explain", {}),
      seek: clip.file && !clip.file.type.startsWith("image/") ? choice.seek : null,
      videoId: clip.videoId ?? null,
    }));
  }

  function showHistory() {
    const entries = asked();
    const questions = [...new Set(entries.map((one) => one.question).filter(Boolean))];
    before.replaceChildren(...questions.map((text) => {
      const option = el("option");
      option.value = text;
      return option;
    }));
    history.hidden = !entries.length;
    history.replaceChildren(
      el("div", { class: "row between" }, el("h2", {}, "Asked before"),
        button("Clear", () => {
          forgetAll();
          showHistory();
          announce("What was asked before is forgotten");
          question.focus();
        }, { class: "quiet", "aria-label": "Clear what was asked before" })),
      el("p", { class: "soft" }, "Kept in this browser alone."),
      el("ul", { class: "card entries" }, entries.slice(0, 12).map((one) =>
        el("li", {}, historyRow(one)))));
  }

  function historyRow(one) {
    const share = Number.isFinite(one.probability) ? percent(one.probability) : "";
    const again = () => {
      question.value = one.question ?? "";
      if (one.video_id && cache) go("ask", { video_id: one.video_id, question: one.question });
      else question.focus();
      scrollTo(0, 0);
    };
    return el("button", { type: "button", class: "entry", on: { click: again } },
      el("span", { class: "entry-question" }, words(one.question || one.clip)),
      el("span", { class: "entry-answer" }, words(one.answer ?? ""), el("span", { class: "soft" }, ` ${share}`)),
      one.question ? el("span", { class: "soft entry-clip" }, words(one.clip ?? "")) : null);
  }

  const element = el("div", { class: "view" },
    heading(title), modelLine(model),
    el("div", { class: "asking" },
      el("div", { class: "asking-left" }, choice.element, form), result),
    weights, history, knownAnswers(model));
  showHistory();
  let loaded = "";
  return {
    title,
    element,
    update(params) {
      if (params.toString() === loaded) return false;
      loaded = params.toString();
      if (params.get("question") !== null) question.value = params.get("question");
      const videoId = params.get("video_id");
      if (videoId && cache && choice.clip()?.videoId !== videoId) pick(videoId);
      return false;
    },
  };

  async function pick(videoId) {
    choice.choose({ videoId, row: null });
    try {
      const { row } = await get("/api/cache/video", { video_id: videoId });
      if (choice.clip()?.videoId === videoId) choice.choose({ videoId, row });
    } catch (error) {
      choice.choose(null);
      result.replaceChildren(errorBox(error));
    }
  }
}

/** Return what sends the clip and the question to a route; an upload tells how much has left. */
function request(clip, question, choices) {
  return (path, { signal = null, progress = undefined }) => {
    if (!clip.file) {
      const body = { video_id: clip.videoId };
      if (question) body.question = question;
      if (choices.length) body.choices = choices;
      return post(path, body, { signal });
    }
    const form = new FormData();
    form.append("clip", clip.file, clip.file.name);
    if (question) form.append("question", question);
    for (const one of choices) form.append("choices", one);
    return upload(path, form, { signal, progress });
  };
}

/** Return {element, sent(share), end()}: how far an answer is, and a button that gives it up. */
function progressBox(uploads, stop) {
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

function waitingWords(asks) {
  return el("div", { class: "nothing" },
    el("p", {}, asks ? "Choose a clip and ask: the answer comes here."
      : "Choose a clip: what it shows comes here."));
}

function answerParts(one, rows, told, question) {
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
  const unknown = one.unknown_words ?? [];
  if (unknown.length) {
    parts.push(el("p", { class: "note" }, "The model does not know ",
      unknown.length === 1 ? "this word: " : "these words: ",
      unknown.flatMap((word, number) => [number ? ", " : "", el("b", {}, words(word))])));
  }
  if (told.random_weights) {
    parts.push(el("p", { class: "note" }, "The network has random weights: answers mean little."));
  }
  const segments = one.segments ?? told.segments ?? [];
  if (segments.length) parts.push(segmentTable(segments));
  const looked = [video.frames && `${count(video.frames, "frame")} looked at`,
    seconds(video.duration_s), told.model?.name && `${told.model.name} ${told.model.version ?? ""}`];
  parts.push(el("p", { class: "soft looked" }, words(looked.filter(Boolean).join(" · "))));
  return parts.filter(Boolean);
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

function modelLine(model) {
  const told = [model.name && `${model.name} ${model.version ?? ""}`.trim(), model.kind,
    model.backbone, model.sampling, model.trained_on && `trained on ${model.trained_on}`];
  return el("p", { class: "soft" }, words(told.filter(Boolean).join(" · ")));
}

function knownAnswers({ answers = [] }) {
  if (!answers?.length) return null;
  return el("details", { class: "known" },
    el("summary", {}, `Answers that this model knows (${count(answers.length)}${answers.length >= 200 ? " at least" : ""})`),
    el("p", { class: "tags" }, answers.map((answer) => el("span", { class: "tag" }, words(answer)))));
}
