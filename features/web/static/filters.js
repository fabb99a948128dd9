// The filters of clips: a chip for each that holds, and a form that adds one. A filter is written
// as `framebank ls --where` takes it: column, operator, value.
import { button, choice, el, field, words } from "./dom.js";

const OPERATORS = {
  text: [["=", "is"], ["!=", "is not"], ["~", "contains"]],
  number: [[">=", "≥"], ["<=", "≤"], [">", ">"], ["<", "<"], ["=", "="], ["!=", "≠"]],
  bool: [["=", "is"]],
};
const SAID = { "=": "is", "!=": "is not", "~": "contains", ">=": "≥", "<=": "≤", ">": ">", "<": "<" };
const PARTS = /^(.*?)\s*(!=|<=|>=|=|<|>|~)\s*(.*)$/s;
let made = 0;

/** Return a filter as people read it, in parts: column, operator, value. */
export function readable(filter) {
  const [, column, operator, value] = PARTS.exec(filter) ?? [null, filter, "", ""];
  return [column, SAID[operator] ?? "", value];
}

/**
 * Return {element, show(filters)}: `changed` hears the new list of filters. `columns` are those of
 * the catalog, {name, type, values}.
 */
export function filterBar(columns, changed) {
  let filters = [];
  const chips = el("ul", { class: "chips", "aria-label": "Filters that hold" });
  const opener = button("Add a filter", () => open(form.hidden), {
    class: "quiet", "aria-expanded": "false",
  });
  const form = filterForm(columns, (filter) => {
    open(false);
    changed([...filters.filter((one) => one !== filter), filter]);
  }, () => open(false));

  function open(wanted) {
    form.hidden = !wanted;
    opener.setAttribute("aria-expanded", String(wanted));
    if (wanted) form.querySelector("select").focus();
    else opener.focus();
  }

  function show(now) {
    filters = now;
    chips.replaceChildren(...filters.map((filter) => el("li", {}, chip(filter))));
    chips.hidden = !filters.length;
  }

  function chip(filter) {
    const [column, operator, value] = readable(filter);
    const remove = () => {
      changed(filters.filter((one) => one !== filter));
      (chips.querySelector("button") ?? opener).focus();
    };
    return el("button", { type: "button", class: "chip", on: { click: remove } },
      el("span", { class: "unseen" }, "Remove the filter "),
      words(column), ` ${operator} `, el("b", {}, words(value || "empty")),
      el("span", { class: "cross", "aria-hidden": "true" }, "×"));
  }

  return { element: el("div", { class: "filters" }, chips, opener, form), show };
}

/** Return the form for one filter, which knows what kinds of values a column has. */
function filterForm(columns, added, closed) {
  const form = el("form", { class: "filter-form card", hidden: true, "aria-label": "A new filter" });
  const byName = new Map(columns.map((column) => [column.name, column]));
  const column = choice(columns.map(({ name }) => [name, name]), null, () => ofColumn());
  const rest = el("div", { class: "filter-rest" });
  let operator;
  let value;

  function ofColumn() {
    const { name, type, values } = byName.get(column.value);
    operator = choice(OPERATORS[type] ?? OPERATORS.text);
    if (type === "bool") {
      value = choice([["true", "yes"], ["false", "no"]]);
    } else {
      value = el("input", type === "number"
        ? { type: "number", step: "any", required: true }
        : { type: "text", autocomplete: "off" });
    }
    const known = type === "bool" ? null : offers(values);
    if (known) value.setAttribute("list", known.id);
    rest.replaceChildren(
      field("How", operator), field("Value", value), ...(known ? [known] : []));
    value.setAttribute("aria-label", `Value of ${name}`);
  }

  form.append(
    field("Column", column), rest,
    el("div", { class: "row" },
      el("button", { class: "main-button" }, "Add"), button("Cancel", closed)),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    added(`${column.value}${operator.value}${value.value.trim()}`);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") closed();
  });
  if (columns.length) ofColumn();
  return form;
}

function offers(values) {
  if (!values?.length) return null;
  const list = el("datalist", { id: `values-${(made += 1)}` });
  for (const value of values) {
    const option = el("option");
    option.value = String(value);
    list.append(option);
  }
  return list;
}
