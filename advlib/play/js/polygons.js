/* The margin of a network with two inputs and two classes: linear on each polygon, so its
   least value on a box is at a vertex, and to look at all of them is exact. Bounds on
   parts of the box. */
"use strict";
(Sides => {
  const value = ([a, b, c], [x, y]) => a * x + b * y + c;

  /** The part of a polygon where a x + b y + c >= 0, for line = [a, b, c]. */
  const clip = (polygon, [a, b, c]) => Sides.plane.clip(polygon, [a, b], -c);

  /**
   * The polygons of a box, one for each set of ReLUs that are on.
   * @param {Array} net dense, two inputs, two classes
   * @param {{low: number[], high: number[]}} box @param {number} label
   * @returns {Array<{polygon: number[][], odd: boolean, margin: number[]}>} corners,
   *   whether an odd number of ReLUs is on, and the margin, a x + b y + c, as [a, b, c]
   */
  const pieces = (net, box, label) => Sides.plane.pieces(net, Sides.plane.corners(box)).map(({ polygon, signs, at }) => {
    const m = p => at(p)[label] - at(p)[1 - label], c = m([0, 0]);
    const on = signs.reduce((sum, part) => sum + part.filter(v => v > 0).length, 0);
    return { polygon, odd: on % 2 === 1, margin: [m([1, 0]) - c, m([0, 1]) - c, c] };
  });

  /** The least margin over all pieces, and where: exact up to rounding. */
  const least = all => {
    let best = { value: Infinity };
    for (const { polygon, margin } of all)
      for (const point of polygon) {
        const v = value(margin, point);
        if (v < best.value) best = { value: v, point };
      }
    return best;
  };

  /** Where a x + b y + c = level inside of a polygon: two points, or none. */
  const level = (polygon, [a, b, c], at) => {
    const ends = [], line = [a, b, c - at];
    polygon.forEach((p, k) => {
      const q = polygon[(k + 1) % polygon.length], u = value(line, p), v = value(line, q);
      if (u * v < 0) ends.push(p.map((s, i) => s + u / (u - v) * (q[i] - s)));
    });
    return ends.length === 2 ? ends : null;
  };

  /**
   * Bounds of the margin on a box that is cut again and again: always the part with the
   * lowest bound, across the side that helps more. A part keeps its parent's bounds where
   * they are higher: what holds on the whole holds on a part.
   * @returns {Array<{low: Float64Array, high: Float64Array, crown: number,
   *           interval: number}>} the parts, whose union is the box
   */
  const parts = (net, box, label, cuts) => {
    const held = (part, { crown, interval } = { crown: -Infinity, interval: -Infinity }) => ({
      ...part, crown: Math.max(crown, ...Sides.crown(net, part, label)),
      interval: Math.max(interval, ...Sides.intervals(net, part, label)),
    });
    const halves = (part, side) => ["low", "high"].map(end => {
      const half = { low: part.low.slice(), high: part.high.slice() };
      half[end === "low" ? "high" : "low"][side] = (part.low[side] + part.high[side]) / 2;
      return held(half, part);
    });
    const worst = list => Math.min(...list.map(part => part.crown));
    const all = [held({ low: box.low, high: box.high })];
    for (let k = 0; k < cuts; k++) {
      const at = all.findIndex(part => part.crown === worst(all));
      const [a, b] = [0, 1].map(side => halves(all[at], side));
      all.splice(at, 1, ...(worst(a) >= worst(b) ? a : b));
    }
    return all;
  };

  Sides.polygons = { clip, pieces, least, level, parts };
})(globalThis.Sides);
