/* The plane of a network with two inputs and one hidden layer: each ReLU's line cuts it,
   on every polygon between the lines the margin is linear. So its least value on a box
   is at a vertex of a polygon, and to look at all of them is exact. */
"use strict";
(Sides => {
  const value = ([a, b, c], [x, y]) => a * x + b * y + c;

  /** The part of a convex polygon where a x + b y + c >= 0, for line = [a, b, c]. */
  const clip = (polygon, line) => {
    const out = [];
    polygon.forEach((p, k) => {
      const q = polygon[(k + 1) % polygon.length], u = value(line, p), v = value(line, q);
      if (u >= 0) out.push(p);
      if (u * v < 0) out.push(p.map((s, i) => s + u / (u - v) * (q[i] - s)));
    });
    return out;
  };
  const area = polygon => polygon.reduce((sum, [x, y], k) => {
    const [a, b] = polygon[(k + 1) % polygon.length];
    return sum + x * b - a * y;
  }, 0) / 2;
  const corners = ({ low: [a, b], high: [c, d] }) => [[a, b], [c, b], [c, d], [a, d]];

  /**
   * The polygons of a box, one for each set of ReLUs that are on.
   * @param {Array} net Dense 2-n, Dense n-2
   * @param {{low: number[], high: number[]}} box @param {number} label
   * @returns {Array<{polygon: number[][], on: boolean[], plane: number[]}>} corners, the
   *   ReLUs that are on, and the margin there, a x + b y + c, as [a, b, c]
   */
  const pieces = (net, box, label) => {
    const [{ weight, bias, outputs }, last] = net;
    const read = j => last.weight[label * outputs + j] - last.weight[(1 - label) * outputs + j];
    const start = [0, 0, last.bias[label] - last.bias[1 - label]];
    let all = [{ polygon: corners(box), on: [], plane: start }];
    for (let j = 0; j < outputs; j++) {
      const line = [weight[2 * j], weight[2 * j + 1], bias[j]];
      all = all.flatMap(({ polygon, on, plane }) => [
        { polygon: clip(polygon, line), on: [...on, true], plane: plane.map((v, i) => v + read(j) * line[i]) },
        { polygon: clip(polygon, line.map(v => -v)), on: [...on, false], plane },
      ]).filter(piece => piece.polygon.length > 2 && area(piece.polygon) > 1e-14);
    }
    return all;
  };

  /** The least margin over all pieces, and where: exact up to rounding. */
  const least = all => {
    let best = { value: Infinity };
    for (const { polygon, plane } of all)
      for (const point of polygon) {
        const v = value(plane, point);
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

  /** A network 2-n-2 from a record: weights and biases of two layers. */
  const tiny = ({ weights, biases }) => weights.map(
    (w, k) => new Sides.Dense(Float64Array.from(w.flat()), Float64Array.from(biases[k])));

  Sides.polygons = { clip, area, corners, pieces, least, level, parts, tiny };
})(globalThis.Sides);
