/* One image held from both sides: what a page computes at once, what a worker computes
   after that, and what may be said of them. */
"use strict";
(globalThis.Sides ??= { parts: {} }).parts.both = Sides => {
  const least = margins => Math.min(...margins);

  /**
   * PGD from the image itself, and the bound by intervals.
   * @returns {{clean: number, said: number, delta: Float64Array, attack: number,
   *            interval: number}} the margin of the image as it is and what the network
   *   says there; the best perturbation met, its margin; the bound
   */
  const quick = (net, x, label, eps, steps = 40) => {
    const z = Sides.logits(net, x), how = { eps, alpha: 2.5 * eps / steps, steps };
    const { best, least: attack } = Sides.pgd(net, x, label, how);
    const interval = least(Sides.intervals(net, Sides.ball(x, eps), label));
    const clean = Sides.margin(z, label).least;
    return { clean, said: z.indexOf(Math.max(...z)), delta: best, attack, interval };
  };

  /** The bound by CROWN. */
  const linear = (net, x, label, eps) => {
    const box = Sides.ball(x, eps);
    return { crown: least(Sides.crown(net, box, label)) };
  };

  /** The least of `Sides.optimised`; rivals whom CROWN already puts above it wait. */
  const raised = (net, box, label, first, margins) => {
    const rows = Sides.rivals(net.at(-1).outputs, label);
    const order = [...margins.keys()].sort((i, j) => margins[i] - margins[j]);
    let now = Infinity;
    for (const i of order) {
      if (margins[i] >= now) break;
      const { bound } = Sides.raise(net, rows[i], box, first.around);
      now = Math.min(now, Math.max(bound, margins[i]));
    }
    return now;
  };

  /**
   * CROWN, optimised slopes, and branch and bound, which starts from `points`.
   * @param {{seconds?: number, nodes?: number, tolerance?: number,
   *          points?: Float64Array[]}} how of `Sides.search`
   */
  const slow = (net, x, label, eps, how = {}) => {
    const box = Sides.ball(x, eps), first = Sides.before(net, box);
    const margins = Sides.crown(net, box, label, first), crown = least(margins);
    const slopes = raised(net, box, label, first, margins);
    const { point, ...exact } = Sides.search(net, x, label, eps,
      { tolerance: .01, ...how, first });
    return { crown, slopes, exact, point };
  };

  /**
   * What is known of an image from any of these numbers.
   * @param {{clean: number, attack?: number, interval?: number, crown?: number,
   *          slopes?: number, exact?: {lower: number, upper: number}}} found
   * @returns {"misread"|"fooled"|"safe"|"open"}
   */
  const verdict = found => {
    const { lower, upper } = ends(found);
    if (found.clean <= 0) return "misread";
    if (upper <= 0) return "fooled";
    return lower > Sides.SURE ? "safe" : "open";
  };

  /** The two numbers that hold the worst margin: the best bound, the best attack. */
  const ends = ({ clean, attack, interval, crown, slopes, exact }) => {
    const known = values => values.filter(v => v !== undefined);
    const upper = Math.min(...known([clean, attack, exact?.upper]));
    const lower = Math.max(-Infinity, ...known([interval, crown, slopes, exact?.lower]));
    return { lower: Math.min(lower, upper), upper };
  };

  Object.assign(Sides, { quick, linear, slow, verdict, ends });
};
Sides.parts.both(Sides);
