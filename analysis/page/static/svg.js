"use strict";
// Small tools that the explorer's parts share.
const NS = "http://www.w3.org/2000/svg";

function svg(name, given, parent, text) {
  const made = document.createElementNS(NS, name);
  for (const key in given) made.setAttribute(key, given[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

function html(name, given, parent, text) {
  const made = document.createElement(name);
  for (const key in given) made.setAttribute(key, given[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

// The colours of sides, orange and blue for two (Okabe and Ito's, for all eyes); beyond six they come again, dashed.
const TINTS = ["orange", "blue", "green", "violet", "amber", "sky"].map(name => `var(--${name})`);
const tint = side => TINTS[side % TINTS.length];
const dash = side => side < TINTS.length ? {} : { "stroke-dasharray": "4 3" };

const known = value => value !== null && value !== undefined && isFinite(value);

function shown(value, digits = 1, factor = 100) {
  return known(value) ? (factor * value).toFixed(digits).replace("-", "−") : "–";
}

function setting(value) {
  if (value === null || value === undefined) return "–";
  return typeof value === "number" ? String(+value.toPrecision(3)) : String(value);
}

// Round steps of an axis: at most `most` of them between low and high.
function ticks(low, high, most) {
  const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(k => k * power).find(k => k >= rough);
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + 1e-9; k++) found.push(+(k * step).toFixed(10));
  return found;
}

function table(rows, parent, head) {
  const made = html("table", {}, parent);
  if (head) {
    const line = html("tr", {}, html("thead", {}, made));
    head.forEach(text => html("th", { scope: "col" }, line, text));
  }
  const body = html("tbody", {}, made);
  for (const row of rows) {
    const line = html("tr", {}, body);
    row.forEach((text, i) => html(i ? "td" : "th", i ? {} : { scope: "row" }, line, text));
  }
  return made;
}
