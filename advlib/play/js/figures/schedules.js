/* Schedules of the step: how long each step is, and how far PGD gets with it. */
"use strict";
(Sides => {
  const EPS = .1, FLOOR = .01;
  /** Step k of `steps`, from the first step `a`; APGD's is found on the way. */
  const RULES = {
    constant: a => a,
    linear: (a, k, steps) => a * (1 - k / steps),
    cosine: (a, k, steps) => a * (1 + Math.cos(Math.PI * k / steps)) / 2,
    geometric: (a, k, steps) => a * .01 ** (k / Math.max(steps - 1, 1)),
  };
  const NAMES = ["constant", "linear", "cosine", "geometric", "APGD"];
  const DASHES = { constant: "", linear: "7 3", cosine: "2 3", geometric: "8 3 2 3", APGD: "14 4" };

  /** Where an attack stands: logits, margin, loss and its gradient at delta. */
  const look = (net, x, label, delta) => {
    const all = Sides.forward(net, x.map((v, i) => v + delta[i])), z = all.at(-1);
    const slope = Sides.softmax(z), top = Math.max(...z);
    slope[label] -= 1;
    const loss = top - z[label] + Math.log(z.reduce((s, v) => s + Math.exp(v - top), 0));
    return { delta, margin: Sides.margin(z, label).least, loss, gradient: Sides.gradient(net, all, slope) };
  };

  /** A step of length a along the signs, then momentum, in the room of each pixel. */
  const step = ({ low, high }, from, previous, gradient, a, momentum) => {
    const into = (v, i) => Math.min(Math.max(v, low[i]), high[i]);
    const ahead = from.map((v, i) => into(v + a * Math.sign(gradient[i]), i));
    if (!momentum) return ahead;
    return ahead.map((v, i) => into(from[i] + .75 * (v - from[i]) + .25 * (from[i] - previous[i]), i));
  };

  /**
   * PGD with a schedule: the length of each step, the margin at each point.
   * @returns {{lengths: number[], margins: number[], delta: Float64Array}}
   */
  const pgd = (net, x, label, { rule, first, steps, momentum }) => {
    const room = Sides.room(x, EPS), lengths = [];
    let now = look(net, x, label, new Float64Array(x.length)), previous = now.delta;
    const margins = [now.margin];
    for (let k = 0; k < steps; k++) {
      lengths.push(RULES[rule](first, k, steps));
      const moved = step(room, now.delta, previous, now.gradient, lengths[k], momentum);
      previous = now.delta;
      now = look(net, x, label, moved);
      margins.push(now.margin);
    }
    return { lengths, margins, delta: now.delta };
  };

  /** After which steps APGD considers halving: ever closer. */
  const checkpoints = steps => {
    const shares = [0, .22], all = new Set();
    while (shares.at(-1) < 1) shares.push(shares.at(-1) + Math.max(shares.at(-1) - shares.at(-2) - .03, .06));
    for (const s of shares.slice(1)) all.add(Math.ceil(Number((s * steps).toFixed(6))));
    return all;
  };

  /** APGD as `advlib.attacks.apgd`, with its first step as a choice; `delta` its best. */
  const apgd = (net, x, label, { first, steps }) => {
    const room = Sides.room(x, EPS), checks = checkpoints(steps), lengths = [];
    let now = look(net, x, label, new Float64Array(x.length)), previous = now.delta;
    let top = now, found = now, size = first, sizeBefore = first, bestBefore = now.loss, rises = 0, looks = 0, value = now.loss;
    const margins = [now.margin];
    for (let k = 0; k < steps; k++) {
      lengths.push(size);
      const moved = step(room, now.delta, previous, now.gradient, size, k > 0);
      previous = now.delta;
      now = look(net, x, label, moved);
      margins.push(now.margin);
      if (now.loss > value) rises++;
      looks++;
      value = now.loss;
      const wrong = now.margin < 0, had = found.margin < 0;
      if ((wrong && !had) || (now.loss > top.loss && wrong === had)) found = now;
      if (now.loss > top.loss) top = now;
      if (!checks.has(k + 1)) continue;
      const stuck = rises < .75 * looks || (size === sizeBefore && top.loss === bestBefore);
      [sizeBefore, bestBefore, rises, looks] = [size, top.loss, 0, 0];
      if (stuck) [size, now, value] = [size / 2, top, top.loss];
    }
    return { lengths, margins, delta: found.delta };
  };

  /** The least so far. */
  const least = margins => margins.reduce((all, v) => [...all, Math.min(v, all.at(-1) ?? Infinity)], []);
  const number = v => v.toFixed(2).replace("-", "−");

  Sides.figures.schedules = {
    title: "Slide the first step: which schedule still arrives, which one jumps about?",
    uses: ["network", "attack"],
    needs: ["standard", "digits"],
    state: { rule: "constant", first: 1, steps: 20, momentum: "without", digit: 3 },
    build(stage) {
      const images = Sides.draw.digits(), net = Sides.network(Sides.notes.standard), { axes } = Sides.draw;
      const top = stage.row(), low = stage.row();
      stage.choice({ key: "rule", label: "schedule, drawn in colour", into: top, options: NAMES.map(name => [name, name]) });
      stage.slider({ key: "first", label: "first step α₀ / ϵ", min: .05, max: 2, step: .05, into: low, text: v => v.toFixed(2) });
      stage.slider({ key: "steps", label: "steps", min: 2, max: 40, step: 1, into: low });
      const table = stage.row(), places = ["length of each step / ϵ", "least margin so far, above the lowest found here"].map(words => {
        const place = stage.make("div");
        stage.panel(words, place, table);
        Object.assign(place.parentElement.style, { flex: "1 1 16rem", minWidth: 0, display: "block" });
        return place;
      });
      const below = stage.row();
      stage.choice({ key: "digit", label: "digit, one image each", into: below, options: images.map((_, k) => [k, String(k)]) });
      stage.choice({ key: "momentum", label: "momentum (APGD always has it)", into: below, options: [["without", "without"], ["with", "with"]] });
      const words = stage.make("p");
      words.style.minHeight = "4.2em";
      stage.host.append(words);

      let last = null;
      const chart = (place, y, scale, lines, label, ticks, steps) => {
        const { rule } = stage.get();
        const plot = axes({ width: Math.max(place.clientWidth, 200), height: 190, x: [0, steps], y, xlabel: "step",
          ticks: { x: [0, Math.round(steps / 2), steps] }, words: label });
        for (const [v, text] of ticks) {
          plot.line([[0, scale(v)], [steps, scale(v)]], "var(--s-line)", { width: 1 });
          plot.element.append(Sides.draw.svg("text", { x: 34, y: plot.Y(scale(v)) + 4, "text-anchor": "end", class: "quiet" }, text));
        }
        for (const name of [...NAMES.filter(one => one !== rule), rule])
          plot.line(lines[name].map(([k, v]) => [k, scale(v)]), name === rule ? "pgd" : "var(--s-quiet)",
            { width: name === rule ? 3 : 1.2, dashes: name === rule ? "" : DASHES[name] });
        plot.element.style.width = "100%";
        place.replaceChildren(plot.element);
      };
      const draw = () => {
        const { state, runs } = last, { steps, first } = state;
        const stairs = Object.fromEntries(NAMES.map(name => [name, runs[name].lengths.flatMap((v, k) => [[k, v / EPS], [k + 1, v / EPS]])]));
        const most = Math.max(first, .1), mine = runs[state.rule];
        chart(places[0], [0, 1.08 * most], v => v, stairs, `Steps by the ${state.rule} schedule, from ${number(mine.lengths[0] / EPS)} to ${number(mine.lengths.at(-1) / EPS)} of the radius.`,
          [0, most / 2, most].map(v => [v, v.toFixed(2)]), steps);
        const lowest = Math.min(...NAMES.map(name => least(runs[name].margins).at(-1)));
        const gaps = Object.fromEntries(NAMES.map(name => [name, least(runs[name].margins).map((v, k) => [k, Math.max(v - lowest, FLOOR)])]));
        chart(places[1], [Math.log10(FLOOR), 1.3], Math.log10, gaps, `Margins above the lowest found here: ${NAMES.map(name => `${name} ${number(gaps[name].at(-1)[1])}`).join(", ")}.`,
          [[.01, "≤ .01"], [.1, ".1"], [1, "1"], [10, "10"]], steps);
      };
      for (const place of places) stage.sized(place, () => last && draw());
      stage.runs = () => last?.runs;
      return state => {
        const { rule, first, steps, digit, momentum } = state, x = images[digit], key = [first, steps, digit, momentum].join();
        const runs = last?.key === key ? last.runs : {};
        for (const name of NAMES) runs[name] ??= name === "APGD" ? apgd(net, x, digit, { first: first * EPS, steps })
          : pgd(net, x, digit, { rule: name, first: first * EPS, steps, momentum: momentum === "with" });
        last = { state, runs, key };
        draw();
        const ends = NAMES.map(name => [name, least(runs[name].margins).at(-1)]), [, mine] = ends.find(([name]) => name === rule);
        const many = runs[rule].lengths.reduce((s, v) => s + v, 0) / EPS;
        const reach = many < 1 ? " All its steps together are shorter than the radius, so it cannot reach the edge of the ball." : "";
        words.textContent = `Least margin after ${steps} steps, ϵ = 0.1: ${ends.map(([name, v]) => `${name} ${number(v)}`).join(", ")}. The ${rule} schedule ${mine < 0 ? "fools the network" : "does not fool it"}.${reach}`;
        stage.say(`Digit ${digit}, first step ${first.toFixed(2)} of the radius. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
