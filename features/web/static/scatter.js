// Points on a canvas, coloured and shaped by group, that a pointer and the arrow keys walk over.
// It knows no clips: points are [x, y, group], and who uses it hears their numbers.
const EDGE = 18; // px around the points
const REACH = 14; // px from a pointer to a point
const COLOURS = 8;
const MOST_ZOOM = 64;

/** Return the name of the shape of a group, and the number of its colour. */
export function mark(group) {
  return { colour: group % COLOURS, shape: Math.floor(group / COLOURS) % 3 };
}

/**
 * Return {show(points), hide(groups), zoom(factor), whole(), select(number), redraw()} for a
 * canvas. `selected` hears a point's number and its place in px, or null; `opened` a number.
 */
export function scatter(canvas, { selected, opened }) {
  let points = [];
  let places = []; // in px, of the points that can be seen
  let hidden = new Set();
  let chosen = null;
  let bounds = [0, 1, 0, 1];
  let [scale, moveX, moveY] = [1, 0, 0];
  let frame = 0;

  const box = () => canvas.getBoundingClientRect();

  function show(now) {
    points = now;
    chosen = null;
    const reach = (axis) => points.reduce(
      ([low, high], point) => [Math.min(low, point[axis]), Math.max(high, point[axis])],
      [Infinity, -Infinity]);
    bounds = points.length ? [...reach(0), ...reach(1)] : [0, 1, 0, 1];
    whole();
  }

  function place() {
    const { width, height } = box();
    const [left, right, low, high] = bounds;
    const along = (value, from, to, length) =>
      EDGE + ((value - from) / (to - from || 1)) * (length - 2 * EDGE);
    places = points.map(([x, y, group]) => (hidden.has(group) ? null : [
      (along(x, left, right, width) - width / 2) * scale + width / 2 + moveX,
      (height - along(y, low, high, height) - height / 2) * scale + height / 2 + moveY,
    ]));
  }

  function draw() {
    frame = 0;
    const { width, height } = box();
    const ratio = devicePixelRatio || 1;
    if (!width || !height) return;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    place();
    const style = getComputedStyle(canvas);
    const colours = Array.from({ length: COLOURS }, (_, number) =>
      style.getPropertyValue(`--g${number}`).trim());
    const radius = points.length > 5000 ? 2 : points.length > 500 ? 3 : 4.5;
    pen.globalAlpha = points.length > 5000 ? 0.6 : 0.85;
    places.forEach((at, number) => {
      if (!at) return;
      const { colour, shape } = mark(points[number][2]);
      pen.fillStyle = colours[colour];
      dot(pen, at, radius, shape);
    });
    pen.globalAlpha = 1;
    if (chosen === null || !places[chosen]) return;
    const [x, y] = places[chosen];
    pen.strokeStyle = style.getPropertyValue("--ink").trim();
    pen.lineWidth = 2.5;
    pen.beginPath();
    pen.arc(x, y, radius + 5, 0, 7);
    pen.stroke();
  }

  const redraw = () => (frame ||= requestAnimationFrame(draw));

  function select(number) {
    if (number !== chosen) {
      chosen = number;
      place();
      selected(number, number === null ? null : places[number]);
    }
    redraw();
  }

  function nearest(x, y, reach = REACH) {
    let [best, least] = [null, reach * reach];
    places.forEach((at, number) => {
      if (!at) return;
      const distance = (at[0] - x) ** 2 + (at[1] - y) ** 2;
      if (distance < least) [best, least] = [number, distance];
    });
    return best;
  }

  /** Return the nearest point in a direction; what lies aside counts as twice as far. */
  function next(toX, toY) {
    const [x, y] = places[chosen];
    let [best, least] = [null, Infinity];
    places.forEach((at, number) => {
      if (!at || number === chosen) return;
      const ahead = (at[0] - x) * toX + (at[1] - y) * toY;
      const aside = Math.abs((at[0] - x) * toY) + Math.abs((at[1] - y) * toX);
      if (ahead > 0 && ahead + 2 * aside < least) [best, least] = [number, ahead + 2 * aside];
    });
    return best;
  }

  function zoom(factor) {
    const now = Math.min(MOST_ZOOM, Math.max(1, scale * factor));
    [moveX, moveY] = [(moveX * now) / scale, (moveY * now) / scale];
    if (now === 1) [moveX, moveY] = [0, 0];
    scale = now;
    canvas.classList.toggle("zoomed", scale > 1);
    keepSelected();
    redraw();
  }

  function whole() {
    [scale, moveX, moveY] = [1, 0, 0];
    canvas.classList.remove("zoomed");
    keepSelected();
    redraw();
  }

  function keepSelected() {
    place();
    selected(chosen, chosen === null ? null : places[chosen]);
  }

  const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = STEPS[event.key];
    if (step) {
      const first = chosen === null || !places[chosen];
      const { width, height } = box();
      const number = first ? nearest(width / 2, height / 2, Infinity) : next(...step);
      if (number !== null) select(number);
    } else if (event.key === "Enter" && chosen !== null) {
      opened(chosen);
    } else if (event.key === "Escape") {
      select(null);
    } else if (event.key === "+" || event.key === "=") {
      zoom(2);
    } else if (event.key === "-") {
      zoom(0.5);
    } else {
      return;
    }
    event.preventDefault();
  });

  let held = null; // where a pointer went down, and how far things were moved then
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX, y: event.offsetY, moveX, moveY, dragged: false };
    if (scale > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held && scale > 1) {
      moveX = held.moveX + event.offsetX - held.x;
      moveY = held.moveY + event.offsetY - held.y;
      held.dragged ||= Math.hypot(event.offsetX - held.x, event.offsetY - held.y) > 5;
      keepSelected();
      redraw();
    } else if (event.pointerType === "mouse") {
      select(nearest(event.offsetX, event.offsetY));
    }
  });
  canvas.addEventListener("pointerup", (event) => {
    const dragged = held?.dragged;
    held = null;
    if (dragged) return;
    const number = nearest(event.offsetX, event.offsetY, event.pointerType === "mouse" ? REACH : 28);
    // A finger cannot hover: its first touch shows the clip, the second one opens it.
    if (number !== null && (event.pointerType === "mouse" || number === chosen)) opened(number);
    else select(number);
  });
  canvas.addEventListener("pointercancel", () => (held = null));
  new ResizeObserver(() => {
    keepSelected();
    redraw();
  }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  return {
    show,
    zoom,
    whole,
    select,
    redraw,
    hide(groups) {
      hidden = groups;
      if (chosen !== null && hidden.has(points[chosen][2])) select(null);
      redraw();
    },
  };
}

function dot(pen, [x, y], radius, shape) {
  pen.beginPath();
  if (shape === 0) pen.arc(x, y, radius, 0, 7);
  else if (shape === 1) pen.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  else {
    pen.moveTo(x, y - radius * 1.4);
    pen.lineTo(x + radius * 1.3, y + radius);
    pen.lineTo(x - radius * 1.3, y + radius);
  }
  pen.fill();
}
