/* Nine activations, value, slope and curvature; below, the slope of a network's logit
   difference along a straight way in the space of images: staircase or curve. */
"use strict";
(Sides => {
  const sigmoid = x => 1 / (1 + Math.exp(-x));
  const density = x => Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
  /** Distribution function of the standard normal: a series of positive terms. */
  const normal = x => {
    if (Math.abs(x) > 9) return x > 0 ? 1 : 0;
    let term = x, sum = x;
    for (let k = 3; Math.abs(term) > 1e-17 * Math.abs(sum); k += 2) sum += term *= x * x / k;
    return .5 + density(x) * sum;
  };
  const at = (left, right) => x => x < 0 ? left(x) : right(x);
  const none = () => 0, one = () => 1, own = x => x;
  const softplus = a => [x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(a * x))) / a,
    x => sigmoid(a * x), x => a * sigmoid(a * x) * sigmoid(-a * x)];

  const STOPS = [.1, .2, .3, .5, .7, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 400];
  /* words; value, slope and curvature for alpha; least, usual and largest alpha */
  const KINDS = {
    relu: ["ReLU", () => [at(none, own), at(none, one), none]],
    leaky_relu: ["LeakyReLU", () => [at(x => .2 * x, own), at(() => .2, one), none]],
    elu: ["ELU", a => [at(x => a * Math.expm1(x), own), at(x => a * Math.exp(x), one),
      at(x => a * Math.exp(x), none)], [.1, 1, 3]],
    celu: ["CELU", a => [at(x => a * Math.expm1(x / a), own), at(x => Math.exp(x / a), one),
      at(x => Math.exp(x / a) / a, none)], [.1, 2, 5]],
    smooth_relu: ["SmoothReLU", a => [at(none, x => x - Math.log1p(a * x) / a),
      at(none, x => a * x / (1 + a * x)), at(none, x => a / (1 + a * x) ** 2)], [.5, 400, 400]],
    softplus: ["Softplus", () => softplus(1)],
    parametric_softplus: ["Parametric Softplus", softplus, [.5, 10, 400]],
    silu: ["SiLU", () => [x => x * sigmoid(x), x => sigmoid(x) * (1 + x * sigmoid(-x)),
      x => sigmoid(x) * sigmoid(-x) * (2 + x * (1 - 2 * sigmoid(x)))]],
    gelu: ["GELU", () => [x => x * normal(x), x => normal(x) + x * density(x), x => density(x) * (2 - x * x)]],
  };
  const relu = KINDS.relu[1]();

  /**
   * The logit difference along the way and its slope, at `t` in [0, 1].
   * @param {function[]} f value and slope inside the network
   * @param {function} gate what stands for the slope on the way back
   * @returns {{value: number, slope: number, on: boolean[]}}
   */
  const along = (t, [f], gate, { start, step, weight, bias, out, last } = Sides.records.gates) => {
    const z = start.map((v, i) => v + t * step[i]), h = z.map(f), on = z.map(v => v > 0);
    const moved = z.map((v, i) => gate(v) * step[i]);
    let value = last, slope = 0;
    weight.forEach((row, k) => {
      let a = bias[k], b = 0;
      for (let i = 0; i < row.length; i++) {
        a += row[i] * h[i];
        b += row[i] * moved[i];
      }
      on.push(a > 0);
      value += out[k] * f(a);
      slope += out[k] * gate(a) * b;
    });
    return { value, slope, on };
  };

  const TIMES = Array.from({ length: 601 }, (_, k) => k / 600);
  /** Curve, area under it, change of the values, and how many units cross 0. */
  const way = (inside, gate) => {
    const rows = TIMES.map(t => along(t, inside, gate)), n = rows.length - 1;
    const crossed = rows[0].on.filter((first, k) => rows.some(({ on }) => on[k] !== first));
    return {
      slopes: rows.map(row => row.slope), change: rows[n].value - rows[0].value, crossed: crossed.length,
      area: rows.reduce((sum, { slope }, k) => sum + slope * (k % n ? 1 : .5), 0) / n,
    };
  };

  Sides.figures.gates = {
    title: "Choose an activation f and slide its α",
    uses: [],
    needs: ["gates"],
    state: { f: "parametric_softplus", stop: STOPS.indexOf(10), inside: "f" },
    kinds: KINDS, along, way,
    build(stage) {
      const usual = f => STOPS.indexOf(KINDS[f][2]?.[1] ?? 1);
      stage.choice({ key: "f", label: "activation f", into: stage.row(), options: Object.entries(KINDS).map(([key, [words]]) => [key, words]) });
      const slider = stage.slider({
        key: "stop", label: "α", into: stage.row(), min: 0, max: STOPS.length - 1, step: 1,
        text: v => KINDS[stage.get().f][2] ? String(STOPS[v]) : "this f has none",
      });
      const place = into => {
        const name = stage.make("p"), content = stage.make("div"), box = stage.make("div", {}, name, content);
        into.append(box);
        name.style.margin = "0 0 .25rem";
        return { name, content, box };
      };
      const charts = stage.row("charts"), boxes = [charts, charts, charts].map(place);
      charts.style.cssText = "display: grid; gap: .6rem 12px; margin-bottom: .9rem";
      const path = place(stage.host);
      stage.choice({
        key: "inside", label: "values inside the network", into: stage.row(),
        options: [["f", "f’s own"], ["relu", "ReLU’s: f for the gradient only"]],
      });
      const note = stage.make("p");
      note.style.cssText = "margin: 0; min-height: 4.2em";
      stage.host.append(note);
      let width = 0, was = null, kept = {};
      stage.sized(charts, w => {
        width = w;
        stage.redraw();
      });
      stage.changed = (state, key) => {
        if (key === "f") stage.set({ stop: usual(state.f) });
      };

      const chart = ({ content }, { wide, high, y, ticks, words, curves, xlabel = "x", x = [-3, 3], xs = [-2, 0, 2] }) => {
        const axes = Sides.draw.axes({ width: wide, height: high, x, y, xlabel, ticks: { x: xs, y: ticks }, words });
        for (const [points, colour, style] of curves) {
          let part = []; // a curve that leaves the chart is cut
          for (const point of [...points, [0, Infinity]]) {
            if (point[1] >= y[0] - 1e-9 && point[1] <= y[1] + 1e-9) part.push(point);
            else {
              if (part.length > 1) axes.line(part, colour, style);
              part = [];
            }
          }
        }
        content.replaceChildren(axes.element);
        return axes;
      };
      const halves = g => [[-3, -1e-12], [0, 3]].map(([from, to]) => Array.from({ length: 301 }, (_, k) => {
        const x = from + (to - from) * (k / 300) ** (from < 0 ? 1 / 3 : 3); // close to 0 closely
        return [x, g(x)];
      }));

      return ({ f, stop, inside }) => {
        if (!width) return;
        const [name, make, range] = KINDS[f], a = STOPS[stop], functions = make(a);
        slider.disabled = !range;
        if (range && was !== f) {
          [slider.min, slider.max] = [range[0], range[2]].map(v => STOPS.indexOf(v));
          slider.value = stop;
        }
        was = f;
        const called = range ? `${name}, α = ${a}` : name;
        const [value, slope, bend] = functions, jump = slope(0) - slope(-1e-12);
        const points = [value, slope, bend].map(halves), all = k => points[k].flat().map(([, v]) => v);
        const gap = Math.max(...points[0].flat().map(([x, v]) => Math.abs(v - Math.max(x, 0))));
        const peak = Math.max(...all(2)), columns = width < 480 ? 2 : 3;
        charts.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
        boxes[2].box.style.gridColumn = columns < 3 ? "span 2" : "";
        const wide = (width - 12 * (columns - 1)) / columns;
        const grey = g => halves(g).map(part => [part, "var(--s-line)", { width: 5 }]);
        const black = k => points[k].map(part => [part, "var(--s-ink)"]);
        boxes[0].name.textContent = `value f; gap to ReLU ${gap.toFixed(gap < .1 ? 3 : 2)}`;
        chart(boxes[0], { wide, high: 170, y: [-1.5, 3], ticks: [-1, 0, 1, 2, 3], curves: [...grey(relu[0]), ...black(0)],
          words: `${called}: the value is at most ${gap.toFixed(3)} away from ReLU's for x from -3 to 3.` });
        boxes[1].name.textContent = Math.abs(jump) > 1e-9 ? `slope f′; jumps by ${jump.toFixed(1)}` : "slope f′; no jump";
        chart(boxes[1], { wide, high: 170, y: [-.25, 1.25], ticks: [0, .5, 1], curves: [...grey(relu[1]), ...black(1)],
          words: `${called}: the slope ${Math.abs(jump) > 1e-9 ? `jumps by ${jump.toFixed(1)} at 0` : "has no jump"}.` });
        boxes[2].name.textContent = `curvature f″; ${Math.abs(jump) > 1e-9 ? "a spike at 0" : `largest ${+peak.toPrecision(2)}`}`;
        const last = chart(boxes[2], { wide: columns < 3 ? width : wide, high: 170, y: [-.5, 3], ticks: [0, 1, 2, 3], curves: black(2),
          words: `${called}: the largest curvature is ${+peak.toPrecision(2)}${Math.abs(jump) > 1e-9 ? ", and a spike at 0" : ""}.` });
        if (Math.abs(jump) > 1e-9) last.line([[0, 0], [0, jump > 0 ? 3 : -.5]], "var(--s-ink)", { dashes: "4 3" });

        const key = `${f} ${stop} ${inside}`, stairs = kept.relu ??= way(relu, relu[1]);
        if (kept.key !== key) kept = { ...kept, key, now: way(inside === "f" ? functions : relu, slope) };
        const { slopes, area, change, crossed } = kept.now;
        const top = Math.max(...slopes, ...stairs.slopes), low = Math.min(0, ...slopes);
        const unit = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find(u => (top - low) / u <= 6) ?? 5000;
        const edge = [Math.floor(low / unit) * unit, Math.ceil(top / unit) * unit];
        const ticks = Array.from({ length: Math.round((edge[1] - edge[0]) / unit) + 1 }, (_, k) => edge[0] + k * unit);
        const is = inside === "f" ? `of ${called}` : `with ReLU’s values and the slope of ${called} in its gradient`;
        path.name.textContent = `A network ${is}: slope of the logit difference on the way to an attack’s end`;
        const drawn = [[stairs.slopes, "var(--s-line)", { width: 5 }], [slopes, "exact", inside === "f" ? {} : { dashes: "6 3" }]];
        chart(path, { wide: width, high: 210, y: edge, x: [0, 1], xs: [0, .25, .5, .75, 1], ticks, xlabel: "share t of the way from the image",
          curves: drawn.map(([list, ...how]) => [list.map((v, k) => [TIMES[k], v]), ...how]),
          words: `The slope along the way, from ${slopes[0].toFixed(1)} at the image to ${slopes.at(-1).toFixed(1)} at the end, between ${Math.min(...slopes).toFixed(1)} and ${top.toFixed(1)}.` });
        const same = inside === "f" || f === "relu", lies = Math.abs(area - change) > .05;
        const words = `${crossed} of 70 units cross 0 on the way${Math.abs(jump) > 1e-9 ? ": a staircase, or pieces of curves" : ""}. `
          + `Area under the curve ${area.toFixed(1)}, change of the logit difference ${change.toFixed(1)}`
          + (same ? ": a true derivative." : lies ? ": this gradient is not the derivative of these values." : ": nearly equal here.");
        note.textContent = `Grey: ReLU. ${words}`;
        stage.say(`${called}. Gap to ReLU ${gap.toFixed(3)}, ${Math.abs(jump) > 1e-9 ? `the slope jumps by ${jump.toFixed(1)}` : "no jump"}, largest curvature ${+peak.toPrecision(2)}. ${words}`);
        stage.seen = { a, gap, jump, peak, area, change, crossed, slopes };
      };
    },
  };
})(globalThis.Sides);
