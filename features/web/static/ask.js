// A clip, a question, the model's answers, and what they lean on.
import { answerParts, waitingWords } from "./answers.js";
import { announce, button, count, el, field, heading, percent, words } from "./dom.js";
import { clipChoice, nameOf } from "./clip_choice.js";
import { frameWeights } from "./frame_weights.js";
import { asked, forgetAll, remember } from "./history.js";
import { progressBox } from "./progress.js";
import { go } from "./router.js";
import { errorBox, get, post, upload } from "./server.js";

const MOST_KNOWN = 200; // answers that the server lists

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
    chooses
      ? field("Answers to choose from", candidates, { hint: "one a line, two at least" }) : null,
    send);
  const result = el("section", { class: "card result", "aria-label": "Answer" },
    waitingWords(asks));
  const weights = el("div", { class: "weights-place" });
  const history = el("section", { class: "history" });

  function setReady() {
    running?.abort(); // what was asked about another clip
    running = null;
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
      if (running?.signal === signal) show(told, clip, words_, asked_);
    } catch (error) {
      if (running?.signal !== signal) return;
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
    if (!first || model.head === "segments") return; // those say themselves when it happens
    weights.replaceChildren(frameWeights({
      explain: () => asked_("/v1/explain", {}),
      seek: choice.canSeek() ? choice.seek : null,
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
      el("span", { class: "entry-answer" },
        words(one.answer ?? ""), el("span", { class: "soft" }, ` ${share}`)),
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
      if (choice.clip()?.videoId === videoId) choice.describe(row);
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

function modelLine(model) {
  const told = [`${model.name ?? ""} ${model.version ?? ""}`.trim(),
    model.kind !== model.head && model.kind,
    model.backbone, model.sampling, model.trained_on && `trained on ${model.trained_on}`];
  return el("p", { class: "soft" }, words(told.filter(Boolean).join(" · ")));
}

function knownAnswers({ answers = [] }) {
  if (!answers?.length) return null;
  const many = answers.length < MOST_KNOWN ? count(answers.length) : `${MOST_KNOWN} or more`;
  return el("details", { class: "known" },
    el("summary", {}, `Answers that this model knows (${many})`),
    el("p", { class: "tags" },
      answers.map((answer) => el("span", { class: "tag" }, words(answer)))));
}
