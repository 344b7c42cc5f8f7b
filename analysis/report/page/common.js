// What the figures share: the data embedded in the page, what the reader switched off, and small helpers.
const data = JSON.parse(document.getElementById("data").textContent);
const state = { off: new Set(), seeds: false };
const SHARED = -1, LEFT = 46, RIGHT = 12, TOP = 24, BOTTOM = 38, HEIGHT = 250, MOST_BANDS = 9;
const name = (arm) => (arm === SHARED ? "shared by all arms" : data.arms[arm].label);
const colour = (arm) => (arm === SHARED ? "var(--shared)" : `var(--c${data.arms[arm].colour})`);
const known = (value) => value !== null && value !== undefined;

function svg(tag, attributes = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function html(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}
function tokens(count) {
  for (const [unit, size] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (count >= 0.9995 * size) return `${Number((count / size).toPrecision(3))}${unit}`;
  }
  return String(Math.round(count));
}
function ticks(low, high, most) {
  const span = high - low || 1;
  const unit = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 2.5, 5, 10].map((factor) => unit * factor).find((one) => span / one <= most);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return found;
}
// What does not fit loses its middle: labels of arms often begin alike.
const shortened = (text, most) => (text.length <= most ? text : `${text.slice(0, Math.floor(0.4 * most))}\u2026${text.slice(1 - Math.ceil(0.6 * most))}`);
const digits = (value, span) => value.toFixed(span > 20 ? 0 : span > 2 ? 1 : span > 0.2 ? 2 : 3).replace("-", "\u2212");
const signed = (value, decimals = 1) => (value > 0 ? "+" : "") + value.toFixed(decimals).replace("-", "\u2212");

const tip = html("div", "tip");
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);
function showTip(title, rows, x, y) {
  tip.replaceChildren(html("b", "", title));
  for (const [arm, text, more] of rows) {
    const row = html("div", "row");
    const mark = html("i");
    mark.style.background = arm === null ? "none" : colour(arm);
    row.append(mark, html("span", "", arm === null ? "" : name(arm)), html("strong", "", text));
    tip.append(row);
    if (more) tip.append(html("div", "more", more));
  }
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const width = document.documentElement.clientWidth;
  const left = x + 16 + box.width > width ? x - 16 - box.width : x + 16;
  tip.style.left = `${Math.min(Math.max(6, left), Math.max(6, width - box.width - 6))}px`;
  tip.style.top = `${Math.min(Math.max(6, y - box.height / 2), Math.max(6, window.innerHeight - box.height - 6))}px`;
}
const hideTip = () => { tip.hidden = true; };

const drawn = [];
function redraw() { for (const one of drawn) one.draw(); }
