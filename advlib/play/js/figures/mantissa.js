/* The trap of Chapter 7b in arithmetic of m bits: the program's margin peels off the real
   one; rounded outward, the interval keeps it. */
"use strict";
(Sides => {
  const LOW = .25, HIGH = .75, STEPS = 128, BOTTOM = -1, TOP = .8;
  const NAMES = { 8: "bfloat16", 11: "float16", 24: "float32", 53: "float64" };
  const number = v => (Math.abs(v) < 100 ? v.toFixed(2) : v.toExponential(0).replace("e+", "e")).replace("-", "\u2212");
  const raised = v => [...String(v)].map(d => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("");
  /** The trap: h = 2^power x0 + x1, then the margin 0.6 - ReLU(h - 2^power). */
  const layers = power => [[[[2 ** power, 1]], [0]], [[[1]], [-(2 ** power)]], [[[-1]], [.6]]];
  const ends = (power, low, high, how) => {
    const { lower: [lower], upper: [upper] } = Sides.rounded.interval(layers(power), low, high, how);
    return { lower, upper };
  };

  Sides.figures.mantissa = {
    title: "How many bits does the proof need?",
    uses: ["rounded"],
    state: { bits: 24, power: 24, x: .7, outward: false },
    build(stage) {
      const { make } = stage, controls = stage.row(), more = stage.row();
      stage.slider({ key: "bits", label: "bits m of every number", into: controls, min: 4, max: 53, step: 1,
        text: v => NAMES[v] ? `${v}, as ${NAMES[v]}` : String(v) });
      stage.slider({ key: "power", label: "large weight", into: controls, min: 4, max: 60, step: 1, text: v => `2${raised(v)}` });
      stage.slider({ key: "x", label: "second pixel", into: more, min: LOW, max: HIGH, step: .005, text: v => v.toFixed(3) });
      stage.choice({ key: "outward", label: "round", into: more, options: [[false, "to nearest"], [true, "outward"]] });
      const chart = stage.row(), key = make("p"), badge = make("b"), words = make("span");
      chart.style.display = "block";
      stage.host.append(key, make("p", { className: "verdict" }, badge, words));
      let width = 0, cached = "", curve = [];
      stage.drag(chart, { move: part => {
        const inside = (part * width - 40) / (width - 48); // as the axes have it
        const x = LOW + Math.min(Math.max(inside, 0), 1) * (HIGH - LOW);
        stage.set({ x: Math.round(x * 200) / 200 });
      } });
      chart.removeAttribute("tabindex"); // the slider is for keys
      stage.sized(chart, w => {
        width = w;
        stage.redraw();
      });
      const swatch = (colour, text, dashes = "") => {
        const line = Sides.draw.svg("svg", { width: 26, height: 10, style: "display: inline-block; width: 26px; vertical-align: middle" },
          Sides.draw.svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: Sides.draw.ink(colour), "stroke-width": 3, "stroke-dasharray": dashes }));
        return make("span", { style: "white-space: nowrap; margin-right: 1rem" }, line, ` ${text}`);
      };

      /** All numbers of a state: at the pixel, and the bound over the ball. */
      stage.found = ({ bits, power, x, outward } = stage.get()) => {
        const how = { bits, outward }, exactly = { bits: Infinity, outward: false };
        const [real, ball] = [[[1, x], [1, x]], [[.75, LOW], [1, HIGH]]].map(box => now => ends(power, ...box, now));
        return { real: real(exactly).lower, ...real(how), bound: ball(how).lower, least: ball(exactly).lower };
      };
      return state => {
        if (!width) return;
        const { bits, power, x, outward } = state, found = stage.found(state), { real, lower, upper, bound, least } = found;
        const at = JSON.stringify([bits, power, outward]);
        if (at !== cached) {
          cached = at;
          curve = Array.from({ length: STEPS + 1 }, (_, k) => {
            const v = LOW + k / STEPS * (HIGH - LOW);
            return { v, ...ends(power, [1, v], [1, v], { bits, outward }) };
          });
        }
        const inside = v => Math.min(Math.max(v, BOTTOM), TOP);
        const axes = Sides.draw.axes({ width, height: 270, x: [LOW, HIGH], y: [BOTTOM, TOP], xlabel: "second pixel", ylabel: "margin of class 0",
          ticks: { x: [.25, .5, .75], y: [-1, -.5, 0, .5] }, words: "" });
        const { svg } = Sides.draw, { X, Y } = axes;
        const put = (name, attributes) => axes.element.append(svg(name, attributes));
        axes.line([[LOW, 0], [HIGH, 0]], "var(--s-ink)", { width: 1 });
        if (outward) {
          const around = [...curve.map(p => [p.v, p.upper]), ...curve.map(p => [p.v, p.lower]).reverse()];
          put("polygon", { points: around.map(([a, b]) => `${X(a)},${Y(inside(b))}`).join(" "), fill: Sides.draw.ink("interval"), opacity: .45 });
        } else axes.line(curve.map(p => [p.v, inside(p.lower)]), "third", { width: 2.5, dashes: "7 4" });
        if (bound >= BOTTOM) { // a little lower, or it would lie on the program
          axes.line([[LOW, bound - .02], [HIGH, bound - .02]], "interval", { width: 3, dashes: "3 4" });
          axes.text([HIGH - .01, bound - .11], "bound over the ball", "end");
        }
        axes.line([[LOW, .6 - LOW], [HIGH, .6 - HIGH]], "exact", { width: 2.5 });
        put("line", { x1: X(x), x2: X(x), y1: Y(BOTTOM), y2: Y(TOP), stroke: "var(--s-quiet)" });
        if (!outward) axes.dot([x, inside(lower)], "third", 6);
        axes.dot([x, real], "exact", 6);
        axes.text([LOW + .01, .06], "class 0 wins");
        axes.text([LOW + .01, -.12], "class 1 wins");
        chart.replaceChildren(axes.element);
        key.replaceChildren(swatch("exact", "real margin"),
          outward ? swatch("interval", "interval around it") : swatch("third", `program of ${bits} bits`, "7 4"),
          swatch("interval", `interval bound over the ball${bound < BOTTOM ? " (below the picture)" : ""}`, "2 4"));

        const sure = bound > 0, differ = !outward && (lower > 0) !== (real > 0);
        badge.textContent = sure ? "false certificate" : differ ? "program errs" : "not certified";
        badge.dataset.is = sure || differ ? "fooled" : "open";
        const here = outward ? `at this pixel the margin ${number(real)} lies in [${number(lower)}, ${number(upper)}].`
          : `at this pixel the real margin is ${number(real)}, the program's ${number(lower)}${differ ? ", of the wrong sign" : ""}.`;
        const beside = bound <= least ? "not above" : bound - least < .005 ? "a hair above" : "above";
        words.textContent = `The bound is ${number(bound)}, ${beside} the smallest real margin, ${number(least)}; ${here}`;
        axes.element.setAttribute("aria-label", `Margin over the second pixel: the real one falls from 0.35 to ${number(least)}. ${words.textContent}`);
        stage.say(`${bits} bits, weight two to the ${power}, rounded ${outward ? "outward" : "to nearest"}: ${badge.textContent}. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
