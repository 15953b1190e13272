/* The shortest way to a target: for each c the minimiser of c |delta|^2 + cross-entropy
   towards the target, in the box; the reader bisects for the largest c that arrives. */
"use strict";
(Sides => {
  const LEAST = -3, MOST = 3, DEEP = 400;

  /** Value and gradient of the penalised loss at the image z. */
  const loss = (net, x, target, c, z) => {
    const all = Sides.forward(net, z), share = Sides.softmax(all.at(-1)), logits = all.at(-1);
    const top = Math.max(...logits), log = top + Math.log(logits.reduce((sum, v) => sum + Math.exp(v - top), 0));
    let value = log - logits[target];
    share[target] -= 1;
    const g = Sides.gradient(net, all, share);
    for (let i = 0; i < z.length; i++) {
      const r = z[i] - x[i];
      value += c * r * r;
      g[i] += 2 * c * r;
    }
    return { value, g, logits };
  };

  /**
   * Minimise it by spectral projected gradients (Birgin and others 2000), from x.
   * @returns {{point: Float64Array, value: number, rms: number, said: number, share: Float64Array}}
   */
  const solve = (net, x, target, c) => {
    const clip = v => Math.min(Math.max(v, 0), 1), dot = (a, b) => a.reduce((sum, v, i) => sum + v * b[i], 0);
    let z = x.slice(), now = loss(net, x, target, c, z), step = .1, best = { z, now };
    const last = [now.value];
    for (let k = 0; k < DEEP; k++) {
      const way = z.map((v, i) => clip(v - step * now.g[i]) - v), slope = dot(way, now.g);
      if (slope > -1e-10) break;
      const worst = Math.max(...last.slice(-10));
      let part = 1, next, there;
      for (let tries = 0; tries < 25; tries++, part /= 2) {
        there = z.map((v, i) => v + part * way[i]);
        next = loss(net, x, target, c, there);
        if (next.value <= worst + 1e-4 * part * slope) break;
      }
      const s = there.map((v, i) => v - z[i]), y = next.g.map((v, i) => v - now.g[i]), sy = dot(s, y);
      step = sy > 0 ? Math.min(Math.max(dot(s, s) / sy, 1e-4), 10) : 1;
      [z, now] = [there, next];
      last.push(now.value);
      if (now.value < best.now.value) best = { z, now };
      if (k > 40 && last.at(-40) - best.now.value < 1e-6) break;
    }
    const square = best.z.reduce((sum, v, i) => sum + (v - x[i]) ** 2, 0);
    const share = Sides.softmax(best.now.logits);
    return { point: best.z, value: best.now.value, rms: Math.sqrt(square / x.length), share, said: share.indexOf(Math.max(...share)) };
  };

  const words = log => +(10 ** log).toPrecision(3);
  const fresh = { log: 0, tried: [] };

  Sides.figures.spot = {
    title: "Find the largest c that still reaches the target",
    uses: ["network"],
    needs: ["standard", "digits"],
    state: { digit: 2, target: 3, ...fresh },
    solve,
    build(stage) {
      const net = Sides.network(Sides.notes.standard), images = Sides.draw.digits(), kept = new Map();
      const options = images.map((_, k) => [k, String(k)]), first = stage.row();
      stage.choice({ key: "digit", label: "image of a", into: first, options });
      stage.choice({ key: "target", label: "target: it should say", into: first, options });
      const slider = stage.slider({ key: "log", label: "c, weight of the length", into: stage.row(), min: LEAST, max: MOST, step: .01, text: v => String(words(v)) });
      const buttons = stage.row();
      const go = (near, end) => () => { // half the way to the next one tried, or to the end
        const { log, tried } = stage.get(), beyond = tried.filter(at => (at - log) * end > 0);
        const next = beyond.length ? near(...beyond) : end * MOST;
        stage.set({ log: Math.round(50 * (log + next)) / 100 });
      };
      const smaller = stage.button("smaller", go(Math.max, -1), buttons);
      const larger = stage.button("larger", go(Math.min, 1), buttons);
      stage.button("start again", () => stage.set({ ...fresh }), buttons);
      stage.changed = (state, key) => {
        if (key === "digit" || key === "target") stage.set({ ...fresh });
      };
      const panels = stage.row("panels"), [image, change, changed] = ["the image", "the change", "the image, changed"].map(w => Sides.draw.bitmap(w));
      const names = [image, change, changed].map(one => stage.panel("", one.canvas, panels).name);
      const bars = Sides.draw.classBars("what the network says");
      names.push(stage.panel("", bars.element, panels).name);
      const note = stage.make("p"), chart = stage.make("div");
      note.style.cssText = "margin: 0 0 .4rem; min-height: 2.8em";
      stage.host.append(note, chart);
      let width = 0;
      stage.sized(chart, w => {
        width = w;
        stage.redraw();
      });

      const found = (digit, target, log) => {
        const key = `${digit} ${target} ${log}`;
        if (!kept.has(key)) kept.set(key, solve(net, images[digit], target, 10 ** log));
        return kept.get(key);
      };
      /** The largest log c that arrived, and the least beyond it that did not. */
      const bracket = ({ digit, target, tried }) => {
        const hits = tried.filter(at => found(digit, target, at).said === target);
        const low = Math.max(LEAST - 1, ...hits), high = Math.min(MOST + 1, ...tried.filter(at => at > low && !hits.includes(at)));
        return { low, high };
      };
      const plot = ({ digit, target, log, tried }, { low, high }) => {
        const rows = tried.map(at => [at, found(digit, target, at)]);
        const top = Math.max(.05, Math.ceil(20 * Math.max(...rows.map(([, one]) => one.rms))) / 20);
        const axes = Sides.draw.axes({
          width, height: 200, x: [LEAST, MOST], y: [0, top], xlabel: "c, weight of the length", ticks: { y: [0, top / 2, top].map(v => +v.toFixed(3)) },
          words: `Length of the change for ${rows.length} values of c; filled where the target is reached.`,
        });
        for (let at = LEAST; at <= MOST; at++) axes.text([at, 0], String(10 ** at), "middle");
        axes.element.querySelectorAll("text").forEach((one, k, all) => { if (k >= all.length - 7) one.setAttribute("dy", 16); });
        axes.text([LEAST + .05, top], "RMS of the change");
        const edge = at => axes.line([[at, 0], [at, top]], "var(--s-quiet)", { width: 1, dashes: "3 3" });
        if (low >= LEAST) edge(low);
        if (high <= MOST) edge(high);
        for (const [at, { rms, said }] of rows.sort((a, b) => a[0] - b[0])) {
          axes.dot([at, rms], "pgd", at === log ? 8 : 5);
          if (said !== target) axes.dot([at, rms], "var(--s-page)", at === log ? 6 : 3);
        }
        chart.replaceChildren(axes.element);
      };

      return state => {
        const { digit, target, log } = state, x = images[digit], same = digit === target;
        for (const one of [slider, smaller, larger]) one.disabled = same;
        if (same) {
          note.textContent = "The network says so already: choose another target.";
          stage.say(note.textContent);
          return;
        }
        const now = found(digit, target, log), hit = now.said === target;
        if (!state.tried.includes(log)) stage.set({ tried: [...state.tried, log] });
        const { low, high } = bracket(stage.get()), both = low >= LEAST && high <= MOST;
        const delta = now.point.map((v, i) => v - x[i]), most = Math.max(1e-9, ...delta.map(Math.abs));
        image.grey(x);
        change.change(delta, most / 1.4);
        changed.grey(now.point);
        bars.show(now.share, digit);
        names[0].textContent = `image: ${digit}`;
        names[1].textContent = `change, up to ${most.toFixed(2)}`;
        names[2].textContent = `RMS ${now.rms.toFixed(4)}`;
        names[3].textContent = `says ${now.said} (${Math.round(100 * now.share[now.said])} %)`;
        changed.call(`The changed image; the network says ${now.said}.`);
        bars.call(`Bars: the network says ${now.said}, ${Math.round(100 * now.share[now.said])} percent.`);
        const told = both ? ` The largest c that arrives lies between ${words(low)} and ${words(high)}.` : "";
        const said = hit ? "reached. Press “larger”." : "missed. Press “smaller”.";
        note.textContent = both && high - low < .015 ? `Found: c = ${words(low)} arrives, ${words(high)} does not; RMS ${found(digit, target, low).rms.toFixed(3)}.`
          : `c = ${words(log)}: the target ${target} is ${said}${told}`;
        stage.say(`${note.textContent} RMS ${now.rms.toFixed(4)}; the network says ${now.said}.`);
        stage.seen = { ...now, hit, low, high };
        if (width) plot(stage.get(), { low, high });
      };
    },
  };
})(globalThis.Sides);
