/* Five networks without their names: ask for checks, say which one hides something. */
"use strict";
(Sides => {
  const MANY = 5, WEAK = .3; // networks in a round; an error above this is no robustness
  const KINDS = [["robust", "robust"], ["weak", "weak"], ["masked", "masked"]];
  const REASONS = {
    quantised: "Its pixels are rounded to 8 levels, so its gradient is zero.",
    "logits x 1000": "Its logits are multiplied by 1000, so the gradient of the cross-entropy is zero.",
    clipped: "A clip in front of it has slope zero at 0 and 1, where most pixels are.",
    rippled: "Ripples in front of it turn the slope round between two grey levels.",
  };
  const percent = v => `${(100 * v).toFixed(1)} %`;
  const kind = ({ mask, wrong }, images) => (mask ? "masked" : wrong[1] > WEAK * images ? "weak" : "robust");

  /** Numbers in [0, 1) from a seed (mulberry32). */
  const random = seed => () => {
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  /** The places of a round's networks: one masked and one robust at least. */
  const deal = (record, seed) => {
    const next = random(seed), pools = { masked: [], robust: [], weak: [] };
    record.networks.forEach((one, k) => pools[kind(one, record.images)].push(k));
    const kinds = ["masked", "robust"];
    while (kinds.length < MANY) {
      const r = next();
      kinds.push(r < .4 ? "masked" : r < .75 ? "robust" : "weak");
    }
    const drawn = kinds.map(name => pools[name].splice(Math.floor(next() * pools[name].length), 1)[0]);
    for (let k = MANY - 1; k > 0; k--) {
      const j = Math.floor(next() * (k + 1));
      [drawn[k], drawn[j]] = [drawn[j], drawn[k]];
    }
    return drawn;
  };

  const fresh = () => ({ at: 0, asked: Array.from({ length: MANY }, () => []), answers: [] });
  const letter = k => "ABCDE"[k];

  Sides.figures.cheats = {
    title: "Which network hides something?",
    needs: ["cheats"],
    state: { seed: 0, ...fresh() },
    build(stage) {
      const record = Sides.records.cheats, { make } = stage;
      const start = seed => stage.set({ seed, ...fresh() });
      const marks = stage.row(), chips = Array.from({ length: MANY }, (_, k) => {
        const chip = make("span", { textContent: letter(k) });
        Object.assign(chip.style, { padding: ".1rem .6rem", border: "2px solid", borderRadius: "1rem" });
        marks.append(chip);
        return chip;
      });
      const name = make("p"), list = make("div");
      name.style.fontWeight = 700;
      stage.host.append(name, list);
      Object.assign(list.style, { display: "grid", gap: ".25rem", marginBottom: ".7rem" });

      /** A line: a word or a button, then words or a bar with its number. */
      const line = (head, colour) => {
        const fill = make("div"), tick = make("div"), track = make("div", {}, fill, tick);
        const said = make("span"), bar = make("div", {}, track, said), about = make("span", { className: "quiet" });
        const row = make("div", {}, head, about, bar);
        Object.assign(row.style, { display: "grid", gridTemplateColumns: "8.2rem minmax(0, 1fr)", gap: ".7rem", alignItems: "center" });
        Object.assign(bar.style, { display: "grid", gridTemplateColumns: "minmax(0, 1fr) 7.2rem", gap: ".5rem", alignItems: "center" });
        Object.assign(track.style, { position: "relative", height: ".9rem", background: "var(--s-tint)" });
        Object.assign(fill.style, { height: "100%", minWidth: "2px" });
        Object.assign(tick.style, { position: "absolute", top: "-.2rem", bottom: "-.2rem", width: "2px", background: "var(--s-ink)" });
        Object.assign(about.style, { color: "var(--s-quiet)", fontSize: ".92em", lineHeight: 1.25 });
        said.style.fontVariantNumeric = "tabular-nums";
        list.append(row);
        return {
          row, about, head,
          show(value, words, { threshold, fired = false } = {}) {
            about.hidden = true;
            bar.style.display = "grid";
            fill.style.width = `${100 * value}%`;
            fill.style.background = fired ? "var(--s-fooled)" : colour;
            tick.hidden = threshold === undefined;
            tick.style.left = `${100 * (threshold ?? 0)}%`;
            said.textContent = words;
            said.style.fontWeight = fired ? 700 : 400;
          },
          hide(words) {
            about.hidden = false;
            about.textContent = words;
            bar.style.display = "none";
          },
        };
      };
      const word = words => make("span", { textContent: words });
      const clean = line(word("no attack"), "var(--m-clean)"), pgd = line(word("PGD, 40 steps"), "var(--m-pgd)");
      const under = line(word("attack under the mask"), "var(--m-pgd)");
      const ask = k => {
        const { at, asked, answers } = stage.get();
        if (at >= MANY || answers[at] || asked[at].includes(k)) return;
        stage.set({ asked: asked.map((all, j) => (j === at ? [...all, k] : all)) });
      };
      const lines = record.checks.map(([check], k) => {
        const button = make("button", { type: "button", textContent: check });
        button.addEventListener("click", () => ask(k));
        return line(button, "var(--s-quiet)");
      });
      const answer = stage.row(), verdicts = KINDS.map(([value, words]) =>
        stage.button(words, () => {
          const { at, answers } = stage.get();
          if (at < MANY && !answers[at]) stage.set({ answers: [...answers, value] });
        }, answer));
      answer.prepend(Object.assign(make("span", { textContent: "your verdict:" }), { className: "label" }));
      answer.style.alignItems = "center";
      const badge = make("b"), reason = make("span");
      stage.host.append(make("p", { className: "verdict" }, badge, reason));
      const onward = stage.row(), next = stage.button("Next network", () => {
        const { at } = stage.get();
        if (at >= MANY) start(Math.floor(Math.random() * 2 ** 31));
        else stage.set({ at: at + 1 });
        (at + 1 < MANY || at >= MANY ? lines[0].head : next).focus({ preventScroll: true });
      }, onward);

      /** Why a network is what it is. */
      const why = one => {
        const { images } = record, [, hit, adaptive] = one.wrong.map(v => v / images);
        const fired = record.checks.filter((_, k) => one.fired[k]).map(([check]) => check);
        const alarm = fired.length ? ` Checks that fire: ${fired.join(", ")}.` : " No check fires.";
        if (one.mask) return `${one.name}, masked. ${REASONS[one.mask]} PGD reports ${percent(hit)}; PGD on what is under the mask finds ${percent(adaptive)}.${alarm}`;
        if (hit > WEAK) return `${one.name}: PGD itself fools ${percent(hit)}, so nothing need be hidden.${alarm}${fired.length ? " That alarm is about a weak loss: the network is linear." : ""}`;
        return `${one.name}: PGD's ${percent(hit)} stands against all that this record tried. That is evidence, not a proof.${alarm}`;
      };
      stage.round = () => deal(record, stage.get().seed).map(k => ({ ...record.networks[k], kind: kind(record.networks[k], record.images) }));

      const summary = ({ asked, answers }, round) => {
        const right = answers.filter((value, k) => value === round[k].kind).length;
        const count = asked.flat().length;
        return `${right} of ${MANY} right, with ${count} ${count === 1 ? "check" : "checks"} asked. Two checks would do here: search and dead pixels catch each mask of this record.`;
      };
      if (!stage.get().seed) stage.set({ seed: 1 + Math.floor(Math.random() * 2 ** 31) });
      return state => {
        const { at, asked, answers } = state, round = stage.round(), over = at >= MANY, open = !over && !answers[at];
        chips.forEach((chip, k) => {
          const done = answers[k], right = done === round[k].kind;
          chip.textContent = `${letter(k)}${done ? (right ? " ✓" : " ✗") : ""}`;
          chip.style.color = done ? (right ? "var(--s-safe)" : "var(--s-fooled)") : k === at ? "var(--s-ink)" : "var(--s-quiet)";
        });
        list.hidden = answer.hidden = over;
        list.style.display = over ? "none" : "grid";
        answer.style.display = over || !open ? "none" : "flex";
        onward.style.display = open ? "none" : "flex";
        next.textContent = over ? "Play again" : at + 1 < MANY ? "Next network" : "See the score";
        if (over) {
          name.textContent = "The score";
          badge.textContent = `${answers.filter((value, k) => value === round[k].kind).length} of ${MANY}`;
          badge.dataset.is = "open";
          reason.textContent = summary(state, round);
          stage.say(summary(state, round));
          return;
        }
        const one = round[at], [bare, hit, adaptive] = one.wrong.map(v => v / record.images);
        name.textContent = `Network ${letter(at)}, radius ${one.eps}: wrong of ${record.images} test images`;
        clean.show(bare, percent(bare));
        pgd.show(hit, percent(hit));
        under.row.style.display = open || !one.mask ? "none" : "grid";
        under.show(adaptive, percent(adaptive), { fired: true });
        lines.forEach(({ head, show, hide, row }, k) => {
          const [check, threshold, meaning] = record.checks[k], known = asked[at].includes(k);
          head.setAttribute("aria-disabled", String(known || !open));
          head.style.opacity = known || !open ? .6 : 1;
          if (known || !open) show(one.shown[k], `${percent(one.shown[k])}${one.fired[k] ? " fires" : " silent"}`, { threshold, fired: Boolean(one.fired[k]) });
          else hide(meaning);
          head.title = meaning;
          head.setAttribute("aria-label", known || !open ? `${check}: ${percent(one.shown[k])}, ${one.fired[k] ? "fires" : "silent"}` : `ask ${check}`);
          row.style.opacity = !open && !known ? .75 : 1;
        });
        const right = answers[at] === one.kind;
        badge.style.display = open ? "none" : "";
        badge.textContent = open ? "" : right ? "right" : `no: ${one.kind}`;
        badge.dataset.is = right ? "safe" : "fooled";
        reason.textContent = open ? "Robust: PGD's number is small and can be believed. Weak: it is large. Masked: PGD's number is too small. Ask as few checks as you need." : why(one);
        const known = asked[at].map(k => `${record.checks[k][0]} ${percent(one.shown[k])}, ${one.fired[k] ? "fires" : "silent"}`);
        stage.say(`Network ${letter(at)} of ${MANY}: PGD fools ${percent(hit)}. ${known.length ? `Asked: ${known.join("; ")}.` : "Nothing asked."}${open ? "" : ` ${badge.textContent}. ${reason.textContent}`}`);
      };
    },
  };
})(globalThis.Sides);
