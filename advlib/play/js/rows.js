/* One axis of margins with a row for each method. What a bound rules out is filled from
   the left, what an attack rules out from the right; the true value is in what is left. */
"use strict";
(Sides => {
  const { svg, ink } = Sides.draw;
  const LEFT = 86, RIGHT = 12, ROW = 24, TOP = 20;

  /** A number with two digits, and a minus sign that is one. */
  const number = v => (Math.abs(v) < 9.995 ? v.toFixed(2) : v.toFixed(1)).replace("-", "−");

  /**
   * @param {object} stage
   * @param {{from: number, to: number, ticks: number[], xlabel: string,
   *          bend?: number, sides?: boolean, into?: Element}} how `bend`: linear up to about
   *   this value, beyond it logarithmic; without it linear; `sides`: whether 0 divides
   *   fooled from safe
   */
  const rows = (stage, { from, to, ticks, xlabel, bend, sides = true, into }) => {
    const element = svg("svg", { role: "img" }), box = stage.row("", into);
    const scale = v => (bend ? Math.asinh(v / bend) : v);
    let width = 0, last = [];
    box.append(element);
    const X = v => LEFT + (scale(Math.min(Math.max(v, from), to)) - scale(from)) / (scale(to) - scale(from))
      * (width - LEFT - RIGHT);
    const draw = () => {
      if (!width) return;
      const low = TOP + ROW * last.length, put = [];
      const text = (x, y, words, more = {}) => put.push(svg("text", { x, y, ...more }, words));
      element.setAttribute("viewBox", `0 0 ${width} ${low + 34}`);
      element.setAttribute("height", low + 34);
      for (const v of ticks) {
        put.push(svg("line", { x1: X(v), x2: X(v), y1: TOP - 4, y2: low, "stroke-width": v ? 1 : 2,
          stroke: v ? "var(--s-line)" : "var(--s-ink)" }));
        text(X(v), low + 14, String(v).replace("-", "−"), { "text-anchor": "middle", class: "quiet" });
      }
      if (sides) {
        text(X(0) - 6, TOP - 8, "← fooled", { "text-anchor": "end", style: "fill: var(--s-fooled)" });
        text(X(0) + 6, TOP - 8, "safe →", { style: "fill: var(--s-safe)" });
      }
      text((LEFT + width - RIGHT) / 2, low + 30, xlabel, { "text-anchor": "middle", class: "quiet" });
      last.forEach(({ words, method, lower, upper, marks = [] }, k) => {
        const y = TOP + ROW * k + 4, colour = ink(method), shown = upper ?? lower;
        text(0, y + 12, words);
        for (const v of marks) put.push(svg("line", { x1: X(v), x2: X(v), y1: y + 1, y2: y + 15, stroke: colour, "stroke-width": 1.5 }));
        const fill = (v, edge) => {
          if (lower !== upper) put.push(svg("rect", { x: Math.min(X(v), edge), y, height: ROW - 8, width: Math.abs(X(v) - edge), fill: colour, opacity: .3 }));
          put.push(svg("line", { x1: X(v), x2: X(v), y1: y - 2, y2: y + ROW - 6, stroke: colour, "stroke-width": 4 }));
        };
        if (lower !== undefined) fill(lower, LEFT);
        if (upper !== undefined) fill(upper, width - RIGHT);
        const right = X(shown) + 46 < width, left = X(shown) - LEFT > 46, covers = from => from < X(0) && X(0) < from + 38;
        const after = covers(X(shown) + 7), ahead = covers(X(shown) - 45); // over the line at 0
        const free = lower === undefined ? !left || (right && ahead && !after) : right && !(left && after && !ahead);
        text(X(shown) + (free ? 7 : -7), y + 12, number(shown), { "text-anchor": free ? "start" : "end", "font-weight": 700 });
      });
      element.replaceChildren(...put);
    };
    stage.sized(box, w => {
      width = w;
      draw();
    });
    return {
      element,
      /**
       * @param {Array<{words: string, method: string, lower?: number, upper?: number,
       *         marks?: number[]}>} now a row each, `method` names its colour; where the two
       *   sides meet nothing is filled
       */
      show(now) {
        last = now;
        draw();
        element.setAttribute("aria-label", `${xlabel}. ${now.map(({ words, lower, upper }) =>
          `${words}: ${lower === undefined ? "at most " : upper === undefined ? "at least " : ""}${number(upper ?? lower)}`).join("; ")}.`);
      },
    };
  };
  Sides.rows = Object.assign(rows, { number });
})(globalThis.Sides);
