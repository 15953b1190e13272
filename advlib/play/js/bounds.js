/* From above: intervals, CROWN, and CROWN with optimised slopes. Whatever they return,
   no allowed perturbation has a smaller margin (up to the rounding of float64). */
"use strict";
(globalThis.Sides ??= { parts: {} }).parts.bounds = Sides => {
  /** The allowed set as a box: [low, high] of each pixel. */
  const ball = (x, eps) => ({
    low: x.map(v => Math.max(v - eps, 0)),
    high: x.map(v => Math.min(v + eps, 1)),
  });

  /** Intervals through one affine layer. */
  const step = (layer, { low, high }) => {
    const middle = low.map((l, i) => (l + high[i]) / 2);
    const z = layer.apply(middle), s = layer.spread(low.map((l, i) => (high[i] - l) / 2));
    return { low: z.map((v, j) => v - s[j]), high: z.map((v, j) => v + s[j]) };
  };
  const relu = ({ low, high }) => ({
    low: low.map(v => Math.max(v, 0)), high: high.map(v => Math.max(v, 0)),
  });

  /** One row e_label - e_j for each other class j. */
  const rivals = (classes, label) => {
    const rows = [];
    for (let j = 0; j < classes; j++) {
      if (j === label) continue;
      const row = new Float64Array(classes);
      row[label] = 1;
      row[j] = -1;
      rows.push(row);
    }
    return rows;
  };

  /** The least of row . z over a box of z, the layer before it folded into the row. */
  const folded = (layer, row, { low, high }) => {
    const w = layer.pull(row);
    let sum = 0;
    row.forEach((v, o) => { sum += v * layer.bias[o]; });
    w.forEach((v, i) => { sum += v * (v > 0 ? low[i] : high[i]); });
    return sum;
  };

  /** The lines around each ReLU whose input lies in `pre`; slopes below as CROWN has. */
  const lines = ({ low, high }) => {
    const n = low.length, above = new Float64Array(n), offset = new Float64Array(n);
    const below = new Float64Array(n), free = new Uint8Array(n);
    for (let j = 0; j < n; j++) {
      const l = low[j], u = high[j];
      if (l >= 0) above[j] = below[j] = 1;
      else if (u > 0) {
        free[j] = 1;
        above[j] = u / (u - l);
        offset[j] = -above[j] * l;
        below[j] = u > -l ? 1 : 0;
      }
    }
    return { above, offset, below, free };
  };

  /**
   * The backward walk: a lower bound of row . (what leaves layer `last`) over the box.
   * @param {object[]} around the lines of each ReLU before that layer
   * @param {{slopes?: Float64Array[], prices?: Float64Array[]}} at one slope below for
   *   each unit, and what is added to a row at each unit (branch and bound)
   * @returns {{bound: number, corner: Float64Array, rows: Float64Array[]}} also the
   *   corner of the box where the bound stands, and the rows at each ReLU
   */
  const walk = (net, last, row, box, around, at = {}) => {
    let v = row, sum = 0;
    const rows = [];
    for (let k = last; k >= 0; k--) {
      const { bias } = net[k];
      for (let o = 0; o < v.length; o++) sum += v[o] * bias[o];
      v = net[k].pull(v);
      if (!k) break;
      const { above, offset, below } = around[k - 1];
      const slopes = at.slopes?.[k - 1] ?? below, price = at.prices?.[k - 1];
      rows[k - 1] = v.slice();
      for (let j = 0; j < v.length; j++) {
        if (v[j] < 0) {
          sum += v[j] * offset[j];
          v[j] *= above[j];
        } else v[j] *= slopes[j];
        if (price) v[j] += price[j];
      }
    }
    const corner = new Float64Array(v.length);
    for (let i = 0; i < v.length; i++) {
      const low = box.low[i], high = box.high[i];
      corner[i] = v[i] > 0 ? low : v[i] < 0 ? high : (low + high) / 2; // as torch has it
      sum += v[i] * corner[i];
    }
    return { bound: sum, corner, rows };
  };

  /** Two boxes in one; ends that rounding crossed change places. */
  const cut = (a, b) => {
    const low = a.low.map((v, j) => Math.max(v, b.low[j]));
    const high = a.high.map((v, j) => Math.min(v, b.high[j]));
    low.forEach((l, j) => { if (l > high[j]) [low[j], high[j]] = [high[j], l]; });
    return { low, high };
  };

  /**
   * Bounds before each ReLU: intervals, and for the units they leave open, walks.
   * @param {object[]} [clip] for each ReLU a box to cut with (branch and bound)
   * @returns {{pre: object[], around: object[], end: object}} bounds and lines at each
   *   ReLU, and the box that leaves the last one
   */
  const before = (net, box, method = "crown", clip = null) => {
    const pre = [], around = [];
    let now = box;
    for (let k = 0; k + 1 < net.length; k++) {
      let found = step(net[k], now);
      if (method === "crown" && k) {
        const { low, high } = { low: found.low.slice(), high: found.high.slice() };
        for (let j = 0; j < low.length; j++) {
          if (!(found.low[j] < 0 && found.high[j] > 0)) continue;
          const row = new Float64Array(low.length);
          row[j] = 1;
          low[j] = walk(net, k, row, box, around).bound;
          row[j] = -1;
          high[j] = -walk(net, k, row, box, around).bound;
        }
        found = cut(found, { low, high });
      }
      if (clip) found = cut(found, clip[k]);
      pre.push(found);
      around.push(lines(found));
      now = relu(found);
    }
    return { pre, around, end: now };
  };

  /** Lower bounds of the margins against each other class, by intervals. */
  const intervals = (net, box, label) => {
    const { end } = before(net, box, "interval"), last = net.at(-1);
    return rivals(last.outputs, label).map(row => folded(last, row, end));
  };

  /** The same by CROWN, never below intervals; `first` is what `before` returns. */
  const crown = (net, box, label, first = before(net, box)) => {
    const { around, end } = first, last = net.at(-1);
    return rivals(last.outputs, label).map(row => Math.max(
      walk(net, net.length - 1, row, box, around).bound, folded(last, row, end)));
  };

  /**
   * Raise the bound of one row by Adam on the slopes below, and on prices >= 0 of
   * assumed phases; betas .9 and .999, rate .25 * .97^step, as advlib.bounds.slopes.
   * Each choice is a sound bound; the best one met is returned.
   * @param {{signs?: Int8Array[], steps?: number, enough?: number}} how `signs`: for
   *   each ReLU +1 where z >= 0 is assumed, -1 where z <= 0 is, else 0
   */
  const raise = (net, row, box, around, { signs, steps = 20, enough = Infinity } = {}) => {
    const last = net.length - 1;
    const slopes = around.map(a => a.below.slice());
    const prices = around.map(a => new Float64Array(a.below.length));
    const state = () => around.map(a => new Float64Array(a.below.length));
    const [m1, v1, m2, v2] = [state(), state(), state(), state()];
    let best = -Infinity, corner = null, rows = null;
    for (let step = 1; ; step++) {
      const now = walk(net, last, row, box, around, { slopes, prices });
      if (now.bound > best) ({ bound: best, corner, rows } = now);
      if (step > steps || best > enough) return { bound: best, corner, rows };
      // the slope of the bound: the relaxed network's values at the corner
      const rate = .25 * .97 ** step, c1 = 1 - .9 ** step, c2 = 1 - .999 ** step;
      let from = now.corner;
      for (let k = 0; k < last; k++) {
        const z = net[k].apply(from), { above, offset, free } = around[k];
        const v = now.rows[k], a = new Float64Array(z.length);
        for (let j = 0; j < z.length; j++) {
          const up = !(v[j] > 0); // at 0 as torch has it
          a[j] = up ? above[j] * z[j] + offset[j] : slopes[k][j] * z[j];
          if (free[j]) { // where the line above counts, the slope below has no say
            const g = up ? 0 : v[j] * z[j];
            m1[k][j] = .9 * m1[k][j] + .1 * g;
            v1[k][j] = .999 * v1[k][j] + .001 * g * g;
            const moved = slopes[k][j]
              + rate * (m1[k][j] / c1) / (Math.sqrt(v1[k][j] / c2) + 1e-8);
            slopes[k][j] = Math.min(Math.max(moved, 0), 1);
          }
          const sign = signs ? signs[k][j] : 0;
          if (sign) { // row . z is no more than row . z - price * sign * z there
            const g = -sign * z[j];
            m2[k][j] = .9 * m2[k][j] + .1 * g;
            v2[k][j] = .999 * v2[k][j] + .001 * g * g;
            const price = -sign * prices[k][j]
              + rate * (m2[k][j] / c1) / (Math.sqrt(v2[k][j] / c2) + 1e-8);
            prices[k][j] = -sign * Math.max(price, 0);
          }
        }
        from = a;
      }
    }
  };

  /** The margins by optimised slopes, never below CROWN. */
  const optimised = (net, box, label, { steps = 20, first = before(net, box) } = {}) => {
    const { around, end } = first, last = net.at(-1);
    return rivals(last.outputs, label).map(row => Math.max(
      raise(net, row, box, around, { steps }).bound, folded(last, row, end)));
  };

  Object.assign(Sides, {
    ball, rivals, lines, cut, walk, before, intervals, crown, raise, optimised,
  });
};
Sides.parts.bounds(Sides);
