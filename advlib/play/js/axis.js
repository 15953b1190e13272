/* The worst margin between two sides, and all that shows it: the image, its perturbation,
   the classes, one row for each method, the band in between, the verdict. */
"use strict";
(Sides => {
  const { svg, ink } = Sides.draw;
  const LEFT = 104, RIGHT = 10, ROW = 23, TOP = 20;
  const FROM = -Math.asinh(500), TO = Math.asinh(50), TICKS = [-100, -10, -1, 0, 1, 10];
  const number = v => (Math.abs(v) < 9.95 ? v.toFixed(2) : v.toFixed(0)).replace("-", "\u2212");
  const ROWS = [ // method, words, what it says of an image
    ["pgd", "attack (PGD)", found => ({ upper: found.attack })],
    ["exact", "branch & bound", found => found.exact ?? {}],
    ["alpha", "slopes", found => ({ lower: found.slopes })],
    ["crown", "CROWN", found => ({ lower: found.crown })],
    ["interval", "intervals", found => ({ lower: found.interval })],
  ];

  /**
   * One axis, a row for each method: what it rules out is filled, from the left by a
   * bound, from the right by an attack; the last row is what remains.
   * @param {object} stage @param {Element} [into]
   */
  Sides.squeezeAxis = (stage, into) => {
    const height = TOP + ROW * (ROWS.length + 1) + 30;
    const element = svg("svg", { height, role: "img", "aria-label": "the worst margin" });
    const box = stage.row("", into);
    box.append(element);
    let width = 600, last = null;
    const X = v => LEFT + (Math.min(Math.max(Math.asinh(v), FROM), TO) - FROM) / (TO - FROM)
      * (width - LEFT - RIGHT);
    const right = () => width - RIGHT;
    const rect = (a, b, y, attributes) => svg("rect", { x: Math.min(a, b), y, height: ROW - 8,
      width: Math.max(Math.abs(b - a), 0), ...attributes });
    const draw = () => {
      element.setAttribute("viewBox", `0 0 ${width} ${height}`);
      const parts = [], low = TOP + ROW * (ROWS.length + 1), zero = X(0);
      const text = (x, y, words, more = {}) => parts.push(svg("text", { x, y, ...more }, words));
      for (const v of TICKS) {
        parts.push(svg("line", { x1: X(v), x2: X(v), y1: TOP - 4, y2: low, "stroke-width": v ? 1 : 2,
          stroke: v ? "var(--s-line)" : "var(--s-ink)" }));
        text(X(v), low + 14, number(v).replace(/\.00/, ""), { "text-anchor": "middle", class: "quiet" });
      }
      text(zero - 6, TOP - 8, "← fooled", { "text-anchor": "end", style: "fill: var(--s-fooled)" });
      text(zero + 6, TOP - 8, "safe →", { style: "fill: var(--s-safe)" });
      text((LEFT + right()) / 2, low + 29, "worst margin", { "text-anchor": "middle", class: "quiet" });
      ROWS.forEach(([method, words, of], k) => {
        const y = TOP + ROW * k + 4, base = y + 12;
        text(0, base, words);
        if (!last) return;
        const { lower, upper } = of(last);
        const side = (v, edge) => {
          parts.push(rect(X(v), edge, y, { fill: ink(method), opacity: .35 }),
            svg("line", { x1: X(v), x2: X(v), y1: y - 2, y2: y + ROW - 6, stroke: ink(method), "stroke-width": 4 }));
        };
        if (lower !== undefined && lower > -Infinity) side(lower, LEFT);
        if (upper !== undefined) side(upper, right());
        if (lower === undefined && upper === undefined) {
          text(LEFT + 6, base, "…", { class: "quiet" });
          return;
        }
        const shown = upper ?? lower, free = X(shown) + 52 < right();
        const covers = from => from < zero && zero < from + 40; // the line at zero
        const after = X(shown) + 7, before = X(shown) - 47;
        const wants = upper !== undefined && X(lower ?? -1e9) < X(upper) - 52 ? false : free;
        const beside = !wants && covers(before) && !covers(after) && free ? true
          : wants && covers(after) && !covers(before) ? false : wants;
        text(X(shown) + (beside ? 7 : -7), base, number(shown), { "text-anchor": beside ? "start" : "end" });
      });
      if (last) {
        const { lower, upper } = Sides.ends(last), y = TOP + ROW * ROWS.length + 4;
        const is = Sides.verdict(last);
        const colour = `var(--s-${{ misread: "fooled" }[is] ?? is})`;
        const from = lower > -Infinity ? X(lower) : LEFT;
        text(0, y + 12, "in between", { "font-weight": 700 });
        parts.push(rect(from, Math.max(X(upper), from + 4), y, { fill: colour, class: "band" }));
      }
      element.replaceChildren(...parts);
    };
    stage.sized(box, w => {
      width = Math.max(w, 260);
      draw();
    });
    return {
      element,
      show(found) {
        last = found;
        draw();
        const { lower, upper } = Sides.ends(found);
        element.setAttribute("aria-label", `The worst margin lies between ${number(lower)} and ${number(upper)}. `
          + ROWS.map(([, words, of]) => {
            const { lower: a, upper: b } = of(found);
            return a === undefined && b === undefined ? null
              : `${words}: ${[a, b].filter(v => v !== undefined).map(number).join(" to ")}`;
          }).filter(Boolean).join("; ") + ".");
      },
    };
  };

  const NAMES = { interval: "intervals prove", crown: "CROWN proves", slopes: "optimised slopes prove", exact: "branch and bound proves" };
  /** Which method proves it, the cheapest first. */
  const prover = found => Object.keys(NAMES).find(
    key => (key === "exact" ? found.exact?.lower : found[key]) > Sides.SURE);

  /** The verdict in a sentence. */
  const sentence = (is, found, fooledAs, busy) => ({
    misread: () => `The network misreads the image as it is: it says ${found.said}.`,
    fooled: () => `An allowed change makes the network say ${fooledAs}.`,
    safe: () => `No allowed change fools the network: ${NAMES[prover(found)]} it.`,
    open: () => busy ? "No attack found, no proof yet: branch and bound is at work."
      : "No attack found and no proof: what is true lies in the band.",
  })[is]();

  /**
   * All that shows one image held from both sides.
   * @param {object} stage
   * @returns {{show: function({net: string, x: Float64Array, label: number,
   *            eps: number}): void, found: function(): object|null}} `show` computes
   *   and draws; slopes and branch and bound follow when their helper has them
   */
  Sides.held = (stage, { settle = 150 } = {}) => {
    const panels = stage.row("panels"), helper = Sides.helper();
    const [image, change, changed] = ["the image", "the change", "the image, changed"].map(words => Sides.draw.bitmap(words));
    const names = [image, change, changed].map((one, k) => stage.panel(["image", "change", "changed image"][k], one.canvas, panels).name);
    const bars = Sides.draw.classBars("what the network says");
    names.push(stage.panel("what it says", bars.element, panels).name);
    const axis = Sides.squeezeAxis(stage);
    const badge = stage.make("b"), words = stage.make("span");
    stage.host.append(stage.make("p", { className: "verdict" }, badge, words));
    let asked = null, found = null, timer = 0;
    const same = (a, b) => a && ["net", "x", "label", "eps"].every(key => a[key] === b[key]);

    const picture = () => {
      const { net, x, label, eps } = asked, point = found.point ?? x.map((v, i) => v + found.delta[i]);
      const share = Sides.softmax(Sides.logits(Sides.net(net), point));
      const top = share.indexOf(Math.max(...share));
      image.grey(x);
      change.change(point.map((v, i) => v - x[i]), eps);
      changed.grey(point);
      bars.show(share, label);
      names[0].textContent = `image: ${label}`;
      names[1].textContent = `change, at most ${eps.toFixed(2)}`;
      names[3].textContent = `says ${top} (${Math.round(100 * share[top])} %)`;
      bars.call(`Bars: the network gives class ${top} ${Math.round(100 * share[top])} percent.`);
      image.call(`The image of a ${label}.`);
      change.call(`The change that the attack found, at most ${eps.toFixed(2)} a pixel.`);
      changed.call(`The changed image; the network says ${top}.`);
      return top;
    };
    const tell = busy => {
      const top = picture(), is = Sides.verdict(found), text = sentence(is, found, top, busy);
      axis.show(found);
      badge.textContent = badge.dataset.is = is;
      words.textContent = text;
      const { lower, upper } = Sides.ends(found);
      stage.say(`Radius ${asked.eps.toFixed(2)}: ${is}. ${text} The worst margin lies between ${number(lower)} and ${number(upper)}.`);
      stage.host.dataset.verdict = is;
      stage.host.dataset.busy = String(busy);
    };
    const more = now => {
      const points = [now.x.map((v, i) => v + found.delta[i])];
      helper.ask(now.net, "slow", [now.x, now.label, now.eps, { seconds: .4, points }], far => {
        if (!same(asked, now)) return;
        const better = far.exact.upper < found.attack - 1e-9;
        found = { ...found, ...far, point: better ? far.point : undefined };
        tell(false);
      });
    };
    return {
      show(next) {
        if (same(asked, next)) return;
        asked = { ...next };
        clearTimeout(timer);
        helper.forget();
        const now = asked, { net: name, x, label, eps } = now, net = Sides.net(name);
        stage.host.dataset.busy = "true";
        if (net.every(layer => layer instanceof Sides.Dense)) {
          found = { ...Sides.quick(net, x, label, eps), ...Sides.linear(net, x, label, eps) };
          tell(true);
          timer = setTimeout(more, settle, now);
        } else {
          timer = setTimeout(() => helper.ask(name, "quick", [x, label, eps], first => {
            if (!same(asked, now)) return;
            found = first;
            tell(true);
            more(now);
          }), settle);
        }
      },
      /** All numbers so far, or null. */
      found: () => found && { ...found },
    };
  };
})(globalThis.Sides);
