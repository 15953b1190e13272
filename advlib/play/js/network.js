/* Networks: affine layers with a ReLU between each two, forward and backward.

   Numbers are float64. An affine layer knows three things: what leaves it (`apply`),
   how a linear function of its output is one of its input (`pull`), and how far the
   output moves when each input moves by at most so much (`spread`). All that follows,
   attacks and bounds, is made of these three. */
"use strict";
(globalThis.Sides ??= { parts: {} }).parts.network = Sides => {
  /** A dense layer. */
  class Dense {
    /**
     * @param {Float64Array} weight row after row, outputs x inputs
     * @param {Float64Array} bias one number for each output
     */
    constructor(weight, bias) {
      this.bias = bias;
      this.outputs = bias.length;
      this.inputs = weight.length / bias.length;
      this.weight = weight;
    }
    /** @param {Float64Array} x @returns {Float64Array} W x + b */
    apply(x) {
      const { weight, bias, inputs, outputs } = this, z = Float64Array.from(bias);
      for (let o = 0, k = 0; o < outputs; o++) {
        let a = 0, b = 0, c = 0, d = 0, i = 0; // four sums: none waits for the last one
        for (; i + 3 < inputs; i += 4, k += 4) {
          a += weight[k] * x[i];
          b += weight[k + 1] * x[i + 1];
          c += weight[k + 2] * x[i + 2];
          d += weight[k + 3] * x[i + 3];
        }
        for (; i < inputs; i++) a += weight[k++] * x[i];
        z[o] += a + b + (c + d);
      }
      return z;
    }
    /** @param {Float64Array} v over the outputs @returns {Float64Array} v W */
    pull(v) {
      const { weight, inputs, outputs } = this, row = new Float64Array(inputs);
      for (let o = 0; o < outputs; o++) {
        const factor = v[o];
        if (factor === 0) continue;
        for (let i = 0, k = o * inputs; i < inputs; i++) row[i] += factor * weight[k++];
      }
      return row;
    }
    /** @param {Float64Array} r >= 0 @returns {Float64Array} |W| r */
    spread(r) {
      const { weight, inputs, outputs } = this, s = new Float64Array(outputs);
      for (let o = 0, k = 0; o < outputs; o++)
        for (let i = 0; i < inputs; i++) s[o] += Math.abs(weight[k++]) * r[i];
      return s;
    }
  }

  /** A convolution with equal strides and paddings; channels first. */
  class Conv {
    /**
     * @param {Float64Array} weight out x in x size x size
     * @param {Float64Array} bias one number for each output channel
     * @param {{channels: number, height: number, width: number, size: number,
     *          stride: number, padding: number}} shape of the input and of the window
     */
    constructor(weight, bias, shape) {
      Object.assign(this, shape);
      const { channels, height, width, size, stride, padding } = shape;
      this.rows = Math.floor((height + 2 * padding - size) / stride) + 1;
      this.columns = Math.floor((width + 2 * padding - size) / stride) + 1;
      this.inputs = channels * height * width;
      this.outputs = bias.length * this.rows * this.columns;
      const area = this.rows * this.columns;
      this.bias = new Float64Array(this.outputs);
      bias.forEach((b, c) => this.bias.fill(b, c * area, (c + 1) * area));
      this.weight = weight;
    }
    /**
     * For each place of the window: its outputs' place, and the part of the window that
     * lies in the image, rows `top` to `bottom` and columns `left` to `right`.
     */
    *places() {
      const { height, width, size, stride, padding, rows, columns } = this;
      for (let r = 0, place = 0; r < rows; r++)
        for (let q = 0; q < columns; q++, place++) {
          const y = r * stride - padding, x = q * stride - padding;
          const top = Math.max(0, -y), bottom = Math.min(size, height - y);
          const left = Math.max(0, -x), right = Math.min(size, width - x);
          yield { place, y, x, top, bottom, left, right };
        }
    }
    /** @param {Float64Array} x @param {boolean} [sizes] |W| in place of W, and no bias */
    apply(x, sizes = false) {
      const { channels, height, width, size, rows, columns } = this;
      const w = sizes ? this.weight.map(Math.abs) : this.weight, area = rows * columns;
      const z = sizes ? new Float64Array(this.outputs) : Float64Array.from(this.bias);
      for (const { place, y, x: across, top, bottom, left, right } of this.places())
        for (let o = place, k = 0; o < z.length; o += area) {
          let sum = 0;
          for (let c = 0; c < channels; c++, k += size * size)
            for (let a = top; a < bottom; a++) {
              const from = (c * height + y + a) * width + across, at = k + a * size;
              for (let b = left; b < right; b++) sum += w[at + b] * x[from + b];
            }
          z[o] += sum;
        }
      return z;
    }
    pull(v) {
      const { channels, height, width, size, rows, columns } = this;
      const row = new Float64Array(this.inputs), w = this.weight, area = rows * columns;
      for (const { place, y, x: across, top, bottom, left, right } of this.places())
        for (let o = place, k = 0; o < v.length; o += area) {
          const factor = v[o];
          if (factor === 0) {
            k += channels * size * size;
            continue;
          }
          for (let c = 0; c < channels; c++, k += size * size)
            for (let a = top; a < bottom; a++) {
              const to = (c * height + y + a) * width + across, at = k + a * size;
              for (let b = left; b < right; b++) row[to + b] += factor * w[at + b];
            }
        }
      return row;
    }
    spread(r) {
      return this.apply(r, true);
    }
  }

  /** @param {string} text base64 @returns {Uint8Array} */
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

  /**
   * A network from its note: int8 weights times one scale a layer, and whole numbers of
   * `unit` as biases; scales and units are powers of two. These products *are* the
   * network, here and in Python (`advlib.play.from_note`).
   * @param {{layers: Array<{kind: string, weight: string, scale: number,
   *          bias: number[], unit: number, shape?: object}>}} note
   * @returns {Array<Dense|Conv>}
   */
  const network = note => note.layers.map(({ kind, weight, scale, bias, unit, shape }) => {
    const whole = new Int8Array(bytes(weight).buffer);
    const values = Float64Array.from(whole, w => w * scale);
    const b = Float64Array.from(bias, v => v * unit);
    if (kind === "dense") return new Dense(values, b);
    if (kind === "conv") return new Conv(values, b, shape);
    throw new Error(`no layer is called ${kind}`);
  });

  /**
   * What enters each ReLU, and last the logits.
   * @param {Array<Dense|Conv>} net @param {Float64Array} x @returns {Float64Array[]}
   */
  const forward = (net, x) => {
    const all = [];
    for (const layer of net) {
      const from = all.length ? all.at(-1).map(z => Math.max(z, 0)) : x;
      all.push(layer.apply(from));
    }
    return all;
  };

  /** @returns {Float64Array} the logits at x */
  const logits = (net, x) => forward(net, x).at(-1);

  /**
   * The gradient in the pixels of v . logits; the slope of a ReLU at 0 is 0.
   * @param {Float64Array[]} all from `forward` @param {Float64Array} v over the logits
   */
  const gradient = (net, all, v) => {
    let row = v;
    for (let k = net.length - 1; k >= 0; k--) {
      row = net[k].pull(row);
      if (k) all[k - 1].forEach((z, j) => { if (!(z > 0)) row[j] = 0; });
    }
    return row;
  };

  /** The smallest margin z_y - z_j over the other classes, and its class. */
  const margin = (z, label) => {
    let least = Infinity, rival = -1;
    z.forEach((value, j) => {
      if (j !== label && z[label] - value < least) [least, rival] = [z[label] - value, j];
    });
    return { least, rival };
  };

  /** @returns {Float64Array} the softmax of z */
  const softmax = z => {
    const top = Math.max(...z), e = z.map(v => Math.exp(v - top));
    const sum = e.reduce((a, b) => a + b, 0);
    return e.map(v => v / sum);
  };

  Object.assign(Sides, {
    Dense, Conv, network, forward, logits, gradient, margin, softmax,
  });
};
Sides.parts.network(Sides);
