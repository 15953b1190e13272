/* Branch and bound by hand: press a subproblem, choose the unit to split, and see the
   tree grow and the square fall into pieces. */
"use strict";
(Sides => {
  const SIX = [
    [[[1.5, -2.5], [2.5, 0], [-.5, -1]], [-.5, -1.5, .5]],
    [[[-1, .5, 1.5], [.5, -1, -1], [-1, 1.5, 2]], [-1, 1, -.5]],
    [[[1.5, -1, -.5], [-.5, -1.5, 1.5]], [1.5, 0]],
  ];
  const ROW = Float64Array.of(1, -1), HIGH = 30, WIDE = 48, PAUSE = 280;
  const STATES = { // how a node looks: fill, ink, edge; the word for it
    open: ["var(--s-page)", "var(--s-ink)", "var(--s-ink)", "open"],
    split: ["var(--s-tint)", "var(--s-quiet)", "var(--s-line)", "split"],
    closed: ["var(--s-safe)", "var(--s-page)", "var(--s-safe)", "closed by its bound"],
    exact: ["var(--s-open)", "var(--s-page)", "var(--s-open)", "closed by a linear program"],
    fooled: ["var(--s-fooled)", "var(--s-page)", "var(--s-fooled)", "holds a counterexample"],
  };
  const number = v => v === Infinity ? "empty" : (Math.abs(v) < 9.95 ? v.toFixed(2) : v.toFixed(1)).replace("-", "\u2212");

  Sides.figures.tree = {
    title: "Press an open subproblem, then the unit to split",
    uses: ["network", "bounds", "polygons", "toys", "branches"],
    needs: [],
    state: { net: "toy", eps: .5, order: "lowest", rule: "triangle", bound: "crown", selected: 0 },
    build(stage) {
      const { svg, axes } = Sides.draw, { toys } = Sides;
      const nets = { toy: toys.toy(), six: toys.dense(SIX) };
      const place = (into, style, tag = "div") => into.appendChild(stage.make(tag, { attributes: { style } }));
      const head = stage.row(), forest = place(stage.host, "position: relative; margin: 0 0 .5rem");
      stage.choice({ key: "net", label: "network, two inputs", into: head, options: [["toy", "4 ReLUs (Chapter 6a)"], ["six", "6 ReLUs"]] });
      stage.slider({ key: "eps", label: "radius ϵ", min: .1, max: .5, step: .01, text: v => v.toFixed(2), into: head });
      const body = stage.row();
      body.style.alignItems = "start";
      const side = place(body, "flex: 3 1 17rem; min-width: 0"), square = place(body, "flex: 1 1 11rem; min-width: 0; max-width: 17rem");
      const about = place(side, "min-height: 2.8em"), choices = stage.row("row tight", side), buttons = stage.row("row tight", side);
      choices.style.minHeight = "2.4rem";
      const verdict = stage.make("p", { className: "verdict" }), badge = stage.make("b"), words = stage.make("span");
      verdict.append(badge, words);
      side.append(verdict);
      const foot = stage.row();
      stage.choice({ key: "order", label: "next", into: foot, options: [["lowest", "lowest bound"], ["newest", "newest"], ["random", "random"]] });
      stage.choice({ key: "rule", label: "proposed unit", into: foot, options: [["triangle", "largest triangle"], ["cost", "costs the bound most"]] });
      stage.choice({ key: "bound", label: "bound of a subproblem", into: foot, options: [["crown", "CROWN"], ["prices", "slopes and prices"]] });

      let tree = null, asked = "", timer = 0, preview = null;
      const places = new Map(); // node: its button
      const net = () => nets[stage.get().net];
      const name = ({ k, j }) => 1 + j + net().slice(0, k).reduce((sum, layer) => sum + layer.outputs, 0);
      const plant = ({ net: which, eps, bound }) => {
        if (asked === `${which} ${eps} ${bound}`) return false;
        asked = `${which} ${eps} ${bound}`;
        tree = Sides.branches(nets[which], Sides.ball(Float64Array.of(.5, .5), eps), ROW, { bound });
        for (const [node, button] of places) { button.remove(); places.delete(node); }
        return true;
      };
      const select = node => { preview = null; stage.set({ selected: Math.max(tree.nodes.indexOf(node), 0) }); };
      const split = (node, unit) => {
        const made = tree.split(node, unit), { order } = stage.get();
        select(tree.nodes.find(one => one.is === "fooled") ?? tree.choose(order) ?? made[0] ?? node);
      };
      const stop = () => { clearTimeout(timer); timer = 0; };
      const step = () => {
        const { order, rule } = stage.get(), node = tree.choose(order);
        if (node && tree.answer() === "open") split(node, tree.units(node, rule)[0]);
      };
      const run = () => {
        stop();
        do step(); while (stage.still && tree.answer() === "open");
        if (tree.answer() === "open") timer = setTimeout(run, PAUSE);
      };
      const forward = [stage.button("step", () => { stop(); step(); }, buttons), stage.button("run", run, buttons)];
      stage.button("start over", () => { stop(); asked = ""; select(null); }, buttons);
      stage.changed = (_, key) => { if (key) stop(); };

      const assumed = node => node.signs.flatMap((layer, k) => [...layer].flatMap((s, j) =>
        s ? [`unit ${name({ k, j })} ${s > 0 ? "on" : "off"}`] : [])).join(", ") || "nothing assumed";
      const told = node => `${assumed(node)}: margin at least ${number(node.bound)}, ${STATES[node.is][3]}`;

      /** Buttons for the nodes, parents left of their children, leaves in rows. */
      const drawTree = selected => {
        const width = Math.max(forest.clientWidth, 200), spots = new Map();
        let row = 0, deep = 3;
        const lay = (node, depth) => {
          deep = Math.max(deep, depth);
          const rows = node.children.map(child => lay(child, depth + 1));
          const y = rows.length ? (rows[0] + rows[1]) / 2 : row++;
          spots.set(node, { depth, y });
          return y;
        };
        lay(tree.nodes[0], 0);
        const column = Math.min((width - WIDE - 2) / deep, 130), shown = column - WIDE > 36;
        const least = stage.get().net === "toy" ? 4 : 8, height = Math.max(row, least) * HIGH, parts = [];
        const at = node => ({ x: 1 + spots.get(node).depth * column, y: (spots.get(node).y + .5 + Math.max(least - row, 0) / 2) * HIGH });
        for (const node of tree.nodes) {
          const { x, y } = at(node);
          node.children.forEach((child, i) => {
            const to = at(child);
            parts.push(svg("polyline", { points: `${x + WIDE},${y} ${x + WIDE + 4},${y} ${x + WIDE + 4},${to.y} ${to.x},${to.y}`, fill: "none", stroke: "var(--s-quiet)" }));
            if (shown) parts.push(svg("text", { x: to.x - 4, y: to.y - 4, "text-anchor": "end" }, `${name(node.unit)} ${i ? "on" : "off"}`));
          });
        }
        forest.style.height = `${height}px`;
        forest.querySelector("svg")?.remove();
        forest.prepend(svg("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true", style: "position: absolute; inset: 0" }, ...parts));
        for (const node of tree.nodes) {
          const { x, y } = at(node), [fill, ink, edge] = STATES[node.is];
          if (!places.has(node)) {
            places.set(node, stage.make("button", { type: "button" }));
            places.get(node).addEventListener("click", () => { stop(); select(node); });
            forest.append(places.get(node));
          }
          const button = places.get(node), now = node === selected;
          button.textContent = number(node.bound);
          button.dataset.is = node.is;
          button.setAttribute("aria-label", told(node));
          button.setAttribute("aria-pressed", String(now));
          button.style = `position: absolute; left: ${x}px; top: ${y - 12}px; width: ${WIDE}px; min-width: 0; height: 24px; min-height: 0; padding: 0; `
            + `font-size: 12px; line-height: 1; background: ${fill}; color: ${ink}; border: ${node.is === "open" ? 2 : 1}px solid ${edge}; `
            + (now ? "box-shadow: 0 0 0 2px var(--s-page), 0 0 0 5px var(--s-link);" : "");
        }
      };
      /** The ball: what each leaf holds, the selected one marked, and the line of a unit. */
      const drawSquare = (node, unit) => {
        const width = Math.max(square.clientWidth, 120), corners = polygon => polygon.map(([a, b]) => `${chart.X(a)},${chart.Y(b)}`).join(" ");
        const chart = axes({ width, height: width + 16, x: [0, 1], y: [0, 1.1], xlabel: "input 1", ylabel: "input 2",
          ticks: { x: [0, .5, 1], y: [.5, 1] }, words: `The ball in the square of inputs, in ${tree.leaves().length} parts; marked: ${assumed(node)}.` });
        const put = (polygon, how) => chart.element.append(svg("polygon", { points: corners(polygon), ...how }));
        for (const leaf of tree.leaves()) for (const { polygon } of tree.within(leaf))
          put(polygon, { fill: leaf.is === "open" ? "var(--s-page)" : STATES[leaf.is][2], "fill-opacity": leaf.is === "open" ? 1 : .4, stroke: "var(--s-quiet)", "stroke-width": .8, "stroke-dasharray": "2 3" });
        const mine = tree.within(node);
        const plain = node.is === "open" || node.is === "split";
        for (const { polygon } of mine) put(polygon, plain ? { fill: "var(--s-link)", opacity: .22 } : { fill: "none", stroke: "var(--s-link)", "stroke-width": 2.5 });
        if (unit) for (const { polygon } of mine) polygon.forEach((p, i) => {
          const q = polygon[(i + 1) % polygon.length];
          if ([p, q].every(v => Math.abs(toys.entering(net(), v)[unit.k][unit.j]) < 1e-9)) chart.line([p, q], "var(--s-ink)", { width: 3 });
        });
        for (const { point } of tree.nodes) if (point) {
          chart.dot(point, "var(--s-page)", 7);
          chart.dot(point, "var(--s-fooled)", 5);
        }
        square.replaceChildren(chart.element);
      };
      const offer = (node, rule) => {
        const units = tree.answer() === "open" && node.is === "open" ? tree.units(node, rule) : [], had = choices.contains(document.activeElement);
        about.textContent = told(node) + (units.length ? ". Split at" : tree.within(node).length ? "." : "; no input lies here.");
        choices.replaceChildren(...units.map((unit, i) => {
          const button = stage.make("button", { type: "button", textContent: `unit ${name(unit)}${i ? "" : ", proposed"}` });
          if (!i) button.style.cssText = "font-weight: 700; border-width: 2px";
          button.addEventListener("click", () => { stop(); split(node, unit); });
          for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => { preview = unit; drawSquare(node, unit); });
          return button;
        }));
        if (had) (choices.firstChild ?? buttons.lastChild).focus();
        return units[0];
      };
      stage.sized(stage.host, () => stage.redraw());
      return () => {
        const state = stage.get();
        if (plant(state)) { stop(); stage.set({ selected: 0 }); }
        const node = tree.nodes[stage.get().selected] ?? tree.nodes[0], is = tree.answer(), count = tree.nodes.length;
        drawTree(node);
        const first = offer(node, state.rule);
        drawSquare(node, preview ?? first);
        badge.textContent = { safe: "robust", fooled: "fooled", open: "open" }[badge.dataset.is = is];
        const found = tree.nodes.find(one => one.is === "fooled"), left = tree.open().length;
        words.textContent = `${count} ${count === 1 ? "subproblem" : "subproblems"}, ${2 ** net().slice(0, -1).reduce((sum, layer) => sum + layer.outputs, 0)} patterns. `
          + { safe: `All are closed: no margin lies below ${number(tree.lower())}.`,
            fooled: found && `The point ${found.point.map(v => v.toFixed(2)).join(", ")} has the margin ${number(found.attained)}.`,
            open: `${left} open; no margin lies below ${number(tree.lower())}.` }[is];
        for (const button of forward) button.disabled = is !== "open";
        stage.host.dataset.verdict = is;
        stage.say(`${words.textContent} Chosen: ${about.textContent}`);
        stage.tree = tree;
      };
    },
  };
})(globalThis.Sides);
