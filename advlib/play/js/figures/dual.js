/* Dual norms: the worst change of a linear model in two pixels, in the ball of a norm,
   with and without the box. */
"use strict";
(Sides => {
  const { svg } = Sides.draw, NORMS = [1, 1.1, 1.25, 1.5, 2, 3, 5, 10, Infinity];
  const FROM = -.35, TO = 1.35, LONG = .17, MOST = 2; // the view; a unit of w; the largest weight

  const norm = (v, p) => p === Infinity ? Math.max(...v.map(Math.abs)) : v.reduce((s, a) => s + Math.abs(a) ** p, 0) ** (1 / p);
  const dual = p => p === 1 ? Infinity : p === Infinity ? 1 : p / (p - 1);

  /**
   * The delta in the l_p ball that makes w . delta least, with `box` so that x + delta
   * stays in [0, 1]: each pixel goes against its weight, as far as it may.
   * @param {number[]} w @param {number[]} x @param {number} eps @param {number} p
   * @param {boolean} box @returns {number[]}
   */
  const worst = (w, x, eps, p, box) => {
    const room = w.map((v, i) => !box || !v ? Infinity : v > 0 ? x[i] : 1 - x[i]);
    const against = sizes => sizes.map((s, i) => s && -Math.sign(w[i]) * s);
    if (p === Infinity) return against(room.map((r, i) => w[i] ? Math.min(r, eps) : 0));
    const most = norm(w, Infinity);
    if (!most) return w.map(() => 0);
    if (p === 1) { // first where the weight is largest
      let left = eps;
      const sizes = w.map(() => 0);
      for (const i of w.map((_, k) => k).sort((a, b) => Math.abs(w[b]) - Math.abs(w[a]))) {
        sizes[i] = w[i] ? Math.min(room[i], left) : 0;
        left -= sizes[i];
      }
      return against(sizes);
    }
    const pull = w.map(v => (Math.abs(v) / most) ** (dual(p) - 1));
    const sizes = t => pull.map((v, i) => v && Math.min(room[i], t * v)); // longer with t
    if (pull.every((v, i) => !v || room[i] < Infinity) && norm(sizes(Infinity), p) <= eps) return against(sizes(Infinity));
    let low = 0, high = eps;
    while (norm(sizes(high), p) < eps && high < 1e300) high *= 2;
    for (let k = 0; k < 100; k++) {
      const middle = (low + high) / 2;
      if (norm(sizes(middle), p) < eps) low = middle;
      else high = middle;
    }
    return against(sizes(low));
  };
  const least = (w, ...how) => w.reduce((s, v, i) => s + (v && v * worst(w, ...how)[i]), 0);

  Sides.figures.dual = {
    title: "Drag the tip of w: where does its level line touch the ball?",
    uses: ["polygons"],
    state: { w: [2, 1], x: [.2, .7], p: NORMS.length - 1, eps: .3, box: false, held: "w" },
    build(stage) {
      Object.assign(stage, { worst, least, norms: NORMS });
      const controls = stage.row(), second = stage.row();
      stage.slider({ key: "p", label: "norm ℓp of the ball", min: 0, max: NORMS.length - 1, step: 1, into: controls,
        text: k => `p = ${NORMS[k] === Infinity ? "∞" : NORMS[k]}` });
      stage.slider({ key: "eps", label: "radius ϵ", min: .05, max: .5, step: .01, text: v => v.toFixed(2), into: controls });
      stage.choice({ key: "box", label: "the box [0, 1]", options: [[false, "off"], [true, "kept"]], into: second });
      stage.choice({ key: "held", label: "arrow keys move", options: [["w", "w"], ["x", "x"]], into: second });
      const board = svg("svg", { role: "img", viewBox: "0 0 340 340" }), bars = svg("svg", { role: "img" });
      const holder = stage.make("div");
      board.style = "max-width: 28rem; margin: 0 auto .6rem; overflow: hidden";
      holder.append(bars);
      stage.host.append(board, holder);
      const words = stage.make("span");
      stage.host.append(stage.make("p", { className: "verdict" }, words));

      const X = v => (v - FROM) / (TO - FROM) * 340, Y = v => 340 - X(v);
      const clamp = (v, a, b) => Math.min(Math.max(v, a), b);
      const tip = ({ x, w }) => x.map((v, i) => v + LONG * w[i]);
      const put = (held, at) => { // the handle that is held goes there
        const { x } = stage.get();
        if (held === "x") stage.set({ x: at.map(v => clamp(v, 0, 1)) });
        else stage.set({ w: at.map((v, i) => clamp(Math.round((v - x[i]) / LONG * 20) / 20, -MOST, MOST)) });
      };
      stage.drag(board, {
        move(fx, fy, when) {
          const at = [FROM + fx * (TO - FROM), FROM + (1 - fy) * (TO - FROM)], state = stage.get();
          const far = to => Math.hypot(to[0] - at[0], to[1] - at[1]);
          if (when === "start") stage.set({ held: far(tip(state)) <= far(state.x) ? "w" : "x" });
          put(stage.get().held, at);
        },
        key(dx, dy) {
          const { held, x, w } = stage.get();
          if (held === "x") stage.set({ x: [clamp(x[0] + dx / 50, 0, 1), clamp(x[1] - dy / 50, 0, 1)] });
          else stage.set({ w: [clamp(w[0] + dx / 20, -MOST, MOST), clamp(w[1] - dy / 20, -MOST, MOST)].map(v => Math.round(v * 20) / 20) });
        },
      });
      let width = 0;
      stage.sized(holder, v => { width = v; stage.redraw(); });

      /** Arrow from a to b; `head` its size. */
      const arrow = ([a, b], [c, d], colour, dashes = "") => {
        const u = X(c) - X(a), v = Y(d) - Y(b), long = Math.hypot(u, v);
        if (long < 1) return [];
        const [e, f] = [u / long, v / long], h = 9;
        return [svg("line", { x1: X(a), y1: Y(b), x2: X(c) - 4 * e, y2: Y(d) - 4 * f, stroke: colour, "stroke-width": 3, "stroke-dasharray": dashes }),
          svg("polygon", { fill: colour, points: [[0, 0], [-h, h / 2], [-h, -h / 2]].map(([s, t]) => `${X(c) + s * e - t * f},${Y(d) + s * f + t * e}`).join(" ") })];
      };
      const area = (points, more) => svg("polygon", { points: points.map(([a, b]) => `${X(a)},${Y(b)}`).join(" "), ...more });

      const draw = ({ w, x, eps, box, held }, p, change, free) => {
        const ball = Array.from({ length: 240 }, (_, k) => [Math.cos(k * Math.PI / 120), Math.sin(k * Math.PI / 120)])
          .map(u => u.map((v, i) => x[i] + eps * v / norm(u, p)));
        const inside = [[1, 0, 0], [-1, 0, 1], [0, 1, 0], [0, -1, 1]].reduce((left, line) => Sides.polygons.clip(left, line), ball);
        const size = Math.hypot(...w), view = [[FROM, FROM], [TO, FROM], [TO, TO], [FROM, TO]];
        const level = (v, more) => { // where w . delta = v
          const ends = Sides.polygons.level(view, [...w, -w[0] * x[0] - w[1] * x[1]], v);
          return ends ? [svg("line", { x1: X(ends[0][0]), y1: Y(ends[0][1]), x2: X(ends[1][0]), y2: Y(ends[1][1]), ...more })] : [];
        };
        const value = d => w[0] * d[0] + w[1] * d[1], end = d => x.map((v, i) => v + d[i]);
        board.replaceChildren(
          ...size ? Array.from({ length: 31 }, (_, k) => k - 15).flatMap(k => level(.2 * k, { stroke: "var(--s-line)" })) : [],
          area(ball, { fill: "var(--s-quiet)", "fill-opacity": box ? .1 : .25 }), ...box ? [area(inside, { fill: "var(--s-quiet)", "fill-opacity": .3 })] : [],
          area([[0, 0], [1, 0], [1, 1], [0, 1]], { fill: "none", stroke: "var(--s-ink)", "stroke-width": box ? 2 : 1, "stroke-dasharray": box ? "" : "5 4" }),
          ...size ? level(value(change), { stroke: "var(--m-exact)", "stroke-width": 2.5 }) : [],
          ...box ? arrow(x, end(free), "var(--s-quiet)", "4 3") : [], ...arrow(x, end(change), "var(--m-pgd)"),
          ...arrow(x, tip({ x, w }), "var(--s-ink)"),
          ...[["w", tip({ x, w })], ["x", x]].flatMap(([name, at]) => [
            svg("circle", { cx: X(at[0]), cy: Y(at[1]), r: 12, fill: "var(--s-link)", "fill-opacity": name === held ? .25 : .1 }),
            svg("circle", { cx: X(at[0]), cy: Y(at[1]), r: 3.5, fill: "var(--s-ink)" }),
            svg("text", { x: X(at[0]) + 10, y: Y(at[1]) - 9, "font-weight": 700, "font-style": "italic", style: "font-size: 14px" }, name)]),
          svg("text", { x: X(1) - 3, y: Y(0) + 14, "text-anchor": "end", class: "quiet" }, "pixel 1: 0 to 1"),
          svg("text", { x: X(1) + 14, y: Y(1) + 3, "text-anchor": "end", class: "quiet", transform: `rotate(-90 ${X(1) + 14} ${Y(1) + 3})` }, "pixel 2: 0 to 1"));
      };

      const chart = rows => {
        const LEFT = 132, end = width - 48;
        bars.setAttribute("viewBox", `0 0 ${width} 58`);
        bars.setAttribute("height", 58);
        bars.replaceChildren(...rows.flatMap(([name, value, colour], k) => {
          const y = 6 + 27 * k, long = value / (2 * MOST * .5) * (end - LEFT);
          return [svg("text", { x: 0, y: y + 14 }, name), svg("rect", { x: LEFT, y, width: Math.max(long, 0), height: 19, fill: colour, "fill-opacity": .85 }),
            svg("text", { x: LEFT + long + 6, y: y + 14, "font-weight": 700 }, value.toFixed(2))];
        }));
        bars.setAttribute("aria-label", rows.map(([name, value]) => `${name}: ${value.toFixed(2)}`).join("; "));
      };

      /** In words, where the level line touches. */
      const place = (w, p) => {
        const [a, b] = w.map(Math.abs);
        if (!a && !b) return "w is 0: nothing changes the output.";
        if (p === Infinity) return a && b ? "It touches a corner: every pixel moves by ϵ." : "A tie: it touches a whole side, since one weight is 0.";
        if (p === 1) return a === b ? "A tie: it touches a whole side, since both weights are equally large." : "It touches a tip: one pixel moves, the one with the larger weight.";
        return p === 2 ? "It touches straight against w." : p < 2 ? "It touches near a tip: the larger weight moves most." : "It touches near a corner: both pixels move almost alike.";
      };

      return state => {
        const p = NORMS[state.p], q = dual(p), { w, x, eps, box } = state, name = v => v === Infinity ? "∞" : String(Number(v.toPrecision(3)));
        const free = worst(w, x, eps, p, false), change = worst(w, x, eps, p, box);
        const whole = eps * norm(w, q), kept = -least(w, x, eps, p, true);
        draw(state, p, change, free);
        const sign = `ϵ‖w‖${{ 1: "₁", 2: "₂", Infinity: "∞" }[q] ?? `, q = ${name(q)}`}`;
        if (width) chart([[`no box: ${sign}`, whole, box ? "var(--s-quiet)" : "var(--m-pgd)"], ["box kept", kept, box ? "var(--m-pgd)" : "var(--s-quiet)"]]);
        const share = whole ? ` ${box ? "Of that the box leaves" : "The box would leave"} ${Math.round(100 * kept / whole)} %.` : "";
        words.textContent = `${sign}: ${eps.toFixed(2)} × ${norm(w, q).toFixed(2)} = ${whole.toFixed(2)}. ${box ? "" : place(w, p)}${share}`.replace("  ", " ");
        board.setAttribute("aria-label", `Two pixels: x = (${x.map(v => v.toFixed(2)).join(", ")}), w = (${w.map(v => v.toFixed(2)).join(", ")}), worst change (${change.map(v => v.toFixed(2)).join(", ")}). Arrow keys move ${state.held}.`);
        stage.say(`p = ${name(p)}, w = (${w.map(v => v.toFixed(2)).join(", ")}), ${box ? "box kept" : "no box"}. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
