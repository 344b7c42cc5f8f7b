// Differences to the baseline: a row an arm, a dot with its interval, faint where it cannot be told from noise.
class Effects {
  constructor(host, column) {
    this.column = column;
    this.figure = html("figure");
    this.svg = svg("svg", { preserveAspectRatio: "xMinYMin meet", role: "img", "aria-label": `${column.title}: each arm's difference to the baseline with its 95% interval` });
    const scroll = html("div", "tall");
    scroll.append(this.svg);
    this.figure.append(html("figcaption", "", column.title + column.mark), scroll);
    host.append(this.figure);
    this.svg.addEventListener("pointerleave", hideTip);
    drawn.push(this);
  }
  draw() {
    const rows = this.column.rows.filter((row) => !state.off.has(row.arm));
    const width = this.figure.clientWidth || 300, longest = Math.max(0, ...rows.map((row) => name(row.arm).length));
    const above = 20 + 7 * longest > 0.42 * width; // a label that does not fit beside its whisker stands above it
    const words = above ? 0 : 20 + 7 * longest;
    const ROW = above ? 40 : 26, top = 22, height = top + ROW * rows.length + 6;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.replaceChildren();
    const ends = this.column.rows.flatMap((row) => [row.mean - (row.half ?? 0), row.mean + (row.half ?? 0), row.paper ?? 0]);
    const most = 1.08 * Math.max(10 ** (1 - this.column.decimals), ...ends.map(Math.abs));
    const px = (value) => words + 6 + ((value + most) / (2 * most)) * (width - words - 18);
    for (const at of ticks(-most, most, Math.max(4, Math.floor((width - words) / 40)))) {
      this.svg.append(svg("line", { x1: px(at), x2: px(at), y1: top - 4, y2: height, class: at === 0 ? "axis" : "grid" }));
      this.svg.append(svg("text", { x: px(at), y: 12, "text-anchor": "middle" }, at === 0 ? "0" : (at > 0 ? "+" : "\u2212") + Math.abs(Number(at.toPrecision(3)))));
    }
    rows.forEach((row, index) => {
      const y = top + ROW * index + (above ? 28 : 13);
      const group = svg("g", { class: row.apart ? "" : "noise" });
      const text = name(row.arm);
      group.append(svg("text", { x: 0, y: above ? y - 11 : y + 4, class: "label" }, shortened(text, Math.floor(width / 6.8))));
      if (known(row.half)) group.append(svg("line", { x1: px(row.mean - row.half), x2: px(row.mean + row.half), y1: y, y2: y, class: "whisker", style: `stroke:${colour(row.arm)}` }));
      group.append(svg("circle", { cx: px(row.mean), cy: y, r: 5, class: "effect", style: `stroke:${colour(row.arm)};fill:${row.apart ? colour(row.arm) : "var(--paper)"}` }));
      if (known(row.paper)) group.append(svg("path", { d: `M${px(row.paper)} ${y - 8}v16`, class: "published" }));
      const box = svg("rect", { x: 0, y: top + ROW * index, width, height: ROW, fill: "transparent" });
      box.addEventListener("pointermove", (event) => {
        const lines = [[row.arm, `${signed(row.mean, this.column.decimals)}${known(row.half) ? ` \u00b1 ${row.half.toFixed(this.column.decimals)}` : ""}`, row.apart ? "told from noise" : "cannot be told from noise"]];
        if (known(row.paper)) lines.push([null, `paper ${signed(row.paper)}`, ""]);
        showTip(`${this.column.title} at ${row.at}`, lines, event.clientX, event.clientY);
      });
      group.append(box);
      this.svg.append(group);
    });
  }
}
