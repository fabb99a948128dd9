// What was asked from this browser. It is kept here alone, and the server has none of it.
const NAME = "framebank-asked";
const MOST = 50;

/** Return what was asked, the latest first: {time, clip, video_id, question, answer, probability}. */
export function asked() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one) => one && typeof one === "object") : [];
  } catch {
    return []; // no storage, or something else's
  }
}

export function remember(entry) {
  const others = asked().filter((one) => one.clip !== entry.clip || one.question !== entry.question);
  try {
    localStorage.setItem(NAME, JSON.stringify([entry, ...others].slice(0, MOST)));
  } catch {
    // A browser that keeps nothing answers as well.
  }
}

export function forgetAll() {
  try {
    localStorage.removeItem(NAME);
  } catch {
    // As above.
  }
}
