/* A walk from an image along the sign of the gradient: the margin, its tangent at the
   image, and where each of them says that the class changes. */
"use strict";
(Sides => {
  const FAR = 80;
  const NETS = [["fc10_1e-4", "softmax regression"], ["fc_100_100", "FC 100-100"], ["cnn_small", "CNN"], ["cnn_small_pgd_0", "CNN, PGD-trained"]];
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

  /** The direction of a walk: -1, 0, 1 for each pixel. */
  const signs = one => {
    const packed = bytes(one.signs);
    return Float64Array.from({ length: 4 * packed.length }, (_, i) => (packed[i >> 2] >> 6 - 2 * (i % 4) & 3) - 1);
  };
  /** The margin by the tangent: the least of nine straight lines. */
  const tangent = ({ gap, turn }, eps) => Math.min(...gap.map((v, j) => v + eps * turn[j]));

  Sides.figures.walk = {
    title: "Walk until the class changes",
    uses: [],
    needs: ["walk"],
    state: { net: "cnn_small", digit: 0, step: 0 },
    signs, tangent,
    build(stage) {
      const { pixels, walks } = Sides.records.walk, all = bytes(pixels);
      const images = Array.from({ length: 10 }, (_, k) => Float64Array.from(all.subarray(784 * k, 784 * (k + 1)), v => v / 255));
      const first = stage.row();
      stage.choice({ key: "net", label: "network", into: first, options: NETS });
      stage.choice({ key: "digit", label: "image of a", into: first, options: images.map((_, k) => [k, String(k)]) });
      const at = () => {
        const { net, digit, step } = stage.get(), one = walks[net][digit];
        return { ...one, eps: step * one.reach / FAR };
      };
      stage.slider({ key: "step", label: "ϵ: how far along the sign of the gradient", into: stage.row(), min: 0, max: FAR, step: 1, text: () => at().eps.toFixed(4).replace(/0$/, "") });
      const both = stage.row(), small = stage.row("pair", both), chart = stage.make("div"), note = stage.make("p");
      both.style.cssText = "align-items: start";
      small.style.cssText = "flex: 0 0 7.5rem; display: grid; gap: .2rem .6rem; margin: 0";
      chart.style.cssText = "flex: 1 1 17rem; min-width: 0";
      note.style.cssText = "margin: 0; min-height: 4.2em";
      const [image, moved] = ["the image", "the image, moved"].map(w => Sides.draw.bitmap(w));
      const names = [image, moved].map(one => {
        const name = stage.make("p"), box = stage.make("div", {}, name, one.canvas);
        name.style.margin = "0 0 .2rem";
        small.append(box);
        return name;
      });
      both.append(chart);
      stage.host.append(note);
      let width = 0, total = 0, last = "";
      stage.sized(chart, w => {
        width = w;
        stage.redraw();
      });
      stage.sized(both, w => {
        total = w;
        small.style.flexBasis = total < 480 ? "100%" : "7.5rem";
        small.style.gridTemplateColumns = total < 480 ? "minmax(0, 8rem) minmax(0, 8rem)" : "minmax(0, 1fr)";
      });
      stage.changed = (_, key) => {
        if (key === "net" || key === "digit") stage.set({ step: 0 });
      };
      const to = x => stage.set({ step: Math.min(FAR, Math.max(0, Math.round((x * width - 40) / (width - 48) * FAR))) });
      stage.drag(chart, { move: to, key: dx => stage.set({ step: Math.min(FAR, Math.max(0, stage.get().step + dx)) }) });
      chart.setAttribute("role", "slider");
      chart.setAttribute("aria-label", "the point of the walk");
      chart.setAttribute("aria-valuemin", 0);
      chart.setAttribute("aria-valuemax", FAR);

      const nice = span => [.1, .2, .5, 1, 2, 5, 10, 20, 50].find(unit => span / unit <= 6) ?? 100;
      const steps = (from, end, unit) => Array.from({ length: Math.floor((end - from) / unit + 1e-9) + 1 }, (_, k) => +(from + k * unit).toFixed(3));
      const plot = (one, step) => {
        const { reach, margins, predicted, actual, eps } = one, height = 260;
        const line = margins.map((_, k) => tangent(one, k * reach / FAR));
        const most = Math.max(...margins, line[0]), least = Math.max(Math.min(...margins, ...line), -most);
        const unit = nice(most - least), y = [Math.floor(least / unit) * unit, Math.ceil(most / unit) * unit];
        const axes = Sides.draw.axes({ width, height, x: [0, reach], y, xlabel: "ϵ", ticks: { x: steps(0, reach, reach / (width < 400 ? 2 : 4)), y: steps(y[0], y[1], unit) }, words: "margin and tangent over the radius" });
        const inside = values => {
          const part = [];
          for (let k = 0; k <= FAR && values[k] >= y[0]; k++) part.push([k * reach / FAR, values[k]]);
          return part;
        };
        axes.text([reach, y[1]], "margin", "end");
        axes.line([[0, 0], [reach, 0]], "var(--s-ink)", { width: 1 });
        axes.line([[eps, y[0]], [eps, y[1]]], "var(--s-quiet)", { width: 1, dashes: "3 3" });
        axes.line(inside(line), "clean", { width: 3, dashes: "7 4" });
        axes.line(inside(margins), "exact", { width: 2.5 });
        if (predicted !== null && predicted <= reach) {
          axes.dot([predicted, 0], "clean", 7);
          axes.dot([predicted, 0], "var(--s-page)", 4);
        }
        if (actual !== null && actual <= reach) axes.dot([actual, 0], "exact", 5);
        if (margins[step] >= y[0]) axes.dot([eps, margins[step]], "var(--s-ink)", 5);
        chart.replaceChildren(axes.element);
      };

      return ({ net, digit, step }) => {
        const one = at(), { eps, margins, said, predicted, actual, reach } = one, x = images[digit];
        const key = `${net} ${digit}`;
        if (key !== last) stage.direction = signs(one);
        last = key;
        image.grey(x);
        moved.grey(x.map((v, i) => Math.min(1, Math.max(0, v + eps * stage.direction[i]))));
        const by = tangent(one, eps), told = v => v.toFixed(2).replace("-", "−");
        names[0].textContent = `image: ${digit}`;
        names[1].textContent = `moved: says ${said[step]}`;
        image.call(`The image of a ${digit}.`);
        moved.call(`The image moved by ${eps.toFixed(3)}; the network says ${said[step]}.`);
        const flips = actual === null ? "in truth it does not change up to 3.16" : `it changes at ${actual.toFixed(3)}`;
        const ratio = actual === null || predicted === null ? "" : `, a ratio of ${(predicted / actual).toFixed(2)}`;
        const far = predicted > reach ? ", beyond the chart" : "";
        const text = `Margin ${told(margins[step])}, by the tangent ${told(by)}. The tangent (dashed) says that the class changes at ${predicted === null ? "no ϵ" : predicted.toFixed(3)}${far}; ${flips}${ratio}.`;
        note.textContent = text;
        chart.setAttribute("aria-valuenow", step);
        chart.setAttribute("aria-valuetext", `${eps.toFixed(3)}, margin ${told(margins[step])}`);
        stage.say(`Radius ${eps.toFixed(3)}: the network says ${said[step]}. ${text}`);
        stage.seen = { eps, margin: margins[step], by, said: Number(said[step]), predicted, actual };
        if (width) plot(one, step);
      };
    },
  };
})(globalThis.Sides);
