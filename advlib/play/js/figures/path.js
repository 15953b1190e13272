/* PGD in two dimensions: a digit with two patches, how bright each is. The network of
   these two numbers is the real one: its first layer's weights, summed over a patch. */
"use strict";
(Sides => {
  const DIGIT = 1, SIDE = 5, CORNERS = [[4, 7], [4, 21]]; // left and right patch
  const X = [.2, .1], EPS = .6, FROM = -.55, TO = 1.05, GRID = 64;
  const LEVELS = [.05, .1, .2, .5, 1, 2, 3, 4, 5];
  const clip = (v, low, high) => Math.min(Math.max(v, low), high);
  const pixels = ([row, column]) => Array.from({ length: SIDE * SIDE }, (_, k) =>
    28 * (row + Math.floor(k / SIDE)) + column + k % SIDE);

  /** The network as a function of two numbers, and the image that shows them. */
  const fold = () => {
    const net = Sides.network(Sides.notes.standard), [first] = net;
    const places = CORNERS.map(pixels);
    const picture = u => {
      const x = Sides.draw.digits()[DIGIT];
      places.forEach((all, k) => { for (const i of all) x[i] = u[k]; });
      return x;
    };
    const weight = new Float64Array(2 * first.outputs);
    for (let o = 0; o < first.outputs; o++) places.forEach((all, k) => {
      for (const i of all) weight[2 * o + k] += first.weight[o * first.inputs + i];
    });
    return { net: [new Sides.Dense(weight, first.apply(picture([0, 0]))), ...net.slice(1)], picture };
  };

  /** Loss, what the network says, and the loss's gradient at a point. */
  const look = (net, u, inside) => {
    const seen = Float64Array.from(inside ? u.map(v => clip(v, 0, 1)) : u);
    const all = Sides.forward(net, seen), z = all.at(-1), p = Sides.softmax(z);
    const loss = Math.max(...z) - z[DIGIT] + Math.log(z.reduce((s, v) => s + Math.exp(v - Math.max(...z)), 0));
    const slope = p.slice();
    slope[DIGIT] -= 1;
    const g = [...Sides.gradient(net, all, slope)];
    if (inside) u.forEach((v, i) => { if (v < 0 || v > 1) g[i] = 0; }); // the clamp's slope
    return { loss, said: z.indexOf(Math.max(...z)), share: p, g };
  };

  const size = { linf: d => Math.max(...d.map(Math.abs)), l2: d => Math.hypot(...d), l1: d => d.reduce((s, v) => s + Math.abs(v), 0) };

  /** Into the ball, and the box [low, high], as `advlib.attacks` does it. */
  const project = (d, norm, low, high) => {
    const cut = t => d.map((v, i) => clip(Math.sign(v) * Math.max(Math.abs(v) - t, 0), low[i], high[i]));
    if (norm === "linf") return d.map((v, i) => clip(v, Math.max(low[i], -EPS), Math.min(high[i], EPS)));
    if (norm === "l1") { // one threshold for all sizes
      if (size.l1(cut(0)) <= EPS) return cut(0);
      let a = 0, b = size.linf(d);
      for (let k = 0; k < 60; k++) {
        const t = (a + b) / 2;
        if (size.l1(cut(t)) > EPS) a = t; else b = t;
      }
      return cut(b);
    }
    const kept = cut(0), factor = Math.min(1, EPS / (size.l2(kept) || 1));
    return kept.map(v => factor * v);
  };

  /** The steepest step of length one. */
  const steepest = (g, norm, d, low, high) => {
    if (norm === "linf") return g.map(Math.sign);
    if (norm === "l2") return g.map(v => v / (size.l2(g) || 1));
    const free = g.map((v, i) => ((d[i] >= high[i] && v > 0) || (d[i] <= low[i] && v < 0) ? 0 : v));
    const best = Math.abs(free[1]) > Math.abs(free[0]) ? 1 : 0;
    return free.map((v, i) => (i === best ? Math.sign(v) : 0));
  };

  /**
   * All points of one attack, each with the point before its projection.
   * @param {object} state start (a change of the image), norm, step, clamp, alpha, steps
   */
  const walk = (net, { start, norm, step, clamp, alpha, steps }) => {
    const inside = clamp === "inside", length = 10 ** alpha;
    const low = X.map(v => (inside ? -Infinity : -v)), high = X.map(v => (inside ? Infinity : 1 - v));
    let before = start, d = project(start, norm, low, high);
    const points = [];
    for (let k = 0; ; k++) {
      const u = d.map((v, i) => X[i] + v), found = look(net, u, inside);
      points.push({ u, before: before.map((v, i) => X[i] + v), ...found });
      if (k === steps) return points;
      const way = step === "raw" ? found.g : steepest(found.g, norm, d, low, high);
      before = d.map((v, i) => v + length * way[i]);
      d = project(before, norm, low, high);
    }
  };

  /** Lines where values on a grid, (GRID + 1) in each row, cross a level. */
  const contour = (values, level) => {
    const n = GRID + 1, at = v => FROM + v * (TO - FROM) / GRID, parts = [];
    for (let j = 0; j < GRID; j++) for (let i = 0; i < GRID; i++) {
      const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], cross = [];
      corners.forEach(([a, b], k) => {
        const [c, e] = corners[(k + 1) % 4], v = values[b * n + a] - level, w = values[e * n + c] - level;
        if (v > 0 !== w > 0) cross.push(`${at(a + (c - a) * v / (v - w)).toFixed(4)} ${at(b + (e - b) * v / (v - w)).toFixed(4)}`);
      });
      for (let k = 0; k + 1 < cross.length; k += 2) parts.push(`M${cross[k]}L${cross[k + 1]}`);
    }
    return parts.join("");
  };

  /** What lies under the paths: lines of equal loss, where it is misread, as what. */
  const ground = (net, inside) => {
    const n = GRID + 1, loss = [], margin = [], areas = {};
    for (let j = 0; j < n; j++) for (let i = 0; i < n; i++) {
      const u = [i, j].map(k => FROM + k * (TO - FROM) / GRID);
      const z = Sides.logits(net, Float64Array.from(inside ? u.map(v => clip(v, 0, 1)) : u));
      const top = Math.max(...z), said = z.indexOf(top);
      loss.push(top - z[DIGIT] + Math.log(z.reduce((s, v) => s + Math.exp(v - top), 0)));
      margin.push(-Sides.margin(z, DIGIT).least);
      if (Math.min(...u) > .04) (areas[said] ??= []).push(u);
    }
    const canvas = Object.assign(document.createElement("canvas"), { width: n, height: n });
    const context = canvas.getContext("2d"), image = context.createImageData(n, n);
    margin.forEach((m, k) => image.data.set([232, 112, 58, m > 0 ? 70 : 0], 4 * ((n - 1 - Math.floor(k / n)) * n + k % n)));
    context.putImageData(image, 0, 0);
    const names = Object.entries(areas).filter(([, all]) => all.length > 25).map(([said, all]) =>
      [said, [0, 1].map(i => all.reduce((s, u) => s + u[i], 0) / all.length)]);
    return { fill: canvas.toDataURL(), edge: contour(margin, 0), lines: LEVELS.map(v => contour(loss, v)).join(""), names };
  };

  const number = v => v.toFixed(2).replace("-", "−");
  const NORMS = [["linf", "ℓ∞"], ["l2", "ℓ2"], ["l1", "ℓ1"]];

  Sides.figures.path = {
    title: "Drag the ring: where the attack starts decides where it ends",
    uses: ["network"],
    needs: ["standard", "digits"],
    state: { start: [0, 0], norm: "linf", step: "steepest", clamp: "after", alpha: -1, steps: 12 },
    build(stage) {
      const { net, picture } = fold(), grounds = {}, { svg, axes, bitmap, ink } = Sides.draw;
      const table = stage.row(), left = stage.row("", table), right = stage.row("", table);
      table.style.alignItems = "start";
      Object.assign(left.style, { flex: "2 1 18rem", minWidth: 0 });
      Object.assign(right.style, { flex: "1 1 9rem", display: "flex", flexWrap: "wrap", gap: ".5rem 1rem", minWidth: 0 });
      const map = svg("svg", { role: "application", "aria-label": "the plane of the two patches; arrow keys move the start", style: "aspect-ratio: 1" });
      left.append(map);
      const seen = bitmap("what the network sees at the end"), chart = stage.make("div");
      const panels = [[seen.canvas, "1 1 7rem", "10rem"], [chart, "1 1 9rem", "none"]].map(([content, flex, maxWidth]) => {
        const found = stage.panel("", content, right);
        Object.assign(content.parentElement.style, { flex, maxWidth, display: "block" });
        return found.name;
      });
      panels[1].textContent = "loss after each step";
      const one = stage.row(), two = stage.row();
      stage.choice({ key: "norm", label: "ball and step in", into: one, options: NORMS });
      stage.choice({ key: "step", label: "direction", into: one, options: [["steepest", "steepest step"], ["raw", "raw gradient"]] });
      stage.choice({ key: "clamp", label: "clamp to [0, 1]", into: one, options: [["after", "after each step"], ["inside", "inside the graph"]] });
      stage.slider({ key: "alpha", label: "step length α", min: -2, max: 2, step: .1, into: two,
        text: v => String(Number((10 ** v).toPrecision(2))) });
      stage.slider({ key: "steps", label: "steps", min: 0, max: 40, step: 1, into: two });
      const badge = stage.make("b"), words = stage.make("span");
      stage.host.append(stage.make("p", { className: "verdict" }, badge, words));

      let width = 0, last = null;
      const low = 34, pad = 8; // room for the scale
      const S = v => (v - FROM) / (TO - FROM) * (width - low - pad);
      const at = ([a, b]) => [low + S(a), width - low - S(b)];
      const set = u => {
        const d = project(u.map((v, i) => v - X[i]), stage.get().norm, [-1e9, -1e9], [1e9, 1e9]);
        stage.set({ start: d.map(v => Math.round(1e3 * v) / 1e3) });
      };
      stage.drag(map, {
        move: (a, b) => set([[a * width, low], [width - b * width, low]].map(([v, from]) =>
          FROM + (v - from) / (width - low - pad) * (TO - FROM))),
        key: (a, b) => {
          const { start } = stage.get();
          set([X[0] + start[0] + .02 * a, X[1] + start[1] - .02 * b]);
        },
      });

      const drawMap = () => {
        const { state, points } = last, inside = state.clamp === "inside";
        const under = grounds[state.clamp] ??= ground(net, inside), parts = [];
        const text = (u, words, more = {}) => {
          const [x, y] = at(u);
          parts.push(svg("text", { x, y, "text-anchor": "middle", ...more }, words));
        };
        const line = (all, more) => parts.push(svg("polyline", { points: all.map(at).join(" "), fill: "none", ...more }));
        const dot = (u, r, more) => {
          const [cx, cy] = at(u);
          parts.push(svg("circle", { cx, cy, r, ...more }));
        };
        const [x0, y1] = at([FROM, TO]), wide = S(TO), scale = wide / (TO - FROM);
        parts.push(svg("image", { href: under.fill, x: x0, y: y1, width: wide, height: wide, preserveAspectRatio: "none" }));
        const group = svg("g", { transform: `translate(${x0 - FROM * scale} ${y1 + TO * scale}) scale(${scale} ${-scale})`, fill: "none" });
        for (const [d, stroke, thick] of [[under.lines, "var(--s-quiet)", .7], [under.edge, "var(--s-fooled)", 1.6]])
          group.append(svg("path", { d, stroke, "stroke-width": thick, "vector-effect": "non-scaling-stroke" }));
        parts.push(group);
        line([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], { stroke: "var(--s-ink)", "stroke-width": 2 });
        const turn = Array.from({ length: 121 }, (_, k) => [Math.cos(k * Math.PI / 60), Math.sin(k * Math.PI / 60)]);
        line(turn.map(v => v.map((c, i) => X[i] + EPS * c / size[state.norm](v))), { stroke: "var(--s-quiet)", "stroke-width": 1.5, "stroke-dasharray": "5 4" });
        for (const v of [0, .5, 1]) {
          text([v, FROM], String(v), { dy: 15, class: "quiet" });
          text([FROM, v], String(v), { dx: -6, dy: 4, "text-anchor": "end", class: "quiet" });
        }
        text([.5, FROM], "left patch", { dy: 30 });
        const [, y] = at([0, .22]);
        parts.push(svg("text", { "text-anchor": "middle", transform: `translate(11 ${y}) rotate(-90)` }, "right patch"));
        text([X[0], X[1] - EPS], "ball", { dy: -7, class: "quiet" });
        text([.03, 1], "box", { dy: 14, "text-anchor": "start", class: "quiet" });
        for (const [said, u] of under.names) text(u, `“${said}”`, { dy: 4 });
        const colour = ink("pgd"), path = points.map(p => p.u), end = points.at(-1);
        points.forEach((p, k) => { // how it was projected; of a long way, the end
          const way = p.before.map((v, i) => v - p.u[i]), far = size.l2(way), share = k ? Math.min(1, .15 / far) : 1;
          if (far > 1e-6) line([p.u.map((v, i) => v + share * way[i]), p.u], { stroke: colour, "stroke-width": 1.5, "stroke-dasharray": "2 3" });
        });
        line(path, { stroke: colour, "stroke-width": 2.5 });
        for (const u of path) dot(u, 2.5, { fill: colour });
        line([[X[0] - .03, X[1]], [X[0] + .03, X[1]]], { stroke: "var(--s-ink)", "stroke-width": 2.5 });
        line([[X[0], X[1] - .03], [X[0], X[1] + .03]], { stroke: "var(--s-ink)", "stroke-width": 2.5 });
        dot(points[0].before, 9, { fill: "var(--s-page)", "fill-opacity": .5, stroke: colour, "stroke-width": 3 });
        dot(end.u, 6, { fill: end.said !== DIGIT ? colour : "var(--s-page)", stroke: colour, "stroke-width": 2.5 });
        map.setAttribute("viewBox", `0 0 ${width} ${width}`);
        map.replaceChildren(...parts);
      };
      const drawChart = () => {
        const { points } = last, most = Math.max(.5, ...points.map(p => p.loss)), many = Math.max(points.length - 1, 1);
        const plot = axes({ width: Math.max(chart.clientWidth, 120), height: 130, x: [0, many], y: [0, 1.1 * most], xlabel: "step",
          ticks: { x: [0, many], y: [0, most > 1 ? Math.floor(most) : .5] }, words: `The loss goes from ${number(points[0].loss)} to ${number(points.at(-1).loss)}.` });
        plot.line(points.map((p, k) => [k, p.loss]), "pgd");
        points.forEach((p, k) => p.said !== DIGIT && plot.dot([k, p.loss], "pgd", 3));
        plot.element.style.width = "100%";
        chart.replaceChildren(plot.element);
      };
      stage.sized(left, w => {
        width = w;
        if (last) drawMap();
      });
      stage.sized(chart, () => last && drawChart());

      const tell = () => {
        const { state, points } = last, end = points.at(-1), inside = state.clamp === "inside";
        const when = points.findIndex(p => p.said !== DIGIT), is = when < 0 ? "not fooled" : "fooled";
        const stuck = ["left", "right"].filter((_, i) => inside && points.every(p => p.u[i] === points[0].u[i] && (p.u[i] < 0 || p.u[i] > 1)));
        const why = stuck.length ? ` The ${stuck.join(" and the ")} patch ${stuck.length > 1 ? "start" : "starts"} outside the box, where the clamp has slope 0, and ${stuck.length > 1 ? "do" : "does"} not move.` : "";
        badge.textContent = is;
        badge.dataset.is = when < 0 ? "open" : "fooled";
        words.textContent = `${when < 0 ? `The network says “${DIGIT}” at every point of this path.` : `First misread after ${when} ${when === 1 ? "step" : "steps"}, as “${points[when].said}”.`} Loss ${number(points[0].loss)} at the start, ${number(end.loss)} at the end.${why}`;
        stage.say(`Start: left patch ${number(points[0].before[0])}, right patch ${number(points[0].before[1])}. ${is}. ${words.textContent}`);
        const u = end.u.map(v => clip(v, 0, 1));
        seen.grey(picture(u));
        seen.call(`The digit with patches of brightness ${u.map(number).join(" and ")}.`);
        panels[0].textContent = `the end: says “${end.said}”`;
      };
      stage.points = () => last?.points;
      return state => {
        last = { state, points: walk(net, state) };
        tell();
        if (width) drawMap();
        if (chart.clientWidth) drawChart();
      };
    },
  };
})(globalThis.Sides);
