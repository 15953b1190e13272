/* Randomised smoothing by hand: a point, a throw of noisy copies, the votes, the radius. */
"use strict";
(Sides => {
  const SPAN = 3, DOTS = 600, LATTICE = 320;
  /** Where class A of the drawn classifier ends, to the right, at the height y. */
  const edge = y => 1.1 + .5 * Math.sin(2.5 * y) - .1 * y * y;
  /** The chance that noise around (x, y) stays in class A. */
  const chance = (x, y, tau) => {
    let sum = 0;
    for (let k = -LATTICE; k <= LATTICE; k++) {
      const v = 8 * k / LATTICE;
      sum += Sides.chance.density(v) * Sides.chance.normal((edge(y + tau * v) - x) / tau);
    }
    return sum * 8 / LATTICE;
  };
  const radius = (p, tau) => p > .5 ? tau * Sides.chance.quantile(p) : 0;
  const css = `
.votes .two { display: grid; grid-template-columns: minmax(0, 21rem) minmax(0, 1fr); gap: .6rem 1.2rem; margin: 0 0 .7rem; }
.votes .two .row { margin-bottom: .5rem; } .votes .plane { border: 1px solid var(--s-line); border-radius: .25rem; overflow: hidden; cursor: grab; }
.votes .key span { white-space: nowrap; margin-right: 1rem; } .votes .key svg { display: inline-block; width: 26px; vertical-align: middle; }
.votes .slider { flex-basis: 100%; }
@container (max-width: 34rem) { .votes .two { grid-template-columns: minmax(0, 1fr); } .votes .plane { max-width: 17rem; } }
`;

  Sides.figures.votes = {
    title: "What do n votes prove?",
    uses: ["chance"],
    state: { x: 0, y: 0, tau: .8, n: 100, eta: .001, worst: false, throw: 1 },
    build(stage) {
      const { make } = stage, { svg, ink } = Sides.draw, { lower, dice } = Sides.chance;
      stage.host.classList.add("votes");
      const two = stage.row("two"), right = make("div");
      const plane = svg("svg", { viewBox: "-3 -3 6 6", class: "plane", role: "group", tabindex: 0 });
      stage.host.append(make("style", { textContent: css }));
      two.append(plane, right);
      two.before(make("p", { className: "name", textContent: "Drag the point, or move it by arrow keys; then throw." }));
      stage.slider({ key: "tau", label: "standard deviation τ of the noise", into: stage.row("row", right), min: .1, max: 1.5, step: .05, text: v => v.toFixed(2) });
      stage.choice({ key: "n", label: "votes n", into: stage.row("row", right), options: [10, 100, 1000, 10000].map(n => [n, String(n)]) });
      stage.choice({ key: "eta", label: "chance of error η", into: stage.row("row", right), options: [.1, .01, .001].map(a => [a, String(a)]) });
      stage.choice({ key: "worst", label: "region of class A", into: stage.row("row", right), options: [[false, "some f"], [true, "the worst one"]] });
      const throws = stage.row("row", right);
      stage.button("Throw", () => {
        fill = stage.still ? 1 : 0;
        stage.set({ throw: stage.get().throw + 1 });
      }, throws);
      stage.button("Throw 100 times", () => {
        const now = stage.get();
        for (let k = 1; k < 100; k++) note(cast({ ...now, throw: now.throw + k }));
        stage.set({ throw: now.throw + 100 });
      }, throws);
      const tally = make("p");
      right.append(tally);
      const bar = svg("svg", { viewBox: "0 0 600 62", role: "img" }), box = stage.row("row");
      box.append(bar);
      const keys = make("p", { className: "key" });
      for (const [colour, dashes, text] of [["crown", "", "certified by the votes"], ["exact", "7 4", "with the true p"], ["var(--s-quiet)", "2 5", "the most that n votes can give"]])
        keys.append(make("span", {}, svg("svg", { width: 26, height: 10 }, svg("line", { x1: 0, x2: 26, y1: 5, y2: 5,
          stroke: ink(colour), "stroke-width": 3, "stroke-dasharray": dashes })), ` ${text}`));
      stage.host.append(keys);
      const badge = make("b"), words = make("span");
      stage.host.append(make("p", { className: "verdict" }, badge, words));

      /** One throw: how many of n noisy copies are in class A; the first of them to draw. */
      const cast = ({ x, y, tau, n, eta, worst, throw: seed }) => {
        const next = dice(seed * 7919), p = truth(x, y, tau), wall = x + tau * Sides.chance.quantile(p), dots = [];
        let k = 0;
        for (let i = 0; i < n; i++) {
          const u = x + tau * next(), v = y + tau * next(), is = u < (worst ? wall : edge(v));
          k += is;
          if (i < DOTS) dots.push([u, v, is]);
        }
        const low = lower(k, n, eta), most = eta ** (1 / n);
        return { k, p, wall, dots, low, radius: radius(low, tau), true: radius(p, tau), most: radius(most, tau), false: low > p && low > .5 };
      };
      let known = "", kept = 0;
      const truth = (x, y, tau) => {
        const key = `${x} ${y} ${tau}`;
        if (key !== known) [known, kept] = [key, chance(x, y, tau)];
        return kept;
      };
      let counted = "", seen = new Set(), wrong = 0, fill = 1, width = 600, last = null, busy = false;
      const note = found => {
        seen.add(found);
        wrong += found.false;
      };
      stage.found = () => last && { ...last, thrown: seen.size, wrong };

      const move = (x, y) => {
        const inside = v => Math.round(Math.min(Math.max(v, -SPAN), SPAN) * 50) / 50;
        fill = 1;
        stage.set({ x: inside(x), y: inside(y) });
      };
      stage.drag(plane, {
        move: (a, b) => move(6 * a - 3, 3 - 6 * b),
        key: (dx, dy) => { const { x, y } = stage.get(); move(x + .1 * dx, y - .1 * dy); },
      });
      stage.sized(box, w => {
        width = w;
        stage.redraw();
      });
      const round = dots => dots.map(([u, v]) => `M${u.toFixed(3)} ${(-v).toFixed(3)}h0`).join("");
      const scenery = Array.from({ length: 121 }, (_, k) => k / 20 - 3).map(v => `${edge(v)},${-v}`).join(" ");
      const ring = (r, at, colour, dashes) => svg("circle", { cx: at.x, cy: -at.y, r, fill: "none", stroke: ink(colour), "stroke-width": .045, "stroke-dasharray": dashes });
      const paint = (state, found) => {
        const shown = found.dots.slice(0, Math.ceil(fill * found.dots.length));
        plane.replaceChildren(
          svg("polygon", { points: `-3,3 ${state.worst ? `${found.wall},3 ${found.wall},-3` : scenery} -3,-3`, fill: ink("exact"), opacity: .14 }),
          ...[[true, "random"], [false, "var(--s-fooled)"]].map(([is, colour]) => svg("path", { d: round(shown.filter(dot => dot[2] === is)), fill: "none",
            stroke: ink(colour), "stroke-width": .06, "stroke-linecap": "round" })),
          ...(found.most ? [ring(found.most, state, "var(--s-quiet)", ".03 .09")] : []),
          ...(found.true ? [ring(found.true, state, "exact", ".16 .1")] : []),
          ...(found.radius && fill === 1 ? [ring(found.radius, state, "crown", "")] : []),
          svg("circle", { cx: state.x, cy: -state.y, r: .09, fill: "var(--s-ink)", stroke: "var(--s-page)", "stroke-width": .03 }));
        const X = v => 8 + v * (width - 16), share = found.k / state.n * fill;
        const mark = (v, colour, dashes, w = 3) => svg("line", { x1: X(v), x2: X(v), y1: 15, y2: 43, stroke: ink(colour), "stroke-width": w, "stroke-dasharray": dashes });
        bar.setAttribute("viewBox", `0 0 ${width} 62`);
        bar.replaceChildren(
          svg("rect", { x: X(0), y: 20, width: X(1) - X(0), height: 18, fill: "none", stroke: "var(--s-quiet)" }),
          svg("rect", { x: X(0), y: 20, width: X(share) - X(0), height: 18, fill: ink("random") }),
          mark(.5, "var(--s-ink)", "", 1), mark(found.p, "exact", "6 3"), ...(fill === 1 ? [mark(found.low, "crown", "")] : []),
          svg("text", { x: X(0), y: 11 }, `votes for A: ${Math.round(found.k * fill)} of ${state.n}`),
          ...[0, .5, 1].map(v => svg("text", { x: X(v), y: 58, "text-anchor": ["start", "middle", "end"][2 * v], class: "quiet" }, v === .5 ? "1/2" : String(v))));
      };
      const play = begin => now => {
        fill = Math.min(Math.max((now - begin) / 700, 0), 1);
        paint(stage.get(), last);
        if (fill < 1) requestAnimationFrame(play(begin)); else busy = false;
      };
      return state => {
        const { throw: number, ...rest } = state, at = JSON.stringify(rest);
        if (at !== counted) {
          [counted, wrong] = [at, 0];
          seen = new Set();
        }
        const fresh = last?.key !== `${at} ${number}`;
        if (fresh) note(last = { ...cast(state), key: `${at} ${number}` });
        if (fill < 1 && !busy) {
          busy = true;
          requestAnimationFrame(play(performance.now()));
        }
        paint(state, last);
        const { k, p, low, most } = last, two = v => v.toFixed(2), four = v => (v > .99 ? v.toFixed(4) : v.toFixed(3));
        badge.textContent = low > .5 ? `radius ${two(last.radius)}` : "abstains";
        badge.dataset.is = low > .5 ? (last.false ? "fooled" : "safe") : "open";
        const limit = most > .5 ? `${state.n} votes, all for A, ${two(last.most)}` : `${state.n} votes, all for A, none`;
        words.textContent = `${k} of ${state.n} votes: p ≥ ${four(low)}, so ${low > .5 ? `radius ${two(last.radius)}` : "no radius"}; the true p, ${four(p)}, would give ${p > .5 ? two(last.true) : "none"}, and ${limit}.`;
        tally.textContent = `Thrown ${seen.size} time${seen.size === 1 ? "" : "s"} here; bound too high: ${wrong}. Promised: at most ${100 * state.eta} % in the long run.`;
        const place = `point (${two(state.x)}, ${two(state.y)})`;
        plane.setAttribute("aria-label", `The plane: ${place}, class A shaded to the left. Circles: certified ${two(last.radius)}, with the true p ${two(last.true)}, the most that ${state.n} votes can give ${two(last.most)}. Arrow keys move the point.`);
        bar.setAttribute("aria-label", `${k} of ${state.n} votes for A; lower bound ${four(low)}, true chance ${four(p)}.`);
        stage.say(`${place}, noise ${two(state.tau)}: ${badge.textContent}. ${words.textContent} ${tally.textContent}`);
      };
    },
  };
})(globalThis.Sides);
