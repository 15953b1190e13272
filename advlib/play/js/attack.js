/* From below: FGSM and PGD in the l-infinity ball, the box kept. Any point they reach
   is allowed, so its margin is one that the worst case cannot exceed. */
"use strict";
(globalThis.Sides ??= { parts: {} }).parts.attack = Sides => {
  /** The room of each pixel: within eps, and within [0, 1]. */
  const room = (x, eps, box = true) => ({
    low: x.map(v => (box ? Math.max(-eps, -v) : -eps)),
    high: x.map(v => (box ? Math.min(eps, 1 - v) : eps)),
  });

  /** The gradient of the loss in the logits: cross-entropy, or the negative margin. */
  const slopes = {
    "cross-entropy": (z, label) => {
      const v = Sides.softmax(z);
      v[label] -= 1;
      return v;
    },
    margin: (z, label) => {
      const v = new Float64Array(z.length);
      v[label] = -1;
      v[Sides.margin(z, label).rival] = 1;
      return v;
    },
  };

  /**
   * PGD from `start`, by default the image itself.
   * @param {Array} net @param {Float64Array} x in [0, 1] @param {number} label
   * @param {{eps: number, alpha: number, steps: number, loss?: string,
   *          start?: Float64Array, box?: boolean}} how
   * @returns {{delta: Float64Array, margin: number, best: Float64Array,
   *            least: number, path: number[]}} the end, the best point met, and the
   *            margin before each step and at the end
   */
  const pgd = (net, x, label, { eps, alpha, steps, loss = "cross-entropy", start, box }) => {
    const { low, high } = room(x, eps, box), path = [];
    const delta = new Float64Array(x.length);
    if (start) start.forEach((v, i) => { delta[i] = Math.min(Math.max(v, low[i]), high[i]); });
    let best = delta.slice(), least = Infinity;
    for (let step = 0; ; step++) {
      const all = Sides.forward(net, x.map((v, i) => v + delta[i]));
      const z = all.at(-1), now = Sides.margin(z, label).least;
      path.push(now);
      if (now < least) [least, best] = [now, delta.slice()];
      if (step === steps) return { delta, margin: now, best, least, path };
      const g = Sides.gradient(net, all, slopes[loss](z, label));
      for (let i = 0; i < x.length; i++)
        delta[i] = Math.min(Math.max(delta[i] + alpha * Math.sign(g[i]), low[i]), high[i]);
    }
  };

  /** FGSM: one step of length eps. */
  const fgsm = (net, x, label, eps) => pgd(net, x, label, { eps, alpha: eps, steps: 1 });

  Object.assign(Sides, { room, pgd, fgsm });
};
Sides.parts.attack(Sides);
