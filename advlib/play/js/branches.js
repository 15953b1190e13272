/* Branch and bound in slow motion: a tree whose subproblems are split one at a time. */
"use strict";
(Sides => {
  const SURE = 1e-9, STEPS = 60;

  /**
   * A tree over a box of two inputs, for the margin row . logits of a dense network.
   * @param {{bound?: "crown"|"prices"}} how "crown": the backward walk over the bounds
   *   of the branch, as Chapter 6c has it; "prices": slopes and prices raised as well
   * @returns {{nodes: object[], split: function, open: function, units: function,
   *   choose: function}} `nodes` in the order in which they were bounded. A node has
   *   `signs` (+1 on, -1 off, 0 not assumed), `bound`, `is` ("open", "closed", "exact",
   *   "fooled", "split"), `parent`, `children` and, where it is split, `unit`.
   */
  const tree = (net, box, row, { bound: how = "crown" } = {}) => {
    const { toys } = Sides, last = net.length - 1, nodes = [];
    let tried = null;
    const pieces = toys.pieces(net, toys.corners(box));
    const margin = z => z.reduce((sum, v, o) => sum + row[o] * v, 0);
    const least = found => found.flatMap(piece => piece.polygon.map(p => ({ p, value: margin(piece.at(p)) })))
      .reduce((a, b) => b.value < a.value ? b : a, { p: null, value: Infinity });
    /** The pieces of the ball that obey the phases of a node. */
    const within = ({ signs }) => pieces.filter(piece => piece.signs.every((layer, k) =>
      layer.every((s, j) => !signs[k][j] || signs[k][j] === s)));
    const real = p => {
      let z = p;
      net.forEach((layer, k) => { z = layer.apply(k ? z.map(v => Math.max(v, 0)) : z); });
      return margin(z);
    };
    const add = (signs, parent) => {
      const clip = signs.map(layer => ({
        low: Float64Array.from(layer, s => s > 0 ? 0 : -Infinity),
        high: Float64Array.from(layer, s => s < 0 ? 0 : Infinity),
      }));
      const { pre, around } = Sides.before(net, box, "crown", clip);
      const found = how === "crown" ? Sides.walk(net, last, row, box, around)
        : Sides.raise(net, row, box, around, { signs, steps: STEPS, enough: SURE });
      const node = { signs, parent, pre, around, rows: found.rows, children: [], point: null,
        bound: Math.max(found.bound, parent ? parent.bound : -Infinity) }; // a part of the parent
      const corner = Array.from(found.corner), at = real(found.corner);
      node.is = node.bound > SURE ? "closed" : "open";
      if (at <= 0) tried = { point: corner, attained: at };
      else if (node.is === "open" && !units(node).length) { // a linear program, here a polygon
        const { p, value } = least(within(node));
        node.bound = value;
        node.is = value > 0 ? "exact" : "fooled";
        if (value <= 0) [node.point, node.attained] = [p, value];
      }
      nodes.push(node);
      return node;
    };
    /** The units that a node leaves unstable, the proposed one first. */
    const units = ({ around, rows, pre }, rule = "triangle") => around.flatMap(({ free, offset }, k) =>
      [...free].flatMap((open, j) => open ? [{ k, j, score: rule === "triangle"
        ? -pre[k].low[j] * pre[k].high[j] / (pre[k].high[j] - pre[k].low[j])
        : Math.abs(rows[k][j]) * offset[j] + 1e-9 * offset[j] }] : []))
      .sort((a, b) => b.score - a.score || a.k - b.k || a.j - b.j);
    /** A corner that turned out a counterexample belongs to the leaf it lies in. */
    const mark = () => {
      if (!tried) return;
      const z = toys.entering(net, Float64Array.from(tried.point));
      const home = leaves().find(({ signs }) => signs.every((layer, k) => layer.every((s, j) => s * z[k][j] >= 0)));
      Object.assign(home, tried, { is: "fooled" });
      tried = null;
    };
    const split = (node, { k, j }) => {
      if (node.is !== "open") return [];
      node.unit = { k, j };
      node.is = "split";
      node.children = [-1, 1].map(sign => add(
        node.signs.map((layer, i) => i === k ? layer.with(j, sign) : layer), node));
      mark();
      return node.children;
    };
    const open = () => nodes.filter(node => node.is === "open");
    /** The next to split: the lowest bound, the newest, or any. */
    const choose = (order, random = Math.random) => {
      const all = open();
      if (order === "random") return all[Math.floor(random() * all.length)];
      if (order === "newest") return all.filter(node => node.parent === all.at(-1)?.parent)[0];
      return all.reduce((a, b) => a && a.bound <= b.bound ? a : b, undefined);
    };
    const leaves = () => nodes.filter(node => node.is !== "split");
    /** What no margin lies below, as far as the tree has grown. */
    const lower = () => Math.min(...leaves().map(node => node.bound));
    const answer = () => nodes.some(node => node.is === "fooled") ? "fooled" : open().length ? "open" : "safe";
    add(net.slice(0, last).map(layer => new Int8Array(layer.outputs)), null);
    mark();
    return { nodes, pieces, within, units, split, open, choose, lower, answer, leaves };
  };

  Sides.branches = tree;
})(globalThis.Sides);
