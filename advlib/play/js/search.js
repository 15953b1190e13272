/* Exact: branch and bound. A subproblem that no bound decides is split at a ReLU into
   "on" and "off", each part is bounded again, and every corner that a bound stands at is
   tried as an attack. Always the subproblem with the lowest bound comes next, so that
   the least margin is held between two numbers at any time. */
"use strict";
(globalThis.Sides ??= { parts: {} }).parts.search = Sides => {
  /** A bound proves something from here on: the rounding of float64 lies far below. */
  const SURE = 1e-6;
  const LEAF = 300; // steps for a subproblem without a free unit, a linear program

  /** The unit to split: where the line above costs the bound most. */
  const widest = (around, rows) => {
    let best = null, most = 0;
    around.forEach(({ offset, free }, k) => {
      for (let j = 0; j < offset.length; j++) {
        if (!free[j]) continue;
        const cost = Math.abs(rows[k][j]) * offset[j] + 1e-12 * offset[j];
        if (cost > most) [most, best] = [cost, { k, j }];
      }
    });
    return best;
  };

  /** Nothing assumed: no bound to cut with, no phase. */
  const nothing = pre => ({
    clip: pre.map(({ low }) => ({
      low: new Float64Array(low.length).fill(-Infinity),
      high: new Float64Array(low.length).fill(Infinity),
    })),
    signs: pre.map(({ low }) => new Int8Array(low.length)),
  });

  /** What `given` assumes, and unit j of ReLU k on (or off) as well. */
  const assume = ({ clip, signs }, { k, j }, on) => {
    const box = { low: clip[k].low.slice(), high: clip[k].high.slice() };
    const sign = signs[k].slice();
    box[on ? "low" : "high"][j] = 0;
    sign[j] = on ? 1 : -1;
    return { clip: clip.with(k, box), signs: signs.with(k, sign) };
  };

  /** Bounds before each ReLU, cut with `clip`, without another walk (large networks). */
  const clipped = (pre, clip) => {
    const both = pre.map((box, k) => Sides.cut(box, clip[k]));
    return { pre: both, around: both.map(Sides.lines) };
  };

  /** A heap by `value`, the lowest on top. */
  class Heap {
    constructor() { this.items = []; }
    get lowest() { return this.items.length ? this.items[0].value : Infinity; }
    push(item) {
      const { items } = this;
      let i = items.push(item) - 1;
      for (let up = (i - 1) >> 1; i && items[up].value > item.value; up = (i - 1) >> 1) {
        [items[i], items[up]] = [items[up], items[i]];
        i = up;
      }
    }
    pop() {
      const { items } = this, top = items[0], last = items.pop();
      if (!items.length) return top;
      items[0] = last;
      for (let i = 0; ;) {
        let down = 2 * i + 1;
        if (down + 1 < items.length && items[down + 1].value < items[down].value) down++;
        if (down >= items.length || items[down].value >= items[i].value) return top;
        [items[i], items[down]] = [items[down], items[i]];
        i = down;
      }
    }
  }

  /**
   * The least margin over the ball and all rivals.
   * @param {Array} net @param {Float64Array} x @param {number} label @param {number} eps
   * @param {object} how
   * @param {number} [how.seconds] @param {number} [how.nodes] when to stop
   * @param {number|null} [how.tolerance] go on until the two numbers are so near; null:
   *   until the sign is known
   * @param {Float64Array[]} [how.points] allowed points to try first
   * @param {object} [how.first] what `Sides.before` returns
   * @returns {{verdict: "fooled"|"safe"|"open", lower: number, upper: number,
   *            nodes: number, point: Float64Array}} no margin is below `lower`, and
   *   `point` has the margin `upper`; a margin of 0 counts as fooled
   */
  const search = (net, x, label, eps, {
    seconds = .5, nodes: most = 1e5, steps = 10, tolerance = null, points = [], first,
  } = {}) => {
    const stop = performance.now() + 1000 * seconds, box = Sides.ball(x, eps);
    first ??= Sides.before(net, box);
    const again = net.every(layer => layer instanceof Sides.Dense);
    const rows = Sides.rivals(net.at(-1).outputs, label), heap = new Heap();
    let nodes = 0, upper = Infinity, point = null, done = Infinity;
    const attempt = corner => {
      const found = Sides.margin(Sides.logits(net, corner), label).least;
      if (found < upper) [upper, point] = [found, corner];
    };
    [x, ...points].forEach(attempt);
    const enough = () => {
      if (tolerance === null || upper > 0) return Math.max(SURE, upper - (tolerance ?? Infinity));
      return upper - tolerance;
    };
    const bound = (row, given, parent, known, hard = steps) => {
      nodes++;
      const found = Sides.raise(net, row, box, known.around, {
        signs: given.signs, steps: hard, enough: enough(),
      });
      attempt(found.corner);
      const value = Math.max(found.bound, parent);
      return { row, value, known, rows: found.rows, corner: found.corner, given };
    };
    const start = nothing(first.pre);
    for (const row of rows) heap.push(bound(row, start, -Infinity, first));
    while (heap.lowest <= enough()) {
      if (tolerance === null && upper <= 0) break;
      if (nodes >= most || performance.now() > stop) break;
      const node = heap.pop(), unit = widest(node.known.around, node.rows);
      if (!unit) { // all phases are known: the last word of the dual, and of descent
        const last = bound(node.row, node.given, node.value, node.known, LEAF);
        done = Math.min(done, last.value);
        const start = last.corner.map((v, i) => v - x[i]);
        const how = { eps, alpha: eps / 20, steps: 20, loss: "margin", start };
        attempt(Sides.pgd(net, x, label, how).best.map((v, i) => x[i] + v));
        continue;
      }
      for (const on of [true, false]) {
        const given = assume(node.given, unit, on);
        const known = again ? Sides.before(net, box, "crown", given.clip)
          : clipped(node.known.pre, given.clip);
        heap.push(bound(node.row, given, node.value, known));
      }
    }
    const lower = Math.min(done, heap.lowest);
    const verdict = upper <= 0 ? "fooled" : lower > SURE ? "safe" : "open";
    return { verdict, lower, upper, nodes, point };
  };

  Object.assign(Sides, { SURE, search });
};
Sides.parts.search(Sides);
