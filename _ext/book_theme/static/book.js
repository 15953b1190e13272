/* What the pages do beyond being read: light and dark, search, cards, copy, the place
   in the chapter. Plain script, no module and no fetch, so that it works on file:// too. */
"use strict";
(() => {
  const html = document.documentElement;
  const root = html.dataset.content_root;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };
  const remembered = (key, value) => {
    try {
      if (value !== undefined) localStorage.setItem(key, value);
      return localStorage.getItem(key);
    } catch { return null; } // storage may be forbidden
  };
  const icon = name => {
    const copy = make("span");
    copy.innerHTML = `<svg class="icon" width="18" height="18" aria-hidden="true"><use href="#i-${name}"/></svg>`;
    return copy.firstChild;
  };
  const scripts = {};
  const load = (name, stamp) => scripts[name] ??= new Promise((done, failed) => {
    const version = stamp ?? document.querySelector("script[src*='book.js']").src.split("?")[1];
    document.head.append(make("script", {
      src: `${root}_static/${name}?${version}`, onload: done, onerror: failed,
    }));
  });

  /* Light, dark, or as the system is. */
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = document.querySelector(".mode");
  const show = mode => {
    html.dataset.mode = mode;
    html.dataset.theme = mode === "auto" ? (dark.matches ? "dark" : "light") : mode;
    const said = { auto: "as the system is", light: "light", dark: "dark" }[mode];
    button.setAttribute("aria-label", `Light or dark: ${said}`);
    button.title = `Light or dark: ${said}`;
  };
  show(["light", "dark"].find(mode => mode === remembered("mode")) ?? "auto");
  dark.addEventListener("change", () => show(html.dataset.mode));
  button.addEventListener("click", () => {
    const modes = dark.matches ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
    const mode = modes[(modes.indexOf(html.dataset.mode) + 1) % 3];
    remembered("mode", mode);
    show(mode);
  });

  /* Where one is: in the list of the page's sections, and of the book's chapters. */
  const links = new Map(all(".here.wide a[href^='#']").map(
    a => [decodeURIComponent(a.hash.slice(1)), a]).filter(([id]) => id));
  let now = null;
  const mark = () => {
    const at = location.hash.slice(1);
    links.forEach((a, id) => id === now
      ? a.setAttribute("aria-current", "true") : a.removeAttribute("aria-current"));
    return now ?? at;
  };
  const inView = new Set();
  const spy = new IntersectionObserver(seen => {
    for (const { target, isIntersecting } of seen) {
      if (isIntersecting) inView.add(target.id); else inView.delete(target.id);
    }
    now = [...links.keys()].filter(id => inView.has(id)).at(-1) ?? now;
    mark();
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const id of links.keys()) {
    const section = document.getElementById(id);
    if (section) spy.observe(section);
  }
  const contents = document.getElementById("contents");
  const here = contents.querySelector("[aria-current]");
  const showHere = () => {
    if (here) contents.scrollTop = here.offsetTop - contents.clientHeight / 2;
  };
  requestAnimationFrame(() => setTimeout(showHere));
  contents.addEventListener("toggle", showHere);

  /* What comes near is made ready: a box that scrolls can be reached with the keyboard
     and says that it scrolls; code gets its button to copy. Not before: to measure what
     is far away would make the browser lay out the whole chapter at once. */
  const scrolling = ".scroll, div.math, .output pre, .highlight pre";
  const ready = new Set();
  const stop = box => {
    if (box.scrollWidth > box.clientWidth + 1) {
      box.tabIndex = 0;
      box.classList.add("scrolls");
      if (!box.hasAttribute("role")) {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", box.matches("div.math") ? "formula" :
          box.matches(".picture, .drawing") ? "figure" :
          box.matches(".scroll") ? "table" : "code");
      }
    } else {
      box.removeAttribute("tabindex");
      box.classList.remove("scrolls");
    }
  };
  const copier = block => {
    const copy = make("button", { type: "button", className: "copy", title: "Copy" });
    copy.setAttribute("aria-label", "Copy this code");
    copy.append(icon("copy"));
    copy.addEventListener("click", async () => {
      const text = block.querySelector("pre").textContent.replace(/\n+$/, "");
      try {
        await navigator.clipboard.writeText(text);
      } catch { // no permission, or no secure origin
        const area = make("textarea", { value: text });
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      copy.setAttribute("aria-label", "Copied");
      copy.textContent = "✓";
      setTimeout(() => {
        copy.replaceChildren(icon("copy"));
        copy.setAttribute("aria-label", "Copy this code");
      }, 1500);
    });
    block.parentElement.append(copy);
  };
  const near = new IntersectionObserver(seen => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      ready.add(target);
      stop(target);
      const block = target.matches("pre") && !target.closest(".output")
        ? target.closest("div.highlight") : null;
      if (block && !block.parentElement.querySelector(".copy")) copier(block);
    }
  }, { rootMargin: "600px" });
  for (const box of all(scrolling, document.querySelector("article"))) near.observe(box);
  addEventListener("resize", () => ready.forEach(stop));
  document.addEventListener("toggle", event => {
    if (event.target.matches?.("details")) all(scrolling, event.target).forEach(stop);
  }, true);

  /* What can be played with: its scripts come when one is near. */
  const playing = new IntersectionObserver(seen => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) continue;
      playing.unobserve(target);
      load("play/start.js", `v=${target.dataset.version}`)
        .then(() => window.Sides.start(target))
        .catch(() => {}); // the printed figure stays
    }
  }, { rootMargin: "600px" });
  for (const place of all("[data-play]")) playing.observe(place);

  /* A link into a closed box opens it. */
  const open = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id ? document.getElementById(id) : null;
    for (let box = target; box; box = box.parentElement) if (box.matches("details")) box.open = true;
    if (target?.closest("details")) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  open();

  /* Report a mistake: the page and its section are filled in. */
  document.querySelector("[data-report]")?.addEventListener("click", event => {
    const url = new URL(event.currentTarget.href);
    const place = location.pathname.split("/").pop() + (mark() ? `#${mark()}` : "");
    url.searchParams.set("title", `Mistake: ${document.querySelector("h1").firstChild.textContent}`);
    url.searchParams.set("body", `Where: ${place}\nWhat is wrong:\n`);
    event.currentTarget.href = url;
  });

  /* Search: as one types, by section, titles first. */
  const words = text => text.toLowerCase().normalize("NFKD").replace(/[\u0300-\u036f]/g, "")
    .match(/[\p{L}\p{N}_]+/gu) ?? [];
  const stem = word => word.length > 3 ? word.replace(/(?:ies)$/, "y").replace(/(?<!s)s$/, "") : word;
  const search = (data, query) => {
    const asked = words(query).map(stem);
    if (!asked.length) return [];
    const phrase = asked.join(" ");
    const hits = [];
    for (const entry of data.sections) {
      entry.heads ??= words(entry.title).map(stem);
      entry.body ??= ` ${words(entry.text).map(stem).join(" ")} `;
      let score = 0;
      for (const word of asked) {
        const exact = entry.heads.includes(word);
        const start = exact || entry.heads.some(head => head.startsWith(word));
        const times = entry.body.split(` ${word}`).length - 1;
        const home = data.homes[word]?.includes(entry.id);
        if (!start && !times && !home) { score = 0; break; }
        score += (exact ? 40 : start ? 22 : 0) + Math.min(times, 6) + (home ? 30 : 0);
      }
      if (!score) continue;
      if (data.homes[phrase]?.includes(entry.id)) score += 60;
      if (entry.heads.join(" ") === phrase) score += 40;
      else if (asked.length > 1 && entry.heads.join(" ").includes(phrase)) score += 30;
      else if (asked.length > 1 && entry.body.includes(` ${phrase}`)) score += 12;
      hits.push([score * entry.weight, entry]);
    }
    return hits.sort((a, b) => b[0] - a[0]).slice(0, 40).map(([, entry]) => entry);
  };
  const marked = (text, query) => {
    const asked = words(query).map(stem).filter(word => word.length > 1);
    const parts = asked.length ? text.split(new RegExp(`(${asked.map(
      word => word.replace(/[^\p{L}\p{N}]/gu, "\\$&")).join("|")})`, "giu")) : [text];
    return parts.map((part, k) => k % 2 ? make("mark", { textContent: part }) : part);
  };
  const excerpt = (text, query) => {
    const low = text.toLowerCase();
    const first = Math.min(...words(query).map(stem).map(word => low.indexOf(word)).filter(k => k >= 0));
    const begin = Number.isFinite(first) && first > 70 ? text.indexOf(" ", first - 60) + 1 : 0;
    return (begin ? "… " : "") + text.slice(begin, begin + 170) + (begin + 170 < text.length ? " …" : "");
  };
  const finder = () => {
    const input = make("input", { type: "search", name: "q", autocomplete: "off", spellcheck: false });
    input.setAttribute("aria-label", "Search the book");
    input.placeholder = "Search the book";
    const found = make("ol", { className: "found" });
    const said = make("p", { className: "said" });
    said.setAttribute("role", "status");
    let last = null;
    const update = async () => {
      const query = input.value.trim();
      last = query;
      try { await load("search-data.js"); } catch {
        said.textContent = "The search index could not be loaded.";
        return;
      }
      if (last !== query) return;
      const hits = search(window.BOOK_SEARCH, query);
      said.textContent = !query ? "" : hits.length === 40 ? "The best 40 places" :
        `${hits.length || "No"} place${hits.length === 1 ? "" : "s"}`;
      found.replaceChildren(...hits.map(hit => make("li", {}, make("a",
        { href: `${root}${hit.url}` },
        make("b", {}, ...marked(hit.title, query)), " ", make("small", { textContent: hit.page }),
        make("p", {}, ...marked(excerpt(hit.text, query), query))))));
    };
    input.addEventListener("input", update);
    input.addEventListener("focus", () => load("search-data.js").catch(() => {}), { once: true });
    const form = make("form", { className: "finder-form" }, input);
    form.setAttribute("role", "search");
    form.addEventListener("submit", event => {
      event.preventDefault();
      found.querySelector("a")?.click();
    });
    const keys = event => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!step) return;
      const stopsHere = [input, ...all("a", found)];
      const next = stopsHere[stopsHere.indexOf(document.activeElement) + step];
      if (next) { next.focus(); event.preventDefault(); }
    };
    return { input, form, parts: [form, said, found], keys, update };
  };
  let dialog = null;
  const openFinder = () => {
    if (!dialog) {
      const { form, parts, keys } = finder();
      form.append(make("button", { type: "button", textContent: "Close", onclick: () => dialog.close() }));
      dialog = make("dialog", { className: "finder" }, ...parts);
      dialog.setAttribute("aria-label", "Search");
      dialog.addEventListener("keydown", keys);
      dialog.addEventListener("click", event => {
        if (event.target === dialog || event.target.closest("a")) dialog.close();
      });
      document.body.append(dialog);
    }
    if (!dialog.open) dialog.showModal();
    dialog.querySelector("input").focus();
    dialog.querySelector("input").select();
  };
  document.querySelector("[data-search]").addEventListener("click", event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openFinder();
  });
  addEventListener("keydown", event => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    const asked = (event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing);
    if (asked && !event.altKey) { event.preventDefault(); openFinder(); }
  });
  const place = document.querySelector("[data-search-page]");
  if (place) {
    const { input, parts, keys, update } = finder();
    place.append(...parts);
    place.addEventListener("keydown", keys);
    input.value = new URLSearchParams(location.search).get("q") ?? "";
    input.focus();
    if (input.value) update();
  }

  /* Cards: what a citation, a term, a figure or an equation is, without leaving. */
  let card = null, timer = 0;
  const hide = () => { card?.remove(); card = null; };
  const describe = async link => {
    const url = new URL(link.href);
    const id = decodeURIComponent(url.hash.slice(1));
    if (url.pathname === location.pathname) {
      const target = document.getElementById(id);
      const box = target?.closest("figure, .box, div.math, dt, .citation") ?? null;
      if (!box) return null;
      if (box.matches("dt")) return box.nextElementSibling?.innerHTML;
      return box.outerHTML.replace(/ id="[^"]*"/g, "");
    }
    try { await load("cards.js"); } catch { return null; }
    const page = url.pathname.split("/").pop();
    return window.BOOK_CARDS[`${page}#${id}`] ?? null;
  };
  const pin = (link, inner) => {
    hide();
    card = make("div", { className: "card", innerHTML: inner.replaceAll("@root/", root) });
    card.setAttribute("role", "note");
    all("a.headerlink, .copy, summary", card).forEach(extra => extra.remove());
    all("details", card).forEach(extra => extra.remove());
    document.body.append(card);
    const at = link.getBoundingClientRect();
    const left = Math.min(at.left + scrollX, scrollX + innerWidth - card.offsetWidth - 16);
    const below = at.bottom + card.offsetHeight + 12 < innerHeight || at.top < card.offsetHeight;
    card.style.left = `${Math.max(scrollX + 8, left)}px`;
    card.style.top = `${scrollY + (below ? at.bottom + 6 : at.top - card.offsetHeight - 6)}px`;
    card.addEventListener("pointerleave", event => event.pointerType === "mouse" && hide());
  };
  const wanted = "a.cite, a.term, a.fig, a.eq, a.thm";
  const touch = matchMedia("(hover: none)");
  document.addEventListener("pointerover", event => {
    const link = event.target.closest?.(wanted);
    if (!link || event.pointerType !== "mouse" || link.closest(".card")) return;
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const inner = await describe(link);
      if (inner && link.matches(":hover")) pin(link, inner);
    }, 250);
  });
  document.addEventListener("pointerout", event => {
    if (event.target.closest?.(wanted) && event.pointerType === "mouse") {
      clearTimeout(timer);
      timer = setTimeout(() => { if (!card?.matches(":hover")) hide(); }, 250);
    }
  });
  document.addEventListener("focusin", async event => {
    const link = event.target.closest?.(wanted);
    if (!link?.matches(":focus-visible")) return;
    const inner = await describe(link);
    if (inner && document.activeElement === link) pin(link, inner);
  });
  document.addEventListener("focusout", event => {
    if (event.target.closest?.(wanted)) hide();
  });
  document.addEventListener("click", async event => { // a tap shows, a second tap goes
    if (card && !event.target.closest(".card")) {
      const again = card.for === event.target.closest(wanted);
      hide();
      if (again) return;
    }
    const link = touch.matches ? event.target.closest(wanted) : null;
    if (!link || link.closest(".card")) return;
    event.preventDefault();
    const inner = await describe(link);
    if (!inner) { location.href = link.href; return; }
    pin(link, inner);
    card.for = link;
    card.append(make("p", {}, make("a", { href: link.href, textContent: "Go there" })));
  });
  addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
})();
