// The address says what is seen: `#/clips?where=duration_s>10&sort=frames`. Back, forward and
// bookmarks work because nothing else remembers it.

/** Return the view that the address names, "" of none, and its parameters. */
export function place() {
  const [, name = "", query = ""] = /^#\/([^?]*)\??(.*)$/s.exec(location.hash) ?? [];
  return { name, params: new URLSearchParams(query) };
}

/** Return the address of a view; parameters that are null or "" are left out. */
export function link(name, params = {}) {
  const query = params instanceof URLSearchParams ? params : new URLSearchParams();
  if (query !== params) {
    for (const [key, value] of Object.entries(params)) {
      for (const one of Array.isArray(value) ? value : [value]) {
        if (one !== null && one !== undefined && one !== "") query.append(key, one);
      }
    }
  }
  const text = query.toString();
  return `#/${name}${text ? `?${text}` : ""}`;
}

/** Go to a view; with `replace` the present place is left out of the browser's history. */
export function go(name, params = {}, { replace = false } = {}) {
  const there = link(name, params);
  if (there === location.hash) return;
  if (!replace) {
    location.hash = there;
  } else {
    history.replaceState(null, "", there);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}
