// The explorer: controls, the picture, the rules, and what lies behind the chosen trial.
(function () {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const losses = [...new Set(data.points.map(p => String(p.config.loss ?? "")))].filter(Boolean).sort();
  const state = { x: data.x, y: data.y, chosen: null, wide: false, front: false, dial: true, losses: new Set(losses) };
  state.visible = p => (!state.front || p.front || p.style === "erm") && (p.dial ? state.dial : !losses.length || state.losses.has(String(p.config.loss ?? "")));

  const bar = html("div", { class: "bar" }, root);
  const pick = (title, id, options, chosen, act) => {
    const label = html("label", {}, bar, `${title} `);
    const made = html("select", { id }, label);
    options.forEach(([value, text]) => html("option", { value, ...(value === chosen ? { selected: "" } : {}) }, made, text));
    made.addEventListener("change", () => act(made.value));
    return made;
  };
  const scores = Object.keys(data.axes).map(name => [name, data.axes[name].title]);
  pick("Across", "pick-x", scores, state.x, value => { state.x = value; draw(); });
  pick("Upward", "pick-y", scores, state.y, value => { state.y = value; draw(); });
  const tick = (title, id, on, act) => {
    const label = html("label", {}, bar), made = html("input", { type: "checkbox", id }, label);
    made.checked = on;
    label.append(` ${title}`);
    made.addEventListener("change", () => { act(made.checked); draw(); });
  };
  tick("front only", "front-only", false, on => { state.front = on; });
  tick("all in view", "all-in-view", false, on => { state.wide = on; });
  if (losses.length > 1) for (const loss of losses) tick(loss, `loss-${loss}`, true, on => { on ? state.losses.add(loss) : state.losses.delete(loss); });
  if (data.points.some(p => p.dial)) tick("dial", "dial-points", true, on => { state.dial = on; });
  const rule = pick("Choose by", "rule", [["", "a rule …"], ...data.rules.map((one, i) => [String(i), one.rule])], "", value => {
    if (value === "") return;
    const one = data.rules[+value];
    choose(one.trial_id || one.nearest, one.sentence);
  });
  const said = html("p", { class: "said", id: "said", "aria-live": "polite" }, root);
  const two = html("div", { class: "two" }, root);
  const picture = html("div", { id: "picture" }, two), panel = html("div", { class: "detail", id: "detail" }, two);
  const legend = html("p", { class: "soft", id: "legend" }, root);
  const more = html("details", { id: "more" }, root);
  html("summary", {}, more, "Configurations side by side, and what goes with each objective");
  const beside = html("div", { id: "parallel" }, more), matters = html("div", { id: "importance" }, more);
  more.addEventListener("toggle", () => { if (more.open) parallel(data, state, beside, choose); });

  function choose(id, sentence) {
    state.chosen = id;
    said.textContent = sentence || "";
    if (!sentence) rule.value = "";
    draw();
    detail(data, id, panel);
    const mark = picture.querySelector(`[data-id="${id}"][tabindex]`);
    if (mark && document.activeElement === document.body) mark.focus({ preventScroll: true });
  }

  function draw() {
    tip();
    scatter(data, state, picture, choose);
    const there = new Set(data.points.filter(state.visible).map(p => p.style));
    legend.textContent = "Blue dots: the front. Orange diamonds: ERM. " + [["dial_front", "Green dots: positions of the dial, on the front."],
      ["dial", "Pale green dots: other positions of the dial."], ["barrier", "Open green dots: in a barrier."], ["dominated", "Small grey dots: dominated."],
      ["other_erm", "Small diamonds: ERM, dominated."], ["degenerate", "Open dots: degenerate."],
      ["outside", "Open dots, too: outside the constraints."]].filter(([name]) => there.has(name)).map(([, sentence]) => sentence).join(" ")
      + " Lines: one standard error." + (data.band.length ? " Shaded: gaps that 95 % of fair models stay within." : "");
    if (more.open) parallel(data, state, beside, choose);
  }

  document.addEventListener("click", event => {
    const link = event.target.closest("[data-trial]");
    if (link) choose(link.dataset.trial);
  });
  importance(data, matters);
  draw();
  detail(data, null, panel);
  root.dataset.ready = "yes";
})();
