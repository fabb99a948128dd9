// Links to the pages of a long list, by the address.
import { count, el } from "./dom.js";

/** Return {element, show(page, pages, addressOf)}; `label` says of what the pages are. */
export function pager(label) {
  const element = el("nav", { class: "pager", "aria-label": label, hidden: true });
  function show(page, pages, addressOf) {
    const to = (other, text) => (other < 1 || other > pages
      ? el("span", { class: "page-link off" }, text)
      : el("a", { class: "page-link", href: addressOf(other) }, text));
    element.hidden = pages < 2 && page === 1;
    element.replaceChildren(
      to(page - 1, "‹ Earlier"),
      el("span", {}, `Page ${count(page)} of ${count(Math.max(pages, 1))}`),
      to(page + 1, "Later ›"));
  }
  return { element, show };
}
