/* Questions in the boxes of exercises: a choice or a number, answered at once. What was
   answered is kept, where the browser allows it. No module and no fetch (file://). */
"use strict";
for (const form of document.querySelectorAll("form.question")) {
  const kept = value => {
    try {
      const key = `question ${form.dataset.number}`;
      if (value !== undefined) localStorage.setItem(key, value);
      return localStorage.getItem(key);
    } catch { return null; } /* storage may be forbidden */
  };
  const inputs = [...form.querySelectorAll("input")];
  const replies = [...form.querySelector("template").content.children];
  const reply = form.querySelector(".reply");
  const { answer, low, high } = form.dataset;

  const line = (...pieces) => {
    const made = document.createElement("p");
    made.append(...pieces.flatMap(p => typeof p === "string" ? p
      : [...p.cloneNode(true).childNodes]));
    return made;
  };
  const verdict = (right, text) => {
    const made = line(text);
    made.className = right ? "right" : "wrong";
    return made;
  };
  const short = value => String(Number(value.toPrecision(3)));

  const number = () => {
    const text = inputs[0].value.trim();
    const guess = Number(text.replace(",", ".").replace(/^\u2212/, "-").replace(/\s*%$/, ""));
    if (!text || !Number.isFinite(guess)) return [line("Write a number first.")];
    const off = guess - answer;
    const side = guess < low ? 1 : guess > high ? 2 : 0;
    const far = Math.abs(off) < 1e-9 ? "so is yours" :
      `your ${short(guess)} is ${short(Math.abs(off))} ${off < 0 ? "less" : "more"}`;
    return [
      verdict(!side, `${side ? "Not quite." : "Right."} Found: ${answer}, ${far}.`),
      line(replies[side], " ", replies[3]),
    ];
  };

  const choice = () => {
    const right = i => "right" in replies[i].dataset;
    const chosen = inputs.flatMap((input, i) => input.checked ? [i] : []);
    if (!chosen.length) return [line("Choose an answer first.")];
    const wrong = chosen.filter(i => !right(i)).length;
    const missing = inputs.filter((input, i) => right(i) && !input.checked).length;
    const several = inputs[0].type === "checkbox";
    const left = [wrong && `${wrong} of your choices ${wrong > 1 ? "are" : "is"} wrong`,
      missing && `${missing} right ${missing > 1 ? "ones are" : "one is"} missing`];
    const why = several ? ` ${left.filter(Boolean).join(", ")}.` : "";
    return [
      wrong || missing ? verdict(false, `Not yet.${why}`) : verdict(true, "Right."),
      ...chosen.map(i => several
        ? line(right(i) ? "Right, “" : "Wrong, “",
          inputs[i].parentElement.querySelector("span"), "”: ", replies[i])
        : line(replies[i])),
    ];
  };

  const check = () => reply.replaceChildren(...answer === undefined ? choice() : number());
  form.addEventListener("submit", event => {
    event.preventDefault();
    check();
    kept(answer === undefined
      ? inputs.map(input => Number(input.checked)).join("") : inputs[0].value);
  });
  form.addEventListener("input", () => reply.replaceChildren());
  form.hidden = false;
  const before = kept();
  if (before) {
    if (answer === undefined) inputs.forEach((input, i) => { input.checked = before[i] === "1"; });
    else inputs[0].value = before;
    check();
  }
}
