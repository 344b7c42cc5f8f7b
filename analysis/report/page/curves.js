// Curves over tokens: read by pointer or arrow keys, zoomed by dragging across, saved as CSV.
class Curves {
  constructor(host, chart) {
    this.chart = chart;
    this.zoom = null;
    this.figure = html("figure");
    const head = html("figcaption", "", chart.title);
    this.reset = html("button", "small", "reset zoom");
    this.reset.hidden = true;
    this.reset.addEventListener("click", () => { this.zoom = null; this.draw(); });
    const save = html("button", "small", "CSV");
    save.title = "the data behind this figure";
    save.addEventListener("click", () => this.save());
    const tools = html("span", "tools");
    tools.append(this.reset, save);
    head.append(tools);
    this.svg = svg("svg", { tabindex: 0, role: "img", "aria-label": `${chart.title}: ${chart.y} over ${chart.x}, a line an arm; arrow keys read values` });
    this.figure.append(head, this.svg);
    host.append(this.figure);
    this.dense = chart.lines.some((line) => line.x.length > 40);
    this.places = [...new Set(chart.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    this.svg.addEventListener("pointermove", (event) => this.move(event));
    this.svg.addEventListener("pointerdown", (event) => this.press(event));
    this.svg.addEventListener("pointerup", (event) => this.release(event));
    this.svg.addEventListener("pointerleave", () => this.leave());
    this.svg.addEventListener("pointercancel", () => this.leave());
    this.svg.addEventListener("blur", () => this.leave());
    this.svg.addEventListener("dblclick", () => { this.zoom = null; this.draw(); });
    this.svg.addEventListener("keydown", (event) => this.key(event));
    drawn.push(this);
  }
  get visible() { return this.chart.lines.filter((line) => !state.off.has(line.arm)); }
  draw() {
    const width = this.figure.clientWidth || 400;
    this.width = width;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.setAttribute("height", HEIGHT);
    this.reset.hidden = this.zoom === null;
    const all = [...this.places, ...this.chart.stages.map(([at]) => at)];
    const pad = 0.03 * (Math.max(...all) - Math.min(...all)) || 1;
    const [low, high] = this.zoom ?? [Math.min(...all) - pad, Math.max(...all) + pad];
    let [bottom, top] = [Infinity, -Infinity];
    for (const line of this.visible) {
      const series = state.seeds && Object.keys(line.seeds).length ? Object.values(line.seeds) : [line.mean, line.low ?? line.mean, line.high ?? line.mean];
      line.x.forEach((x, at) => {
        if (x < low || x > high) return;
        for (const one of series) if (known(one[at])) { bottom = Math.min(bottom, one[at]); top = Math.max(top, one[at]); }
      });
    }
    if (bottom > top) [bottom, top] = [0, 1];
    const room = 0.06 * (top - bottom) || 0.5;
    [bottom, top] = [bottom - room, top + room];
    this.low = low; this.high = high; this.span = top - bottom;
    this.px = (x) => LEFT + ((x - low) / (high - low)) * (width - LEFT - RIGHT);
    this.py = (y) => HEIGHT - BOTTOM - ((y - bottom) / (top - bottom)) * (HEIGHT - TOP - BOTTOM);
    this.svg.replaceChildren();
    this.axes(bottom, top);
    const id = `clip${drawn.indexOf(this)}`;
    const clip = svg("clipPath", { id });
    clip.append(svg("rect", { x: LEFT - 5, y: TOP - 5, width: width - LEFT - RIGHT + 10, height: HEIGHT - TOP - BOTTOM + 10 }));
    const plot = svg("g", { "clip-path": `url(#${id})` });
    if (this.visible.length <= MOST_BANDS) for (const line of this.visible) this.band(plot, line);
    for (const line of this.visible) this.line(plot, line);
    for (const at of this.chart.spikes) plot.append(svg("line", { x1: this.px(at), x2: this.px(at), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM - 8, class: "spike" }));
    this.cursor = svg("g");
    this.svg.append(clip, plot, this.cursor);
  }
  axes(bottom, top) {
    const { svg: target, width } = this;
    for (const at of ticks(bottom, top, 5)) {
      target.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: this.py(at), y2: this.py(at), class: "grid" }));
      target.append(svg("text", { x: LEFT - 7, y: this.py(at) + 4, "text-anchor": "end" }, digits(at, this.span)));
    }
    let labels = this.zoom || !this.chart.ticks.length ? ticks(this.low, this.high, Math.max(2, Math.floor(width / 110))).filter((at) => at >= 0).map((at) => [at, tokens(at)]) : this.chart.ticks;
    let last = -Infinity;
    for (const [at, text] of labels) {
      const x = this.px(at);
      target.append(svg("line", { x1: x, x2: x, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4, class: "axis" }));
      if (x - last < 6.5 * text.length + 8) continue;
      target.append(svg("text", { x, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, text));
      last = x;
    }
    target.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, class: "axis" }));
    target.append(svg("text", { x: width - RIGHT, y: HEIGHT - 5, "text-anchor": "end", class: "name" }, this.chart.x));
    target.append(svg("text", { x: 0, y: 10, class: "name" }, this.chart.y));
    let until = LEFT + 7 * this.chart.y.length - 30;
    for (const [at, stage] of this.chart.stages) {
      if (at < this.low || at > this.high) continue;
      const x = this.px(at);
      target.append(svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: "stage" }));
      if (x < until || x + 6 * stage.length > width) continue;
      target.append(svg("text", { x: x + 3, y: 10, class: "name" }, stage));
      until = x + 7 * stage.length + 6;
    }
    const guide = this.chart.guide;
    if (guide && guide[0] >= bottom && guide[0] <= top) {
      target.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: this.py(guide[0]), y2: this.py(guide[0]), class: "guide" }));
      target.append(svg("text", { x: width - RIGHT, y: this.py(guide[0]) - 4, "text-anchor": "end", class: "name" }, guide[1]));
    }
  }
  path(x, y) {
    let path = "", open = false;
    x.forEach((at, index) => {
      if (!known(y[index])) { open = false; return; }
      path += `${open ? "L" : "M"}${this.px(at).toFixed(1)} ${this.py(y[index]).toFixed(1)}`;
      open = true;
    });
    return path;
  }
  band(plot, line) {
    if (state.seeds || !line.low) return;
    const there = line.x.map((_, at) => at).filter((at) => known(line.low[at]) && known(line.high[at]));
    const upper = there.map((at) => `${this.px(line.x[at]).toFixed(1)} ${this.py(line.high[at]).toFixed(1)}`);
    const lower = there.map((at) => `${this.px(line.x[at]).toFixed(1)} ${this.py(line.low[at]).toFixed(1)}`).reverse();
    if (there.length > 1) plot.append(svg("path", { d: `M${[...upper, ...lower].join("L")}Z`, class: "band", style: `fill:${colour(line.arm)}` }));
  }
  line(plot, line) {
    const style = `stroke:${colour(line.arm)}`;
    const seeds = Object.values(line.seeds);
    if (state.seeds && seeds.length) {
      for (const one of seeds) plot.append(svg("path", { d: this.path(line.x, one), class: "seed", style }));
      return;
    }
    plot.append(svg("path", { d: this.path(line.x, line.mean), class: this.dense ? "curve dense" : "curve", style }));
    if (this.dense || line.x.length > 12) return;
    line.x.forEach((x, at) => {
      if (!known(line.mean[at])) return;
      plot.append(svg("circle", { cx: this.px(x), cy: this.py(line.mean[at]), r: 3.6, class: "dot", style: `fill:${colour(line.arm)}` }));
    });
  }
  x(event) {
    const box = this.svg.getBoundingClientRect();
    return this.low + ((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (this.high - this.low);
  }
  move(event) {
    const at = this.x(event);
    if (this.from !== undefined && Math.abs(event.clientX - this.fromX) > 6) {
      const [x1, x2] = [this.from, at].map((x) => Math.min(Math.max(this.px(x), LEFT), this.width - RIGHT)).sort((a, b) => a - b);
      this.cursor.replaceChildren(svg("rect", { x: x1, y: TOP, width: x2 - x1, height: HEIGHT - TOP - BOTTOM, class: "brush" }));
      hideTip();
      return;
    }
    this.read(at, event.clientX, event.clientY);
  }
  press(event) {
    if (event.pointerType === "touch") { this.read(this.x(event), event.clientX, event.clientY); return; }
    if (event.button !== 0) return;
    this.from = this.x(event);
    this.fromX = event.clientX;
    this.svg.setPointerCapture(event.pointerId);
  }
  release(event) {
    if (this.from === undefined) return;
    const range = [this.from, this.x(event)].sort((a, b) => a - b);
    const far = Math.abs(event.clientX - this.fromX) > 6;
    this.from = undefined;
    if (far) { this.zoom = range; this.draw(); }
  }
  leave() { this.from = undefined; this.at = undefined; if (this.cursor) this.cursor.replaceChildren(); hideTip(); }
  key(event) {
    if (event.key === "Escape") { this.zoom = null; this.draw(); this.leave(); return; }
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const places = this.places.filter((x) => x >= this.low && x <= this.high);
    if (!step || !places.length) return;
    event.preventDefault();
    const now = places.indexOf(this.at);
    const jump = Math.max(1, Math.round(places.length / 60)) * step;
    const at = places[now < 0 ? (step > 0 ? 0 : places.length - 1) : Math.min(Math.max(0, now + jump), places.length - 1)];
    const box = this.svg.getBoundingClientRect();
    this.read(at, box.left + this.px(at), box.top + 60);
  }
  read(x, clientX, clientY) {
    const places = this.places.filter((at) => at >= this.low && at <= this.high);
    if (!places.length) return;
    const at = places.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best));
    this.at = at;
    this.cursor.replaceChildren(svg("line", { x1: this.px(at), x2: this.px(at), y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor" }));
    const rows = [];
    for (const line of this.visible) {
      const index = line.x.indexOf(at);
      if (index < 0 || !known(line.mean[index])) continue;
      this.cursor.append(svg("circle", { cx: this.px(at), cy: this.py(line.mean[index]), r: 4.5, class: "dot", style: `fill:${colour(line.arm)}` }));
      const half = line.half && known(line.half[index]) ? ` \u00b1 ${digits(line.half[index], this.span)}` : "";
      const seeds = Object.entries(line.seeds).filter(([, values]) => known(values[index]));
      const more = state.seeds && seeds.length < 7 ? seeds.map(([seed, values]) => `seed ${seed}: ${digits(values[index], this.span)}`).join(" \u00b7 ") : "";
      rows.push([line.arm, digits(line.mean[index], this.span / 5) + half, more, line.mean[index]]);
    }
    rows.sort((a, b) => b[3] - a[3]);
    const label = (this.chart.ticks.find(([tick]) => tick === at) ?? [at, `${tokens(at)} tokens`])[1];
    const shown = rows.slice(0, 14);
    if (rows.length > shown.length) shown.push([null, `and ${rows.length - shown.length} more`, ""]);
    showTip(label, shown, clientX, clientY);
  }
  save() {
    const quoted = (text) => { const safe = /^[=+\-@]/.test(text) ? `'${text}` : text; return `"${safe.replaceAll('"', '""')}"`; };
    const lines = ["arm,seed,tokens,value"];
    for (const line of this.chart.lines) {
      const series = [["mean", line.mean], ...Object.entries(line.seeds)];
      for (const [seed, values] of series) line.x.forEach((x, at) => { if (known(values[at])) lines.push(`${quoted(name(line.arm))},${seed},${x},${values[at]}`); });
    }
    const link = html("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
    link.download = `${this.chart.title.toLowerCase().replace(/[^a-z0-9]+/g, "_")}.csv`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}
