// Capabilities over tokens: a strip an arm, the fuller the more is right beyond chance; a mark where it emerged.
class Strips {
  constructor(host, timeline) {
    this.timeline = timeline;
    this.figure = html("figure");
    this.svg = svg("svg", { role: "img", "aria-label": "Capabilities over tokens: where each one rose above chance" });
    this.figure.append(this.svg);
    host.append(this.figure);
    this.svg.addEventListener("pointerleave", hideTip);
    drawn.push(this);
  }
  draw() {
    const { rows, strips, stages } = this.timeline;
    const shown = strips.filter((one) => !state.off.has(one.arm));
    const arms = [...new Set(shown.map((one) => one.arm))];
    const width = this.figure.clientWidth || 600, left = Math.min(130, 0.3 * width);
    const strip = Math.max(5, Math.min(12, 36 / Math.max(1, arms.length))), row = strip * Math.max(1, arms.length) + 10, top = 18;
    const height = top + row * rows.length + 36;
    const end = Math.max(...strips.map((one) => one.x.at(-1) + (one.x.length > 1 ? one.x.at(-1) - one.x.at(-2) : 1)));
    const px = (x) => left + (x / end) * (width - left - 8);
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.replaceChildren();
    rows.forEach((capability, index) => {
      const y = top + row * index;
      this.svg.append(svg("line", { x1: 0, x2: width, y1: y + row, y2: y + row, class: "grid" }));
      this.svg.append(svg("text", { x: 0, y: y + row / 2 + 4, class: "label" }, capability));
    });
    for (const one of shown) {
      const y = top + row * rows.indexOf(one.row) + 5 + strip * arms.indexOf(one.arm);
      one.x.forEach((x, at) => {
        const next = at + 1 < one.x.length ? one.x[at + 1] : end;
        const cell = svg("rect", { x: px(x), y, width: Math.max(0.5, px(next) - px(x)), height: strip - 1, style: `fill:${colour(one.arm)}`, "fill-opacity": 0.06 + 0.9 * one.share[at] ** 0.8 });
        cell.addEventListener("pointermove", (event) => showTip(`${one.row} at ${tokens(x)} tokens`, [[one.arm, `${one.accuracy[at].toFixed(1)}%`, `chance ${one.chance.toFixed(1)}%, ${one.items} items; ${one.emerged === null ? "not emerged" : `emerged at ${tokens(one.emerged)}`}`]], event.clientX, event.clientY));
        this.svg.append(cell);
      });
      if (one.emerged !== null) this.svg.append(svg("circle", { cx: Math.max(px(one.emerged), left + 3), cy: y + (strip - 1) / 2, r: Math.min(4, strip / 2 + 0.5), class: "emerged" }));
    }
    for (const [at, stage] of stages) {
      if (at >= end) continue;
      this.svg.append(svg("line", { x1: px(at), x2: px(at), y1: top - 4, y2: height - 32, class: "stage" }));
      this.svg.append(svg("text", { x: px(at) + 3, y: 10, class: "name" }, stage));
    }
    for (const at of ticks(0, end, Math.max(2, Math.floor(width / 110)))) this.svg.append(svg("text", { x: px(at), y: height - 18, "text-anchor": at ? "middle" : "start" }, tokens(at)));
    this.svg.append(svg("text", { x: width, y: height - 3, "text-anchor": "end", class: "name" }, "tokens since initialisation"));
  }
}
