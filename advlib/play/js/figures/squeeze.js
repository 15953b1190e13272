/* One digit, one radius, three networks: the band between attack and bounds opens and
   closes under the finger. */
"use strict";
(Sides => {
  Sides.figures.squeeze = {
    title: "Slide until the band closes",
    uses: ["network", "attack", "bounds", "search", "both", "worker", "axis"],
    needs: ["standard", "digits"],
    state: { digit: 7, eps: .05, net: "standard" },
    build(stage) {
      const images = Sides.draw.digits(), controls = stage.row();
      stage.choice({
        key: "net", label: "network, trained on", into: controls,
        options: [["standard", "images"], ["pgd", "PGD"], ["ibp", "intervals"]],
      });
      stage.choice({
        key: "digit", label: "digit", into: controls,
        options: images.map((_, k) => [k, String(k)]),
      });
      stage.slider({
        key: "eps", label: "radius ϵ: how much each pixel may change", into: stage.row(),
        min: 0, max: .3, step: .005, text: v => v.toFixed(3).replace(/0$/, ""),
      });
      const held = Sides.held(stage);
      stage.found = held.found;
      return async ({ digit, eps, net }) => {
        await Sides.need([net]);
        const now = stage.get(); // another may have been chosen since
        if (now.net === net) held.show({ net, x: images[now.digit], label: now.digit, eps: now.eps });
      };
    },
  };
})(globalThis.Sides);
