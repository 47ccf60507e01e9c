// What lies behind one trial.

function detail(data, id, box) {
  box.replaceChildren();
  const p = data.points.find(one => one.id === id);
  if (!p) {
    html("p", { class: "soft" }, box, "Point at a trial, click it, or go through the front with Tab and Enter.");
    return;
  }
  html("h3", {}, box, `${p.id}: ${data.styles[p.style].title}`);
  const epoch = known(p.epoch) ? ` at epoch ${p.epoch}` : "";
  html("p", {}, box, `Accuracy ${shown(p.values.acc)} %, W-F1 ${shown(p.values.w_f1)} %, largest gap `
    + `${shown(p.values.max_gap)} points${p.cell ? " in " + p.cell : ""}, worst group's W-F1 ${shown(p.values.worst_group_w_f1)} %${epoch}.`);
  if (p.reason) html("p", {}, box, `It ended early: ${p.reason}.`);
  backed(data, p, box);
  if (p.dial) html("p", {}, box, `Scores are those of the smoothed curve at ${between(p)}; what follows is of this position's own predictions.`);
  else {
    html("h4", {}, box, "Configuration");
    table(Object.entries(p.config).map(([k, v]) => [k, setting(v)]), box);
  }
  const behind = data.details[id];
  if (!behind) {
    html("p", { class: "soft" }, box, "Its predictions are not part of this page: only those of the front, of ERM and of what comes next to the front are.");
    return;
  }
  if (behind.history.length > 1) history(behind.history, box);
  if (behind.why) { html("p", {}, box, `Nothing more: ${behind.why}.`); return; }
  recalls(data, behind, box);
  confusions(data, behind, box);
  if (behind.calibration) calibration(data, behind, box);
  utterances(behind, box);
}

function backed(data, p, box) {
  const b = p.evidence;
  if (!b) return;
  const g = b.gap;
  const lines = [];
  if (b.cell) lines.push(`In ${b.cell} accuracy is ${ends(b.accuracies)}.`);
  if (known(g.at_most)) lines.push(`Less its bias the gap is about ${shown(g.corrected)} points; with 95 % confidence at most ${shown(g.at_most)}.`);
  if (known(b.band.high)) lines.push(`A fair model of this accuracy shows up to ${shown(b.band.high)} (95 %): this gap is ${b.is_gap ? "more than that" : "not distinguishable from chance"}.`);
  if (b.change && known(b.change.max_gap.low)) {
    const c = b.change.max_gap, a = b.change.acc;
    lines.push(`Against ERM: gap ${shown(c.value)} [${shown(c.low)}, ${shown(c.high)}], accuracy ${shown(a.value)} [${shown(a.low)}, ${shown(a.high)}] points.`);
  }
  if (b.change && b.change.cell_gap && known(b.change.cell_gap.low)) {
    const c = b.change.cell_gap;
    lines.push(`In ${data.cell}, named before the sweep, the gap against ERM: ${shown(c.value)} [${shown(c.low)}, ${shown(c.high)}] points.`);
  }
  if (p.levelled) lines.push("Levelling down: its gap is smaller than ERM's, and its worst group does worse than ERM's.");
  lines.forEach(line => html("p", {}, box, line));
}

// The accuracies of sides in words: of both, or of the lowest and the highest of many.
function ends(accuracies) {
  const sides = Object.entries(accuracies).map(([side, rate]) => `${shown(rate)} % for ${side}`);
  if (sides.length < 3) return sides.join(" and ");
  const order = Object.entries(accuracies).sort((a, b) => a[1] - b[1]).map(([side, rate]) => `${shown(rate)} % for ${side}`);
  return `${order[0]} (the lowest of ${sides.length} sides) and ${order[order.length - 1]} (the highest)`;
}

// The sides that pictures show at once: all of three, of more the worst and the best where the gap is largest.
function foremost(behind) {
  const all = behind.sides.map((_, side) => side), cell = behind.cells.indexOf(behind.cell);
  if (all.length < 4) return all;
  const sum = values => values.reduce((a, b) => a + b, 0);
  const of = cell < 0 ? g => [sum(behind.hits.map(c => sum(c[g]))), sum(behind.n.map(c => sum(c[g])))]
    : g => [sum(behind.hits[cell][g]), sum(behind.n[cell][g])];
  const there = all.filter(g => of(g)[1] > 0).sort((a, b) => of(a)[0] / of(a)[1] - of(b)[0] / of(b)[1]);
  return there.length < 3 ? there : [there[0], there[there.length - 1]];
}

// `draw(sides, box)` for the foremost sides, and for all below a line to open.
function bySide(behind, box, draw) {
  const first = foremost(behind), all = behind.sides.map((_, side) => side);
  draw(first, box);
  if (first.length === all.length) return;
  const more = html("details", {}, box);
  html("summary", {}, more, `All ${all.length} sides (above: the worst and the best where the gap is largest)`);
  draw(all, more);
}

function lines(series, box, title, last) {
  const W = 200, H = 92, root = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title, style: "width:200px" }, box);
  const all = series.flat().filter(known);
  if (!all.length) return;
  let low = Math.min(...all), high = Math.max(...all);
  if (high === low) { high += 0.5; low -= 0.5; }
  const X = i => 54 + i / Math.max(series[0].length - 1, 1) * (W - 62), Y = v => 74 - (v - low) / (high - low) * 50;
  svg("text", { x: 0, y: 11 }, root, title);
  for (const v of [low, high]) svg("text", { x: 50, y: Y(v) + 4, "text-anchor": "end", class: "soft", "font-size": 10 }, root, +v.toPrecision(3));
  svg("text", { x: W - 8, y: 90, "text-anchor": "end", class: "soft", "font-size": 10 }, root, `epoch ${last}`);
  series.forEach((values, k) => svg("polyline", { points: values.map((v, i) => known(v) ? `${X(i)},${Y(v)}` : "").join(" "),
    fill: "none", stroke: TINTS[1 - k], "stroke-width": 1.8 }, root));
}

function history(rows, box) {
  html("h4", {}, box, "Over training");
  const side = html("div", { class: "side" }, box), take = name => rows.map(row => row[name]);
  const last = rows[rows.length - 1].epoch;
  lines([take("acc").map(v => v === null ? v : 100 * v)], side, "dev accuracy, %", last);
  lines([take("max_gap").map(v => v === null ? v : 100 * v)], side, "dev gap, points", last);
  if (take("train_loss").some(known)) lines([take("train_loss")], side, "training loss, nats", last);
  if (take("lambda").some(known)) lines([take("lambda")], side, "fairness weight", last);
  if (take("raised_share").some(v => v > 0)) lines([take("raised_share").map(v => 100 * v)], side, "losses pushed up, % of utterances", last);
}

function recalls(data, behind, box) {
  html("h4", {}, box, "Recall by emotion, % (n)");
  const two = behind.sides.length === 2;
  bySide(behind, box, (sides, place) => behind.cells.forEach((cell, c) => {
    const here = two ? sides : sides.filter(g => behind.n[c][g].some(n => n));
    const rows = data.labels.map((label, k) => {
      const recall = g => behind.n[c][g][k] ? behind.hits[c][g][k] / behind.n[c][g][k] : null;
      const all = here.map(recall), some = all.filter(known);
      const apart = some.length < 2 ? null : two ? all[0] - all[1] : Math.max(...some) - Math.min(...some);
      return [label, ...all.map((v, i) => `${shown(v, 0)} (${behind.n[c][here[i]][k]})`), shown(apart, 0)];
    });
    const names = here.map(g => behind.sides[g]);
    table(rows, html("div", { class: "wide" }, place), [cell, ...names, two ? names.join(" − ") : "max − min"]);
  }));
}

function confusions(data, behind, box) {
  html("h4", {}, box, "Confusions, % of the true emotion (rows)");
  bySide(behind, box, (sides, place) => {
    const row = html("div", { class: "side" }, place);
    sides.forEach(g => confusion(data, behind, g, row));
  });
}

function confusion(data, behind, g, box) {
  const short = data.labels.map(label => label.slice(0, 3));
  const rows = behind.confusions[g].map((row, k) => {
    const n = row.reduce((a, b) => a + b, 0);
    return [short[k], ...row.slice(0, short.length).map(v => n ? (100 * v / n).toFixed(0) : "–")];
  });
  const card = html("div", { class: "wide" }, box);
  html("div", { class: "soft" }, card, behind.sides[g]);
  table(rows, card, ["", ...short]).querySelectorAll("td").forEach(cell => {
    const share = parseFloat(cell.textContent) / 100;
    if (share > 0) cell.style.background = `color-mix(in srgb, ${tint(g)} ${Math.round(55 * share)}%, transparent)`;
  });
}

// The names of sides in their colours, with what is known of each.
function key(sides, box, said) {
  const line = html("p", { class: "soft" }, box);
  sides.forEach(({ name, side }, i) => {
    html("span", { class: "swatch", style: `background:${tint(side)}` }, line);
    line.append(`${name}${said ? " " + said(side) : ""}${i < sides.length - 1 ? ", " : ""}`);
  });
  return line;
}

function calibration(data, behind, box) {
  html("h4", {}, box, "Calibration: share right over confidence");
  bySide(behind, box, (sides, place) => {
    const S = 150, root = svg("svg", { viewBox: `0 0 ${S + 40} ${S + 30}`, role: "img", style: "width:190px",
      "aria-label": `Share right over confidence, by ${data.attribute}` }, place);
    const X = v => 30 + v * S, Y = v => 6 + S - v * S;
    svg("line", { x1: X(0), y1: Y(0), x2: X(1), y2: Y(1), class: "grid" }, root);
    for (const v of [0, 0.5, 1]) {
      svg("text", { x: X(v), y: S + 22, "text-anchor": "middle", class: "soft", "font-size": 10 }, root, v);
      svg("text", { x: 24, y: Y(v) + 4, "text-anchor": "end", class: "soft", "font-size": 10 }, root, v);
    }
    for (const g of sides) {
      const fill = tint(g), bins = behind.calibration[g].bins;
      svg("polyline", { points: bins.map(([a, b]) => `${X(a)},${Y(b)}`).join(" "), fill: "none", stroke: fill, "stroke-width": 1.6, ...dash(g) }, root);
      bins.forEach(([a, b]) => svg(g ? "circle" : "rect", g ? { cx: X(a), cy: Y(b), r: 3, fill } : { x: X(a) - 3, y: Y(b) - 3, width: 6, height: 6, fill }, root));
    }
    const line = key(sides.map(g => ({ name: behind.sides[g], side: g })), place, g => shown(behind.calibration[g].error));
    line.prepend("Expected calibration error, points: ");
  });
}

function utterances(behind, box) {
  const rows = behind.utterances;
  if (!rows.length) return;
  const more = html("details", {}, box);
  html("summary", {}, more, `Utterances behind the gap in ${behind.cell}, ${rows[0].side} (${rows.length})`);
  const names = Object.keys(rows[0]).filter(name => name !== "side");  // the same in all rows
  table(rows.map(row => names.map(name => row[name] || "")), more, names.map(name => name.replace("_", " ")));
}
