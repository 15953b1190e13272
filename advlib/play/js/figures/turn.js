/* An arrow in the plane of two units: the eight images on top of it, how many are of one
   class, and how that compares with random directions. */
"use strict";
(Sides => {
  const VIOLET = "#B5629B"; // a direction, as in the printed figures
  const TOP = 8, REACH = [-3.2, 9];
  const round = v => Math.round(v * 1e12) / 1e12; // an axis is exactly one
  const arrow = angle => [round(Math.cos(angle * Math.PI / 180)), round(Math.sin(angle * Math.PI / 180))];

  /** The top eight at an angle in degrees: places in the record, scores, most frequent label, its share. */
  const top = angle => {
    const { plane, labels } = Sides.records.turn, [c, s] = arrow(angle);
    const scores = plane.map(([a, b]) => a * c + b * s + 0);
    const best = scores.map((_, k) => k).sort((i, j) => scores[j] - scores[i] || i - j).slice(0, TOP);
    const counts = new Array(10).fill(0);
    for (const k of best) counts[labels[k]]++;
    const most = Math.max(...counts);
    return { best, last: scores[best[TOP - 1]], label: counts.indexOf(most), most };
  };

  /** The stored images, each a Float64Array of values in [0, 1]. */
  const images = () => {
    const packed = Uint8Array.from(atob(Sides.records.turn.pixels), c => c.charCodeAt(0));
    return Sides.records.turn.labels.map((_, k) => Float64Array.from({ length: 784 }, (_, i) => {
      const byte = packed[392 * k + (i >> 1)];
      return (i % 2 ? byte & 15 : byte >> 4) / 15;
    }));
  };

  Sides.figures.turn = {
    title: "Turn the arrow",
    uses: [],
    needs: ["turn"],
    state: { angle: 38 },
    top, images,
    build(stage) {
      const { svg } = Sides.draw, all = images(), { points, labels, plane, random } = Sides.records.turn;
      const curve = Array.from({ length: 360 }, (_, angle) => [angle, top(angle).most / TOP]);
      stage.slider({ key: "angle", label: "angle of the arrow", into: stage.row(), min: 0, max: 359, step: 1, text: v => `${v}°` });
      const charts = stage.row("charts"), cells = [0, 1].map(() => charts.appendChild(stage.make("div")));
      const name = stage.make("p"), strip = stage.make("div"), note = stage.make("p");
      strip.style.cssText = `display: grid; grid-template-columns: repeat(${TOP}, minmax(0, 1fr)); gap: 3px; margin-bottom: .6rem`;
      note.style.cssText = "margin: 0; min-height: 4.2em";
      const shown = Array.from({ length: TOP }, (_, k) => {
        const one = Sides.draw.bitmap(`top image ${k + 1}`);
        strip.append(one.canvas);
        return one;
      });
      stage.host.append(name, strip, note);
      let flat = null, graph = null;
      const group = [0, 1].map(() => svg("g"));

      const base = width => {
        const narrow = width < 480, wide = narrow ? width : Math.round(.46 * width), ticks = [-2, 0, 2, 4, 6, 8];
        charts.style.cssText = `display: grid; gap: 12px; grid-template-columns: ${narrow ? "minmax(0, 1fr)" : `${wide}px minmax(0, 1fr)`}`;
        flat = Sides.draw.axes({ width: wide, height: wide - 4, x: REACH, y: REACH, xlabel: "activation of unit 1", ticks: { x: ticks, y: ticks }, words: "" });
        flat.text([-3, 8.3], "activation of unit 2");
        for (const [a, b, label] of points.slice(0, 150)) {
          const mark = svg("text", { x: flat.X(a), y: flat.Y(b) + 4, "text-anchor": "middle", class: "quiet", style: "stroke-width: 0" }, String(label));
          flat.element.append(mark);
        }
        const rest = narrow ? width : width - wide - 12;
        graph = Sides.draw.axes({ width: rest, height: narrow ? 190 : wide - 4, x: [0, 360], y: [0, 1.08], xlabel: "angle of the arrow, degrees", ticks: { x: [0, 90, 180, 270, 360], y: [0, .25, .5, .75, 1] }, words: "" });
        graph.text([4, 1.04], "purity of the top 8");
        graph.line(curve, "clean");
        [flat, graph].forEach((axes, k) => {
          axes.element.append(group[k]);
          cells[k].replaceChildren(axes.element);
        });
        flat.element.setAttribute("role", "slider");
        flat.element.setAttribute("aria-valuemin", 0);
        flat.element.setAttribute("aria-valuemax", 359);
        const size = [wide, wide - 4];
        stage.drag(flat.element, {
          move(x, y) {
            const [a, b] = [x * size[0] - flat.X(0), flat.Y(0) - y * size[1]];
            if (Math.hypot(a, b) > 4) stage.set({ angle: (Math.round(Math.atan2(b, a) * 180 / Math.PI) + 360) % 360 });
          },
          key: (dx, dy) => stage.set({ angle: (stage.get().angle + dx - dy + 360) % 360 }),
        });
        stage.redraw();
      };
      stage.sized(charts, base);

      const tip = (axes, angle) => { // arrow, and the line that parts the top eight from the rest
        const [c, s] = arrow(angle), { best, last } = top(angle), length = 3;
        const to = (x, y) => [axes.X(x), axes.Y(y)], [x, y] = to(length * c, length * s), [x0, y0] = to(0, 0);
        const wing = turned => [x + 10 * Math.cos(turned), y + 10 * Math.sin(turned)], back = Math.atan2(y0 - y, x0 - x);
        const marks = [...new Set(best)].map(k => svg("circle", { cx: axes.X(plane[k][0]), cy: axes.Y(plane[k][1]), r: 5, fill: VIOLET, "fill-opacity": .8 }));
        const cut = [];
        for (let t = -13; t <= 13; t += .05) {
          const at = [last * c - t * s, last * s + t * c];
          if (at.every(v => v >= REACH[0] && v <= REACH[1])) cut.push(at);
        }
        const ends = cut.length > 1 ? [to(...cut[0]), to(...cut.at(-1))] : [[0, 0], [0, 0]];
        return [
          svg("line", { x1: ends[0][0], y1: ends[0][1], x2: ends[1][0], y2: ends[1][1], stroke: VIOLET, "stroke-width": 1.5, "stroke-dasharray": "5 4" }),
          ...marks,
          svg("line", { x1: x0, y1: y0, x2: x, y2: y, stroke: "var(--s-ink)", "stroke-width": 3 }),
          svg("polygon", { points: [[x + 4 * c, y - 4 * s], wing(back + .5), wing(back - .5)].map(p => p.join()).join(" "), fill: "var(--s-ink)" }),
          svg("circle", { cx: x, cy: y, r: 14, fill: "transparent" }),
        ];
      };

      return ({ angle }) => {
        const { best, last, label, most } = top(angle), sum = (from, to) => random.slice(from, to).reduce((a, b) => a + b, 0);
        best.forEach((k, i) => {
          shown[i].grey(all[k]);
          shown[i].call(`a ${labels[k]}`);
        });
        const unit = { 0: "unit 1", 90: "unit 2", 180: "unit 1, backwards", 270: "unit 2, backwards" }[angle];
        const less = sum(0, most), same = random[most], more = sum(most + 1, 9);
        name.textContent = `top 8 of 10000 images at ${angle}°${unit ? `, ${unit}` : ""}: purity ${most / TOP}`;
        const words = `${most} of 8 belong to class ${label}. Of 1000 random directions among all units ${less} are less pure, ${same} as pure, ${more} purer.`;
        const tie = last > 0 ? "" : " Here many images tie at 0, and the first are taken.";
        note.textContent = words + tie;
        stage.seen = { places: best.map(k => Sides.records.turn.places[k]), most, less, same, more };
        stage.say(`${angle} degrees${unit ? `, ${unit}` : ""}. Purity ${most / TOP}: ${words}${tie}`);
        if (!flat) return;
        flat.element.setAttribute("aria-label", "the arrow in the plane of two units");
        flat.element.setAttribute("aria-valuenow", angle);
        flat.element.setAttribute("aria-valuetext", `${angle} degrees, purity ${most / TOP}`);
        graph.element.setAttribute("aria-label", `Purity over the angle; ${most / TOP} at ${angle} degrees.`);
        group[0].replaceChildren(...tip(flat, angle));
        group[1].replaceChildren(
          svg("line", { x1: graph.X(angle), x2: graph.X(angle), y1: graph.Y(0), y2: graph.Y(1), stroke: VIOLET, "stroke-dasharray": "5 4" }),
          svg("circle", { cx: graph.X(angle), cy: graph.Y(most / TOP), r: 6, fill: VIOLET }));
      };
    },
  };
})(globalThis.Sides);
