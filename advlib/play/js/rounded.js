/* Arithmetic of m bits, exactly: a number is a BigInt times a power of two, and each
   operation is rounded to m bits, to nearest (ties to even), down, or up. Exponents have
   no limits, so nothing overflows. */
"use strict";
(Sides => {
  /** How many binary digits n has. */
  const length = n => {
    const digits = (n < 0n ? -n : n).toString(16);
    return 4 * digits.length - Math.clz32(parseInt(digits[0], 16)) + 28;
  };
  /** The float `value` as it is. @returns {{n: bigint, e: number}} n times 2 ** e */
  const of = value => {
    const bits = new DataView(new ArrayBuffer(8));
    bits.setFloat64(0, value);
    const whole = bits.getBigUint64(0), power = Number(whole >> 52n & 2047n);
    let n = whole & (1n << 52n) - 1n | (power ? 1n << 52n : 0n), e = Math.max(power, 1) - 1075;
    const zeros = n ? length(n & -n) - 1 : 0; // short numbers are fast
    n >>= BigInt(zeros);
    e += zeros;
    return { n: value < 0 ? -n : n, e };
  };
  /** @param {number} bits of the significand, or Infinity @param {"nearest"|"down"|"up"} way */
  const round = ({ n, e }, bits, way = "nearest") => {
    const cut = length(n) - bits;
    if (!(cut > 0)) return { n, e };
    const c = BigInt(cut), rest = n & (1n << c) - 1n, half = 1n << c - 1n;
    let q = n >> c; // rounded down
    if (way === "up" ? rest : way === "nearest" && (rest > half || rest === half && q & 1n)) q += 1n;
    return { n: q, e: e + cut };
  };
  /** The nearest float of an exact number. */
  const value = exact => {
    const { n, e } = round(exact, 53);
    return Number(n) * 2 ** e;
  };
  const add = (a, b) => {
    if (!a.n || !b.n) return a.n ? a : b;
    const e = Math.min(a.e, b.e);
    return { n: (a.n << BigInt(a.e - e)) + (b.n << BigInt(b.e - e)), e };
  };
  const times = (a, b) => ({ n: a.n * b.n, e: a.e + b.e });
  const less = (a, b) => add(a, { n: -b.n, e: b.e }).n < 0n;
  const least = all => all.reduce((a, b) => less(b, a) ? b : a);
  const most = all => all.reduce((a, b) => less(a, b) ? b : a);

  /**
   * Intervals through a network in arithmetic of `bits` bits: from `low` and `high`, every
   * weight, product and sum rounded to nearest, or outward.
   * @param {Array<[number[][], number[]]>} layers weights (out, in) and biases; ReLU between
   * @param {number[]} low @param {number[]} high the input's ends
   * @param {{bits: number, outward: boolean}} how
   * @returns {{lower: number[], upper: number[]}} ends of what leaves the last layer
   */
  const interval = (layers, low, high, { bits, outward }) => {
    const down = v => round(v, bits, outward ? "down" : "nearest");
    const up = v => round(v, bits, outward ? "up" : "nearest");
    const ends = (a, b = a) => [down(of(a)), up(of(b))], zero = of(0);
    let x = low.map((v, i) => ends(v, high[i]));
    layers.forEach(([weight, bias], k) => {
      if (k) x = x.map(([a, b]) => [most([a, zero]), most([b, zero])]);
      x = weight.map((row, o) => row.reduce(([a, b], w, i) => {
        const both = ends(w).flatMap(v => x[i].map(u => times(v, u)));
        return [down(add(a, least(both.map(down)))), up(add(b, most(both.map(up))))];
      }, ends(bias[o])));
    });
    return { lower: x.map(([a]) => value(a)), upper: x.map(([, b]) => value(b)) };
  };

  Sides.rounded = { of, value, round, add, times, interval };
})(globalThis.Sides);
