/* The Gaussian world of Chapter 8c: which pairs of clean and robust error there are, and
   where two ways of training land. */
"use strict";
(Sides => {
  const D = 100, ROOT = Math.sqrt(D), NODES = 80;
  const widths = [.02, .04, .08, .16, .3, .6];
  /** Errors when the strong feature is right or wrong, by its margins over the spread. */
  const mixture = (p, right, wrong) => p * Sides.chance.normal(-right) + (1 - p) * Sides.chance.normal(-wrong);

  /**
   * Error of sign((1 - c) x1 + c mean / eta) when every feature moves by `radius` < 1.
   * @param {{p: number, eta: number}} world @param {number} c share of the weak features
   */
  const linear = ({ p, eta }, c, radius) => {
    if (!c) return 1 - p;
    const lean = c - radius * (1 - c + c / eta), spread = c / (eta * ROOT);
    return mixture(p, (1 - c + lean) / spread, (c - 1 + lean) / spread);
  };
  /** The same with sign(x1) in place of x1: no opponent moves that. */
  const gated = ({ p, eta }, c, radius) => {
    const lean = c * (1 - radius / eta), spread = c / (eta * ROOT);
    return mixture(p, (1 - c + lean) / spread, (c - 1 + lean) / spread);
  };
  /** The share of the weak features in the best classifier for clean data. */
  const bayes = ({ p, eta }) => {
    const weak = 2 * eta * eta * D;
    return weak / (weak + Math.log(p / (1 - p)));
  };

  /**
   * The share where adversarial training ends: the smallest expected logistic loss of
   * y w.x - eps |w|_1, over all draws. Null where that is w = 0.
   */
  const trained = ({ p, eta, eps }) => {
    const usesWeak = eps < eta - 1e-12, usesStrong = eps < 2 * p - 1 - 1e-12;
    if (!usesWeak) return usesStrong ? 0 : null;
    if (!usesStrong) return 1;
    // Newton's steps for a = w1 and b = the sum of the weak weights, all equal
    const z = Array.from({ length: 2 * NODES + 1 }, (_, k) => 8 * (k - NODES) / NODES);
    const sheets = [[1, p], [-1, 1 - p]].map(([r, chance]) => z.map(v => (
      { a: r - eps, b: eta - eps + v / ROOT, chance: chance * Sides.chance.density(v) * 8 / NODES }))).flat();
    const loss = (a, b) => sheets.reduce((s, one) => s + one.chance * Math.log1p(Math.exp(-a * one.a - b * one.b)), 0);
    let a = .5, b = .5;
    for (let step = 0; step < 60; step++) {
      let ga = 0, gb = 0, aa = 1e-14, ab = 0, bb = 1e-14;
      for (const one of sheets) {
        const s = 1 / (1 + Math.exp(a * one.a + b * one.b)), first = one.chance * s, second = first * (1 - s);
        ga -= first * one.a;
        gb -= first * one.b;
        aa += second * one.a * one.a;
        ab += second * one.a * one.b;
        bb += second * one.b * one.b;
      }
      const det = aa * bb - ab * ab, da = (ab * gb - bb * ga) / det, db = (ab * ga - aa * gb) / det;
      let t = 1;
      const here = loss(a, b);
      while (t > 1e-8 && loss(a + t * da, b + t * db) > here + 1e-15) t /= 2;
      a += t * da;
      b += t * db;
      if (Math.hypot(ga, gb) < 1e-13) break;
    }
    return eta * b / (eta * b + a);
  };

  /**
   * Lines that no classifier is below: E + rate R >= value, for one opponent who moves each
   * weak feature by `shift` against the label; from the best test against just him.
   */
  const barriers = ({ p, eta }, shift) => {
    const q = 1 - p, a = eta * ROOT, b = (eta - shift) * ROOT, far = Math.max(a, Math.abs(b)) + 8.5, N = 160;
    const { density, normal } = Sides.chance;
    const gain = (z, rate) => p * density(z - a) - q * density(z + a) + rate * (p * density(z - b) - q * density(z + b));
    const at = Array.from({ length: N + 1 }, (_, k) => far * (2 * k / N - 1));
    const parts = at.map(z => [gain(z, 0), gain(z, 1) - gain(z, 0)]);
    const rates = [q / p, ...Array.from({ length: 121 }, (_, k) => 10 ** ((k - 60) / 20))];
    return rates.map(rate => {
      let inside = parts[0][0] + rate * parts[0][1] > 0;
      const sums = { a: 0, b: 0, na: 0, nb: 0 }; // chances of the answer +1
      const count = (z, sign) => {
        sums.a += sign * normal(z - a);
        sums.na += sign * normal(z + a);
        sums.b += sign * normal(z - b);
        sums.nb += sign * normal(z + b);
      };
      for (let k = 0; k < N; k++) {
        const next = parts[k + 1][0] + rate * parts[k + 1][1] > 0;
        if (next === inside) continue;
        let low = at[k], high = at[k + 1];
        for (let step = 0; step < 45; step++) {
          const middle = (low + high) / 2;
          if (gain(middle, rate) > 0 === inside) low = middle; else high = middle;
        }
        count((low + high) / 2, next ? -1 : 1);
        inside = next;
      }
      if (inside) for (const key of Object.keys(sums)) sums[key] += 1;
      const clean = p * (1 - sums.a) + q * sums.na, robust = p * (1 - sums.b) + q * sums.nb;
      return { rate, value: clean + rate * robust };
    });
  };

  /** All that the figure shows of a world {p, eta, eps}. */
  const world = state => {
    const { p, eta, eps } = state, best = bayes(state), at = trained(state);
    const pair = (error, c) => [error(state, c, 0), error(state, c, eps)];
    const shares = Array.from({ length: 240 }, (_, k) => .002 + k / 239 * (best - .002));
    let reach = shares.map(c => pair(gated, c));
    const end = reach.reduce((k, one, j) => one[1] < reach[k][1] ? j : k, 0);
    reach = reach.slice(end); // what lies beyond is worse in both errors
    const lines = [Math.min(eps, 2 * eta), Math.min(eps, eta)].flatMap(shift => barriers(state, shift));
    const least = pair(gated, best)[0];
    return {
      least, reach, theorem: eps >= 2 * eta - 1e-12,
      /** No classifier of clean error E has a smaller robust error. */
      lowest: E => E < least ? 1 : Math.min(1, Math.max(E, ...lines.map(({ rate, value }) => (value - E) / rate))),
      straight: [0, ...shares].map(c => pair(linear, c)),
      standard: pair(linear, best), trained: at === null ? null : pair(linear, at), share: at, best,
    };
  };

  Sides.figures.frontier = {
    title: "Which pairs of errors are there?",
    uses: ["chance"],
    state: { p: .95, eta: .2, eps: .4 },
    build(stage) {
      const { make } = stage, { svg, ink } = Sides.draw, sliders = stage.row(), two = v => v.toFixed(2);
      stage.slider({ key: "eps", label: "radius ϵ", into: sliders, min: 0, max: .8, step: .01, text: two });
      stage.slider({ key: "eta", label: "mean η of a weak feature", into: sliders, min: .05, max: .4, step: .01, text: two });
      stage.slider({ key: "p", label: "p: strong feature right", into: sliders, min: .55, max: .99, step: .01, text: two });
      stage.host.insertBefore(make("p", { className: "name", textContent: "Slide ϵ from 0 to 2η and watch where training lands." }), sliders);
      const box = stage.row(), key = make("p"), badge = make("b"), words = make("span");
      box.style.display = "block";
      stage.host.append(key, make("p", { className: "verdict" }, badge, words));
      const swatch = (colour, text, { dashes = "", opacity = 1, wide = 3 } = {}) => make("span", { style: "white-space: nowrap; margin-right: 1rem" },
        svg("svg", { width: 26, height: 12, style: "display: inline-block; width: 26px; vertical-align: middle" },
          svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, stroke: ink(colour), "stroke-width": wide, "stroke-dasharray": dashes, opacity })), ` ${text}`);
      let width = 0;
      stage.sized(box, w => {
        width = w;
        stage.redraw();
      });
      stage.world = (state = stage.get()) => world(state);
      return state => {
        if (!width) return;
        const { p, eta, eps } = state, found = world(state), { least, reach, theorem, standard, trained: landed } = found;
        const most = widths.find(v => v >= 1.6 * (1 - p) - 1e-9) ?? .6, steps = Array.from({ length: 121 }, (_, k) => most * k / 120);
        const axes = Sides.draw.axes({ width, height: 300, x: [0, most], y: [0, 1.07], xlabel: "clean error E", ylabel: `robust error at ϵ = ${two(eps)}`,
          ticks: { x: [0, most / 2, most], y: [0, .5, 1] }, words: "" });
        const { X, Y } = axes, put = (name, attributes) => axes.element.append(svg(name, attributes));
        const under = (line, opacity) => put("polygon", { fill: "var(--s-quiet)", opacity,
          points: `${X(0)},${Y(0)} ${line.map(([a, b]) => `${X(a)},${Y(b)}`).join(" ")} ${X(most)},${Y(0)}` });
        const cut = line => line.filter(([a]) => a <= most);
        under([...steps.filter(E => E < least).map(E => [E, 1.07]), [least, 1.07], [least, found.lowest(least)], ...steps.filter(E => E >= least).map(E => [E, found.lowest(E)])], .22);
        under(steps.map(E => [E, Math.max(E, theorem ? 1 - p / (1 - p) * E : 0)]), .35);
        axes.line(cut(found.straight), "exact", { dashes: "6 4" });
        axes.line(cut(reach), "exact", { width: 3 });
        const point = ([a, b], colour, text, shape) => {
          const x = X(Math.min(a, most)), y = Y(b), right = a < .6 * most;
          put(shape, shape === "circle" ? { cx: x, cy: y, r: 7, fill: ink(colour), stroke: "var(--s-page)", "stroke-width": 2 }
            : { x: x - 6, y: y - 6, width: 12, height: 12, fill: ink(colour), stroke: "var(--s-page)", "stroke-width": 2 });
          axes.element.append(svg("text", { x: x + (right ? 11 : -11), y: Math.min(y + 4, Y(0) - 8) + (shape === "rect" ? -10 : 0), "text-anchor": right ? "start" : "end" }, text));
        };
        point(standard, "standard", "standard", "circle");
        if (landed) point(landed, "robust", "adversarial", "rect");
        box.replaceChildren(axes.element);
        key.replaceChildren(swatch("exact", "attained"), swatch("exact", "linear", { dashes: "6 4" }),
          swatch("var(--s-quiet)", theorem ? "forbidden by the theorem" : "E is never above R", { opacity: .5, wide: 12 }),
          swatch("var(--s-quiet)", "forbidden", { opacity: .3, wide: 12 }));
        const percent = v => `${(100 * v).toFixed(1)} %`, both = ([a, b]) => `clean ${percent(a)}, robust ${percent(b)}`;
        badge.textContent = theorem ? "theorem: ϵ ≥ 2η" : eps >= eta ? "ϵ < 2η" : "ϵ < η";
        badge.dataset.is = theorem ? "open" : "safe";
        const kind = found.share === 0 ? "the strong feature alone" : found.share === 1 ? "the weak features alone" : found.share === null ? "" : `${percent(found.share)} of its vote from weak features`;
        words.textContent = `Standard training: ${both(standard)}. Adversarial training: ${landed ? `${both(landed)}, ${kind}` : "w = 0, nothing is learnt"}.`;
        axes.element.setAttribute("aria-label", `Clean error against robust error. The attained curve runs from clean ${percent(reach.at(-1)[0])}, robust ${percent(reach.at(-1)[1])} to ${both(reach[0])}. ${words.textContent}`);
        stage.say(`p ${two(p)}, eta ${two(eta)}, radius ${two(eps)}; ${badge.textContent.replace("≥", "at least")}. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
