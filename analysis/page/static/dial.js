// The dial: for each line a slider over its positions, with the scores there and their curves.
(function () {
  const { lines, erm, cell } = JSON.parse(document.getElementById("dial-data").textContent);
  const root = document.getElementById("dial");
  const points = { acc: "accuracy", max_gap: "gap" };
  if (lines.some(line => line.recall && "cell_gap" in line.less_lower[0])) points.cell_gap = `gap in ${cell}`;
  lines.forEach((line, i) => dial(line, i));
  root.dataset.ready = "yes";

  function dial(line, i) {
    const card = html("details", { class: "line" }, root), last = line.positions.length - 1;
    card.open = i === 0;
    html("summary", {}, card, `${line.lower} → ${line.upper}`);
    const bar = html("div", { class: "turn" }, card);
    const label = html("label", { for: `turn-${i}` }, bar, "Position ");
    const at = html("output", { for: `turn-${i}` }, label);
    const turn = html("input", { type: "range", id: `turn-${i}`, min: 0, max: last, step: 1 }, bar);
    const ends = html("div", { class: "ends soft", "aria-hidden": "true" }, bar);
    const one = line.positions.indexOf(1);
    html("span", {}, ends, `0: ${line.lower}`);
    html("span", { style: `left:${100 * one / last}%` }, ends, `1: ${line.upper}`);
    const numbers = html("dl", { class: "numbers" }, card);
    const note = html("p", { class: "soft", "aria-live": "polite" }, card);
    const curves = html("div", { class: "curves" }, card);
    const drawn = pictures(line).map(picture => curve(line, picture, curves));
    const show = () => {
      const k = +turn.value, said = scores(line, k);
      at.textContent = line.positions[k];
      numbers.replaceChildren();
      for (const [name, value, more] of said) {
        const box = html("div", {}, numbers);
        html("dt", {}, box, name);
        html("dd", {}, box, value);
        if (more) html("dd", { class: "soft" }, box, more);
      }
      turn.setAttribute("aria-valuetext", `position ${line.positions[k]}: ${said.slice(0, 2).map(([name, value]) => `${name.toLowerCase()} ${value}`).join(", ")}`);
      about(line, k, note);
      drawn.forEach(move => move(k));
    };
    turn.value = line.best === null ? 0 : line.ids.indexOf(line.best);
    turn.addEventListener("input", show);
    show();
  }

  // [title, value, what is beside it] of a position.
  function scores(line, k) {
    const rows = [["Accuracy", `${shown(line.smoothed.acc[k])} %`, `measured ${shown(line.measured.acc[k])}`],
      ["Largest gap", `${shown(line.smoothed.max_gap[k])} points`, `measured ${shown(line.measured.max_gap[k])}`]];
    if (!line.recall) return rows;
    const all = line.recall[k].map((recall, g) => [line.sides[g], recall]);
    const few = all.length < 3 ? all : [all.reduce((a, b) => b[1] < a[1] ? b : a), all.reduce((a, b) => b[1] > a[1] ? b : a)];
    rows.push([`Recall in ${line.cell}`, `${few.map(one => shown(one[1])).join(" / ")} %`, few.map(one => one[0]).join(" / ")]);
    const less = (title, all) => {
      for (const name in points) rows.push([`${capital(points[name])} less ${title}`, signed(all[k][name].value), interval(all[k][name])]);
    };
    less(`${line.lower}'s`, line.less_lower);
    if (erm !== null && erm !== line.lower && line.less_erm.length) less("ERM's", line.less_erm);
    return rows;
  }

  function capital(text) {
    return text[0].toUpperCase() + text.slice(1);
  }

  function signed(value) {
    return (known(value) && value >= 0.0005 ? "+" : "") + shown(value);
  }

  function interval(change) {
    if (!known(change.low)) return known(change.se) ? `± ${shown(change.se)}` : "unknown";
    return `95 %: ${signed(change.low)} to ${signed(change.high)}`;
  }

  function about(line, k, note) {
    const id = line.ids[k], position = line.positions[k];
    note.replaceChildren();
    if (line.barrier && id in line.barrier) {
      note.append("In a barrier: accuracy is lower than at both ends. Not to be used.");
      return;
    }
    html("a", { href: "#explorer", "data-trial": id }, note, `What lies behind ${id}`);
    if (position !== 0 && position !== 1) {
      note.append(" · To use it: ");
      html("code", {}, note, `python -m ermgap.predict --adapter SWEEP/adapters/${line.upper} --dial ${position}`);
    }
  }

  // What is drawn over the positions: curves with dots, or differences with bands.
  function pictures(line) {
    const percent = values => values.map(v => known(v) ? 100 * v : null);
    const smooth = name => ({ curve: percent(line.smoothed[name]), dots: percent(line.measured[name]) });
    const made = [{ title: "Accuracy, %", series: [{ ...smooth("acc"), color: "var(--blue)" }] },
      { title: "Largest gap, points", series: [{ ...smooth("max_gap"), color: "var(--orange)" }] }];
    if (!line.recall) return made;
    made.push({ title: `Recall in ${line.cell}, %`, series: line.sides.map((name, g) => ({ curve: percent(line.recall.map(row => row[g])),
      dots: [], color: tint(g), name, side: g })) });
    for (const name in points) {
      const take = key => percent(line.less_lower.map(change => change[name][key]));
      const [value, se] = [take("value"), take("se")];
      const around = k => value.map((v, i) => known(se[i]) ? v + k * se[i] : null);
      made.push({ title: `${capital(points[name])} less ${line.lower}'s, points`, zero: true,
        bands: [[take("low"), take("high"), 0.12], [around(-1), around(1), 0.25]],
        series: [{ curve: value, dots: [], color: name === "acc" ? "var(--blue)" : "var(--orange)" }] });
    }
    return made;
  }

  function curve(line, { title, series, bands = [], zero = false }, box) {
    const W = 300, H = 170, L = 40, R = 10, T = 26, B = 24, x = line.positions;
    const card = html("div", {}, box), picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} over positions` }, card);
    const all = [...series.flatMap(s => [...s.curve, ...s.dots]), ...bands.flatMap(b => [...b[0], ...b[1]]), ...(zero ? [0] : [])].filter(known);
    let low = Math.min(...all), high = Math.max(...all);
    const middle = (low + high) / 2, room = Math.max(high - low, 4) * 0.56;
    [low, high] = [middle - room, middle + room];
    const X = v => L + (v - x[0]) / (x[x.length - 1] - x[0] || 1) * (W - L - R), Y = v => H - B - (v - low) / (high - low) * (H - T - B);
    const path = values => values.map((v, i) => known(v) ? `${X(x[i]).toFixed(1)},${Y(v).toFixed(1)}` : "").filter(Boolean);
    svg("text", { x: 2, y: 13, class: "title" }, picture, title);
    for (const v of ticks(low, high, 4)) {
      svg("line", { x1: L, x2: W - R, y1: Y(v), y2: Y(v), class: zero && v === 0 ? "zero" : "grid" }, picture);
      svg("text", { x: L - 5, y: Y(v) + 4, "text-anchor": "end", class: "soft" }, picture, String(v).replace("-", "−"));
    }
    for (const v of ticks(x[0], x[x.length - 1], 4)) svg("text", { x: X(v), y: H - 7, "text-anchor": "middle", class: "soft" }, picture, v);
    const { color } = series[0];
    for (const [down, up, opacity] of bands) if (down.every(known) && up.every(known))
      svg("polygon", { points: [...path(down), ...path(up).reverse()].join(" "), fill: color, opacity }, picture);
    const needle = svg("line", { y1: T - 4, y2: H - B, class: "needle" }, picture);
    const marks = series.map(s => {
      s.dots.forEach((v, i) => known(v) && svg("circle", { cx: X(x[i]), cy: Y(v), r: 2, fill: s.color, opacity: 0.45 }, picture));
      svg("polyline", { points: path(s.curve).join(" "), fill: "none", stroke: s.color, "stroke-width": 2, ...dash(s.side || 0) }, picture);
      return [s, svg("circle", { r: 4.5, fill: s.color, stroke: "var(--paper)", "stroke-width": 1.5 }, picture)];
    });
    if (series[0].name) key(series, card);
    return k => {
      needle.setAttribute("x1", X(x[k])); needle.setAttribute("x2", X(x[k]));
      for (const [s, mark] of marks) { mark.setAttribute("cx", X(x[k])); mark.setAttribute("cy", known(s.curve[k]) ? Y(s.curve[k]) : -99); }
    };
  }
})();
