/* Eight rows of words, four on top of dimensions and four on top of random directions:
   the reader sorts them, and is compared with chance, exactly. */
"use strict";
(Sides => {
  const ROWS = 8, HALF = 4;
  const choose = (n, k) => k < 0 || k > n ? 0 : k ? choose(n - 1, k - 1) * n / k : 1;

  /**
   * Chance, exactly: each sorting of a round's rows into four and four is as likely.
   * @param {number[]} marked how many rows were called dimensions, round by round
   * @returns {number[]} the probability of 0, 1, 2, ... right answers in all
   */
  const chance = marked => marked.reduce((before, m) => {
    const after = new Array(before.length + ROWS).fill(0);
    for (let k = 0; k <= HALF; k++) { // k of the m are dimensions indeed
      const p = choose(HALF, k) * choose(HALF, m - k) / choose(ROWS, m);
      if (p) before.forEach((q, right) => { after[right + HALF - m + 2 * k] += p * q; });
    }
    return after;
  }, [1]);

  /** 0, ..., n - 1 in an order that a seed decides. */
  const order = (n, seed) => {
    let a = seed >>> 0;
    const next = () => { // mulberry32
      a = a + 0x6D2B79F5 | 0;
      let t = Math.imul(a ^ a >>> 15, a | 1);
      t ^= t + Math.imul(t ^ t >>> 7, t | 61);
      return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
    };
    const all = Array.from({ length: n }, (_, k) => k);
    for (let i = n - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [all[i], all[j]] = [all[j], all[i]];
    }
    return all;
  };

  /** The rows of a round: the words, and which direction they stand on top of. */
  const dealt = (form, seed, round) => {
    const { first, [form]: lists } = Sides.records.guess, n = lists.random.length;
    const rows = ["dimensions", "random"].flatMap((kind, turn) => {
      const cards = order(n, 3 * seed + turn), letter = "ev"[turn];
      return Array.from({ length: HALF }, (_, k) => cards[(HALF * round + k) % n])
        .map(k => ({ kind, words: lists[kind][k], name: `${letter}${first + k}` }));
    });
    return order(ROWS, 3 * seed + 2 + 1000 * (round + 1)).map(k => rows[k]);
  };

  const keys = Array.from({ length: ROWS }, (_, k) => `row${k}`);
  const unsorted = Object.fromEntries(keys.map(key => [key, ""]));

  Sides.figures.guess = {
    title: "Which rows are dimensions? Four are, four are random directions",
    uses: [],
    needs: ["guess"],
    state: { form: "raw", seed: 1, round: 0, open: false, past: [], ...unsorted },
    chance, dealt,
    build(stage) {
      stage.set({ seed: 1 + Math.floor(Math.random() * 1e6) });
      stage.choice({ key: "form", label: "vectors", into: stage.row(), options: [["raw", "raw"], ["unit", "of length one"]] });
      const grid = stage.row("rows");
      grid.style.cssText = "display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: .7rem 1.2rem; align-items: start; margin-bottom: 1rem";
      const places = keys.map(key => {
        const field = stage.choice({ key, label: "", into: grid, options: [["dimensions", "dimension"], ["random", "random"]] });
        const legend = field.querySelector("legend"), truth = stage.make("span", { className: "truth" });
        legend.style.color = "var(--s-ink)";
        truth.style.cssText = "border: 0; font-weight: 700";
        field.querySelector(".choices").append(truth);
        return { field, legend, truth };
      });
      const buttons = stage.row(), chart = stage.make("div");
      const right = ({ form, seed, round, ...state }) => dealt(form, seed, round).filter(({ kind }, k) => kind === state[keys[k]]).length;
      const look = stage.button("Score me", () => {
        const state = stage.get();
        const marked = keys.filter(key => state[key] === "dimensions").length;
        stage.set({ open: true, past: [...state.past, { marked, right: right(state) }] });
      }, buttons);
      stage.button("Another eight", () => stage.set({ ...unsorted, open: false, round: stage.get().round + 1 }), buttons);
      stage.changed = (_, key) => {
        if (key === "form") stage.set({ ...unsorted, open: false, round: stage.get().round + 1 });
      };
      const note = stage.make("p");
      note.style.cssText = "margin: 0 0 .5rem; min-height: 2.8em";
      stage.host.append(note, chart);
      let width = 0;
      stage.sized(chart, w => {
        width = w;
        stage.redraw();
      });

      const percent = p => p >= .995 ? "100 %" : p < .01 ? `${(100 * p).toPrecision(1)} %` : `${Math.round(100 * p)} %`;
      const bars = (past, p) => {
        const n = p.length - 1, got = past.reduce((sum, one) => sum + one.right, 0), top = Math.max(...p);
        const step = past.length < 3 ? 1 : Math.ceil(n / 16), high = Math.ceil(top * 10) / 10;
        const axes = Sides.draw.axes({
          width, height: 190, x: [-.7, n + .7], y: [0, high], xlabel: `right answers of ${n}`, ylabel: "",
          ticks: { x: p.map((_, k) => k).filter(k => k % (width < 480 ? 2 * step : step) === 0), y: [0, high / 2, high].map(v => +v.toFixed(2)) },
          words: `Chance of each number of right answers of ${n}; ${got} is yours.`,
        });
        const wide = Math.max(3, Math.min(18, .8 * (width - 50) / (n + 1)));
        p.forEach((v, k) => axes.bar([k, v], 0, k === got ? "var(--s-ink)" : "var(--m-clean)", k === got ? wide : .6 * wide));
        const last = got > n / 2;
        axes.text([got, p[got]], last ? "← you" : "you →", last ? "start" : "end");
        const words = axes.element.lastChild;
        words.setAttribute("dx", last ? wide / 2 + 3 : -wide / 2 - 3);
        words.setAttribute("dy", 12);
        chart.replaceChildren(axes.element);
      };

      return state => {
        const { form, seed, round, open, past } = state, rows = dealt(form, seed, round);
        rows.forEach(({ kind, words, name }, k) => {
          const { field, legend, truth } = places[k], yes = kind === state[keys[k]];
          legend.textContent = `${k + 1}. ${words}`;
          for (const input of field.querySelectorAll("input")) input.disabled = open;
          truth.textContent = open ? `${yes ? "✓" : "✗"} ${name}` : "";
          truth.style.color = yes ? "var(--s-safe)" : "var(--s-fooled)";
        });
        const sorted = keys.filter(key => state[key]).length;
        look.disabled = open || sorted < ROWS;
        let text = past.length ? "" : `${sorted} of 8 rows sorted. `;
        if (!past.length) text += sorted < ROWS ? "Give each row one of its two buttons." : "Now press “Score me”.";
        else {
          const p = chance(past.map(one => one.marked)), got = past.reduce((sum, one) => sum + one.right, 0);
          const better = p.slice(got).reduce((sum, v) => sum + v, 0);
          text = `${got} of ${8 * past.length} right${past.length > 1 ? ` in ${past.length} rounds` : ""}. `
            + `Who sorts blindly gets ${4 * past.length} in the mean, and ${got} or more with probability ${percent(better)}.`;
          if (!open) text += ` Next: ${sorted} of 8 rows sorted.`;
          stage.seen = { got, better, p };
          if (width) bars(past, p);
        }
        note.textContent = text;
        stage.say(`${text}${open ? ` The rows are ${rows.map(({ name }) => name).join(", ")}.` : ""}`);
      };
    },
  };
})(globalThis.Sides);
