/* The scale of the logits: along one way from an image to the worst point the loss's
   first-order prediction is as wrong as one likes, the margin's stays as it is. */
"use strict";
(Sides => {
  const { svg } = Sides.draw;
  const SCALES = [.01, .02, .03, .05, .1, .2, .3, .5, 1, 1.5, 2, 3, 4, 5], ONE = SCALES.indexOf(1);
  const NETS = [["linear", "linear model"], ["dnn_2", "MLP 200"], ["dnn_4", "MLP 200-100-100"], ["cnn", "CNN"]];
  const UPPER = "⁰¹²³⁴⁵⁶⁷⁸⁹";

  /** Two digits, from a million on as a power of ten. */
  const number = v => {
    const [factor, exponent] = v.toExponential(1).split("e");
    if (exponent > -5 && exponent < 6) return v < 9.95 ? v.toPrecision(2) : String(Number(v.toPrecision(2)));
    return `${factor}·10${exponent.replace("-", "⁻").replace(/[0-9]/g, d => UPPER[d]).replace("+", "")}`;
  };

  /**
   * Loss and margin along a way, and their tangents at its start.
   * @param {{logits: number[][], slope: number[]}} way logits at equal steps, derivative
   *   of the logits along the whole way at its start
   * @param {number} label @param {number} s what the logits are multiplied by
   */
  const along = ({ logits, slope }, label, s) => {
    const apart = z => z.map(v => s * (v - z[label])), others = z => z.filter((_, j) => j !== label);
    const loss = logits.map(z => {
      const rest = others(apart(z)), most = Math.max(0, ...rest);
      return most ? most + Math.log(Math.exp(-most) + rest.reduce((sum, v) => sum + Math.exp(v - most), 0))
        : Math.log1p(rest.reduce((sum, v) => sum + Math.exp(v), 0)); // log1p: it may be tiny
    });
    const margin = logits.map(z => s * (z[label] - Math.max(...others(z))));
    const e = apart(logits[0]).map(Math.exp), sum = e.reduce((a, b) => a + b);
    const rise = e.reduce((total, v, j) => total + v / sum * s * (slope[j] - slope[label]), 0);
    const rival = logits[0].indexOf(Math.max(...others(logits[0])));
    const drop = s * (slope[rival] - slope[label]), last = logits.length - 1;
    return {
      loss, margin, rise, drop, says: logits[last].indexOf(Math.max(...logits[last])),
      lossFactor: (loss[last] - loss[0]) / rise, marginFactor: (margin[0] - margin[last]) / drop,
    };
  };

  Sides.figures.scale = {
    title: "Turn the linear model's logits up until its loss is as blind as the CNN's",
    uses: [],
    needs: ["scale"],
    state: { net: "linear", at: ONE, all: NETS.map(() => ONE) },
    build(stage) {
      const { label, image, networks } = Sides.records.scale;
      stage.along = (name, s) => along(networks[name], label, s);
      stage.scales = SCALES;
      const index = name => NETS.findIndex(([key]) => key === name);
      stage.choice({ key: "net", label: "network", options: NETS, into: stage.row() });
      stage.slider({ key: "at", label: "its logits times", min: 0, max: SCALES.length - 1, step: 1, text: k => String(SCALES[k]), into: stage.row() });
      stage.changed = ({ net, at, all }, key) => { // each network keeps its own scale
        if (key === "net") stage.set({ at: all[index(net)] });
        if (key === "at") stage.set({ all: all.map((k, i) => i === index(net) ? at : k) });
      };
      const pixels = text => Float64Array.from(atob(text), c => c.charCodeAt(0) / 255);
      const [before, after] = ["The image, a " + label, "The worst point found"].map(text => Sides.draw.bitmap(text));
      before.grey(pixels(image));
      const charts = stage.row();
      charts.style = "display: grid; gap: .7rem 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 15rem), 1fr))";
      const places = ["cross-entropy", "margin"].map(() => {
        const name = stage.make("p"), place = stage.make("div");
        charts.append(stage.make("div", {}, name, place));
        return { name, place };
      });
      const low = stage.row(), digits = stage.make("div"), factors = svg("svg", { role: "img" }), box = stage.make("div");
      digits.style = "display: grid; grid-template-columns: 4.5rem 4.5rem; gap: .5rem; text-align: center";
      const under = [`a ${label}`, ""].map(text => stage.make("span", { textContent: text }));
      digits.append(before.canvas, after.canvas, ...under);
      box.style = "flex: 1 1 17rem; min-width: 0";
      box.append(factors);
      low.append(box, digits);
      const badge = stage.make("b"), words = stage.make("span");
      stage.host.append(stage.make("p", { className: "verdict" }, badge, words));
      let width = 0, wide = 0;
      stage.sized(places[0].place, w => { width = w; stage.redraw(); });
      stage.sized(box, w => { wide = w; stage.redraw(); });

      /** One chart: the curve, its tangent at the image, what it is called. */
      const chart = (values, slope, from, to, ticks, what) => {
        const last = values.length - 1;
        const axes = Sides.draw.axes({ width, height: 200, x: [0, 1], y: [from, to], xlabel: "share of the way to the worst point", ticks: { x: [0, .5, 1], y: ticks }, words: what });
        if (from < 0) axes.line([[0, 0], [1, 0]], "var(--s-ink)", { width: 1 });
        axes.line(values.map((v, k) => [k / last, v]), "var(--s-ink)", { width: 2.5 });
        const end = Math.min(Math.max(values[0] + slope, from), to), cut = slope ? Math.min(1, (end - values[0]) / slope) : 1;
        axes.line([[0, values[0]], [cut, end]], "var(--s-fooled)", { width: 2.5, dashes: "6 4" });
        return axes.element;
      };

      /** Rise over prediction of each network: by the loss a dot, by the margin a ring. */
      const board = (now, net) => {
        const LEFT = 116, ROW = 26, TOP = 22, height = TOP + 4 * ROW + 32, END = 9;
        const X = v => LEFT + Math.min(Math.max(Math.log10(v), 0), END) / END * (wide - LEFT - 40);
        const put = [], text = (x, y, content, more) => put.push(svg("text", { x, y, ...more }, content));
        for (const v of [0, 3, 6, 9]) {
          put.push(svg("line", { x1: X(10 ** v), x2: X(10 ** v), y1: TOP - 6, y2: height - 30, stroke: "var(--s-line)" }));
          text(X(10 ** v), height - 16, v ? `10${UPPER[v]}` : "1", { "text-anchor": "middle", class: "quiet" });
        }
        text(wide, height - 2, "true change / predicted change", { "text-anchor": "end", class: "quiet" });
        put.push(svg("circle", { cx: LEFT + 4, cy: 6, r: 5, fill: "var(--s-fooled)" }), svg("circle", { cx: LEFT + 70, cy: 6, r: 5, fill: "none", stroke: "var(--s-open)", "stroke-width": 2.5 }));
        text(LEFT + 13, 10, "loss");
        text(LEFT + 80, 10, "margin");
        NETS.forEach(([key, name], k) => {
          const y = TOP + ROW * k + 10, { lossFactor, marginFactor, s } = now[k], bold = key === net ? 700 : 400;
          text(0, y + 4, s === 1 ? name : name.replace("linear model", "linear").replace("200-100-100", "200…"), { "font-weight": bold });
          if (s !== 1) text(LEFT - 12, y + 4, `× ${s}`, { "text-anchor": "end", "font-weight": bold });
          put.push(svg("circle", { cx: X(marginFactor), cy: y, r: 5, fill: "none", stroke: "var(--s-open)", "stroke-width": 2.5 }),
            svg("circle", { cx: X(lossFactor), cy: y, r: 5, fill: "var(--s-fooled)" }));
          text(X(lossFactor) + 9, y + 4, number(lossFactor), { "font-weight": bold });
        });
        factors.setAttribute("viewBox", `0 0 ${wide} ${height}`);
        factors.setAttribute("height", height);
        factors.setAttribute("aria-label", `True change over predicted change. ${NETS.map(([, name], k) =>
          `${name}, logits times ${now[k].s}: loss ${number(now[k].lossFactor)}, margin ${now[k].marginFactor.toFixed(2)}`).join("; ")}.`);
        factors.replaceChildren(...put);
      };

      return ({ net, all }) => {
        if (!width || !wide) return;
        const now = NETS.map(([key], k) => ({ s: SCALES[all[k]], ...along(networks[key], label, SCALES[all[k]]) }));
        const { loss, margin, rise, drop, says, lossFactor, marginFactor, s } = now[index(net)];
        const top = Math.max(...loss), tick = Number(top.toPrecision(2));
        places[0].name.textContent = `loss: rises ${number(lossFactor)} times as much as predicted`;
        places[1].name.textContent = `margin (clean: 1): drops ${marginFactor.toFixed(2)} times as much`;
        places[0].place.replaceChildren(chart(loss, rise, 0, 1.08 * top, [0, tick], `Cross-entropy from ${number(loss[0])} to ${number(loss.at(-1))}, with its tangent.`));
        const share = margin.map(v => v / margin[0]);
        places[1].place.replaceChildren(chart(share, -drop / margin[0], -.8, 1.08, [0, 1], `Margin over clean margin from 1 to ${share.at(-1).toFixed(2)}, with its tangent.`));
        board(now, net);
        after.grey(pixels(networks[net].changed));
        under[1].textContent = `says ${says}`;
        after.call(`The changed image; the network says ${says}.`);
        badge.textContent = badge.dataset.is = "fooled";
        words.textContent = `At the worst point found it says ${says}, at every scale. Dashed: what the gradient at the image predicts.`;
        stage.say(`${NETS[index(net)][1]}, logits times ${s}: the loss rises ${number(lossFactor)} times as much as its gradient predicts, the margin drops ${marginFactor.toFixed(2)} times as much. It says ${says} at every scale.`);
      };
    },
  };
})(globalThis.Sides);
