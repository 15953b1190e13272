/* How figures look: the page's own colours, light and dark; a method has the colour that
   it has in the printed figures (advlib/plot.py; a test compares). */
"use strict";
(Sides => {
  const light = {
    clean: "#6B6B6B", attack: "#D55E00", exact: "#0072B2", bound: "#009E73",
    random: "#A1887F", standard: "#B8860B", robust: "#1899B0", third: "#B5629B",
    fgsm: "#B98055", pgd: "#E8703A", strong: "#C44E00", lp: "#00785A", alpha: "#4F8F1F",
    crown: "#00A37A", dual: "#8A7A1E", interval: "#6F9B8A", sdp: "#9C5A86",
  };
  const dark = {
    clean: "#797979", attack: "#D25B00", exact: "#3D98DB", bound: "#00986D",
    random: "#7A625A", standard: "#A17000", robust: "#0089A0", third: "#B36099",
    fgsm: "#9C653A", pgd: "#BF4B05", strong: "#E0672B", lp: "#45A484", alpha: "#5FA033",
    crown: "#00956D", dual: "#95852C", interval: "#4B7666", sdp: "#B16D9A",
  };
  const list = colours => Object.entries(colours).map(([k, v]) => `--m-${k}: ${v};`).join(" ");

  const sheet = `
.sides { ${list(light)}
  --s-page: var(--page, #fff); --s-ink: var(--ink, #1b1d21); --s-quiet: var(--quiet, #565d66);
  --s-line: var(--line, #d5dae0); --s-tint: var(--tint, #f4f6f8); --s-link: var(--link, #0a58a6);
  --s-fooled: var(--attack, #b84800); --s-safe: var(--bound, #00724f); --s-open: var(--exact, #00639c);
  box-sizing: border-box; margin: 1.2rem 0; padding: .8rem 1rem 1rem; max-width: var(--wide, 42rem);
  border: 1px solid var(--s-line); border-radius: .5rem; background: var(--s-page); color: var(--s-ink);
  font: 400 .84rem/1.4 var(--sans, system-ui, sans-serif); container-type: inline-size; }
html[data-theme="dark"] .sides { ${list(dark)} }
.sides *, .sides ::before { box-sizing: border-box; }
.sides p { margin: 0 0 .5rem; max-width: none; }
.sides > .title { font-weight: 700; margin: 0 0 .6rem; }
.sides .row { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; margin: 0 0 .7rem; padding: 0; text-indent: 0; }
.sides .panels { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .7rem; margin: 0 0 .8rem; }
@container (max-width: 30rem) {
  .sides .panels { grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .4rem; }
  .sides .panel { display: flex; flex-direction: column; justify-content: end; }
  .sides .panel > .name { font-size: .8em; line-height: 1.25; }
  .sides .panel:last-child { grid-column: 1 / -1; flex-direction: row; align-items: center; justify-content: start; gap: 1rem; }
  .sides .panel:last-child svg { width: 8rem; }
}
.sides .panel { margin: 0; min-width: 0; }
.sides .panel > .name { margin: 0 0 .25rem; font-size: .92em; min-height: 1.4em; }
.sides canvas { display: block; width: 100%; aspect-ratio: 1; image-rendering: pixelated; border-radius: .25rem; border: 1px solid var(--s-line); background: #000; }
.sides svg { display: block; width: 100%; overflow: visible; font: 12px var(--sans, system-ui, sans-serif); }
.sides svg text { fill: var(--s-ink); paint-order: stroke; stroke: var(--s-page); stroke-width: 3px; stroke-linejoin: round; } .sides svg .quiet { fill: var(--s-quiet); }
.sides fieldset { margin: 0; padding: 0; border: 0; min-width: 0; }
.sides legend, .sides .label { padding: 0; color: var(--s-quiet); font-size: .92em; }
.sides .choices { display: flex; flex-wrap: wrap; gap: .2rem; margin-top: .2rem; }
.sides .choices label { position: relative; display: block; cursor: pointer; }
.sides .choices input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: pointer; }
.sides .choices span, .sides button { display: block; min-width: 1.72rem; min-height: 2rem; padding: .28rem .5rem; border: 1px solid var(--s-quiet); border-radius: .3rem; background: var(--s-page); color: var(--s-ink); font: inherit; text-align: center; cursor: pointer; }
.sides .choices input:checked + span { background: var(--s-ink); border-color: var(--s-ink); color: var(--s-page); }
.sides .choices input:focus-visible + span, .sides :focus-visible { outline: 3px solid var(--s-link); outline-offset: 2px; }
.sides .choices input:focus-visible { outline: 3px solid var(--s-link); outline-offset: 2px; opacity: 0; }
.sides .choices span:hover, .sides button:hover { border-color: var(--s-link); }
.sides button:disabled { opacity: .5; cursor: default; }
.sides .slider { flex: 1 1 14rem; min-width: 0; }
.sides .slider > div { display: flex; justify-content: space-between; }
.sides .slider output { font-weight: 700; font-variant-numeric: tabular-nums; }
.sides input[type="range"] { display: block; width: 100%; height: 2rem; margin: 0; accent-color: var(--s-link); cursor: pointer; touch-action: pan-y; }
.sides .verdict { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .7rem; margin: .5rem 0 0; min-height: 3em; }
.sides .verdict b { padding: .1rem .7rem; border-radius: 1rem; border: 2px solid currentColor; }
.sides .verdict b[data-is="fooled"], .sides .verdict b[data-is="misread"] { color: var(--s-fooled); }
.sides .verdict b[data-is="safe"] { color: var(--s-safe); }
.sides .verdict b[data-is="open"] { color: var(--s-open); }
.sides .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.sides .pens { display: grid; grid-template-columns: 12rem minmax(0, 1fr); gap: .5rem 1.2rem; margin-bottom: .8rem; }
@container (max-width: 34rem) { .sides .pens { grid-template-columns: minmax(0, 1fr); } .sides .pens canvas { max-width: 12rem; } }
.sides .pens fieldset { margin-bottom: .5rem; } .sides .tight { margin: .4rem 0 0; gap: .4rem; }
.sides [hidden] { display: none; }
.sides .draggable { touch-action: none; cursor: grab; }
@media screen { .picture.played { display: none !important; } }
@media print { .sides { display: none; } }
`;

  Sides.look = { light, dark, sheet };
  if (!document.getElementById("sides-look"))
    document.head.append(Object.assign(document.createElement("style"),
      { id: "sides-look", textContent: sheet }));
})(globalThis.Sides);
