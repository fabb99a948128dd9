// Elements out of data. All text goes in as text, never as HTML: ids, labels and answers come from
// files that strangers may have made.

// What cannot be seen, or turns the text around it: controls, directional marks, lone surrogates.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/gu;

/** Return `text` with escapes for what cannot be seen, as the command line prints it. */
export function plain(text) {
  return String(text).replace(UNSEEN, (char) => {
    const code = char.codePointAt(0);
    return code < 256
      ? `\\x${code.toString(16).padStart(2, "0")}`
      : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/**
 * Return an element. `props` are attributes, of which null, undefined and false are left out;
 * `on` holds listeners by event. Children are nodes, texts, null, or lists of these.
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : plain(value));
    }
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined)
    .map((child) => (child instanceof Node ? child : plain(child))));
  return node;
}

/** Return text of somebody else's, kept from turning the direction of what stands beside it. */
export function words(text, props = {}) {
  return el("bdi", props, text);
}

/** Return a clip's id, which may be broken where its words end. */
export function breakable(videoId, props = {}) {
  const parts = videoId.split(/(?<=[\/_\-])|(?=\.)/u);
  return el("bdi", props, parts.flatMap((part, number) => (number ? [el("wbr"), part] : [part])));
}

/** Return a clip's id in two lines: its folder, small, and its name. */
export function clipName(videoId) {
  const cut = videoId.lastIndexOf("/") + 1;
  return [
    cut ? el("bdi", { class: "folder" }, videoId.slice(0, cut)) : null,
    breakable(videoId.slice(cut), { class: "name" }),
  ];
}

/** Return a label with its control, and a hint below. */
export function field(label, control, { hint = "", unseen = false } = {}) {
  control.id ||= `field-${(field.count = (field.count ?? 0) + 1)}`;
  const told = hint ? el("small", { id: `${control.id}-hint` }, hint) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return el(
    "div", { class: "field" },
    el("label", { for: control.id, class: unseen ? "unseen" : null }, label), control, told,
  );
}

/** Return a `select` of [value, label] pairs with `chosen` chosen. */
export function choice(pairs, chosen, listener = null) {
  const control = el("select", listener ? { on: { change: () => listener(control.value) } } : {});
  control.append(...pairs.map(([value, label]) => el("option", { value }, label)));
  // An option's value is its text's own, escapes would not be understood by the server.
  pairs.forEach(([value], number) => (control.options[number].value = value));
  if (chosen !== undefined && chosen !== null) control.value = chosen;
  return control;
}

export function button(label, listener, props = {}) {
  return el("button", { type: "button", ...props, on: { click: listener } }, label);
}

/** Return a bar of `share`, from 0 to 1; what it says stands in words beside it. */
export function bar(share, { negative = false } = {}) {
  const filled = el("i", { class: negative ? "negative" : null });
  filled.style.width = `${(Math.min(Math.max(share, 0), 1) * 100).toFixed(2)}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, filled);
}

/** Return a table of facts: [name, node or text] pairs, those without a value left out. */
export function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" },
    told.map(([name, value]) => el("div", {}, el("dt", {}, words(name)),
      el("dd", {}, value instanceof Node ? value : words(shown(value))))));
}

/** Say something to who does not see the page. */
export function announce(text) {
  document.getElementById("live").textContent = plain(text);
}

const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 5, useGrouping: false });

export function count(number, noun = "") {
  const many = WHOLE.format(number);
  return noun ? `${many} ${noun}${number === 1 ? "" : "s"}` : many;
}

/** Return any value of a row as text; "" of none. */
export function shown(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") {
    return Number.isInteger(value) ? String(value) : SHORT.format(value);
  }
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

export function percent(share) {
  const many = share * 100;
  if (many > 0 && many < 0.1) return "< 0.1 %";
  if (many > 99.9 && many < 100) return "> 99.9 %";
  return `${many < 10 || many > 99 ? many.toFixed(1).replace(/\.0$/, "") : Math.round(many)} %`;
}

/** Return seconds as people read them: "4.5 s", "2:05.0". */
export function seconds(time_s) {
  if (time_s === null || time_s === undefined || !Number.isFinite(time_s)) return "";
  if (Math.abs(time_s) < 60) return `${Number(time_s.toFixed(time_s < 10 ? 2 : 1))} s`;
  const minutes = Math.floor(time_s / 60);
  const rest = (time_s - minutes * 60).toFixed(1).padStart(4, "0");
  return minutes < 60
    ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest.slice(0, 2)}`;
}

const UNITS = ["bytes", "KiB", "MiB", "GiB"];

export function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit < UNITS.length - 1) [bytes, unit] = [bytes / 1024, unit + 1];
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${UNITS[unit]}`;
}

/** Return the heading of a view, which has the focus when the view comes. */
export function heading(...children) {
  return el("h1", { tabindex: "-1" }, children);
}
