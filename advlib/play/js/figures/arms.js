/* Which arms are told apart from ReLU, with how many seeds, and with which? */
"use strict";
(Sides => {
  const OUTCOMES = ["clean", "attacked"], SPAN = { attacked: [-8, 5], clean: [-10, 10] };

  /** Numbers that repeat: mulberry32. */
  const random = seed => () => {
    let t = seed += 0x6D2B79F5;
    t = Math.imul(t ^ t >>> 15, t | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return ((t ^ t >>> 14) >>> 0) / 4294967296;
  };

  /** Solve a x = b for a symmetric positive definite `a`, which is overwritten. */
  const solve = (a, b) => {
    const n = b.length, x = [...b];
    for (let k = 0; k < n; k++)
      for (let i = k + 1; i < n; i++) {
        const f = a[i][k] / a[k][k];
        if (!f) continue;
        for (let j = k; j < n; j++) a[i][j] -= f * a[k][j];
        x[i] -= f * x[k];
      }
    for (let k = n - 1; k >= 0; k--) {
      for (let j = k + 1; j < n; j++) x[k] -= a[k][j] * x[j];
      x[k] /= a[k][k];
    }
    return x;
  };

  /**
   * One spread for all arms: each error is arm + seed + rest, by least squares.
   * @param {{runs: Object}[]} arms @param {number} which outcome @param {number[]} seeds
   * @returns {{sd: number, free: number}} the sd of a paired difference, its freedom
   */
  const spread = (arms, which, seeds) => {
    const rows = arms.flatMap((arm, i) => seeds.filter(s => s in arm.runs).map(
      s => [i, arms.length + seeds.indexOf(s) - 1, arm.runs[s][which]]));
    const n = arms.length + seeds.length - 1; // the first seed's share is in the arms'
    const a = Array.from({ length: n }, () => new Float64Array(n)), b = new Array(n).fill(0);
    const on = ([i, j]) => j < arms.length ? [i] : [i, j];
    for (const row of rows) for (const i of on(row)) {
      b[i] += row[2];
      for (const j of on(row)) a[i][j]++;
    }
    const fit = solve(a, b), free = rows.length - n;
    const rest = rows.reduce((sum, row) => sum + (row[2] - on(row).reduce((s, i) => s + fit[i], 0)) ** 2, 0);
    return { sd: Math.sqrt(2 * rest / free), free };
  };

  /** Differences to ReLU at the same seeds, with one interval width for all. */
  const compare = ({ arms, t }, which, seeds) => {
    const held = arms.filter(arm => seeds.filter(s => s in arm.runs).length > 1);
    const { sd, free } = spread(held, which, seeds), base = arms[0], [wide, power] = t[free - 1];
    const rows = held.slice(1).map(arm => {
      const dots = seeds.filter(s => s in arm.runs).map(s => arm.runs[s][which] - base.runs[s][which]);
      const mean = dots.reduce((a, b) => a + b) / dots.length, error = sd / Math.sqrt(dots.length);
      return { arm, dots, mean, half: wide * error, seen: (wide + power) * error };
    });
    return { sd, free, rows };
  };

  Sides.arms = { compare, spread };
  Sides.figures.arms = {
    title: "Take seeds away: which findings stay?",
    needs: ["arms"],
    state: { outcome: "attacked", count: 8, draw: 0 },
    build(stage) {
      const record = Sides.records.arms, most = 8, controls = stage.row();
      stage.choice({ key: "outcome", label: "error", into: controls, options: OUTCOMES.map(k => [k, k]) });
      stage.slider({ key: "count", label: "seeds of each arm, at most", into: controls, min: 2, max: most, step: 1 });
      const other = stage.button("Other seeds", () => stage.set({ draw: stage.get().draw + 1 }), controls);
      const place = stage.row("chart"), note = stage.make("p", { className: "verdict" });
      place.style.display = "block";
      stage.host.append(note);

      /** The seeds that count: the first ones, or another draw of them. */
      const chosen = ({ count, draw }) => {
        const all = [...Array(most).keys()];
        if (!draw) return all.slice(0, count);
        const next = random(draw);
        for (let i = most - 1; i > 0; i--) {
          const j = Math.floor(next() * (i + 1));
          [all[i], all[j]] = [all[j], all[i]];
        }
        return all.slice(0, count).sort((a, b) => a - b);
      };
      const { svg } = Sides.draw;
      const paint = width => {
        const state = stage.get(), seeds = chosen(state), which = OUTCOMES.indexOf(state.outcome);
        const { rows } = stage.found = compare(record, which, seeds), [low, high] = SPAN[state.outcome];
        const left = Math.min(150, width * .42), step = 20, groups = [...new Set(rows.map(r => r.arm.group))];
        const height = (rows.length + groups.length) * step + 46;
        const X = v => left + (Math.min(Math.max(v, low), high) - low) / (high - low) * (width - left - 8);
        const parts = [], line = (x1, y1, x2, y2, stroke, w = 1) =>
          parts.push(svg("line", { x1, y1, x2, y2, stroke, "stroke-width": w }));
        for (let v = Math.ceil(low / 2) * 2; v <= high; v += 2) {
          line(X(v), 8, X(v), height - 38, v ? "var(--s-line)" : "var(--s-ink)");
          parts.push(svg("text", { x: X(v), y: height - 22, "text-anchor": "middle", class: "quiet" }, v > 0 ? `+${v}` : String(v).replace("-", "\u2212")));
        }
        parts.push(svg("text", { x: width - 8, y: height - 4, "text-anchor": "end" },
          `${state.outcome} error minus ReLU's, points (left: better)`));
        let y = 4, group = null;
        for (const { arm, dots, mean, half, seen } of rows) {
          if (arm.group !== group) {
            y += step;
            parts.push(svg("text", { x: 0, y, "font-weight": 700 }, group = arm.group));
          }
          y += step;
          const colour = mean + half < 0 ? "var(--s-safe)" : mean - half > 0 ? "var(--s-fooled)" : "var(--s-quiet)";
          parts.push(svg("rect", { x: X(-seen), y: y - 12, width: X(seen) - X(-seen), height: 16, fill: "var(--s-tint)", stroke: "var(--s-line)" }),
            svg("text", { x: left - 6, y, "text-anchor": "end" }, `${arm.name} (${dots.length})`));
          line(X(mean - half), y - 4, X(mean + half), y - 4, colour, 4);
          for (const v of dots) parts.push(svg("circle", { cx: X(v), cy: y - 4, r: 3, fill: "none", stroke: "var(--s-ink)" }));
          line(X(mean), y - 11, X(mean), y + 3, "var(--s-ink)", 2.5);
        }
        const better = rows.filter(r => r.mean + r.half < 0), worse = rows.filter(r => r.mean - r.half > 0);
        const names = some => some.map(r => r.arm.name).join(", ") || "none";
        const words = `Seeds ${seeds.join(", ")}. Interval below zero: ${names(better)}. Above zero: ${names(worse)}.`;
        place.replaceChildren(svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img",
          "aria-label": `Differences to ReLU of ${rows.length} arms. ${words}` }, ...parts));
        const seen = Math.min(...rows.map(r => r.seen)).toFixed(1);
        note.textContent = `Seeds ${seeds.join(", ")}: of ${rows.length} intervals at 95 % ${better.length} lie below zero, `
          + `${worse.length} above; one would by chance. A true difference inside the grey band (${seen} points `
          + `with ${seeds.length} seeds) is overlooked at least one time in five.`;
        stage.say(words);
      };
      stage.sized(place, paint);
      return ({ count }) => {
        other.disabled = count === most;
        if (place.clientWidth) paint(place.clientWidth);
      };
    },
  };
})(globalThis.Sides);
