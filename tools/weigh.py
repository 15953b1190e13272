"""What a page costs a reader with a slow phone: weight, and time until it stands.

``python tools/weigh.py --before ../old/_build/html`` opens every page of both builds in
one run of one browser, 390 px wide, its processor four times slower, on a line of
1.6 Mbit/s and 150 ms, from a server that compresses. It prints for each page

- kB: what a first visit transfers, scrolled to the end;
- mathematics: seconds until every formula is drawn;
- blocking: milliseconds beyond 50 in which the page did not answer, until 2 s after it
  was loaded;

and the ratio to the page before. Without ``--before`` this build alone; ``--weight``
only counts bytes, which needs no slow line and is exact.

A second table holds the figures that the reader plays with, on a processor that is not
slowed: kB that a page loads for them, the longest redraw of ten moves in milliseconds,
in which the page does not answer, and milliseconds until what a worker computes stands,
the .15 s included in which it waits for further moves.
"""

import argparse
import gzip
import json
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml
from playwright.sync_api import Browser, sync_playwright
from shots import FLAGS, chromium

ROOT = Path(__file__).resolve().parent.parent
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".txt", ".xml"}
LINE = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1.6e6 / 8,
    "uploadThroughput": 0.75e6 / 8,
}
WATCH = """
  window.blocked = 0; window.drawn = null;
  new PerformanceObserver(list => list.getEntries().forEach(
    e => { window.blocked += e.duration - 50; }
  )).observe({type: 'longtask', buffered: true});
  const look = () => {
    const all = [...document.querySelectorAll('article .math, article math')];
    const open = all.filter(
      e => !e.matches('math') && !e.querySelector('mjx-container, math'));
    const ready = document.readyState !== 'loading';
    if (ready && !open.length) window.drawn = performance.now();
    else setTimeout(look, 50);
  };
  look();
"""
SCROLL = """async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += 700) {
    scrollTo(0, y);
    await new Promise(done => setTimeout(done, 30));
  }
}"""


PLAY = "/_static/play/"
MOVE = """async host => {
  const wait = ms => new Promise(done => setTimeout(done, ms));
  const settled = async () => {
    const began = performance.now();
    do await wait(5); while (host.dataset.busy === 'true');
    return performance.now() - began;
  };
  const slider = host.querySelector('input[type=range]');
  await settled();
  let redraw = 0, work = 0;
  for (let k = 0; k < 10; k++) {
    if (slider) {
      const up = Number(slider.value) < Number(slider.max);
      if (up) slider.stepUp(); else slider.value = slider.min;
      slider.dispatchEvent(new Event('input', {bubbles: true}));
    } else host.stage.redraw();
    await wait(100);
    redraw = Math.max(redraw, host.stage.took);
    if (host.dataset.busy) work = Math.max(work, 100 + await settled());
  }
  return {redraw, work};
}"""


class Compressing(SimpleHTTPRequestHandler):
    """A quiet server of one folder that compresses what a real one would."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Send a file, compressed if it is text."""
        path = Path(self.translate_path(self.path.split("?")[0]))
        if path.suffix not in COMPRESSED or not path.is_file():
            super().do_GET()
            return
        body = gzip.compress(path.read_bytes(), 6, mtime=0)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on this machine; yield its address."""
    handler = partial(Compressing, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def pages(toc: Path) -> list[str]:
    """Return the names of all pages, in the book's order."""
    tree = yaml.safe_load(toc.read_text())
    groups = [tree, *tree.get("parts", [])]
    found = [c for g in groups for c in g.get("chapters", [])]
    return [
        tree["root"],
        *(p["file"] for c in found for p in (c, *c.get("sections", []))),
    ]


def measure(browser: Browser, url: str, slow: bool) -> dict[str, float]:
    """Return what a first visit to ``url`` costs: bytes, seconds, milliseconds."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    link = context.new_cdp_session(page)
    link.send("Network.enable")
    sizes: list[float] = []
    link.on("Network.loadingFinished", lambda e: sizes.append(e["encodedDataLength"]))
    if slow:
        link.send("Network.emulateNetworkConditions", LINE)
        link.send("Emulation.setCPUThrottlingRate", {"rate": 4})
    page.add_init_script(WATCH)
    page.goto(url, wait_until="load", timeout=120_000)
    found = {"drawn": 0.0, "blocked": 0.0}
    if slow:
        page.wait_for_function("window.drawn !== null", timeout=120_000)
        page.wait_for_timeout(2000)
        found = page.evaluate("({drawn: window.drawn / 1000, blocked: window.blocked})")
        link.send("Emulation.setCPUThrottlingRate", {"rate": 1})
        link.send(
            "Network.emulateNetworkConditions",
            LINE | {"downloadThroughput": -1, "latency": 0},
        )
    page.evaluate(SCROLL)
    page.wait_for_load_state("networkidle")
    context.close()
    return {"kB": sum(sizes) / 1000, **found}


def played(browser: Browser, url: str) -> list[dict[str, float | str]]:
    """Return name, kB, ms of a redraw and of the work behind, of each moving figure.

    What two figures of a page share is counted with the first.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    link = context.new_cdp_session(page)
    link.send("Network.enable")
    asked: dict[str, str] = {}
    sizes: list[float] = []
    link.on("Network.requestWillBeSent",
            lambda e: asked.update({e["requestId"]: e["request"]["url"]}))  # fmt: skip
    link.on("Network.loadingFinished", lambda e: PLAY in asked.get(e["requestId"], "")
            and sizes.append(e["encodedDataLength"]))  # fmt: skip
    page.goto(url, wait_until="load", timeout=120_000)
    found = []
    for place in page.locator("[data-play]").all():
        sizes.clear()
        for _ in range(100):  # what is drawn above it may push it away again
            place.evaluate("e => e.scrollIntoView({block: 'center'})")
            page.wait_for_timeout(200)
            if place.get_attribute("data-ready") is not None:
                break
        else:
            raise RuntimeError(f"a figure of {url} does not start")
        page.wait_for_load_state("networkidle")
        weight = sum(sizes) / 1000
        moves = place.evaluate(MOVE)
        found.append({"name": place.get_attribute("data-play"), "kB": weight, **moves})
    context.close()
    return found


def median(browser: Browser, url: str, slow: bool, rounds: int) -> dict[str, float]:
    """Return the median of several visits, each a first one."""
    runs = [measure(browser, url, slow) for _ in range(rounds)]
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def row(name: str, now: dict[str, float], before: dict[str, float] | None) -> str:
    """Return one line of the table."""
    line = f"{name[:38]:38} {now['kB']:7.0f} {now['drawn']:7.2f} {now['blocked']:7.0f}"
    if before:
        line += (
            f" | {before['kB']:7.0f} {before['drawn']:7.2f} {before['blocked']:7.0f} |"
        )
        for key in ("kB", "drawn", "blocked"):
            line += f" {now[key] / max(before[key], 1e-9):6.3f}"
    return line


def main() -> None:
    """Print the table for every page of one build, or of two side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--pages", default="", help="only names that contain this")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weight", action="store_true", help="bytes alone")
    parser.add_argument("--save", type=Path, help="write the numbers as JSON, too")
    options = parser.parse_args()
    names = [n for n in pages(ROOT / "_toc.yml") if options.pages in n]
    head = f"{'page':38} {'kB':>7} {'math s':>7} {'block':>7}"
    print(head + (" |  before                 | ratios" if options.before else ""))
    rounds, slow = (1, False) if options.weight else (options.rounds, True)
    table = {}
    with sync_playwright() as p, served(options.site.resolve()) as here:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        with served((options.before or options.site).resolve()) as there:
            for name in names:
                now = median(browser, f"{here}/{name}.html", slow, rounds)
                old = options.before and (options.before / f"{name}.html").is_file()
                before = (
                    median(browser, f"{there}/{name}.html", slow, rounds)
                    if old
                    else None
                )
                table[name] = {"now": now, "before": before}
                print(row(name, now, before), flush=True)
        print(f"\n{'figure':38} {'kB':>7} {'redraw':>7} {'worker':>7}")
        for name in names:
            if 'data-play="' not in (options.site / f"{name}.html").read_text("utf8"):
                continue
            table[name]["played"] = played(browser, f"{here}/{name}.html")
            for one in table[name]["played"]:
                label = f"{name.split('/')[-1][:24]}: {one['name']}"
                print(f"{label[:38]:38} {one['kB']:7.1f} {one['redraw']:7.1f}"
                      f" {one['work']:7.0f}", flush=True)  # fmt: skip
        browser.close()
    if options.save:
        options.save.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
