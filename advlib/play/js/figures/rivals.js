/* Three classes in the plane: where climbs of the loss end, where the largest loss is,
   and why a bound that gives each rival its own corner lies above it. */
"use strict";
(Sides => {
  const { svg } = Sides.draw;
  const VIEW = .52, LONG = .045, MOST = 10, STEPS = 40, GRID = 15; // the view; a unit of w

  /** Loss at delta, the label's logit 0, and its gradient. */
  const loss = (rivals, delta) => {
    const leads = rivals.map(w => w[0] * delta[0] + w[1] * delta[1]), most = Math.max(0, ...leads);
    const sum = Math.exp(-most) + leads.reduce((s, v) => s + Math.exp(v - most), 0);
    const slope = [0, 1].map(i => rivals.reduce((s, w, j) => s + Math.exp(leads[j] - most) / sum * w[i], 0));
    return { value: most + Math.log(sum), slope };
  };

  /** Signed steps of eps / 20 uphill, back into the square after each. */
  const climb = (rivals, start, eps) => {
    const clamp = v => Math.min(Math.max(v, -eps), eps), path = [start.map(clamp)];
    for (let k = 0; k < STEPS; k++) {
      const { slope } = loss(rivals, path[k]);
      path.push(path[k].map((v, i) => clamp(v + eps / 20 * Math.sign(slope[i]))));
    }
    return path;
  };

  /** Where a climb ends, without its path: the same steps, in numbers alone. */
  const end = ([[a, b], [c, d]], x, y, eps) => {
    for (let k = 0; k < STEPS; k++) {
      const p = a * x + b * y, q = c * x + d * y, most = Math.max(p, q), e = Math.exp(p - most), f = Math.exp(q - most);
      x = Math.min(Math.max(x + eps / 20 * Math.sign(e * a + f * c), -eps), eps);
      y = Math.min(Math.max(y + eps / 20 * Math.sign(e * b + f * d), -eps), eps);
    }
    return [x, y];
  };

  /** The starts of a grid whose climbs end below the largest loss; the last answer is kept. */
  let kept = { of: "" };
  const stuck = (rivals, eps, exact) => {
    const of = JSON.stringify([rivals, eps]);
    if (kept.of === of) return kept.short;
    const all = Array.from({ length: GRID * GRID }, (_, k) => [k % GRID, Math.floor(k / GRID)].map(v => eps * ((2 * v + 1) / GRID - 1)));
    kept = { of, short: all.filter(s => exact - loss(rivals, end(rivals, ...s, eps)).value > .01) };
    return kept.short;
  };

  /** Attack, exact value and bound, for two rivals' weights. */
  const hold = ({ one, two, start, eps }) => {
    const rivals = [one, two], path = climb(rivals, start, eps), value = d => loss(rivals, d).value;
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(c => c.map(v => eps * v));
    const losses = corners.map(value), exact = Math.max(...losses); // convex: the largest is at a corner
    const own = rivals.map(w => w.map(v => v < 0 ? -eps : eps));
    const leads = rivals.map(w => eps * (Math.abs(w[0]) + Math.abs(w[1])));
    return {
      path, attack: value(path.at(-1)), exact, best: corners[losses.indexOf(exact)], own, short: stuck(rivals, eps, exact),
      bound: Math.log(1 + leads.reduce((s, v) => s + Math.exp(v), 0)),
    };
  };

  Sides.figures.rivals = {
    title: "Drag the start of the climb: in which corner does it end?",
    uses: ["rows"],
    state: { one: [-8, 2], two: [6, 3], start: [.15, -.3], eps: .4, held: "start" },
    build(stage) {
      stage.hold = hold;
      const { number } = Sides.rows, controls = stage.row(), clamp = (v, m) => Math.min(Math.max(v, -m), m);
      stage.slider({ key: "eps", label: "radius ϵ", min: .1, max: .5, step: .01, text: v => v.toFixed(2), into: controls });
      stage.choice({ key: "held", label: "arrow keys move", into: controls, options: [["start", "start"], ["one", "rival 1"], ["two", "rival 2"]] });
      const board = svg("svg", { role: "img", viewBox: "0 0 340 340" }), ground = stage.make("canvas", { width: 52, height: 52 });
      const frame = stage.make("div");
      frame.style = "position: relative; max-width: 26rem; margin: 0 auto .6rem";
      ground.style = "position: absolute; inset: 0; background: none; image-rendering: auto";
      board.style = "position: relative; overflow: hidden";
      frame.append(ground, board);
      stage.host.append(frame);
      const axis = Sides.rows(stage, { from: 0, to: 10, ticks: [0, 2, 4, 6, 8, 10], xlabel: "largest cross-entropy in the square", sides: false });
      const words = stage.make("span");
      stage.host.append(stage.make("p", { className: "verdict" }, words));

      const places = s => ({ start: s.start.map(v => clamp(v, s.eps)), one: s.one.map(v => LONG * v), two: s.two.map(v => LONG * v) });
      const put = (held, at) => stage.set({ [held]: held === "start" ? at.map(v => clamp(v, stage.get().eps)) : at.map(v => clamp(Math.round(2 * v / LONG) / 2, MOST)) });
      stage.drag(board, {
        move(fx, fy, when) {
          const at = [VIEW * (2 * fx - 1), VIEW * (1 - 2 * fy)], far = ([, [a, b]]) => Math.hypot(a - at[0], b - at[1]);
          if (when === "start") { // a rival's tip if it is near, else the start
            const near = Object.entries(places(stage.get())).sort((a, b) => far(a) - far(b))[0];
            stage.set({ held: far(near) < .06 ? near[0] : "start" });
          }
          put(stage.get().held, at);
        },
        key(dx, dy) {
          const s = stage.get(), [a, b] = places(s)[s.held], step = s.held === "start" ? .01 : LONG / 2;
          put(s.held, [a + dx * step, b - dy * step]);
        },
      });

      const X = v => 170 * (1 + v / VIEW), Y = v => 170 * (1 - v / VIEW);
      const shade = ({ one, two }) => {
        const size = 52, context = ground.getContext("2d"), image = context.createImageData(size, size);
        for (let k = 0; k < size * size; k++) {
          const at = [VIEW * (2 * (k % size + .5) / size - 1), VIEW * (1 - 2 * (Math.floor(k / size) + .5) / size)];
          image.data.set([125, 130, 140, Math.min(255, 36 * loss([one, two], at).value)], 4 * k);
        }
        context.putImageData(image, 0, 0);
      };
      const arrow = ([c, d], name) => {
        const u = X(c) - 170, v = Y(d) - 170, long = Math.hypot(u, v) || 1, [e, f] = [u / long, v / long];
        return [svg("line", { x1: 170, y1: 170, x2: X(c) - 4 * e, y2: Y(d) - 4 * f, stroke: "var(--s-ink)", "stroke-width": 2.5 }),
          svg("polygon", { fill: "var(--s-ink)", points: [[0, 0], [-10, 5], [-10, -5]].map(([s, t]) => `${X(c) + s * e - t * f},${Y(d) + s * f + t * e}`).join(" ") }),
          svg("text", { x: X(c) + 8, y: Y(d) - 10, "font-weight": 700 }, name)];
      };
      const star = (x, y, r) => svg("polygon", { fill: "var(--m-exact)", stroke: "var(--s-page)", "stroke-width": 1.2,
        points: Array.from({ length: 10 }, (_, k) => [x + (k % 2 ? .4 : 1) * r * Math.sin(k * Math.PI / 5), y - (k % 2 ? .4 : 1) * r * Math.cos(k * Math.PI / 5)]).join(" ") });
      const draw = (state, { path, best, own, short }) => {
        const { eps, held } = state, at = places(state), end = path.at(-1), same = own[0].every((v, i) => v === own[1][i]);
        board.replaceChildren(
          svg("rect", { x: X(-eps), y: Y(eps), width: X(eps) - X(-eps), height: Y(-eps) - Y(eps), fill: "none", stroke: "var(--s-ink)", "stroke-width": 1.5 }),
          ...short.map(([a, b]) => svg("circle", { cx: X(a), cy: Y(b), r: 2, fill: "none", stroke: "var(--m-pgd)", "stroke-width": 1.3 })),
          ...arrow(at.one, "rival 1"), ...arrow(at.two, "rival 2"),
          ...own.flatMap(([a, b], j) => [svg("polygon", { points: [[0, -11], [11, 9], [-11, 9]].map(([u, v]) => `${X(a) + u},${Y(b) + v}`).join(" "), fill: "var(--m-bound)", stroke: "var(--s-page)" }),
            svg("text", { x: X(a) + (a < 0 ? 14 : -14), y: Y(b) + (b < 0 ? -12 : 20) + (same && j ? 14 : 0), "text-anchor": a < 0 ? "start" : "end" }, `own corner of ${j + 1}`)]),
          star(X(best[0]), Y(best[1]), 9),
          svg("polyline", { points: path.map(([a, b]) => `${X(a)},${Y(b)}`).join(" "), fill: "none", stroke: "var(--m-pgd)", "stroke-width": 2.5 }),
          svg("polygon", { points: [[-6, -5], [6, -5], [0, 6]].map(([u, v]) => `${X(end[0]) + u},${Y(end[1]) + v}`).join(" "), fill: "var(--m-pgd)", stroke: "var(--s-page)" }),
          svg("circle", { cx: X(path[0][0]), cy: Y(path[0][1]), r: 6, fill: "var(--m-pgd)", stroke: "var(--s-page)", "stroke-width": 1.5 }),
          svg("text", { x: X(path[0][0]) + 10, y: Y(path[0][1]) + 4, "font-weight": 700 }, "start"),
          svg("text", { x: 334, y: 333, "text-anchor": "end", class: "quiet" }, "across: δ of pixel 1, up: of pixel 2; grey: the loss"),
          svg("circle", { cx: X(at[held][0]), cy: Y(at[held][1]), r: 12, fill: "var(--s-link)", "fill-opacity": .25 }));
      };
      const where = ([a, b]) => `${b > 0 ? "upper" : "lower"} ${a > 0 ? "right" : "left"}`;

      return state => {
        const now = hold(state), { attack, exact, bound, path, best, own, short } = now, end = path.at(-1);
        shade(state);
        draw(state, now);
        axis.show([
          { words: "this climb", method: "pgd", lower: attack },
          { words: "exact", method: "exact", lower: exact, upper: exact },
          { words: "bound", method: "bound", upper: bound },
        ]);
        const missed = exact - attack, share = Math.round(100 * short.length / GRID ** 2);
        const first = missed > .01 ? `This climb ends ${number(missed)} below the largest loss, at ${end.every(v => Math.abs(v) > state.eps - 1e-9) ? `the ${where(end)} corner, a local maximum` : "a point between"}.` : `This climb ends at the largest loss, in the ${where(best)} corner.`;
        const rest = share ? ` ${share} % of all starts (rings) end lower.` : " So do all others.";
        const last = bound - exact < .005 ? "Both rivals have one corner: the bound is exact." : `The bound is ${number(bound - exact)} too high: rival 1 stands ${where(own[0])}, rival 2 ${where(own[1])}.`;
        words.textContent = `${first}${rest} ${last}`;
        board.setAttribute("aria-label", `The square of radius ${state.eps.toFixed(2)}; the climb goes from (${path[0].map(v => v.toFixed(2)).join(", ")}) to (${end.map(v => v.toFixed(2)).join(", ")}). Arrow keys move ${{ start: "the start", one: "rival 1", two: "rival 2" }[state.held]}.`);
        stage.say(`Radius ${state.eps.toFixed(2)}: climb ${number(attack)}, exact ${number(exact)}, bound ${number(bound)}. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
