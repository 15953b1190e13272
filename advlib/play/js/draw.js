/* Drawing: digits and perturbations as bitmaps, and small charts in SVG. */
"use strict";
(Sides => {
  const SVG = "http://www.w3.org/2000/svg";
  /** An element of SVG with attributes and children. */
  const svg = (name, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  /* Red for +, blue for -, white for 0, as advlib.plot.perturbation has it. */
  const RED = [[247, 247, 247], [253, 219, 199], [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31]];
  const BLUE = [[247, 247, 247], [209, 229, 240], [146, 197, 222], [67, 147, 195], [33, 102, 172], [5, 48, 97]];
  const shade = t => {
    const stops = t < 0 ? BLUE : RED, at = Math.min(Math.abs(t), 1) * 5, k = Math.min(Math.floor(at), 4);
    return stops[k].map((v, i) => v + (at - k) * (stops[k + 1][i] - v));
  };

  /**
   * A square picture of `size` x `size` pixels.
   * @returns {{canvas: HTMLCanvasElement, grey: function(Float64Array): void,
   *            change: function(Float64Array, number): void,
   *            call: function(string): void}} `grey` draws values in [0, 1], `change` a
   *   perturbation of a radius, `call` says in words what is seen
   */
  const bitmap = (words, size = 28) => {
    const canvas = Sides.make("canvas", { width: size, height: size, attributes: { role: "img", "aria-label": words } });
    const context = canvas.getContext("2d"), image = context.createImageData(size, size);
    const put = colour => {
      for (let i = 0; i < size * size; i++) {
        const [r, g, b] = colour(i);
        image.data.set([r, g, b, 255], 4 * i);
      }
      context.putImageData(image, 0, 0);
    };
    return {
      canvas,
      grey: x => put(i => [255 * x[i], 255 * x[i], 255 * x[i]]),
      change: (delta, eps) => put(i => shade(eps > 0 ? delta[i] / (1.4 * eps) : 0)),
      call: text => canvas.setAttribute("aria-label", text),
    };
  };

  /** A bar for each class; the label's is outlined, the largest filled. */
  const classBars = words => {
    const element = svg("svg", { viewBox: "0 0 140 140", role: "img", "aria-label": words });
    return {
      element,
      /** @param {Float64Array} share of each class @param {number} label */
      show(share, label) {
        const most = share.indexOf(Math.max(...share)), wide = 14;
        const colour = k => k !== most ? "var(--s-quiet)" : k === label ? "var(--s-open)" : "var(--s-fooled)";
        element.replaceChildren(...[...share].flatMap((v, k) => [
          svg("rect", { x: k * wide + 2, y: 120 - 112 * v, width: wide - 4, height: 112 * v + 1, fill: colour(k) }),
          svg("text", { x: k * wide + wide / 2, y: 136, "text-anchor": "middle", "font-weight": k === label ? 700 : 400,
            ...(k === label ? { "text-decoration": "underline" } : {}) }, String(k)),
        ]));
      },
      call: text => element.setAttribute("aria-label", text),
    };
  };

  /**
   * Axes: a chart of `width` x `height` pixels with scales for x and y.
   * @param {{width: number, height: number, x: [number, number], y: [number, number],
   *          xlabel?: string, ylabel?: string, ticks?: {x?: number[], y?: number[]},
   *          words: string}} how
   */
  const axes = ({ width, height, x: [x0, x1], y: [y0, y1], xlabel = "", ylabel = "", ticks = {}, words }) => {
    const left = 40, right = 8, top = 10, low = 34;
    const X = v => left + (v - x0) / (x1 - x0) * (width - left - right);
    const Y = v => height - low - (v - y0) / (y1 - y0) * (height - low - top);
    const element = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": words });
    const line = (a, b, attributes) => svg("line", { x1: a[0], y1: a[1], x2: b[0], y2: b[1], ...attributes });
    const put = (...children) => element.append(...children);
    for (const v of ticks.x ?? []) put(line([X(v), Y(y0)], [X(v), top], { stroke: "var(--s-line)" }),
      svg("text", { x: X(v), y: height - 18, "text-anchor": "middle", class: "quiet" }, String(v)));
    for (const v of ticks.y ?? []) put(line([left, Y(v)], [width - right, Y(v)], { stroke: "var(--s-line)" }),
      svg("text", { x: left - 6, y: Y(v) + 4, "text-anchor": "end", class: "quiet" }, String(v)));
    put(svg("text", { x: (left + width - right) / 2, y: height - 3, "text-anchor": "middle" }, xlabel),
      svg("text", { x: left - 6, y: top, "text-anchor": "start" }, ylabel));
    return {
      element, X, Y,
      /** A line through points [x, y]; `colour` is a CSS colour or a method's name. */
      line(points, colour, { width: w = 2, dashes = "" } = {}) {
        put(svg("polyline", { points: points.map(([a, b]) => `${X(a)},${Y(b)}`).join(" "), fill: "none",
          stroke: ink(colour), "stroke-width": w, "stroke-dasharray": dashes }));
      },
      dot([a, b], colour, r = 4) { put(svg("circle", { cx: X(a), cy: Y(b), r, fill: ink(colour) })); },
      bar([a, b], to, colour, w = 10) {
        put(svg("rect", { x: X(a) - w / 2, y: Math.min(Y(b), Y(to)), width: w, height: Math.abs(Y(to) - Y(b)), fill: ink(colour) }));
      },
      text([a, b], words, anchor = "start") { put(svg("text", { x: X(a), y: Y(b), "text-anchor": anchor }, words)); },
    };
  };
  const ink = colour => colour in Sides.look.light ? `var(--m-${colour})` : colour;

  /** Images of `Sides.images[name]`, each a Float64Array of values in [0, 1]. */
  const digits = (name = "digits", size = 784) => {
    const all = Uint8Array.from(atob(Sides.images[name].pixels), c => c.charCodeAt(0));
    return Array.from({ length: all.length / size }, (_, k) =>
      Float64Array.from(all.subarray(k * size, (k + 1) * size), v => v / 255));
  };

  Sides.draw = { svg, bitmap, classBars, axes, shade, ink, digits };
})(globalThis.Sides);
