/* The adversarial polytope by hand: move the ball, tilt the lines below two ReLUs, and
   watch the regions of five methods close around what the network can do. */
"use strict";
(Sides => {
  const METHODS = [ // name, words, line; the last one is no bound
    ["interval", "intervals", { dashes: "1.5 3" }],
    ["dual", "Wong-Kolter", { dashes: "8 3 2 3" }],
    ["crown", "CROWN", { dashes: "8 3 2 3" }],
    ["alpha", "your slopes", { width: 3, dashes: "7 3" }],
    ["lp", "linear program", { width: 3 }],
    ["exact", "exact: the network", { width: 6 }],
  ];
  const PLACES = [[0, 0, "s1"], [1, 0, "s2"]]; // ReLU layer, unit, key of its slope
  const VIEW = [{ x: [-3.4, 1.4], y: [-3.3, 1.6] }, { x: [-1.4, 1.9], y: [-1.3, 1.8] }];
  const TICKS = [-3, -2, -1, 0, 1];
  const PLANE = { x: [-2.6, 7.4], y: [-5.4, 2.5] };
  const RATE = .1, FALL = .98, STEPS = 300;
  const number = (v, digits = 3) => v.toFixed(digits).replace("-", "\u2212");
  const ROW = Float64Array.of(1, -1);
  const AROUND = Array.from({ length: 64 }, (_, k) => 2 * Math.PI * k / 64)
    .map(t => Float64Array.of(Math.cos(t), Math.sin(t)));

  let net = null; // there once the scripts of `uses` are

  /** All that depends on the ball alone. */
  const held = (cx, cy, eps) => {
    const { toys } = Sides, box = Sides.ball(Float64Array.of(cx, cy), eps);
    const { pre, around } = Sides.before(net, box);
    const first = Sides.before(net, box, "interval").end, lp = toys.program(net, box, pre);
    const folded = row => net[2].pull(row).reduce((sum, w, i) =>
      sum + w * (w > 0 ? first.low[i] : first.high[i]), row[0] * net[2].bias[0] + row[1] * net[2].bias[1]);
    const equal = around.map(({ above }) => above);
    const bounds = {
      interval: folded,
      dual: row => Sides.walk(net, 2, row, box, around, { slopes: equal }).bound,
      crown: row => Sides.walk(net, 2, row, box, around).bound,
      lp: row => lp(row).value,
    };
    const pieces = toys.pieces(net, toys.corners(box));
    const ends = pieces.flatMap(piece => piece.polygon.map(p => ({ p, z: piece.at(p) })));
    const worst = ends.reduce((a, b) => b.z[0] - b.z[1] < a.z[0] - a.z[1] ? b : a);
    const least = { exact: worst.z[0] - worst.z[1] }, regions = {};
    for (const [name, bound] of Object.entries(bounds)) {
      regions[name] = toys.outer(AROUND, AROUND.map(bound));
      least[name] = bound(ROW);
    }
    return { box, pre, around, pieces, worst, least, regions };
  };

  /** The walk with the reader's slopes, where these units are unstable. */
  const walked = ({ box, around }, state, row = ROW) => {
    const slopes = around.map(({ below }) => below.slice());
    for (const [k, j, key] of PLACES) if (around[k].free[j]) slopes[k][j] = state[key];
    return { slopes, ...Sides.walk(net, 2, row, box, around, { slopes }) };
  };

  /** The derivative of that bound by the two slopes. */
  const gradient = (now, state) => {
    const { rows, slopes, corner } = walked(now, state), found = {};
    let from = corner;
    now.around.forEach(({ above, offset, free }, k) => {
      const z = net[k].apply(from);
      from = z.map((v, j) => rows[k][j] > 0 ? slopes[k][j] * v : above[j] * v + offset[j]);
      for (const [layer, j, key] of PLACES)
        if (layer === k) found[key] = free[j] && rows[k][j] > 0 ? rows[k][j] * z[j] : 0;
    });
    return found;
  };

  Sides.figures.polytope = {
    title: "Tilt the two green lines until you certify; then drag the ball",
    uses: ["network", "bounds", "polygons", "toys"],
    needs: [],
    state: { cx: .5, cy: .5, eps: .5, s1: 0, s2: 1 },
    build(stage) {
      const { svg, axes, ink } = Sides.draw, { toys } = Sides;
      net ??= toys.toy();
      const place = (into, style) => into.appendChild(stage.make("div", { attributes: { style } }));
      const block = (words, content, into) => { // words above a drawing
        const name = stage.make("p", { textContent: words, attributes: { style: "margin: 0 0 .25rem" } });
        into.append(name, content);
        return name;
      };
      const first = stage.row(), second = stage.row();
      first.style.alignItems = second.style.alignItems = "start";
      const column = place(first, "flex: 1 1 11rem; min-width: 0"), square = stage.make("div");
      block("the ball of inputs, ● its worst point", square, column);
      square.style.maxWidth = "18rem";
      const logits = stage.make("div");
      block("what the network can do, and each method cannot rule out", logits, place(first, "flex: 2 1 19rem; min-width: 0"));
      stage.slider({ key: "eps", label: "radius ϵ", min: .02, max: .5, step: .01, text: v => v.toFixed(2), into: column });
      const lines = PLACES.map(([k,, key]) => {
        const into = place(second, "flex: 1 1 9rem; min-width: 0"), content = stage.make("div");
        const name = block("", content, into);
        stage.slider({ key, label: `slope, layer ${k + 1}`, min: 0, max: 1, step: .01, text: v => v.toFixed(2), into });
        return { name, content };
      });
      const list = place(second, "flex: 2 1 14rem; min-width: 0"), table = list.appendChild(stage.make("div"));
      const buttons = stage.row("row tight", list);

      let now = null, asked = "", step = 0, running = 0, last = "";
      const at = ({ cx, cy, eps }) => {
        if (asked !== `${cx} ${cy} ${eps}`) [asked, now] = [`${cx} ${cy} ${eps}`, held(cx, cy, eps)];
        return now;
      };
      const up = state => { // one step of ascent with projection
        const slope = gradient(at(state), state), rate = RATE * FALL ** step++;
        return Object.fromEntries(Object.entries(slope).map(([key, v]) =>
          [key, Math.min(Math.max(state[key] + rate * v, 0), 1)]));
      };
      const stop = () => { cancelAnimationFrame(running); };
      const set = values => {
        last = Object.entries(values).map(pair => pair.join()).join(); // a change of our own
        stage.set(values);
      };
      const ascend = () => {
        stop();
        let best = stage.get(), most = walked(at(best), best).bound, left = STEPS, here = best;
        step = 0;
        const some = () => {
          for (let k = stage.still ? STEPS : 4; k-- && left; left--) {
            here = { ...here, ...up(here) };
            const { bound } = walked(now, here);
            if (bound > most) [most, best] = [bound, here];
          }
          const { s1, s2 } = left ? here : best;
          set({ s1, s2 });
          if (left) running = requestAnimationFrame(some);
        };
        some();
      };
      stage.button("one step up", () => { stop(); set(up(stage.get())); }, buttons);
      stage.button("ascend", ascend, buttons);
      stage.button("CROWN's slopes", () => {
        stop();
        const { around } = at(stage.get());
        step = 0;
        stage.set(Object.fromEntries(PLACES.map(([k, j, key]) => [key, around[k].below[j]])));
      }, buttons);
      stage.changed = (_, key) => { // the reader's own hand ends an ascent
        if (key) { stop(); step = 0; }
      };

      // the ball: its corner is the radius, everything else the centre
      let frame = null, handle = "";
      square.tabIndex = 0;
      square.setAttribute("role", "application");
      stage.drag(square, {
        move(fx, fy, phase) {
          if (!frame) return;
          const { width, height } = square.firstChild.getBoundingClientRect(), { cx, cy, eps } = stage.get();
          const { x, y } = frame.back(fx * width, fy * height);
          const spot = [frame.X(Math.min(cx + eps, 1)) - fx * width, frame.Y(Math.min(cy + eps, 1)) - fy * height];
          if (phase === "start") { handle = Math.hypot(...spot) < 22 ? "eps" : "centre"; stop(); step = 0; }
          const round = v => Math.round(100 * Math.min(Math.max(v, 0), 1)) / 100;
          stage.set(handle === "eps" ? { eps: Math.min(Math.max(round(Math.max(x - cx, y - cy)), .02), .5) }
            : { cx: round(x), cy: round(y) });
        },
        key(dx, dy) {
          const { cx, cy } = stage.get(), to = (v, d) => Math.round(100 * Math.min(Math.max(v + .02 * d, 0), 1)) / 100;
          stage.set({ cx: to(cx, dx), cy: to(cy, -dy) });
        },
      });
      /** Axes in a place of `width`, in place of what stood there. */
      const fresh = (into, how) => {
        const chart = axes(how), wide = chart.X(1) - chart.X(0), high = chart.Y(1) - chart.Y(0);
        into.replaceChildren(chart.element);
        chart.back = (px, py) => ({ x: (px - chart.X(0)) / wide, y: (py - chart.Y(0)) / high });
        chart.region = (polygon, attributes) => chart.element.append(svg("polygon", {
          points: polygon.map(([a, b]) => `${chart.X(a).toFixed(1)},${chart.Y(b).toFixed(1)}`).join(" "), ...attributes }));
        return chart;
      };
      const size = element => Math.max(Math.round(element.clientWidth), 120);
      const cut = ({ x: [a, c], y: [b, d] }, polygon) => [[[1, 0], a], [[-1, 0], -c], [[0, 1], b], [[0, -1], -d]]
        .reduce((left, [w, c0]) => toys.clip(left, w, c0), polygon);

      const input = ({ cx, cy, eps }) => {
        const width = size(square), chart = frame = fresh(square, { width, height: width + 16, x: [0, 1], y: [0, 1.1],
          xlabel: "input 1", ylabel: "input 2", ticks: { x: [0, .5, 1], y: [.5, 1] }, words: `The ball of radius ${eps.toFixed(2)} around ${cx}, ${cy} in the square of inputs.` });
        for (const { polygon } of toys.pieces(net, toys.corners({ low: [0, 0], high: [1, 1] })))
          chart.region(polygon, { fill: "none", stroke: "var(--s-quiet)", "stroke-width": .8, "stroke-dasharray": "2 3" });
        now.pieces.forEach(({ polygon, signs }) => chart.region(polygon, { fill: ink("exact"),
          opacity: .3 + .12 * signs.flatMap(s => [...s]).filter(s => s > 0).length }));
        const corner = [Math.min(cx + eps, 1), Math.min(cy + eps, 1)];
        chart.region(toys.corners(now.box), { fill: "none", stroke: "var(--s-ink)", "stroke-width": 2 });
        chart.element.append(svg("rect", { x: chart.X(corner[0]) - 7, y: chart.Y(corner[1]) - 7, width: 14, height: 14,
          fill: "var(--s-page)", stroke: "var(--s-ink)", "stroke-width": 2 }));
        for (const [a, b] of [[7, 0], [0, 7]]) chart.element.append(svg("line", { x1: chart.X(cx) - a, x2: chart.X(cx) + a,
          y1: chart.Y(cy) - b, y2: chart.Y(cy) + b, stroke: "var(--s-page)", "stroke-width": 3 }));
        chart.dot(now.worst.p, "var(--s-page)", 6);
        chart.dot(now.worst.p, "exact", 4);
        square.setAttribute("aria-label", `Ball with centre ${cx}, ${cy}: arrow keys move it.`);
      };
      const output = (region, mine) => {
        const width = size(logits), { x: [a, c], y: [b, d] } = PLANE;
        const chart = fresh(logits, { width, height: Math.max(.72 * width, 230), ...PLANE, xlabel: "logit of class 0",
          ylabel: "logit of class 1", ticks: { x: [-2, 0, 2, 4, 6], y: [-4, -2, 0, 2] }, words: `The regions in the plane of the logits; your slopes give a margin above ${number(mine.bound)}.` });
        chart.region(cut(PLANE, [[a, a], [d, d], [a, d]]), { fill: "var(--s-fooled)", opacity: .12 });
        chart.line([[a, a], [d, d]], "var(--s-ink)", { width: 1 });
        now.pieces.forEach(({ polygon, at: f }) => chart.region(polygon.map(f), { fill: ink("exact"), stroke: ink("exact"), "stroke-width": 2, "stroke-linejoin": "round" }));
        const regions = { ...now.regions, alpha: region };
        for (const [name,, { width: w = 1.8, dashes = "" }] of METHODS) {
          if (!regions[name]) continue;
          chart.region(cut(PLANE, regions[name]), { fill: name === "lp" ? ink("lp") : "none", "fill-opacity": .1,
            stroke: ink(name), "stroke-width": w, "stroke-dasharray": dashes, "data-method": name });
        }
        const words = (text, x, y, more) => chart.element.append(svg("text", { x, y, ...more }, text));
        words("class 1 wins", chart.X(a) + 6, chart.Y(d) + 26, { style: "fill: var(--s-fooled); font-weight: 700" });
        words("class 0 wins", chart.X(c) - 4, chart.Y(b) - 8, { "text-anchor": "end", "font-weight": 700 });
      };
      const unit = (spot, state, rows) => {
        const [k, j, key] = PLACES[spot], { name, content } = lines[spot], width = size(content);
        const l = now.pre[k].low[j], u = now.pre[k].high[j], s = state[key], view = VIEW[spot];
        const chart = fresh(content, { width, height: .85 * width, ...view, xlabel: "what enters",
          ylabel: "what leaves", ticks: { x: TICKS.filter(v => v > view.x[0]), y: TICKS.filter(v => v > view.y[0]) }, words: `ReLU ${j + 1} of layer ${k + 1} from ${number(l, 2)} to ${number(u, 2)}, the line below with slope ${number(s, 2)}.` });
        const open = l < 0 && u > 0, counts = rows[k][j] > 0;
        if (open) {
          chart.region([[l, 0], [0, 0], [u, u]], { fill: ink("lp"), opacity: .15 });
          chart.line([[l, 0], [u, u]], "crown", { width: counts ? 1.5 : 3, dashes: counts ? "4 3" : "" });
        }
        chart.line([[l, Math.max(l, 0)], [0, 0], [u, Math.max(u, 0)]].filter(([v]) => v >= l && v <= u), "exact", { width: 3.5 });
        if (open) {
          chart.line([[l, s * l], [u, s * u]], "alpha", { width: counts ? 3 : 1.5, dashes: counts ? "" : "4 3" });
          for (const v of [l, u]) chart.element.append(svg("circle", { cx: chart.X(v), cy: chart.Y(s * v), r: 6, fill: "var(--s-page)", stroke: ink("alpha"), "stroke-width": 2.5 }));
        }
        name.textContent = `ReLU ${j + 1} of layer ${k + 1}: ${!open ? "stable, nothing to choose" : counts ? "tilt its line below" : "here the chord counts"}`;
        content.chart = chart;
      };
      lines.forEach(({ content }, spot) => stage.drag(content, {
        move(fx, fy, phase) {
          const { width, height } = content.firstChild.getBoundingClientRect();
          const { x, y } = content.chart.back(fx * width, fy * height);
          if (phase === "start") { stop(); step = 0; }
          if (Math.abs(x) > .15) stage.set({ [PLACES[spot][2]]: Math.round(100 * Math.min(Math.max(y / x, 0), 1)) / 100 });
        },
      }));
      const ledger = least => table.replaceChildren(...METHODS.map(([name, words, { width = 1.8, dashes = "" }]) => {
        const swatch = svg("svg", { viewBox: "0 0 26 12", width: 26, height: 12, style: "width: 26px; flex: none", "aria-hidden": "true" },
          svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: ink(name), "stroke-width": Math.min(width, 6), "stroke-dasharray": dashes }));
        const v = least[name], sure = name !== "exact" && v > 1e-6;
        return stage.make("div", { attributes: { style: "display: flex; gap: .5rem; align-items: center; font-variant-numeric: tabular-nums" } }, swatch,
          stage.make("span", { textContent: words, attributes: { style: "flex: 1" } }),
          stage.make("b", { textContent: `${name === "exact" ? "=" : ">"} ${number(v)}`, attributes: { "data-least": name } }),
          stage.make("span", { textContent: sure ? "certified" : "", attributes: { style: "width: 4.6em; color: var(--s-safe)" } }));
      }), stage.make("div", { textContent: "margin of class 0 over class 1", className: "label" }));
      const draw = () => {
        const state = stage.get();
        at(state);
        const mine = walked(now, state), least = { ...now.least, alpha: mine.bound };
        input(state);
        output(toys.outer(AROUND, AROUND.map(row => walked(now, state, row).bound)), mine);
        PLACES.forEach((_, spot) => unit(spot, state, mine.rows));
        ledger(least);
        const who = METHODS.filter(([name]) => name !== "exact" && least[name] > 1e-6).map(([, words]) => words);
        stage.say(`Radius ${state.eps.toFixed(2)} around ${state.cx}, ${state.cy}. The smallest margin is ${number(least.exact)}. `
          + `Bounds: ${METHODS.slice(0, 5).map(([name, words]) => `${words} ${number(least[name])}`).join(", ")}. `
          + `Certified by ${who.join(", ") || "none"}.`);
        stage.found = () => ({ least, pre: now.pre.map(p => [[...p.low], [...p.high]]), regions: now.regions, ends: now.pieces.flatMap(p => p.polygon.map(p.at)) });
      };
      stage.sized(stage.host, () => stage.redraw());
      return draw;
    },
  };
})(globalThis.Sides);
