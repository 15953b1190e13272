/* What takes longer runs in a worker, made from the engine's own text, so that it needs
   no file of its own and works from file://. Where no worker can be made, the page's own
   thread does the work, a little later. */
"use strict";
(Sides => {
  /** What runs in the worker: networks by name, and one task after the other. */
  const serve = Sides => {
    const nets = {};
    globalThis.onmessage = ({ data: { id, name, note, task, given } }) => {
      if (note) nets[name] = Sides.network(note);
      if (task) postMessage({ id, found: Sides[task](nets[name], ...given) });
    };
  };

  const text = () => [
    "\"use strict\"; globalThis.Sides = { parts: {} };",
    ...Object.values(Sides.parts).map(part => `(${part})(Sides);`),
    `(${serve})(Sides);`,
  ].join("\n");

  const start = () => {
    try {
      const url = URL.createObjectURL(new Blob([text()], { type: "text/javascript" }));
      return new Worker(url);
    } catch { return null; }
  };

  /** The same without a worker. */
  const here = done => ({
    postMessage({ id, name, task, given }) {
      if (task) setTimeout(() => done({ id, found: Sides[task](Sides.net(name), ...given) }), 30);
    },
  });

  /**
   * Somebody who works, for one figure. Of what is asked while it works only the last
   * question is kept: nobody waits for the answers to what is no longer shown.
   */
  Sides.helper = () => {
    const known = new Set();
    let worker = null, now = null, next = null;
    const done = ({ id, found }) => {
      if (!now || now.id !== id) return;
      const { answer, old } = now;
      now = null;
      if (!old) answer(found);
      if (next) send(next);
    };
    const send = job => {
      if (!worker) {
        worker = start() ?? here(done);
        worker.onmessage = event => done(event.data);
        worker.onerror = () => { // it does not start here (a strict host): never again
          worker = here(done);
          if (now) worker.postMessage(now.message);
        };
      }
      next = null;
      now = job;
      const { name } = job.message;
      if (!known.has(name)) worker.postMessage({ name, note: Sides.notes[name] });
      known.add(name);
      worker.postMessage(job.message);
    };
    let count = 0;
    return {
      /**
       * @param {string} name of a network @param {string} task a function of `Sides`
       * @param {Array} given its arguments after the network
       * @param {function(*): void} answer called with the result, unless forgotten
       */
      ask(name, task, given, answer) {
        const id = ++count, job = { id, answer, message: { id, name, task, given } };
        if (now) now.old = true;
        if (now) next = job; else send(job);
      },
      /** What was asked is no longer wanted. */
      forget() {
        if (now) now.old = true;
        next = null;
      },
      get busy() { return Boolean((now && !now.old) || next); },
    };
  };

  const nets = {};
  /** The network of a note that is loaded. */
  Sides.net = name => nets[name] ??= Sides.network(Sides.notes[name]);
})(globalThis.Sides);
