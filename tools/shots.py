"""Screenshot the built site: one contact sheet per page, to be looked at by a person.

``python tools/shots.py`` writes ``_build/shots/<page>.png``: light and dark, desktop
and phone, cut into parts that flow from left to right. ``--only light-1440`` writes
that variant's parts in full size instead. Hidden cells and solutions are opened.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = [(mode, width) for width in (1440, 390) for mode in ("light", "dark")]
PART = 2000  # px: a part's height; Chromium garbles what is taller than 16384
SCALE = 0.5
GAP = 24
FLAGS = ["--no-sandbox", "--allow-file-access-from-files"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--disable-sync", "--no-first-run"]
# a picture of the whole page shows what a browser would leave out until it comes near
ALL = "article section { content-visibility: visible !important; }"
OPEN = """async () => {
  document.querySelectorAll('details').forEach(d => d.open = true);
  document.querySelectorAll('img').forEach(i => i.loading = 'eager');
  await document.fonts.ready;
  for (let y = 0; y < document.documentElement.scrollHeight; y += 800) {
    scrollTo(0, y);
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
  }
  scrollTo(0, 0);
}"""


def chromium() -> str:
    """Return the path of the browser; exit if there is none."""
    for name in ("chromium", "google-chrome", "chromium-browser"):
        if path := shutil.which(name):
            return path
    raise SystemExit("no chromium, google-chrome or chromium-browser on the PATH")


def open_page(browser: Browser, path: Path, mode: str, width: int) -> Page:
    """Open ``path`` in its own context, mathematics drawn, everything unfolded."""
    view = {"width": width, "height": 900}
    context = browser.new_context(viewport=view, color_scheme=mode)
    context.add_init_script(f"localStorage.mode = '{mode}'")
    page = context.new_page()
    page.goto(path.as_uri())
    page.add_style_tag(content=ALL)
    page.evaluate(OPEN)
    return page


def parts(page: Page) -> list[Image.Image]:
    """Return the full page as images of at most ``PART`` px height."""
    width = page.viewport_size["width"]
    height = page.evaluate("document.documentElement.scrollHeight")
    images = []
    for top in range(0, height, PART):
        clip = {"x": 0, "y": top, "width": width, "height": min(PART, height - top)}
        shot = page.screenshot(full_page=True, clip=clip, animations="disabled")
        images.append(Image.open(io.BytesIO(shot)).convert("RGB"))
    return images


def sheet(images: list[Image.Image]) -> Image.Image:
    """Lay ``images`` side by side, in as many rows as needed, and scale them down."""
    total = sum(image.width + GAP for image in images)
    row = max(4000, int((1.5 * total * PART) ** 0.5))  # 3:2, or one row of short pages
    x = y = right = 0
    places = []
    for image in images:
        if x and x + image.width > row:
            x, y = 0, y + PART + GAP
        places.append((x, y))
        x += image.width + GAP
        right = max(right, x)
    below = max(y + i.height for (_, y), i in zip(places, images, strict=True))
    canvas = Image.new("RGB", (right, below), "#b0457a")  # a colour no page has
    for image, place in zip(images, places, strict=True):
        canvas.paste(image, place)
    size = (round(right * SCALE), round(below * SCALE))
    return canvas.resize(size, Image.Resampling.LANCZOS)


def shoot(browser: Browser, path: Path, only: str | None) -> dict[str, Image.Image]:
    """Return the page's files by name: its sheet, or the parts of one variant."""
    shots = {}
    for mode, width in VARIANTS:
        if only in (None, f"{mode}-{width}"):
            page = open_page(browser, path, mode, width)
            shots[mode, width] = parts(page)
            page.context.close()
    images = [image for variant in shots.values() for image in variant]
    if only is None:
        return {f"{path.stem}.png": sheet(images)}
    return {f"{path.stem}-{only}-{k}.png": image for k, image in enumerate(images)}


def main() -> None:
    """Read the command line, take the shots, and name the files written."""
    names = [f"{mode}-{width}" for mode, width in VARIANTS]
    parser = argparse.ArgumentParser(description="Contact sheets of the built site.")
    parser.add_argument("--pages", default="", help="only names that contain this")
    parser.add_argument("--only", choices=names, help="one variant, in full size")
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    args = parser.parse_args()
    site = args.site.resolve()
    pages = sorted(
        p for part in ("", "chapters/", "api/") for p in site.glob(f"{part}*.html")
    )
    pages = [p for p in pages if args.pages in p.stem and p.stem != "index"]
    if not pages:
        raise SystemExit(f"no such page in {site}: is the book built?")
    out = site.parent / "shots"
    out.mkdir(exist_ok=True)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium(), args=FLAGS)
        for path in pages:
            for name, image in shoot(browser, path, args.only).items():
                image.save(out / name)
                print(out / name)
        browser.close()


if __name__ == "__main__":
    main()
