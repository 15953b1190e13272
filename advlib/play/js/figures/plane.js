/* The plane of a network with eight ReLUs: drag a point, and see the smallest margin in
   its square from below, exactly, and from above. */
"use strict";
(Sides => {
  const { svg } = Sides.draw, STEPS = 20, STARTS = 12, MOST = 63, SURE = 1e-6;

  /** The share of start k in its box: points that fill a square evenly. */
  const share = k => [.7548776662466927, .5698402909980532].map(v => (.5 + v * (k + 1)) % 1);

  Sides.figures.plane = {
    title: "Drag the cross: can the network be fooled within the square?",
    uses: ["network", "attack", "bounds", "polygons", "rows"],
    needs: ["plane"],
    state: { x: 0, y: 0, eps: .08, cuts: 0 },
    build(stage) {
      const record = Sides.records.plane, net = Sides.polygons.tiny(record), { number } = Sides.rows;
      const { pieces, least, level, clip, parts } = Sides.polygons;
      const [A, B] = [record.shown.A, record.shown.B].map(k => record.points[k]);
      const whole = { low: [0, 0], high: [1, 1] }, all = [0, 1].map(label => pieces(net, whole, label));
      stage.set({ x: A[0], y: A[1] });
      const controls = stage.row();
      stage.slider({ key: "eps", label: "radius ϵ: half the side", min: .01, max: .25, step: .01, text: v => v.toFixed(2), into: controls });
      const places = stage.row("row", controls);
      places.style.margin = 0;
      for (const [name, [x, y]] of [["Point A", A], ["Point B", B]])
        stage.button(name, () => stage.set({ x, y, eps: .08, cuts: 0 }), places);

      const two = stage.row();
      two.style = "display: grid; gap: .7rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr))";
      const plane = svg("svg", { role: "img", viewBox: "0 0 300 300" }), zoom = svg("svg", { role: "img", viewBox: "0 0 300 300" });
      const square = stage.make("span");
      two.append(...[["the plane", plane], [square, zoom]].map(([name, content]) =>
        stage.make("div", {}, stage.make("p", {}, name), content)));
      const axis = Sides.rows(stage, { from: -30, to: 20, bend: 1, ticks: [-30, -10, -3, -1, 0, 1, 3, 10], xlabel: "smallest margin in the square" });
      const cut = stage.row();
      const split = stage.button("Split the worst part in two", () => stage.set({ cuts: Math.min(stage.get().cuts + 1, MOST) }), cut);
      const join = stage.button("Whole again", () => stage.set({ cuts: 0 }), cut);
      const badge = stage.make("b"), words = stage.make("span");
      stage.host.append(stage.make("p", { className: "verdict" }, badge, words));

      stage.drag(plane, {
        move: (x, y) => stage.set({ x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(1 - y, 0), 1) }),
        key: (dx, dy) => {
          const { x, y } = stage.get();
          stage.set({ x: Math.min(Math.max(x + dx / 100, 0), 1), y: Math.min(Math.max(y - dy / 100, 0), 1) });
        },
      });
      plane.style.maxWidth = zoom.style.maxWidth = "26rem";

      /** All that is known of the square, by each method. */
      const hold = ({ x, y, eps, cuts }) => {
        const point = Float64Array.of(x, y), z = Sides.forward(net, point).at(-1), label = z[1] > z[0] ? 1 : 0;
        const box = Sides.ball(point, eps), here = pieces(net, box, label), truth = least(here);
        const paths = Array.from({ length: STARTS }, (_, k) => {
          const at = share(k).map((s, i) => box.low[i] + s * (box.high[i] - box.low[i]));
          let start = Float64Array.from(at, (v, i) => v - point[i]), margin;
          const path = [at];
          for (let step = 0; step < STEPS; step++) {
            ({ delta: start, margin } = Sides.pgd(net, point, label, { eps, alpha: eps / 8, steps: 1, loss: "margin", start }));
            path.push([x + start[0], y + start[1]]);
          }
          return { path, margin };
        });
        const found = parts(net, box, label, cuts);
        return {
          label, box, pieces: here, exact: truth.value, point: truth.point, paths, parts: found,
          ends: paths.map(p => p.margin), attack: Math.min(...paths.map(p => p.margin)),
          crown: Math.min(...found.map(p => p.crown)), interval: Math.min(...found.map(p => p.interval)),
        };
      };
      stage.hold = hold;

      /** SVG for what lies in a box, put by X and Y; `now` adds level lines. */
      const ground = (list, X, Y, levels) => list.flatMap(({ polygon, plane: p, on }) => {
        const at = q => q.map(([a, b]) => `${X(a)},${Y(b)}`).join(" "), wrong = clip(polygon, p.map(v => -v));
        const odd = on.filter(Boolean).length % 2, lines = levels.map(v => [v, level(polygon, p, v)]).filter(([, ends]) => ends);
        return [
          svg("polygon", { points: at(polygon), fill: "var(--s-quiet)", "fill-opacity": odd ? .16 : .04, stroke: "var(--s-quiet)", "stroke-width": .8, "stroke-dasharray": "3 2" }),
          ...wrong.length > 2 ? [svg("polygon", { points: at(wrong), fill: "var(--m-pgd)", "fill-opacity": .3 })] : [],
          ...lines.map(([v, [[a, b], [c, d]]]) => svg("line", { x1: X(a), y1: Y(b), x2: X(c), y2: Y(d), stroke: v ? "var(--s-quiet)" : "var(--s-ink)", "stroke-width": v ? .7 : 2.2 })),
        ];
      });
      const cross = (x, y, r, more) => [3, 0].map(extra => svg("path", { d: `M${x - r},${y}h${2 * r}M${x},${y - r}v${2 * r}`, fill: "none", stroke: extra ? "var(--s-page)" : "var(--s-ink)", "stroke-width": 2.4 + extra, ...more }));
      const star = (x, y, r) => svg("polygon", { fill: "var(--m-exact)", stroke: "var(--s-page)", "stroke-width": 1.2,
        points: Array.from({ length: 10 }, (_, k) => [x + (k % 2 ? .4 : 1) * r * Math.sin(k * Math.PI / 5), y - (k % 2 ? .4 : 1) * r * Math.cos(k * Math.PI / 5)]).join(" ") });

      const P = v => 300 * v, Q = v => 300 * (1 - v);
      const grounds = all.map(list => svg("g", {}, ...ground(list, P, Q, [0]), ...record.points.map(([a, b], k) => +record.labels[k]
        ? svg("rect", { x: P(a) - 2, y: Q(b) - 2, width: 4, height: 4, fill: "var(--s-quiet)" })
        : svg("circle", { cx: P(a), cy: Q(b), r: 2, fill: "none", stroke: "var(--s-quiet)" }))));

      const drawPlane = ({ x, y }, { label, box: { low, high }, point }) => plane.replaceChildren(grounds[label],
        svg("rect", { x: P(low[0]), y: Q(high[1]), width: P(high[0] - low[0]), height: P(high[1] - low[1]), fill: "none", stroke: "var(--s-ink)", "stroke-width": 2 }),
        ...cross(P(x), Q(y), 8, {}), star(P(point[0]), Q(point[1]), 7));

      const drawZoom = ({ x, y }, now) => {
        const { low, high } = now.box, wide = Math.max(high[0] - low[0], high[1] - low[1]), k = 276 / wide;
        const X = v => 150 + k * (v - (low[0] + high[0]) / 2), Y = v => 150 - k * (v - (low[1] + high[1]) / 2);
        const values = now.pieces.flatMap(({ polygon, plane: [a, b, c] }) => polygon.map(([u, v]) => a * u + b * v + c));
        const least = Math.min(...values), most = Math.max(...values), step = [.5, 1, 2, 5].find(s => (most - least) / s < 14) ?? 10;
        const levels = [];
        for (let v = Math.ceil(least / step) * step; v <= most; v += step) levels.push(v);
        zoom.replaceChildren(...ground(now.pieces, X, Y, levels),
          ...now.parts.map(({ low: l, high: h, crown }) => svg("rect", { x: X(l[0]), y: Y(h[1]), width: k * (h[0] - l[0]), height: k * (h[1] - l[1]),
            fill: "var(--m-crown)", "fill-opacity": crown > SURE ? .25 : 0, stroke: crown > SURE ? "var(--m-crown)" : "var(--s-ink)", "stroke-width": 1.6 })),
          ...now.paths.flatMap(({ path }) => {
            const [a, b] = path.at(-1), u = X(a), v = Y(b);
            return [svg("polyline", { points: path.map(([c, d]) => `${X(c)},${Y(d)}`).join(" "), fill: "none", stroke: "var(--m-pgd)", "stroke-width": 1.4 }),
              svg("circle", { cx: X(path[0][0]), cy: Y(path[0][1]), r: 2.6, fill: "var(--m-pgd)" }),
              svg("polygon", { points: `${u - 5},${v - 4} ${u + 5},${v - 4} ${u},${v + 5}`, fill: "var(--m-pgd)", stroke: "var(--s-page)" })];
          }), ...cross(X(x), Y(y), 6, {}), star(X(now.point[0]), Y(now.point[1]), 9));
      };

      const sentence = ({ attack, exact, crown, interval, ends, parts: list }) => {
        const crossed = ends.filter(v => v <= 0).length, cheap = interval > SURE ? "Intervals prove" : "CROWN proves";
        const into = list.length > 1 ? `, in ${list.length} parts` : "";
        if (attack <= 0) return `${crossed} of ${STARTS} paths end where the network answers otherwise. No bound can be above 0 now.`;
        if (exact <= 0) return "The star is a misread point, and no path found it.";
        if (crown > SURE) return `${cheap} that no point of the square is misread${into}.`;
        return `No point of the square is misread, but neither bound proves it${into}. Split.`;
      };
      return state => {
        const now = hold(state), is = now.exact <= 0 ? "fooled" : now.crown > SURE ? "safe" : "open";
        drawPlane(state, now);
        drawZoom(state, now);
        axis.show([
          { words: "attack (PGD)", method: "pgd", upper: now.attack, marks: now.ends },
          { words: "exact", method: "exact", lower: now.exact, upper: now.exact },
          { words: "CROWN", method: "crown", lower: now.crown },
          { words: "intervals", method: "interval", lower: now.interval },
        ]);
        const count = `${now.pieces.length} linear piece${now.pieces.length > 1 ? "s" : ""}`;
        square.textContent = `the square: ${count}`;
        badge.textContent = { fooled: "fooled", safe: "safe, and proven", open: "safe, not proven" }[is];
        badge.dataset.is = is;
        words.textContent = sentence(now);
        split.disabled = state.cuts >= MOST;
        join.disabled = !state.cuts;
        plane.setAttribute("aria-label", `The plane of the network with the point (${state.x.toFixed(2)}, ${state.y.toFixed(2)}) and its square; arrow keys move the point.`);
        zoom.setAttribute("aria-label", `The square, ${count}, ${now.parts.length} part${now.parts.length > 1 ? "s" : ""}; the worst point is (${now.point.map(v => v.toFixed(2)).join(", ")}).`);
        stage.say(`Point ${state.x.toFixed(2)}, ${state.y.toFixed(2)}, radius ${state.eps.toFixed(2)}, ${count}. Smallest margin: exact ${number(now.exact)}, attack ${number(now.attack)}, CROWN at least ${number(now.crown)}, intervals at least ${number(now.interval)}. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
