/* Catastrophic overfitting, epoch by epoch: three errors, and the loss on the ways of
   FGSM and PGD. */
"use strict";
(Sides => {
  const percent = v => `${(100 * v).toFixed(1)} %`, number = v => v.toFixed(2).replace("-", "−");
  const HIGH = 3.2, WAYS = [["fgsm", "FGSM", "fgsm", ""], ["pgd", "PGD", "pgd", ""]];
  const LINES = [["pgd", "PGD", "pgd", ""], ["fgsm", "FGSM", "fgsm", "7 4"], ["clean", "no attack", "clean", "2 3"]];

  Sides.figures.overfit = {
    title: "Slide through the epochs: when does FGSM stop seeing what PGD finds?",
    needs: ["overfit"],
    state: { run: "FGSM", epoch: 1 },
    build(stage) {
      const record = Sides.records.overfit, { axes, svg } = Sides.draw, many = record.runs.FGSM.length;
      const top = stage.row();
      stage.choice({ key: "run", label: "training", into: top,
        options: [["FGSM", "FGSM, from the image"], ["fast", "fast, from a random point"]] });
      const table = stage.row(), places = ["error on validation images", "mean loss on the way to the points of …"].map(words => {
        const place = stage.make("div"), { name } = stage.panel(words, place, table);
        Object.assign(place.parentElement.style, { flex: "1 1 16rem", minWidth: 0, display: "block" });
        return { place, name };
      });
      const low = stage.row();
      stage.slider({ key: "epoch", label: "epoch", min: 1, max: many, step: 1, into: low });
      let timer = 0;
      const stop = () => {
        clearInterval(timer);
        timer = 0;
        play.textContent = "Play";
      };
      const play = stage.button("Play", () => {
        if (timer) return stop();
        if (stage.still) return stage.set({ epoch: many });
        stage.set({ epoch: 1 });
        play.textContent = "Stop";
        timer = setInterval(() => {
          const { epoch } = stage.get();
          if (epoch + 1 >= many) stop();
          stage.set({ epoch: Math.min(epoch + 1, many) });
        }, 600);
      }, low);
      stage.changed = (_, key) => key && timer && stop();
      const words = stage.make("p");
      words.style.minHeight = "4.2em";
      stage.host.append(words);

      let state = stage.get(), left = null;
      const sized = ({ place }, how) => {
        const plot = axes({ width: Math.max(place.clientWidth, 200), height: 200, ...how });
        plot.element.style.width = "100%";
        place.replaceChildren(plot.element);
        return plot;
      };
      const drawErrors = () => {
        const rows = record.runs[state.run], now = rows[state.epoch - 1];
        left = sized(places[0], { x: [1, many], y: [0, 1], xlabel: "epoch", ticks: { x: [1, 5, many], y: [0, .5, 1] },
          words: `Errors after epoch ${state.epoch}: ${LINES.map(([key, name]) => `${name} ${percent(now[key])}`).join(", ")}.` });
        left.line([[state.epoch, 0], [state.epoch, 1]], "var(--s-ink)", { width: 1.5 });
        for (const [key, name, colour, dashes] of [...LINES].reverse()) {
          left.line(rows.map((row, k) => [k + 1, row[key]]), colour, { width: 2.5, dashes });
          left.dot([state.epoch, now[key]], colour, 5);
          left.text([2.1, rows[1][key] + .03], name);
        }
      };
      const drawRay = () => {
        const now = record.runs[state.run][state.epoch - 1], { shares } = record;
        const plot = sized(places[1], { x: [0, 1], y: [0, HIGH], xlabel: "share of the way", ticks: { x: [0, .5, 1], y: [0, 1, 2, 3] },
          words: WAYS.map(([key, name]) => `On the way to ${name}'s points the mean loss goes from ${number(now.rays[key].loss[0])} to ${number(now.rays[key].loss.at(-1))}; the gradient promises a rise of ${number(now.rays[key].slope)}.`).join(" ") });
        for (const [key, name, colour, dashes] of WAYS) {
          const { loss, slope } = now.rays[key], last = loss.at(-1);
          const end = slope > 0 ? Math.min(1, (HIGH - loss[0]) / slope) : 1;
          plot.line([[0, loss[0]], [end, loss[0] + end * slope]], colour, { width: 1.5, dashes: "2 4" });
          const under = loss.findIndex(v => v > HIGH), shown = under < 0 ? loss.length : under;
          plot.line(loss.slice(0, shown).map((v, k) => [shares[k], v]), colour, { width: 3, dashes });
          if (last <= HIGH) plot.dot([1, last], colour, 4);
          const ends = WAYS.map(([way]) => plot.Y(Math.min(now.rays[way].loss.at(-1), HIGH)) - 7);
          const y = Math.max(key === "fgsm" ? ends[0] : Math.min(ends[1], ends[0] - 15), 22);
          plot.element.append(svg("text", { x: plot.X(shares[shown - 1]) - 8, y, "text-anchor": "end" }, `${name} ${number(last)}${last > HIGH ? " ↑" : ""}`));
        }
      };
      places.forEach(({ place }, k) => stage.sized(place, () => (k ? drawRay() : drawErrors())));
      const to = epoch => {
        stop();
        stage.set({ epoch: Math.min(Math.max(Math.round(epoch), 1), many) });
      };
      stage.drag(places[0].place, {
        move: a => {
          const wide = places[0].place.clientWidth, from = left.X(1), until = left.X(many);
          to(1 + (a * wide - from) / (until - from) * (many - 1));
        },
        key: (a, b) => to(stage.get().epoch + a - b),
      });
      places[0].place.setAttribute("aria-label", "errors over the epochs; arrow keys choose one");
      places[0].place.setAttribute("role", "application");
      return next => {
        state = next;
        drawErrors();
        drawRay();
        const now = record.runs[state.run][state.epoch - 1];
        const rise = ({ loss }) => loss.at(-1) - loss[0], { fgsm, pgd } = now.rays;
        words.textContent = `After epoch ${state.epoch}: ${percent(now.clean)} wrong without an attack, ${percent(now.fgsm)} under FGSM, ${percent(now.pgd)} under PGD. `
          + `To FGSM's points the gradient at the images promises that the loss rises by ${number(fgsm.slope)}; it rises by ${number(rise(fgsm))}. `
          + `To PGD's points it promises ${number(pgd.slope)}; it rises by ${number(rise(pgd))}.`;
        stage.say(`Trained with ${state.run}. ${words.textContent}`);
      };
    },
  };
})(globalThis.Sides);
