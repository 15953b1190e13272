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
  // what stands where once the script of this name has run
  const have = name => Sides[{ worker: "helper", axis: "held" }[name] ?? name] ?? Sides.parts[name];
  const base = ["look", "stage", "draw"];

  /** Load files of data by name: a network's note, images, or a record. */
  Sides.need = names => Promise.all(names.map(name => ["notes", "images", "records"].some(
    shelf => Sides[shelf]?.[name]) ? null : load(`data/${name}.js`)));

  /** Load scripts beside this one, in this order, unless they are there. */
  Sides.use = names => Promise.all(names.map(name => have(name) ? null : load(`${name}.js`)));

  /** Fill a place; resolves to its stage. A place that cannot be filled stays empty. */
  Sides.start = async host => {
    const name = host.dataset.play;
    if (host.stage || host.dataset.started) return host.stage;
    host.dataset.started = "";
    await Promise.all([Sides.use(base), Sides.figures[name] ? null : load(`figures/${name}.js`)]);
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
