// Configurations as lines over their hyperparameters, linked with the picture; and what matters.
function parallel(data, state, box, choose) {
  box.replaceChildren();
  const points = data.points.filter(p => state.visible(p) && known(p.values.acc) && ["front", "dominated"].includes(p.kind));
  const names = [...new Set(points.flatMap(p => Object.keys(p.config)))].filter(name =>
    new Set(points.map(p => p.config[name]).filter(v => v !== null && v !== undefined).map(String)).size > 1);
  if (points.length < 2 || !names.length) { html("p", { class: "soft" }, box, "Too few usable trials differ yet."); return; }
  const axes = [...names.map(name => axis(name, points.map(p => p.config[name]))),
    ...data.objectives.map(name => axis(name, points.map(p => p.values[name]), data.axes[name].factor))];
  const gap = Math.max(88, 640 / axes.length), W = gap * axes.length + 40, H = 250;
  const scroll = html("div", { style: "overflow-x:auto" }, box);
  const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, style: `min-width:${W}px`, role: "img", "aria-label": "Configurations as lines" }, scroll);
  const X = i => 40 + i * gap, Y = v => H - 26 - v * (H - 66);
  const strong = p => p.id === state.chosen ? 2 : p.front || p.style === "erm" ? 1 : 0;
  for (const p of points.slice(0, 3000).sort((a, b) => strong(a) - strong(b))) {
    const values = axes.map(a => a.place(a.factor ? p.values[a.name] : p.config[a.name]));
    const color = ["var(--pale)", p.style === "erm" ? "var(--orange)" : "var(--blue)", "var(--focus)"][strong(p)];
    let path = "";
    values.forEach((v, i) => { path += `${path && known(values[i - 1]) && known(v) ? "L" : "M"}${X(i)},${Y(known(v) ? v : 0.5)}`; });
    const line = svg("path", { d: path, fill: "none", stroke: color, "stroke-width": [0.6, 1.4, 3][strong(p)], opacity: [0.5, 0.9, 1][strong(p)] }, root);
    line.style.cursor = "pointer";
    line.addEventListener("click", () => choose(p.id));
  }
  axes.forEach((a, i) => {
    svg("line", { x1: X(i), x2: X(i), y1: Y(0), y2: Y(1), class: "grid", "stroke-width": 1.5 }, root);
    svg("text", { x: X(i), y: 14, "text-anchor": "middle" }, root, a.name);
    a.marks.forEach(([v, text]) => svg("text", { x: X(i) + 4, y: Y(v) + (v === 0 ? 14 : v === 1 ? -5 : 4), class: "soft", "font-size": 10 }, root, text));
  });
}

// Where a value lies on an axis, 0 to 1: by its logarithm where a range spans more than a decade.
function axis(name, values, factor) {
  const present = values.filter(v => v !== null && v !== undefined);
  if (present.every(v => typeof v === "number")) {
    const scaled = present.map(v => v * (factor || 1)).filter(isFinite);
    const low = Math.min(...scaled), high = Math.max(...scaled), log = low > 0 && high / low > 10 && !factor;
    const f = log ? Math.log : v => v;
    return { name, factor, place: v => known(v) ? (high > low ? (f(v * (factor || 1)) - f(low)) / (f(high) - f(low)) : 0.5) : null,
      marks: [[0, setting(low)], [1, setting(high)]] };
  }
  const options = [...new Set(present.map(String))].sort(), place = v => options.indexOf(String(v)) / Math.max(options.length - 1, 1);
  return { name, factor, place: v => v === null || v === undefined ? null : place(v), marks: options.map(v => [place(v), v]) };
}

function importance(data, box) {
  if (!data.importance.length) return;
  for (const name of data.objectives) {
    const mine = data.importance.filter(one => one.objective === name);
    if (!mine.length) continue;
    html("h4", {}, box, `What goes with ${data.axes[name].title.toLowerCase()}`);
    const W = 420, root = svg("svg", { viewBox: `0 0 ${W} ${mine.length * 20 + 4}`, style: "max-width:420px", role: "img",
      "aria-label": `Hyperparameters by the share of ${name} that each explains` }, box);
    mine.forEach((one, i) => {
      const y = i * 20 + 4, X = v => 120 + 240 * v;
      svg("text", { x: 114, y: y + 11, "text-anchor": "end" }, root, one.name);
      svg("rect", { x: X(0), y, width: Math.max(240 * one.share, 1), height: 13, fill: one.share > one.noise ? "var(--blue)" : "var(--pale)" }, root);
      svg("line", { x1: X(one.noise), x2: X(one.noise), y1: y - 1, y2: y + 14, stroke: "var(--ink)", "stroke-width": 1.5 }, root);
      svg("text", { x: X(Math.max(one.share, one.noise)) + 6, y: y + 11, class: "soft" }, root, `${shown(one.share, 0)} %`);
    });
  }
  html("p", { class: "soft" }, box, "Share of the trials' order that each explains alone; the tick is what chance explains in 19 of 20 cases.");
}
