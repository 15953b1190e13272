/* From `<div data-play="NAME">` to a figure: scripts and data are loaded when they are
   needed, each once. What stands in the page already (a notebook's output) is not loaded
   again. */
"use strict";
(() => {
  const Sides = globalThis.Sides ??= { parts: {} };
  const source = document.currentScript?.src ?? "", [folder, version] = source.split("start.js");
  Sides.figures ??= {};
  const loading = {};
  const load = file => loading[file] ??= new Promise((done, failed) => {
    document.head.append(Object.assign(document.createElement("script"), {
      src: `${folder}${file}${version}`, async: false, onload: () => done(),
      onerror: () => failed(new Error(`${file} could not be loaded`)),
    }));
  });
  const have = {
    part: name => Sides.parts[name], kit: name => Sides[name],
    figure: name => Sides.figures[name],
  };
  const kit = [
    ["part", "network"], ["part", "attack"], ["part", "bounds"], ["part", "search"],
    ["part", "both"], ["kit", "helper", "worker"], ["kit", "look"], ["kit", "stage"],
    ["kit", "draw"], ["kit", "squeezeAxis", "axis"],
  ];

  /** Load files of data by name: a network's note, or images. */
  Sides.need = names => Promise.all(names.map(name =>
    Sides.notes?.[name] || Sides.images?.[name] ? null : load(`data/${name}.js`)));

  /** Load a further script beside this one, unless `Sides[name]` is there. */
  Sides.use = names => Promise.all(names.map(
    ([name, file]) => Sides[name] ? null : load(`${file}.js`)));

  /** Fill a place; resolves to its stage. A place that cannot be filled stays empty. */
  Sides.start = async host => {
    const name = host.dataset.play;
    if (host.stage || host.dataset.started) return host.stage;
    host.dataset.started = "";
    await Promise.all([
      ...kit.filter(([kind, what]) => !have[kind](what)).map(
        ([, what, file]) => load(`${file ?? what}.js`)),
      have.figure(name) ? null : load(`figures/${name}.js`),
    ]);
    const figure = Sides.figures[name];
    await Promise.all([Sides.need(figure.needs ?? []), Sides.use(figure.uses ?? [])]);
    const picture = host.previousElementSibling?.querySelector?.(".picture");
    if (picture) { // the figure that can be moved stands where the printed one does
      picture.classList.add("played");
      picture.after(host);
    }
    host.stage = Sides.stage(host, figure);
    host.dispatchEvent(new Event("played"));
    return host.stage;
  };
})();
