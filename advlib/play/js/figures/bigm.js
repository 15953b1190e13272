/* Big M by hand: the bounds l and u of one ReLU, what its integer program allows when b
   may be a fraction, and what is cut off when they are no bounds. */
"use strict";
(Sides => {
  const REACH = [-1, 2]; // what really enters the unit
  const VIEW = { x: [-4.3, 5.3], y: [-.4, 5.3] };
  const MARGIN = { constant: 1.25, z: .5, a: -1 }; // as linear in what enters and leaves
  const number = (v, digits = 2) => (v + 0).toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "\u2212");
  const relu = z => Math.max(z, 0);

  /** The rows of the program in (z, a, b), and the reach of z. */
  const rows = (l, u, b) => {
    const lines = [
      [[1, -1, 0], 0], [[0, -1, 0], 0], // a >= z, a >= 0
      [[0, 1, -u], 0], [[-1, 1, -l], -l], // a <= u b, a <= z - l (1 - b)
      [[0, 0, 1], b === "free" ? 1 : b], [[0, 0, -1], b === "free" ? 0 : -b],
      [[1, 0, 0], REACH[1]], [[-1, 0, 0], -REACH[0]],
    ];
    return [lines.map(([row]) => Float64Array.from(row)), lines.map(([, side]) => side)];
  };
  /** The least margin that the program allows with b in [0, 1], 0 or 1, and where. */
  const least = (l, u, b) => {
    const start = Float64Array.of(0, 0, b === "free" ? .5 : b);
    const { value, point } = Sides.toys.minimise([MARGIN.z, MARGIN.a, 0], ...rows(l, u, b), start);
    return { value: MARGIN.constant + value, point };
  };
  /** The largest a at z with b free: the highest point of a tent over b. */
  const top = (l, u, z) => {
    const b = (z - l) / (u - l);
    return z < l || z > u ? null : { b, a: u * b };
  };
  const held = ({ l, u, z }) => {
    const truth = MARGIN.constant + Math.min(...[REACH[0], 0, REACH[1]].map(v => MARGIN.z * v + MARGIN.a * relu(v)));
    const peak = top(l, u, z);
    return { truth, free: least(l, u, "free").value, off: least(l, u, 0).value, on: least(l, u, 1).value,
      peak, gap: peak && peak.a - relu(z), cut: l > REACH[0] || u < REACH[1] };
  };

  Sides.figures.bigm = {
    title: "Drag l and u to where the unit really reaches",
    uses: ["polygons", "toys"],
    needs: [],
    state: { l: -3, u: 4, z: .5, b: "free" },
    build(stage) {
      const { svg, axes, ink } = Sides.draw, { toys } = Sides;
      const place = (into, style) => into.appendChild(stage.make("div", { attributes: { style } }));
      const block = (words, into) => {
        into.append(stage.make("p", { textContent: words, attributes: { style: "margin: 0 0 .25rem" } }));
        return place(into, "");
      };
      const first = stage.row(), second = stage.row();
      first.style.alignItems = second.style.alignItems = "start";
      const main = block("what the program allows of one ReLU", place(first, "flex: 2 1 19rem; min-width: 0"));
      const column = place(first, "flex: 1 1 11rem; min-width: 0"), tent = block("at the chosen input: a over b", column);
      const sliders = place(second, "flex: 1 1 13rem; min-width: 0"), right = place(second, "flex: 2 1 17rem; min-width: 0");
      const text = v => number(v, 1);
      stage.slider({ key: "l", label: "l: the lower bound", min: -4, max: -.1, step: .1, text, into: sliders });
      stage.slider({ key: "u", label: "u: the upper bound", min: .1, max: 5, step: .1, text, into: sliders });
      stage.slider({ key: "z", label: "chosen input", min: REACH[0], max: REACH[1], step: .1, text, into: sliders });
      stage.choice({ key: "b", label: "the binary variable b", into: right,
        options: [["free", "between 0 and 1"], [0, "branch: 0"], [1, "branch: 1"]] });
      const table = place(right, "margin-top: .6rem"), verdict = stage.make("p", { className: "verdict" });
      const badge = stage.make("b"), words = stage.make("span");
      verdict.append(badge, words);
      right.append(verdict);

      let chart = null, handle = "";
      const fresh = (into, how) => {
        const made = axes(how);
        into.replaceChildren(made.element);
        made.region = (polygon, attributes) => made.element.append(svg("polygon", {
          points: polygon.map(([a, b]) => `${made.X(a)},${made.Y(b)}`).join(" "), ...attributes }));
        made.ring = ([a, b], colour) => made.element.append(svg("circle", { cx: made.X(a), cy: made.Y(b), r: 8,
          fill: "var(--s-page)", stroke: colour, "stroke-width": 3 }));
        return made;
      };
      const size = element => Math.max(Math.round(element.clientWidth), 120);
      stage.drag(main, {
        move(fx, fy, phase) {
          const { width, height } = main.firstChild.getBoundingClientRect(), { l, u, z } = stage.get();
          const spots = { l: [l, 0], u: [u, u], z: [z, relu(z)] };
          if (phase === "start") {
            const far = ([a, b]) => Math.hypot(chart.X(a) - fx * width, chart.Y(b) - fy * height);
            handle = Object.keys(spots).reduce((a, b) => far(spots[b]) < far(spots[a]) ? b : a);
          }
          const x = (fx * width - chart.X(0)) / (chart.X(1) - chart.X(0));
          const [from, to] = { l: [-4, -.1], u: [.1, 5], z: REACH }[handle];
          stage.set({ [handle]: Math.round(10 * Math.min(Math.max(x, from), to)) / 10 });
        },
      });

      /** The plane of input and output: hull, relaxation, what is cut off. */
      const graph = ({ l, u, z, b }, now) => {
        const width = size(main), [low, high] = REACH;
        chart = fresh(main, { width, height: Math.min(.66 * width, 330), ...VIEW, xlabel: "what enters the ReLU", ylabel: "what leaves it, a",
          ticks: { x: [-4, -2, 0, 2, 4], y: [0, 2, 4] }, words: `The ReLU and the region that its program allows with l ${text(l)} and u ${text(u)}.` });
        chart.region(toys.corners({ low: [low, VIEW.y[0]], high: [high, VIEW.y[1]] }), { fill: "var(--s-open)", opacity: .09 });
        const whole = [[l, 0], [0, 0], [u, u]], inside = toys.clip(toys.clip(whole, [1, 0], low), [-1, 0], -high);
        if (b === "free") {
          chart.region(whole, { fill: "none", stroke: ink("lp"), "stroke-dasharray": "3 3" });
          chart.region(inside, { fill: ink("lp"), "fill-opacity": .28, stroke: ink("lp"), "stroke-width": 2, class: "allowed" });
          chart.region([[low, 0], [0, 0], [high, high]], { fill: "none", stroke: ink("exact"), "stroke-width": 1.5, "stroke-dasharray": "7 3" });
        }
        const part = (from, to, colour, how) => from < to && chart.line([from, ...(from < 0 && to > 0 ? [0] : []), to].map(v => [v, relu(v)]), colour, how);
        const [from, to] = [Math.max(l, low), Math.min(u, high)];
        for (const [a, c] of [[low, from], [to, high]]) part(a, c, "var(--s-fooled)", { width: 5, dashes: "3 3" });
        part(from, to, "exact", { width: b === "free" ? 4 : 1.5 });
        if (b !== "free") part(b ? 0 : from, b ? to : 0, "lp", { width: 6 });
        chart.line([[z, VIEW.y[0]], [z, now.peak ? now.peak.a : relu(z)]], "var(--s-ink)", { width: 1, dashes: "2 3" });
        if (b === "free" && now.peak) chart.line([[z, relu(z)], [z, now.peak.a]], "var(--s-ink)", { width: 4 });
        chart.dot([z, relu(z)], "var(--s-page)", 8);
        chart.dot([z, relu(z)], "var(--s-ink)", 6);
        chart.ring([l, 0], ink("lp"));
        chart.ring([u, u], ink("lp"));
        const label = (words, x, y, more = {}) => chart.element.append(svg("text", { x, y, "text-anchor": "middle", ...more }, words));
        label("l", chart.X(l), chart.Y(0) - 14, { "font-weight": 700 });
        label("u", chart.X(u) - 16, chart.Y(u) + 4, { "font-weight": 700 });
        label("real reach", (chart.X(low) + chart.X(high)) / 2, chart.Y(VIEW.y[1]) + 14, { style: "fill: var(--s-open)" });
        if (now.cut) label("cut off", u < high ? chart.X((u + high) / 2) + 30 : chart.X((l + low) / 2), u < high ? chart.Y((u + high) / 2) + 14 : chart.Y(0) + 18,
          { style: "fill: var(--s-fooled); font-weight: 700" });
      };
      /** The slice at one input: a tent over b, whose two ends are the truth. */
      const slice = ({ l, u, z, b }, now) => {
        const width = size(tent), high = Math.max(2.2, now.peak ? now.peak.a * 1.15 : 0);
        const made = fresh(tent, { width, height: Math.min(width, 240), x: [-.06, 1.06], y: [0, high], xlabel: "b", ylabel: "a",
          ticks: { x: [0, .5, 1], y: [0, 1, 2, 3].filter(v => v < high) }, words: `What a may be for each b at the input ${text(z)}.` });
        const roof = [[0, 0], [0, high], [1, high], [1, 0]]; // in (b, a)
        const cut = [[[u, -1], 0], [[l, -1], l - z], [[0, 1], relu(z)]].reduce((left, [w, c]) => toys.clip(left, w, c), roof);
        made.region(cut, { fill: ink("lp"), "fill-opacity": .28, stroke: ink("lp"), "stroke-width": 2 });
        made.line([[-.06, relu(z)], [1.06, relu(z)]], "exact", { width: 1.5, dashes: "7 3" });
        if (now.peak) {
          const ends = z > 0 ? [1] : z < 0 ? [0] : [0, 1];
          for (const end of ends) made.dot([end, relu(z)], "exact", 6);
          if (b === "free") made.dot([now.peak.b, now.peak.a], "var(--s-ink)", 5);
        }
        else made.text([.5, high / 2], "no b allows it", "middle");
        if (b !== "free") made.line([[b, 0], [b, high]], "lp", { width: 4 });
      };
      const line = (words, value, colour, more = "") => stage.make("div", { attributes: { style: "display: flex; gap: .6rem; font-variant-numeric: tabular-nums" } },
        stage.make("span", { textContent: words, attributes: { style: "flex: 1" } }),
        stage.make("b", { textContent: value, attributes: { style: colour ? `color: ${colour}` : "", "data-row": more } }));
      stage.sized(stage.host, () => stage.redraw());
      return state => {
        const now = held(state), best = Math.min(now.off, now.on), wrong = v => v > now.truth + 1e-9;
        const colour = v => wrong(v) ? "var(--s-fooled)" : v > 0 && !now.cut ? "var(--s-safe)" : "";
        graph(state, now);
        slice(state, now);
        table.replaceChildren(
          line(`gap at the chosen input, ${text(state.z)}`, now.peak ? number(now.gap) : "cut off", now.peak ? "" : "var(--s-fooled)", "gap"),
          line("largest gap, −lu / (u − l)", number(-state.l * state.u / (state.u - state.l)), "", "most"),
          line("true least margin, 1.25 + input / 2 − a", number(now.truth), "", "truth"),
          line("claimed with b in [0, 1]", number(now.free), colour(now.free), "free"),
          line("claimed in the branches b = 0, b = 1", `${number(now.off)}, ${number(now.on)}`, colour(best), "branches"));
        const is = wrong(now.free) || wrong(best) ? "fooled" : now.cut ? "unproven" : now.free > 0 ? "safe" : "open";
        badge.dataset.is = { unproven: "fooled" }[is] ?? is;
        badge.textContent = { fooled: "false bound", unproven: "no proof", safe: "certified", open: "branch" }[is];
        const loose = state.l < REACH[0] || state.u > REACH[1];
        const unseen = `M is too small: the program never sees inputs ${state.u < REACH[1] ? `above ${text(state.u)}` : `below ${text(state.l)}`}`;
        words.textContent = { fooled: `${unseen}, and claims more than is true.`, unproven: `${unseen}. What it claims happens to be true here, and is no proof.`,
          safe: loose ? "Loose bounds, but tight enough for this margin." : "The tightest M: the region is the convex hull, and b has nothing to decide here.",
          open: "M is too large: a fraction of b buys a margin that no input has. Each branch alone is exact." }[is];
        stage.say(`l ${text(state.l)}, u ${text(state.u)}: ${badge.textContent}. ${words.textContent} Claimed ${number(now.free)}, true ${number(now.truth)}. `
          + `Gap at ${text(state.z)}: ${now.peak ? number(now.gap) : "cut off"}.`);
        stage.found = () => now;
      };
    },
  };
})(globalThis.Sides);
