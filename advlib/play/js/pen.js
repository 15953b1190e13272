/* A pen: strokes become 28 x 28 pixels as MNIST's are, and pixels a short text. */
"use strict";
(Sides => {
  const SIZE = 28, BOX = 20, THICK = 1.15, LEVELS = 15;

  /** The pixels that lines through `strokes`, in pixels of the image, cover. */
  const render = strokes => {
    const near = new Float64Array(SIZE * SIZE).fill(Infinity);
    const reach = THICK + 1;
    for (const points of strokes)
      for (let k = 0; k < Math.max(points.length - 1, 1); k++) {
        const [ax, ay] = points[k], [bx, by] = points[Math.min(k + 1, points.length - 1)];
        const dx = bx - ax, dy = by - ay, long = dx * dx + dy * dy;
        const first = v => Math.max(0, Math.floor(v - reach)), end = v => Math.min(SIZE - 1, Math.ceil(v + reach));
        for (let y = first(Math.min(ay, by)); y <= end(Math.max(ay, by)); y++)
          for (let x = first(Math.min(ax, bx)); x <= end(Math.max(ax, bx)); x++) {
            const px = x + .5 - ax, py = y + .5 - ay;
            const t = long ? Math.min(Math.max((px * dx + py * dy) / long, 0), 1) : 0;
            const d = Math.hypot(px - t * dx, py - t * dy), i = y * SIZE + x;
            if (d < near[i]) near[i] = d;
          }
      }
    return near.map(d => Math.min(Math.max(THICK + .5 - d, 0), 1));
  };

  /**
   * Strokes as MNIST would have them: as large as a box of 20 pixels, the centre of mass
   * in the middle, edges softened, in steps of a fifteenth.
   * @param {Array<Array<[number, number]>>} strokes points in [0, 1]
   * @returns {Float64Array} 784 values in [0, 1]
   */
  const pixels = strokes => {
    const all = strokes.flat();
    if (!all.length) return new Float64Array(SIZE * SIZE);
    const range = axis => {
      const values = all.map(point => point[axis]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [x0, x1] = range(0), [y0, y1] = range(1);
    const scale = (BOX - 2 * THICK) / Math.max(x1 - x0, y1 - y0, .15); // a dot stays a dot
    const place = (dx, dy) => strokes.map(points => points.map(([x, y]) =>
      [SIZE / 2 + scale * (x - (x0 + x1) / 2) + dx, SIZE / 2 + scale * (y - (y0 + y1) / 2) + dy]));
    const once = render(place(0, 0));
    let sum = 0, mx = 0, my = 0;
    once.forEach((v, i) => {
      sum += v;
      mx += v * (i % SIZE + .5);
      my += v * (Math.floor(i / SIZE) + .5);
    });
    const made = sum ? render(place(SIZE / 2 - mx / sum, SIZE / 2 - my / sum)) : once;
    return made.map(v => Math.round(LEVELS * v) / LEVELS);
  };

  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const RUN = LEVELS + 1, MOST = 64 - RUN + 1; // letters from RUN on: 2, 3, ... zeros

  /** Pixels as text for an address: a letter for a level, or for a run of zeros. */
  const encode = x => {
    const levels = Array.from(x, v => Math.round(LEVELS * v));
    let text = "";
    for (let i = 0; i < levels.length;) {
      let n = 0;
      while (n < MOST && levels[i + n] === 0) n++;
      text += LETTERS[n > 1 ? RUN + n - 2 : levels[i]];
      i += Math.max(n, 1);
    }
    return text;
  };

  /** The pixels of a text; null for a text that is none. */
  const decode = text => {
    const found = [];
    for (const letter of text) {
      const k = LETTERS.indexOf(letter);
      if (k < 0 || found.length > SIZE * SIZE) return null;
      if (k >= RUN) found.push(...Array(k - RUN + 2).fill(0));
      else found.push(k / LEVELS);
    }
    return found.length === SIZE * SIZE ? Float64Array.from(found) : null;
  };

  /**
   * A pad to draw on, with mouse, finger, or keys: arrows move the pen, Space puts it
   * down and lifts it, Backspace takes the last stroke back.
   * @param {object} stage @param {function(Float64Array): void} drawn called with the
   *   pixels after each change
   */
  const pad = (stage, drawn) => {
    const side = 280, step = 1 / 28;
    const canvas = stage.make("canvas", { width: side, height: side, attributes: {
      role: "application", "aria-roledescription": "drawing pad",
      "aria-label": "Draw a digit. Arrow keys move the pen, Space puts it down or lifts it, Backspace takes the last stroke back.",
    } });
    const context = canvas.getContext("2d");
    let strokes = [], behind = null, pen = [.5, .3], down = false, waiting = false;
    let byHand = false; // no cross for a mouse or a finger

    const paint = () => {
      context.fillStyle = "#000";
      context.fillRect(0, 0, side, side);
      if (behind && !strokes.length) behind.forEach((v, i) => {
        if (!v) return;
        context.fillStyle = `rgb(255 255 255 / ${v})`;
        context.fillRect(10 * (i % SIZE), 10 * Math.floor(i / SIZE), 10, 10);
      });
      Object.assign(context, { strokeStyle: "#fff", lineWidth: 24, lineCap: "round", lineJoin: "round" });
      for (const points of strokes) {
        context.beginPath();
        points.forEach(([x, y], k) => k ? context.lineTo(side * x, side * y) : context.moveTo(side * x, side * y));
        if (points.length === 1) context.lineTo(side * points[0][0] + .1, side * points[0][1]);
        context.stroke();
      }
      if (!byHand && document.activeElement === canvas) {
        const [x, y] = pen.map(v => side * v);
        Object.assign(context, { strokeStyle: down ? "#ff9d5c" : "#6bbaf0", lineWidth: 3 });
        context.beginPath();
        context.moveTo(x - 12, y); context.lineTo(x + 12, y);
        context.moveTo(x, y - 12); context.lineTo(x, y + 12);
        context.stroke();
      }
    };
    const update = () => {
      paint();
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        drawn(pixels(strokes));
      });
    };
    const inside = ([x, y]) => [x, y].map(v => Math.min(Math.max(v, 0), 1));
    stage.drag(canvas, {
      move(x, y, kind) {
        byHand = true;
        if (kind === "start") {
          behind = null;
          strokes.push([]);
        }
        strokes.at(-1).push(inside([x, y]));
        update();
      },
      key(dx, dy) {
        byHand = false;
        pen = inside([pen[0] + step * dx, pen[1] + step * dy]);
        if (down) {
          strokes.at(-1).push(pen);
          update();
        } else paint();
      },
    });
    canvas.addEventListener("keydown", event => {
      if (event.key === " ") {
        byHand = false;
        down = !down;
        if (down) {
          behind = null;
          strokes.push([pen]);
        }
        update();
      } else if (event.key === "Backspace") undo();
      else return;
      event.preventDefault();
    });
    for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, () => {
      if (kind === "blur") down = byHand = false;
      paint();
    });
    const undo = () => {
      strokes.pop();
      down = false;
      update();
    };
    paint();
    return {
      canvas, undo,
      clear() {
        strokes = [];
        behind = null;
        down = false;
        update();
      },
      /** Show pixels that came from elsewhere; a stroke begins anew. */
      show(x) {
        strokes = [];
        behind = x;
        paint();
      },
      get empty() { return !strokes.length; },
      /** The strokes, each a list of points in [0, 1]. */
      strokes: () => strokes.map(points => points.map(point => [...point])),
    };
  };

  Sides.pen = { pixels, encode, decode, pad };
})(globalThis.Sides);
