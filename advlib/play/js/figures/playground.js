/* The playground: a digit of one's own, held from both sides; the address remembers it. */
"use strict";
(Sides => {
  const NETS = [["standard", "images"], ["pgd", "PGD"], ["ibp", "intervals"], ["cnn", "PGD, convolutional"]];
  const OWN = "own", AUTO = "auto", MOST = .3;

  /** The state that an address holds: only what is right is taken. */
  const read = hash => {
    const given = new URLSearchParams(hash.replace(/^#/, "")), found = {};
    const eps = Number(given.get("eps")), digit = given.get("digit"), label = given.get("label");
    if (given.has("eps") && eps >= 0 && eps <= MOST) found.eps = eps;
    if (NETS.some(([name]) => name === given.get("net"))) found.net = given.get("net");
    if (/^\d$/.test(digit)) found.digit = Number(digit);
    if (given.has("draw") && Sides.pen.decode(given.get("draw")))
      Object.assign(found, { digit: OWN, drawing: given.get("draw") });
    if (/^\d$/.test(label)) found.label = Number(label);
    return found;
  };
  const write = ({ digit, drawing, label, eps, net }) => {
    const said = new URLSearchParams({ net, eps: String(eps) });
    if (digit === OWN) said.set("draw", drawing); else said.set("digit", String(digit));
    if (digit === OWN && label !== AUTO) said.set("label", String(label));
    return `#${said}`;
  };

  Sides.figures.playground = {
    title: "Draw, slide, switch",
    needs: ["standard", "digits"],
    uses: ["network", "attack", "bounds", "search", "both", "worker", "axis", "pen"],
    state: { digit: 7, drawing: "", label: AUTO, eps: .05, net: "standard" },
    build(stage) {
      const images = Sides.draw.digits(), numbers = images.map((_, k) => [k, String(k)]);
      const table = stage.row("pens"), left = stage.row("", table), right = stage.row("", table);
      const own = () => stage.get().digit === OWN;
      const pad = Sides.pen.pad(stage, x => {
        stage.set({ digit: OWN, drawing: Sides.pen.encode(x) });
        remember(stage.get());
      });
      left.append(stage.make("p", { className: "name", textContent: "draw a digit here" }), pad.canvas);
      const below = stage.row("row tight", left);
      stage.button("Clear", pad.clear, below);
      stage.button("Undo", pad.undo, below);
      stage.choice({ key: "digit", label: "or take one", into: right, options: [...numbers, [OWN, "yours"]] });
      const labels = stage.choice({ key: "label", label: "label of your drawing", into: right,
        options: [[AUTO, "what the network says"], ...numbers] });
      stage.choice({ key: "net", label: "network, trained on", into: right, options: NETS });
      stage.slider({ key: "eps", label: "radius ϵ: how much each pixel may change", into: right,
        min: 0, max: MOST, step: .005, text: v => v.toFixed(3).replace(/0$/, "") });
      const copy = stage.button("Copy the link to this", async () => {
        try {
          await navigator.clipboard.writeText(location.href);
          copy.textContent = "Copied";
        } catch { copy.textContent = "It is in the address bar"; }
        setTimeout(() => { copy.textContent = "Copy the link to this"; }, 1500);
      }, right);
      const held = Sides.held(stage);
      stage.found = held.found;

      let timer = 0;
      const remember = state => {
        clearTimeout(timer);
        timer = setTimeout(() => history.replaceState(null, "", write(state)), 250);
      };
      stage.changed = (state, key) => {
        if (!key) return;
        if (key === "digit" && state.digit !== OWN) pad.show(images[state.digit]);
        if (key === "digit" && state.digit === OWN)
          pad.show(Sides.pen.decode(state.drawing) ?? new Float64Array(784));
        remember(state);
      };
      const arrive = () => {
        const found = read(location.hash);
        if (!Object.keys(found).length) return;
        stage.set({ label: AUTO, ...found });
        const { digit, drawing } = stage.get();
        pad.show(digit === OWN ? Sides.pen.decode(drawing) : images[digit]);
      };
      addEventListener("hashchange", arrive);
      pad.show(images[stage.get().digit]);
      arrive();

      /** The image as it is now, and its label; what the page and a test ask for. */
      stage.image = () => {
        const { digit, drawing, label, net } = stage.get();
        const x = digit === OWN ? Sides.pen.decode(drawing) ?? new Float64Array(784) : images[digit];
        if (digit !== OWN) return { x, label: digit };
        const z = Sides.logits(Sides.net(net), x);
        return { x, label: label === AUTO ? z.indexOf(Math.max(...z)) : label };
      };
      let last = {};
      return async ({ net }) => {
        labels.hidden = !own();
        await Sides.need([net]);
        const now = stage.get();
        if (now.net !== net) return; // another was chosen since
        const { x, label } = stage.image(), key = `${now.digit} ${now.drawing}`;
        if (last.key !== key) last = { key, x }; // the same image is the same array
        held.show({ net, x: last.x, label, eps: now.eps });
      };
    },
  };
})(globalThis.Sides);
