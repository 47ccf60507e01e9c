// The picture of all trials. `state` says what is chosen; `choose(id)` is called on click or Enter.
let WIDE = 640, HIGH = 440;  // smaller where the screen is, so that text stays readable
const LEFT = 56, RIGHT = 14, TOP = 12, BOTTOM = 48;

function extent(data, points, name, wide) {
  const factor = data.axes[name].factor;
  const core = points.filter(p => p.front || p.style === "erm");
  const of = list => list.map(p => factor * p.values[name]).filter(known);
  const reach = p => [-1, 1].map(k => factor * (p.values[name] + k * (p.se[`${name}_se`] || 0)));
  const values = core.length ? core.flatMap(reach).filter(known) : of(points);
  if (!values.length) return [0, 1];
  let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  const span = Math.max(high - low, data.axes[name].span);
  const near = of(points).filter(v => wide || (v >= low - span / 2 && v <= high + span / 2));
  low = near.reduce((a, b) => Math.min(a, b), low); high = near.reduce((a, b) => Math.max(a, b), high);
  const middle = (low + high) / 2, room = Math.max(high - low, span) * 0.58;
  return [middle - room, middle + room];
}

function scatter(data, state, box, choose) {
  box.replaceChildren();
  [WIDE, HIGH] = box.clientWidth < 480 ? [400, 360] : [640, 440];
  const points = data.points.filter(p => state.visible(p)
    && known(p.values[state.x]) && known(p.values[state.y]));
  const root = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "group",
    "aria-label": "Trials by the two chosen scores" }, box);
  const [x0, x1] = extent(data, points, state.x, state.wide);
  const [y0, y1] = extent(data, points, state.y, state.wide);
  const X = v => LEFT + (v - x0) / (x1 - x0) * (WIDE - LEFT - RIGHT);
  const Y = v => HIGH - BOTTOM - (v - y0) / (y1 - y0) * (HIGH - TOP - BOTTOM);
  const at = p => [X(data.axes[state.x].factor * p.values[state.x]),
    Y(data.axes[state.y].factor * p.values[state.y])];
  const clip = svg("clipPath", { id: "inside" }, svg("defs", {}, root));
  svg("rect", { x: LEFT, y: TOP, width: WIDE - LEFT - RIGHT, height: HIGH - TOP - BOTTOM }, clip);
  const inside = svg("g", { "clip-path": "url(#inside)" }, root);
  if (data.band.length && state.x === data.x && state.y === data.y) {
    const ends = data.band.map(([a, b]) => `${X(a)},${Y(b)}`).join(" ");
    const first = data.band[0][0], last = data.band[data.band.length - 1][0];
    svg("polygon", { points: `${LEFT},${TOP} ${LEFT},${HIGH - BOTTOM} ${X(first)},${HIGH - BOTTOM} `
      + `${ends} ${X(last)},${TOP}`, fill: "var(--band)" }, inside);
  }
  for (const v of ticks(x0, x1, WIDE / 100)) {
    svg("line", { x1: X(v), x2: X(v), y1: TOP, y2: HIGH - BOTTOM, class: "grid" }, root);
    svg("text", { x: X(v), y: HIGH - BOTTOM + 16, "text-anchor": "middle", class: "soft" }, root, v);
  }
  for (const v of ticks(y0, y1, 6)) {
    svg("line", { x1: LEFT, x2: WIDE - RIGHT, y1: Y(v), y2: Y(v), class: "grid" }, root);
    svg("text", { x: LEFT - 6, y: Y(v) + 4, "text-anchor": "end", class: "soft" }, root, v);
  }
  const axisTitle = name => WIDE < 640 ? data.axes[name].label : data.axes[name].long;
  svg("text", { x: (LEFT + WIDE - RIGHT) / 2, y: HIGH - 8, "text-anchor": "middle" }, root, axisTitle(state.x));
  svg("text", { x: 0, y: 0, "text-anchor": "middle",
    transform: `translate(14 ${(TOP + HIGH - BOTTOM) / 2}) rotate(-90)` }, root, axisTitle(state.y));
  dials(points, at, inside);
  steps(points.filter(p => p.front), state, data, at, inside);
  const order = points.slice().sort((a, b) => a.front - b.front || (a.id === state.chosen) - (b.id === state.chosen));
  for (const p of order) mark(p, at(p), data, state, root, inside, X, Y, choose);
  return root;
}

// The lines of the dial, each from its lower end on.
function dials(points, at, parent) {
  const named = new Map(points.map(p => [p.id, p])), lines = new Map();
  for (const p of points.filter(one => one.dial)) {
    const key = `${p.dial[0]}-${p.dial[1]}`;
    if (!lines.has(key)) lines.set(key, [named.get(p.dial[0])].filter(Boolean));
    lines.get(key).push(p);
  }
  for (const line of lines.values()) svg("polyline", { points: line.map(at).join(" "), class: "dial" }, parent);
}

// The attained region's edge, where the front's two objectives are the axes.
function steps(front, state, data, at, parent) {
  const two = data.objectives.length === 2 && data.objectives.includes(state.x) && data.objectives.includes(state.y);
  if (!two || front.length < 2) return;
  const places = front.map(at).sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  let path = `M${places[0]}`;
  for (const [x, y] of places.slice(1)) path += data.axes[state.x].direction === "min" ? `H${x}V${y}` : `V${y}H${x}`;
  svg("path", { d: path, class: "steps" }, parent);
}

// A mark at [x, y]; at the edge, as a diamond, where that is outside the picture.
function mark(p, [x, y], data, state, root, inside, X, Y, choose) {
  const off = x < LEFT || x > WIDE - RIGHT || y < TOP || y > HIGH - BOTTOM;
  x = Math.min(Math.max(x, LEFT + 8), WIDE - RIGHT - 8); y = Math.min(Math.max(y, TOP + 8), HIGH - BOTTOM - 8);
  const look = data.styles[p.style], strong = p.front || p.style === "erm";
  const color = { front: "var(--blue)", erm: "var(--orange)", dial_front: "var(--green)" }[p.style] || (look.open ? "var(--soft)" : ["other_erm", "dial", "barrier"].includes(p.style) ? look.color : "var(--pale)");
  if (strong && !off && !p.dial) for (const [name, along] of [[state.x, 0], [state.y, 1]]) {
    const half = p.se[`${name}_se`] * data.axes[name].factor, v = p.values[name] * data.axes[name].factor;
    if (!known(half)) continue;
    const ends = along ? { x1: x, x2: x, y1: Y(v - half), y2: Y(v + half) } : { x1: X(v - half), x2: X(v + half), y1: y, y2: y };
    svg("line", { ...ends, stroke: color, class: "se" }, inside);
  }
  const hollow = look.open || p.style === "barrier";
  const given = { class: "mark" + (p.id === state.chosen ? " chosen" : ""), "data-id": p.id,
    fill: hollow ? "none" : color, stroke: hollow ? color : "var(--paper)", "stroke-width": 1.2 };
  const r = p.dial ? (strong ? 4.5 : 3) : strong ? 6 : 4.2;
  const made = p.style.includes("erm") || off
    ? svg("path", { ...given, d: `M${x},${y - r - 1}L${x + r + 1},${y}L${x},${y + r + 1}L${x - r - 1},${y}Z` }, root)
    : svg("circle", { ...given, cx: x, cy: y, r }, root);
  const summary = `${p.id}, ${look.title}${off ? ", outside the picture" : ""}: `
    + `accuracy ${shown(p.values.acc)} %, gap ${shown(p.values.max_gap)} points`;
  made.setAttribute("aria-label", summary);
  if (strong) { made.setAttribute("tabindex", 0); made.setAttribute("role", "button"); }
  made.addEventListener("click", () => choose(p.id));
  made.addEventListener("keydown", event => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(p.id); } });
  made.addEventListener("mouseenter", event => tip(event, summary, p));
  made.addEventListener("mouseleave", () => tip());
}

const between = p => p.dial ? `position ${p.dial[2]} between ${p.dial[0]} and ${p.dial[1]}` : "";

function tip(event, summary, p) {
  document.querySelectorAll("#explorer .tip").forEach(old => old.remove());
  if (!event) return;
  const made = html("div", { class: "tip" }, document.getElementById("explorer"), summary);
  html("div", { class: "soft" }, made, Object.entries(p.config).map(([k, v]) => `${k} = ${setting(v)}`).join(", ") || between(p));
  made.style.left = `${Math.min(event.clientX + 12, innerWidth - made.offsetWidth - 8)}px`;
  made.style.top = `${Math.min(event.clientY + 12, innerHeight - made.offsetHeight - 8)}px`;
}
