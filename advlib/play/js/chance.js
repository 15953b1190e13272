/* Chances: the normal distribution, the incomplete beta function, Clopper and Pearson's
   bound, and dice that fall the same way for the same number. */
"use strict";
(Sides => {
  const ROOT = Math.sqrt(2 * Math.PI);
  const density = x => Math.exp(-x * x / 2) / ROOT;
  /** The normal distribution function. */
  const normal = x => {
    if (Math.abs(x) > 5) { // a continued fraction for the tail
      const size = Math.abs(x);
      let tail = size;
      for (let k = 60; k; k--) tail = size + k / tail;
      return x > 0 ? 1 - density(size) / tail : density(size) / tail;
    }
    let term = x, sum = x;
    for (let k = 3; Math.abs(term) > 1e-17 * Math.abs(sum); k += 2) sum += term *= x * x / k;
    return .5 + density(x) * sum;
  };
  /** Its inverse, by Newton's steps from the middle outwards. */
  const quantile = p => {
    if (!(p > 0 && p < 1)) return p === 1 ? Infinity : p === 0 ? -Infinity : NaN;
    if (p < .5) return -quantile(1 - p);
    let x = 0;
    for (let k = 0, step = 1; k < 100 && Math.abs(step) > 1e-14; k++) x += step = (p - normal(x)) / density(x);
    return x;
  };

  const LANCZOS = [676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
    12.507343278686905, -.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
  /** The logarithm of the gamma function, z >= 1. */
  const logGamma = z => {
    const t = z + 6.5, sum = LANCZOS.reduce((s, c, k) => s + c / (z + k), .99999999999980993);
    return Math.log(ROOT * sum) + (z - .5) * Math.log(t) - t;
  };
  /** The regularised incomplete beta function I_x(a, b): Lentz's continued fraction. */
  const beta = (x, a, b) => {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - beta(1 - x, b, a);
    const front = Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) / a;
    const safe = v => Math.abs(v) < 1e-300 ? 1e-300 : v;
    let c = 1, d = 1 / safe(1 - (a + b) * x / (a + 1)), value = d;
    for (let m = 1; m < 2000; m++) {
      let step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
      d = 1 / safe(1 + step * d);
      c = safe(1 + step / c);
      value *= d * c;
      step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
      d = 1 / safe(1 + step * d);
      c = safe(1 + step / c);
      value *= d * c;
      if (Math.abs(d * c - 1) < 1e-15) break;
    }
    return front * value;
  };
  /**
   * Clopper and Pearson's lower bound: the p at which `k` or more of `n` are as rare as
   * `alpha`; as `smoothing.lower_confidence`.
   */
  const lower = (k, n, alpha) => {
    if (k === 0) return 0;
    if (k === n) return alpha ** (1 / n);
    let low = 0, high = k / n;
    for (let step = 0; step < 60; step++) {
      const middle = (low + high) / 2;
      if (beta(middle, k, n - k + 1) < alpha) low = middle; else high = middle;
    }
    return low;
  };

  /** Normal numbers, the same ones for the same `seed`: a function that returns the next. */
  const dice = seed => {
    let state = seed >>> 0, kept = null;
    const uniform = () => { // mulberry32
      state = state + 0x6D2B79F5 >>> 0;
      let t = Math.imul(state ^ state >>> 15, state | 1);
      t ^= t + Math.imul(t ^ t >>> 7, t | 61);
      return ((t ^ t >>> 14) >>> 0) / 4294967296;
    };
    return () => {
      if (kept !== null) {
        const value = kept;
        kept = null;
        return value;
      }
      const size = Math.sqrt(-2 * Math.log(1 - uniform())), turn = 2 * Math.PI * uniform();
      kept = size * Math.sin(turn);
      return size * Math.cos(turn);
    };
  };

  Sides.chance = { density, normal, quantile, beta, lower, dice };
})(globalThis.Sides);
