// Legends that show and hide arms in all figures at once, each naming what its figures draw; and the figures themselves.
function controls(host, charts) {
  const bar = html("div", "controls");
  const keys = html("div", "legend");
  const buttons = new Map();
  const mark = () => { for (const [arm, button] of buttons) button.setAttribute("aria-pressed", String(!state.off.has(arm))); };
  const isDrawn = (arm) => charts.some((chart) => chart.lines.some((line) => line.arm === arm));
  const arms = charts ? [...data.arms.keys(), SHARED].filter(isDrawn) : [...data.arms.keys()];
  for (const arm of arms) {
    const button = html("button", "key");
    const swatch = html("i");
    swatch.style.background = colour(arm);
    button.append(swatch, name(arm));
    button.title = "show or hide; double-click: this one alone";
    button.addEventListener("click", () => { state.off.has(arm) ? state.off.delete(arm) : state.off.add(arm); sync(); });
    button.addEventListener("dblclick", () => { state.off = new Set([...data.arms.keys()].filter((one) => one !== arm)); sync(); });
    buttons.set(arm, button);
    keys.append(button);
  }
  const every = html("button", "small", "all");
  every.addEventListener("click", () => { state.off.clear(); sync(); });
  const seeds = html("button", "small seeds", "each seed");
  seeds.addEventListener("click", () => { state.seeds = !state.seeds; sync(); });
  bar.append(keys, every, ...(charts && data.seeds.length > 1 ? [seeds] : []));
  host.querySelector(".panels").before(bar);
  syncs.push(() => { mark(); seeds.setAttribute("aria-pressed", String(state.seeds)); });
}
const syncs = [];
function sync() { for (const one of syncs) one(); redraw(); }

for (const host of document.querySelectorAll("[data-figures]")) {
  const kind = host.dataset.figures;
  const panels = host.querySelector(".panels");
  if (kind === "effects") for (const column of data.effects) new Effects(panels, column);
  else if (kind === "timeline") { new Strips(panels, data.timeline); controls(host, null); }
  else { for (const chart of data[kind]) new Curves(panels, chart); controls(host, data[kind]); }
}
for (const button of document.querySelectorAll("[data-only]")) {
  button.addEventListener("click", () => {
    const arm = Number(button.dataset.only);
    state.off = new Set([...data.arms.keys()].filter((one) => one !== arm && !data.arms[one].baseline));
    sync();
    document.querySelector("[data-figures=scores], [data-figures=loss]")?.scrollIntoView();
  });
}
sync();
let width = window.innerWidth;
window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; redraw(); } });
window.addEventListener("scroll", hideTip, { passive: true });
