/* Networks with two inputs: small enough for everything to be exact. Outer
   polygons, the linear pieces of a network, and the triangles' linear program. */
"use strict";
(Sides => {
  const { clip: part, area, corners } = Sides.polygons;
  const dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);

  /** A network of dense layers, each [rows of weights, biases]. */
  const dense = layers => layers.map(([weight, bias]) =>
    new Sides.Dense(Float64Array.from(weight.flat()), Float64Array.from(bias)));

  /** The small network of Chapters 6a and 6c: two inputs, 2 + 2 ReLUs, two logits. */
  const toy = () => dense([
    [[[-2, 2], [-1, 2]], [-1, -.5]],
    [[[-1, 1], [-1, 2]], [0, 0]],
    [[[2, -2], [1, 1]], [4, -3]],
  ]);

  /** The part of a convex polygon where w . p >= c. */
  const clip = (polygon, [a, b], c) => part(polygon, [a, b, -c]);

  /** The polygon where rows[i] . z >= bounds[i] for all i. */
  const outer = (rows, bounds, far = 100) => rows.reduce(
    (left, row, i) => clip(left, row, bounds[i]),
    [[-far, -far], [far, -far], [far, far], [-far, far]]);

  /** What enters each ReLU of a dense network at a point, layer after layer. */
  const entering = (net, point) => net.slice(0, -1).reduce((found, layer, k) =>
    [...found, layer.apply(k ? found[k - 1].map(v => Math.max(v, 0)) : point)], []);

  /**
   * The linear pieces of a network of dense layers on a polygon of inputs.
   * @returns {Array<{polygon: Array, signs: Int8Array[], at: function}>} for each piece
   *   its polygon, the phase (+1 on, -1 off) of each unit, and the logits of a point
   */
  const pieces = (net, polygon) => {
    let found = [{ polygon, signs: [], maps: [[1, 0, 0], [0, 1, 0]] }];
    net.forEach((layer, k) => {
      const next = [];
      for (const piece of found) {
        const maps = Array.from({ length: layer.outputs }, (_, o) => [0, 1, 2].map(axis =>
          dot(piece.maps.map(map => map[axis]), layer.weight.subarray(o * layer.inputs, (o + 1) * layer.inputs))
          + (axis === 2 ? layer.bias[o] : 0)));
        if (k + 1 === net.length) {
          next.push({ ...piece, maps });
          continue;
        }
        let parts = [{ polygon: piece.polygon, signs: [] }];
        for (const [u, v, c] of maps) {
          parts = parts.flatMap(part => (u || v ? [1, -1] : [c > 0 ? 1 : -1]).map(sign => ({
            polygon: clip(part.polygon, [sign * u, sign * v], -sign * c),
            signs: [...part.signs, sign],
          })).filter(half => Math.abs(area(half.polygon)) > 1e-13));
        }
        for (const part of parts) next.push({
          polygon: part.polygon, signs: [...piece.signs, Int8Array.from(part.signs)],
          maps: maps.map((map, j) => part.signs[j] > 0 ? map : [0, 0, 0]),
        });
      }
      found = next;
    });
    return found.map(({ polygon: corner, signs, maps }) => ({
      polygon: corner, signs, at: p => maps.map(([u, v, c]) => u * p[0] + v * p[1] + c),
    }));
  };

  /**
   * The least cost . v under rows . v <= sides, by the simplex method with Bland's rule.
   * @param {Array<Float64Array>} rows @param {number[]} sides
   * @param {Float64Array} start a point that obeys all rows
   * @returns {{value: number, point: Float64Array}} a corner where it is attained
   */
  const minimise = (cost, rows, sides, start) => {
    const n = start.length, m = rows.length; // v = start + p - q with p, q >= 0
    const table = rows.map((row, i) => [...row, ...row.map(v => -v), Math.max(sides[i] - dot(row, start), 0)]);
    const price = [...cost, ...cost.map(v => -v), 0], end = 2 * n;
    const free = Array.from({ length: end }, (_, j) => j), basic = rows.map((_, i) => end + i);
    for (;;) {
      let j = -1, i = -1, least = Infinity;
      for (let k = 0; k < end; k++) if (price[k] < -1e-10 && (j < 0 || free[k] < free[j])) j = k;
      if (j < 0) break;
      for (let k = 0; k < m; k++) {
        if (table[k][j] < 1e-10) continue;
        const step = table[k][end] / table[k][j];
        if (step < least - 1e-14 || (step <= least + 1e-14 && basic[k] < basic[i])) [i, least] = [k, step];
      }
      if (i < 0) return { value: -Infinity, point: start };
      const by = table[i], pivot = by[j];
      for (let k = 0; k <= end; k++) by[k] = k === j ? 1 / pivot : by[k] / pivot;
      for (const other of [...table, price]) {
        const factor = other[j];
        if (other === by || factor === 0) continue;
        for (let k = 0; k <= end; k++) other[k] = k === j ? -factor / pivot : other[k] - factor * by[k];
      }
      [free[j], basic[i]] = [basic[i], free[j]];
    }
    const point = Float64Array.from(start);
    basic.forEach((name, i) => {
      if (name < end) point[name % n] += (name < n ? 1 : -1) * table[i][end];
    });
    return { value: dot(cost, point), point };
  };

  /**
   * The linear program of a dense network: a triangle for each unstable unit, and
   * low <= z <= high for each unit.
   * @param {{low, high}} box @param {object[]} pre bounds before each ReLU
   * @returns {function(ArrayLike<number>): {value: number, point: Float64Array}} the
   *   least row . logits, and the point (inputs first) where it is attained
   */
  const program = (net, box, pre) => {
    const unstable = pre.flatMap(({ low, high }) => [...low].filter((l, j) => l < 0 && high[j] > 0));
    const inputs = box.low.length, n = inputs + unstable.length, rows = [], sides = [];
    const unit = i => Float64Array.from({ length: n + 1 }, (_, k) => Number(k === i)); // the last: a constant
    const demand = (line, side) => { // line <= side
      rows.push(line.slice(0, n));
      sides.push(side - line[n]);
    };
    const minus = line => line.map(v => -v);
    const start = new Float64Array(n), value = line => dot(line.slice(0, n), start) + line[n];
    let here = Array.from(box.low, (low, i) => {
      start[i] = (low + box.high[i]) / 2;
      demand(unit(i), box.high[i]);
      demand(minus(unit(i)), -low);
      return unit(i);
    }), next = inputs;
    net.forEach((layer, k) => {
      const z = Array.from({ length: layer.outputs }, (_, o) => {
        const line = new Float64Array(n + 1);
        here.forEach((from, i) => from.forEach((v, t) => { line[t] += layer.weight[o * layer.inputs + i] * v; }));
        line[n] += layer.bias[o];
        return line;
      });
      here = k + 1 === net.length ? z : z.map((line, j) => {
        const l = pre[k].low[j], u = pre[k].high[j];
        demand(line, u);
        demand(minus(line), -l);
        if (l >= 0) return line;
        if (u <= 0) return new Float64Array(n + 1);
        const a = unit(next), slope = u / (u - l);
        start[next++] = Math.max(value(line), 0);
        demand(minus(a), 0);
        demand(line.map((v, t) => v - a[t]), 0);
        demand(a.map((v, t) => v - slope * line[t]), -slope * l);
        return a;
      });
    });
    return row => {
      const cost = new Float64Array(n + 1);
      here.forEach((line, o) => line.forEach((v, t) => { cost[t] += row[o] * v; }));
      const found = minimise(cost.slice(0, n), rows, sides, start);
      return { value: found.value + cost[n], point: found.point };
    };
  };

  Sides.toys = { dense, toy, clip, corners, outer, entering, pieces, minimise, program };
})(globalThis.Sides);
