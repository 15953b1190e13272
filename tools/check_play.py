"""Hold the pages' JavaScript against advlib: the same numbers, and no false "safe".

    python tools/check_play.py --count 1000

For each network of ``advlib/play/data`` two checks in Chromium. *Agreement*: gradients,
one step from the same point, 40 steps, and the bounds by intervals, CROWN and optimised
slopes, on ``--agree`` inputs; prints the largest difference. *Verdicts*: the page's
verdict on ``--count`` inputs, radii and labels, against ``branch_and_bound``; prints
how many were said what, and fails if the page says safe what advlib attacks or fooled
what it certifies, or if a bound lies above a margin that is attained. Inputs are test
images, and mixtures of two, whose label is what the network says: many lie near a
border.
"""

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from playwright.sync_api import Browser, Page, sync_playwright
from shots import FLAGS, chromium
from torch import Tensor, nn

from advlib import attacks, bounds, branch_and_bound, data, play
from advlib.exact import Verdict

FOLDER = Path(play.__file__).parent
ENGINE = ("network", "attack", "bounds", "search", "both")
NAMES = ("standard", "pgd", "ibp", "cnn")
RADII = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3)
STEPS = 40
ROUNDING = 1e-6
START = """
(() => {
  const nets = {};
  window.net = name => nets[name] ??= Sides.network(Sides.notes[name]);
  window.pixels = text => Float64Array.from(atob(text), c => c.charCodeAt(0) / 255);
})();
"""
NUMBERS = """({name, images, labels, eps, shares, heavy, steps}) =>
images.map((text, i) => {
  const n = net(name), x = pixels(text), label = labels[i], box = Sides.ball(x, eps);
  const all = Sides.forward(n, x), soft = Sides.softmax(all.at(-1));
  soft[label] -= 1;
  const start = x.map((_, j) => eps * shares[(31 * i + j) % shares.length]);
  const alpha = 2.5 * eps / steps;
  const end = Sides.pgd(n, x, label, {eps, alpha, steps});
  const found = {
    logits: all.at(-1), gradient: Sides.gradient(n, all, soft),
    step: Sides.pgd(n, x, label, {eps, alpha, steps: 1, start}).delta,
    margin: [end.margin], interval: Sides.intervals(n, box, label),
  };
  if (i < heavy) {
    const first = Sides.before(n, box);
    found.crown = Sides.crown(n, box, label, first);
    found.slopes = Sides.optimised(n, box, label, {first});
    found.least = [Sides.slow(n, x, label, eps, {nodes: 0}).slopes];
  }
  return Object.fromEntries(Object.entries(found).map(([k, v]) => [k, Array.from(v)]));
})"""
VERDICTS = """({name, images, labels, eps, nodes}) => images.map((text, i) => {
  const n = net(name), x = pixels(text), label = labels[i];
  const found = Sides.quick(n, x, label, eps[i]);
  const points = [x.map((v, j) => v + found.delta[j])];
  const far = Sides.slow(n, x, label, eps[i], {seconds: Infinity, nodes, points});
  Object.assign(found, far);
  const {interval, crown, slopes, exact} = found;
  const bound = Math.max(interval, crown, slopes, exact.lower);
  return {verdict: Sides.verdict(found), ...Sides.ends(found), bound};
})"""


def script(name: str, change: tuple[str, str] | None = None) -> str:
    """Return the text of an engine's file, with one ``change``, which must be there."""
    text = (FOLDER / "js" / f"{name}.js").read_text(encoding="utf8")
    if change is not None and change[0] in text:
        text = text.replace(*change)
    return text


def load(page: Page, change: tuple[str, str] | None = None) -> None:
    """Load engine and networks into ``page``; ``change`` plants a fault."""
    page.goto("about:blank")
    texts = [script(name) for name in ENGINE]
    if change is not None and sum(change[0] in text for text in texts) != 1:
        raise ValueError(f"{change[0]!r} is not in one of the files")
    for name in ENGINE:
        page.evaluate(script(name, change))
    for name in NAMES:
        page.evaluate((FOLDER / "data" / f"{name}.js").read_text())
    page.evaluate(START)


@contextmanager
def engine(browser: Browser | None = None) -> Iterator[Page]:
    """Yield a page with the engine and all networks."""
    if browser is not None:
        page = browser.new_page()
        load(page)
        yield page
        page.close()
        return
    with sync_playwright() as p:
        started = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        with engine(started) as page:
            yield page
        started.close()


def texts(x: Tensor) -> list[str]:
    """Return images (N, ...), whole numbers from 0 to 255, in base64."""
    return [base64.b64encode(image.numpy().tobytes()).decode() for image in x]


def others(values: Tensor, y: Tensor) -> np.ndarray:
    """Return ``values`` (N, K) without column y."""
    keep = ~F.one_hot(y, values.shape[1]).bool()
    return values[keep].view(len(y), -1).numpy()


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the cross-entropy at ``x`` in its pixels."""
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(model(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def expected(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, start: Tensor, heavy: int
) -> dict[str, np.ndarray]:
    """Return what advlib says, by the names of ``NUMBERS``."""
    alpha = 2.5 * eps / STEPS
    step = attacks.pgd_linf(model, x, y, eps, alpha=alpha, num_steps=1, start=start)
    delta = attacks.pgd_linf(model, x, y, eps, alpha=alpha, num_steps=STEPS)
    logits = model(x + delta)
    own = logits.gather(1, y[:, None])
    far = x[:heavy], y[:heavy], eps
    slopes = others(bounds.alpha_crown_margins(model, *far), y[:heavy])
    return {
        "logits": model(x).numpy(),
        "gradient": gradient(model, x, y).flatten(1).numpy(),
        "step": step.flatten(1).numpy(),
        "margin": others(own - logits, y).min(1, keepdims=True),
        "interval": others(bounds.interval_margins(model, x, y, eps), y),
        "crown": others(bounds.crown_margins(model, *far), y[:heavy]),
        "slopes": slopes,
        "least": slopes.min(1, keepdims=True),
    }


def agreement(
    page: Page, name: str, count: int, *, eps: float, heavy: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return, for each quantity, how far the page is from advlib on each input.

    ``count`` test images; the bounds by backward walks on the first ``heavy`` of them.
    """
    model, rng = play.from_note(play.stored(name)), np.random.default_rng(seed)
    images, labels = data.load("mnist").test
    chosen = torch.tensor(rng.choice(len(labels), count, replace=False))
    whole, y = (images[chosen] * 255).round().to(torch.uint8), labels[chosen]
    shares = rng.uniform(-1, 1, 1009)
    place = (31 * np.arange(count)[:, None] + np.arange(784)) % len(shares)
    x = whole.double() / 255
    start = torch.tensor(eps * shares[place]).view(x.shape)
    asked = {"name": name, "images": texts(whole), "labels": y.tolist(), "eps": eps,
             "shares": shares.tolist(), "heavy": heavy, "steps": STEPS}  # fmt: skip
    found = page.evaluate(NUMBERS, asked)
    far = {}
    for what, value in expected(model, x, y, eps, start, heavy).items():
        got = np.array([one[what] for one in found if what in one])
        if got.shape != value.shape:
            raise ValueError(f"{what}: {got.shape} is not {value.shape}")
        far[what] = np.abs(got - value).max(1)
    return far


@dataclass
class Verdicts:
    """What was said of how many inputs by the page and by advlib, and what clashed."""

    said: Counter = field(default_factory=Counter)
    clashes: list[str] = field(default_factory=list)


def inputs(model: nn.Module, count: int, rng: np.random.Generator) -> tuple:
    """Return ``count`` images as whole numbers, labels and radii.

    A half are test images with their labels, the others mixtures.
    """
    images, labels = data.load("mnist").test
    one, two = (torch.tensor(rng.choice(len(labels), count)) for _ in range(2))
    share = torch.tensor(rng.uniform(0.4, 1, count)).view(-1, 1, 1, 1)
    mixed = torch.arange(count) % 2 == 1
    share[~mixed] = 1
    whole = (255 * (share * images[one] + (1 - share) * images[two])).round()
    whole = whole.to(torch.uint8)
    said = model(whole.double() / 255).argmax(1)
    y = torch.where(mixed, said, labels[one])
    return whole, y, rng.choice(RADII, count)


def verdicts(
    page: Page, name: str, count: int, *, seed: int = 0, nodes: int = 100
) -> Verdicts:
    """Compare the page's verdict with branch and bound on ``count`` inputs.

    ``nodes``: how many subproblems the page, and a hundred times more advlib, may use.
    """
    model, rng = play.from_note(play.stored(name)), np.random.default_rng(seed)
    whole, y, eps = inputs(model, count, rng)
    asked = {"name": name, "images": texts(whole), "labels": y.tolist()}
    found = page.evaluate(VERDICTS, asked | {"eps": eps.tolist(), "nodes": nodes})
    result = Verdicts()
    for radius in np.unique(eps):
        (places,) = np.nonzero(eps == radius)
        x = whole[places].double() / 255
        exact = branch_and_bound.branch_and_bound(
            model,
            x,
            y[places],
            float(radius),
            max_nodes=100 * max(nodes, 10),
            time_limit=10,
        )
        for place, image, true in zip(places, x, exact, strict=True):
            page_says = found[place]
            result.said[page_says["verdict"], true.status] += 1
            fault = clash(model, image, int(y[place]), page_says, true)
            if fault:
                result.clashes.append(f"{name}, input {place}, eps {radius}: {fault}")
    return result


def clash(model: nn.Module, x: Tensor, label: int, said: dict, true: Verdict) -> str:
    """Return what contradicts, or nothing."""
    if said["verdict"] in ("fooled", "misread") and true.status == "certified":
        return f"{said['verdict']}, but certified"
    if said["verdict"] == "safe" and (true.status == "attacked" or said["lower"] <= 0):
        return f"safe, from {said['lower']}, but {true.status}"
    margin = said["upper"]
    if true.delta is not None:
        z = model((x + true.delta.view(x.shape)).clamp(0, 1)[None])[0]
        own = float(z[label] - z[torch.arange(len(z)) != label].max())
        margin = min(margin, own)
    if said["bound"] > margin + ROUNDING:
        return f"a bound is {said['bound']}, and a margin {margin}"
    return ""


def main(given: list[str] | None = None) -> int:
    """Run both checks on each network; the exit status is 1 if one fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="verdicts a network")
    parser.add_argument("--agree", type=int, default=100, help="inputs of agreement")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", nargs="+", default=NAMES[:3], choices=NAMES)
    asked = parser.parse_args(given)
    bad = 0
    with engine() as page:
        for name in asked.networks:
            far = agreement(page, name, asked.agree, eps=0.1, heavy=asked.agree)
            within = float((far["margin"] < 1e-3).mean())
            exact = {k: float(v.max()) for k, v in far.items() if k != "margin"}
            bad += within < 0.95 or max(exact.values()) > 1e-4
            row = ", ".join(f"{key} {value:.1e}" for key, value in exact.items())
            print(f"{name}: {row}; after {STEPS} steps within 1e-3: {within:.0%}")
            found = verdicts(page, name, asked.count, seed=asked.seed)
            for (page_says, true), count in sorted(found.said.items()):
                print(f"  {count:5} {page_says:8} on the page, {true} by advlib")
            for line in found.clashes:
                print(f"  {line}")
            bad += len(found.clashes)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
