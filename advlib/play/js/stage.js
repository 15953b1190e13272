/* The stage that every figure stands on: frame, controls, words, state.

   A figure registers itself, in its own file js/figures/NAME.js:

     Sides.figures.NAME = {
       title: "what it is",             // shown above; optional
       uses: ["network", "attack"],     // scripts of this folder beside look, stage, draw
       needs: ["standard", "digits"],   // files of data that are there before it starts
       state: { eps: .1 },              // what it remembers, with its first values
       build(stage) {                   // once: controls and drawings
         const eps = stage.slider({ key: "eps", label: "radius", min: 0, max: .3, step: .01 });
         return state => { ... };       // redraws; called after each change of the state
       },
     };

   Whoever changes something calls `stage.set({ eps: .2 })`: the state is merged, the
   controls follow, and the figure is redrawn once in the next frame. Say what is seen
   with `stage.say("...")`: screen readers hear it when the reader pauses. */
"use strict";
(Sides => {
  /** An element with properties, attributes (`attributes`) and children. */
  const make = (name, { attributes = {}, ...properties } = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  let count = 0; // for ids and names that must differ from figure to figure

  /**
   * @param {HTMLElement} host the place
   * @param {{title?: string, state?: object, build: function}} figure
   */
  Sides.stage = (host, figure) => {
    const id = `sides-${++count}`, controls = {}, state = { ...figure.state };
    const said = make("p", { className: "hidden", attributes: { role: "status", "aria-live": "polite" } });
    host.classList.add("sides");
    host.addEventListener("keydown", event => { // else JupyterLab takes them away
      if (/^(Arrow|Home|End|Page|Enter| )/.test(event.key)) event.stopPropagation();
    });
    if (!host.hasAttribute("role")) host.setAttribute("role", "group");
    host.setAttribute("aria-label", figure.title ?? figure.name ?? "figure");
    host.replaceChildren();
    if (figure.title) host.append(make("p", { className: "title", textContent: figure.title }));
    let draw = null, asked = false, timer = 0;

    const redraw = () => {
      if (asked || !draw) return;
      asked = true;
      requestAnimationFrame(async () => {
        asked = false;
        const began = performance.now();
        await draw({ ...state });
        stage.took = performance.now() - began; // in which the page does not answer, ms
        host.dataset.ready = ""; // it has been drawn once
      });
    };
    const follow = () => {
      for (const [key, control] of Object.entries(controls)) control.show(state[key]);
    };
    const change = (key, value) => {
      if (state[key] === value) return;
      state[key] = value;
      controls[key]?.show(value);
      stage.changed?.({ ...state }, key);
      redraw();
    };
    const add = (element, into) => (into ?? host).append(element);

    const stage = {
      host, id, make,
      /** Whether the reader asked for less motion: then nothing moves by itself. */
      get still() { return matchMedia("(prefers-reduced-motion: reduce)").matches; },
      /** A copy of the state. */
      get: () => ({ ...state }),
      /** Merge `values` into the state, move the controls, redraw. */
      set(values) {
        Object.assign(state, values);
        follow();
        stage.changed?.({ ...state }, null);
        redraw();
      },
      redraw,
      /** Called with the state and the key after each change by the reader. */
      changed: null,
      /** What the figure shows, in words; spoken when nothing has changed for a while. */
      say(text) {
        clearTimeout(timer);
        timer = setTimeout(() => { if (said.textContent !== text) said.textContent = text; }, 500);
      },
      /** A row for controls or panels. */
      row: (className = "row", into) => {
        const element = make("div", { className });
        add(element, into);
        return element;
      },
      /**
       * A slider for state[key].
       * @param {{key: string, label: string, min: number, max: number, step: number,
       *          text?: function(number): string, into?: Element}} how
       */
      slider({ key, label, min, max, step, text = String, into }) {
        const input = make("input", { type: "range", id: `${id}-${key}`, min, max, step });
        const output = make("output", { htmlFor: input.id });
        const show = value => {
          input.value = value;
          output.textContent = text(value);
          input.setAttribute("aria-valuetext", text(value));
        };
        input.addEventListener("input", () => change(key, Number(input.value)));
        add(make("div", { className: "slider" }, make("div", {},
          make("label", { className: "label", htmlFor: input.id, textContent: label }), output), input), into);
        controls[key] = { show };
        show(state[key]);
        return input;
      },
      /**
       * One of several for state[key]: native radio buttons.
       * @param {{key: string, label: string, options: Array<[*, string]>,
       *          into?: Element}} how value and words of each option
       */
      choice({ key, label, options, into }) {
        const inputs = options.map(([value, words]) => {
          const input = make("input", { type: "radio", name: `${id}-${key}`, value: String(value) });
          input.addEventListener("change", () => change(key, value));
          return { input, value, label: make("label", {}, input, make("span", { textContent: words })) };
        });
        const show = value => inputs.forEach(one => { one.input.checked = one.value === value; });
        const field = make("fieldset", {}, make("legend", { textContent: label }),
          make("div", { className: "choices" }, ...inputs.map(one => one.label)));
        add(field, into);
        controls[key] = { show };
        show(state[key]);
        return field;
      },
      /** A button. */
      button(words, press, into) {
        const button = make("button", { type: "button", textContent: words });
        button.addEventListener("click", press);
        add(button, into);
        return button;
      },
      /** A panel with words above; returns both. `content` is any element. */
      panel(words, content, into) {
        const name = make("p", { className: "name", textContent: words });
        add(make("div", { className: "panel" }, name, content), into);
        return { name, content };
      },
      /**
       * A handle for mouse, touch and keys. `move(x, y)` gets the place inside of
       * `element` in parts of its width and height; `key(dx, dy)` steps of -1, 0, 1,
       * ten times as far with Shift.
       * @param {Element} element @param {{move: function, key?: function, end?: function}} how
       */
      drag(element, { move, key, end }) {
        element.classList.add("draggable");
        const at = event => {
          const { left, top, width, height } = element.getBoundingClientRect();
          return [(event.clientX - left) / width, (event.clientY - top) / height];
        };
        element.addEventListener("pointerdown", event => {
          if (event.button) return;
          element.setPointerCapture(event.pointerId);
          event.preventDefault();
          element.focus?.({ preventScroll: true });
          move(...at(event), "start");
        });
        element.addEventListener("pointermove", event => {
          if (!element.hasPointerCapture(event.pointerId)) return;
          const all = event.getCoalescedEvents?.() ?? [];
          for (const one of all.length ? all : [event]) move(...at(one), "move");
        });
        element.addEventListener("lostpointercapture", () => end?.());
        if (!key) return;
        if (!element.hasAttribute("tabindex")) element.tabIndex = 0;
        element.addEventListener("keydown", event => {
          const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
          if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
          event.preventDefault();
          key(...step.map(d => d * (event.shiftKey ? 10 : 1)));
        });
      },
      /** Call `draw(width)` now and whenever the width of `element` changes. */
      sized(element, draw) {
        let last = 0;
        new ResizeObserver(([{ contentRect: { width } }]) => {
          if (Math.abs(width - last) < 1) return;
          last = width;
          draw(width);
        }).observe(element);
      },
    };
    draw = figure.build(stage);
    host.append(said);
    follow();
    redraw();
    return stage;
  };
  Sides.make = make;
})(globalThis.Sides);
