/* The record of Chapter 7a, one cell an image: who decided it, and what is left open. */
"use strict";
(Sides => {
  /** Letter of the record: words, colour, side; from the first attack to the first bound. */
  const KINDS = {
    m: ["misclassified", "clean", "wrong"],
    f: ["attacked by FGSM", "fgsm", "wrong"],
    p: ["attacked by PGD", "pgd", "wrong"],
    s: ["attacked by ensemble", "strong", "wrong"],
    a: ["attacked by search", "strong", "wrong"],
    u: ["undecided", "", "open"],
    c: ["certified by search", "exact", "safe"],
    z: ["certified by slopes", "alpha", "safe"],
    w: ["certified by CROWN", "crown", "safe"],
    i: ["certified by intervals", "interval", "safe"],
  };
  const LETTERS = Object.keys(KINDS), COLUMNS = 25;
  const fill = letter => ({
    a: "repeating-linear-gradient(45deg, var(--m-strong) 0 3px, var(--s-page) 3px 5px)",
    u: "radial-gradient(var(--s-ink) 1px, transparent 1.5px) 0 0 / 5px 5px var(--s-page)",
  }[letter] ?? `var(--m-${KINDS[letter][1]})`);
  const css = `
.mosaic .cells { display: grid; grid-template-columns: repeat(${COLUMNS}, 1fr); gap: 2px; margin: 0 0 .6rem; touch-action: pan-y; cursor: pointer; }
.mosaic .cells i { aspect-ratio: 1.6; border-radius: 2px; min-width: 0; }
.mosaic i[data-v="u"] { box-shadow: inset 0 0 0 1px var(--s-quiet); }
.mosaic .cells i[aria-selected="true"] { outline: 3px solid var(--s-ink); outline-offset: 1px; z-index: 1; }
.mosaic .cells i:focus-visible { outline-color: var(--s-link); }
${LETTERS.map(v => `.mosaic i[data-v="${v}"] { background: ${fill(v)}; }`).join("\n")}
.mosaic .one { display: flex; gap: .8rem; align-items: center; margin: 0 0 .7rem; }
.mosaic .one canvas { width: 4rem; flex: none; }
.mosaic .one > p { flex: 1; margin: 0; min-height: 4.2em; }
.mosaic .one .tight { flex: none; margin: 0; flex-wrap: nowrap; }
.mosaic .whole { display: flex; height: 1.6rem; margin: 0 0 .3rem; border-radius: 3px; overflow: hidden; }
.mosaic .whole i { flex-basis: 0; min-width: 0; }
.mosaic ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(11.5rem, 1fr)); gap: .15rem .8rem; margin: .6rem 0 0; padding: 0; list-style: none; }
.mosaic li { display: flex; gap: .45rem; align-items: center; margin: 0; }
.mosaic li i { width: .95rem; height: .95rem; border-radius: 2px; flex: none; }
.mosaic li b { margin-left: auto; font-variant-numeric: tabular-nums; } .mosaic li[data-none] { color: var(--s-quiet); }
@container (max-width: 30rem) { .mosaic .cells { grid-template-columns: repeat(20, 1fr); gap: 1px; } .mosaic .cells i { aspect-ratio: 1; } .mosaic .one { flex-wrap: wrap; } .mosaic .one > p { flex-basis: 9rem; min-height: 5.6em; } }
`;

  /** The images' small pictures, 14 x 14, values in [0, 1]. */
  const pictures = packed => {
    const bytes = Uint8Array.from(atob(packed), c => c.charCodeAt(0));
    return k => Float64Array.from({ length: 196 }, (_, i) =>
      (bytes[98 * k + (i >> 1)] >> (i % 2 ? 0 : 4) & 15) / 15);
  };

  /**
   * What the record says of one network at one radius.
   * @param {{width: string, training: string, eps: number, search: boolean}} state
   * @returns {{letters: string[], nodes: Array, n: number, eps: number, counts: object}}
   *   `nodes`: subproblems of the images that the search saw; `eps` is the nearest radius
   */
  const read = ({ width, training, eps, search }) => {
    const { networks } = Sides.records.mosaic;
    const of = networks.find(one => one.name === width + training);
    const at = of.eps.reduce((best, e, k) => Math.abs(e - eps) < Math.abs(of.eps[best] - eps) ? k : best, 0);
    const full = [...of.verdicts[at]], nodes = [];
    let seen = 0;
    full.forEach((v, k) => { if ("auc".includes(v)) nodes[k] = of.nodes[at][seen++]; });
    const letters = search ? full : full.map(v => "ac".includes(v) ? "u" : v);
    const counts = Object.fromEntries(LETTERS.map(v => [v, letters.filter(one => one === v).length]));
    return { letters, nodes, n: full.length, eps: of.eps[at], radii: of.eps, counts, words: of.words };
  };
  const sides = ({ counts }) => {
    const sum = { wrong: 0, open: 0, safe: 0 };
    for (const v of LETTERS) sum[KINDS[v][2]] += counts[v];
    return sum;
  };

  Sides.figures.mosaic = {
    title: "Who decides which image?",
    needs: ["mosaic"],
    uses: [],
    state: { width: "small", training: "_pgd", eps: .1, search: true, sort: "number", image: 0 },
    build(stage) {
      const { make } = stage, { labels, pixels } = Sides.records.mosaic, picture = pictures(pixels);
      stage.host.classList.add("mosaic");
      stage.host.append(make("style", { textContent: css }));
      const top = stage.row(), more = stage.row();
      stage.choice({ key: "width", label: "network", into: top, options: [["small", "50-20"], ["mlp_256", "256-256"]] });
      stage.choice({ key: "training", label: "trained on", into: top, options: [["", "images"], ["_pgd", "PGD"], ["_ibp", "intervals"]] });
      const radii = stage.choice({ key: "eps", label: "radius ϵ", into: top, options: [.01, .02, .05, .1, .15].map(e => [e, String(e)]) });
      stage.choice({ key: "search", label: "branch and bound", into: more, options: [[true, "on"], [false, "off"]] });
      stage.choice({ key: "sort", label: "sort", into: more, options: [["number", "by image"], ["verdict", "by verdict"]] });
      const hint = make("p", { className: "name", textContent: "Point at a cell, tap it, or go with the arrow keys." });
      const cells = make("div", { className: "cells", attributes: { role: "listbox", "aria-label": "images" } });
      stage.host.append(hint, cells);
      const all = Array.from(labels, (_, k) => {
        const cell = make("i", { tabIndex: -1, attributes: { role: "option", "aria-selected": "false" } });
        cell.dataset.k = k;
        return cell;
      });
      const digit = Sides.draw.bitmap("the image", 14), told = make("p");
      const one = stage.row("one");
      one.append(digit.canvas, told);
      const steps = stage.row("row tight", one);
      const step = by => {
        const at = order.indexOf(stage.get().image);
        stage.set({ image: order[Math.min(Math.max(at + by, 0), order.length - 1)] });
      };
      stage.button("‹", () => step(-1), steps).setAttribute("aria-label", "image before");
      stage.button("›", () => step(1), steps).setAttribute("aria-label", "next image");
      const whole = make("div", { className: "whole", attributes: { role: "img" } }), ends = make("p");
      const legend = make("ul");
      const parts = LETTERS.map(v => {
        const part = make("i"), swatch = make("i"), count = make("b"), row = make("li", {}, swatch, KINDS[v][0], count);
        part.dataset.v = swatch.dataset.v = v;
        whole.append(part);
        legend.append(row);
        return { v, part, count, row };
      });
      stage.host.append(whole, ends, legend);

      const point = event => {
        const k = document.elementFromPoint(event.clientX, event.clientY)?.closest?.(".cells i")?.dataset.k;
        if (k !== undefined && cells.contains(event.target)) stage.set({ image: Number(k) });
      };
      cells.addEventListener("pointerdown", point);
      cells.addEventListener("pointermove", point);
      cells.addEventListener("focusin", event => stage.set({ image: Number(event.target.dataset.k) }));
      cells.addEventListener("keydown", event => {
        const wide = getComputedStyle(cells).gridTemplateColumns.split(" ").length;
        const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide, Home: -1e4, End: 1e4 }[event.key];
        if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
        event.preventDefault();
        const at = order.indexOf(Number(event.target.dataset.k)), far = Math.abs(by) === 1e4;
        const to = far ? Math.min(Math.max(at + by, 0), order.length - 1) : at + by;
        if (to in order) all[order[to]].focus();
      });

      let order = [], shown = "", chosen = null;
      /** What the figure shows now; what a test asks for. */
      stage.seen = () => ({ ...read(stage.get()), order: [...order] });
      return state => {
        const now = read(state), { letters, n, counts, nodes } = now;
        const key = JSON.stringify([state.width, state.training, now.eps, state.search, state.sort]);
        const name = k => `Image ${k + 1}, a ${labels[k]}: ${KINDS[letters[k]][0]}`;
        if (key !== shown) {
          shown = key;
          order = [...letters.keys()];
          if (state.sort === "verdict") order.sort((a, b) => LETTERS.indexOf(letters[a]) - LETTERS.indexOf(letters[b]) || a - b);
          order.forEach(k => {
            all[k].dataset.v = letters[k];
            all[k].setAttribute("aria-label", name(k));
          });
          const held = cells.contains(document.activeElement);
          cells.replaceChildren(...order.map(k => all[k]));
          if (held) all[Math.min(state.image, n - 1)].focus();
          for (const label of radii.querySelectorAll("label")) label.style.display = now.radii.includes(Number(label.firstChild.value)) ? "" : "none";
        }
        if (now.eps !== state.eps || state.image >= n) return stage.set({ eps: now.eps, image: Math.min(state.image, n - 1) });
        const k = state.image;
        if (chosen) {
          chosen.tabIndex = -1;
          chosen.setAttribute("aria-selected", "false");
        }
        chosen = all[k];
        chosen.tabIndex = 0;
        chosen.setAttribute("aria-selected", "true");
        digit.grey(picture(k));
        digit.call(`Image ${k + 1}, a ${labels[k]}, coarsely.`);
        const spent = state.search && k in nodes ? `, after ${nodes[k]} subproblem${nodes[k] === 1 ? "" : "s"}` : "";
        const left = !state.search && k in nodes ? "; no attack and no bound decides it, only search can" : "";
        told.textContent = `${name(k)}${spent}${left}.`;

        const { wrong, open, safe } = sides(now), share = v => `${Number((100 * v / n).toFixed(1))} %`;
        for (const { v, part, count, row } of parts) {
          part.style.flexGrow = counts[v];
          part.hidden = !counts[v];
          count.textContent = counts[v];
          row.toggleAttribute("data-none", !counts[v]);
        }
        const truth = open ? `between ${share(wrong)} and ${share(wrong + open)}` : share(wrong);
        ends.textContent = `Wrong for certain ${wrong}, undecided ${open}, safe for certain ${safe} of ${n}: the robust error on these images is ${truth}.`;
        const list = LETTERS.filter(v => counts[v]).map(v => `${KINDS[v][0]} ${counts[v]}`).join(", ");
        whole.setAttribute("aria-label", `A bar of ${n} images: ${list}.`);
        cells.setAttribute("aria-label", `${n} images of ${now.words}, radius ${now.eps}, ${state.sort === "number" ? "by number" : "by verdict"}`);
        stage.say(`${now.words}, radius ${now.eps}, branch and bound ${state.search ? "on" : "off"}. ${ends.textContent} ${told.textContent}`);
      };
    },
  };
})(globalThis.Sides);
