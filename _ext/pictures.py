"""Figures for the page: WebP, a dark version, a size, loading as one comes to them.

The notebooks store a figure as PNG on white, at twice the dots. ``make refresh`` writes
into the PNG where in it pictures stand (digits, photographs, heat maps): ``PICTURES``,
as left, top, right, bottom in pixels. The dark version turns paper and ink and leaves
those rectangles alone, because their grey levels are what the text speaks of. Without
that note a figure keeps its white paper in the dark.
"""

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image
from sphinx.util import logging

PICTURES = "Pictures"  # the PNG's text chunk
PAPER, INK = 0.185, 0.90  # OKLab lightness of #121212 and of what is written on it
SOFT = 0.8  # below 1: pale greys are lifted more, thin lines stay seen
COLOUR = 0.3  # how much more a full colour is lifted than grey
IMG = re.compile(r'<img\b[^>]*?src="([^"]*_images/[^"]+\.png)"[^>]*>')
LINKED = re.compile(r'<a class="[^"]*image-reference"[^>]*>\s*(<img\b[^>]*>)\s*</a>')
STYLE = re.compile(
    r'(width|height):\s*([\d.]+)(px)?|\b(width|height)="([\d.]+)(?:px)?"'
)
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
logger = logging.getLogger(__name__)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Return sRGB in [0, 1], shape (..., 3), as OKLab (Ottosson 2020)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_LMS.T) @ TO_LAB.T


def srgb(lab: np.ndarray) -> np.ndarray:
    """Return OKLab, shape (..., 3), as sRGB, clipped to [0, 1]."""
    linear = (lab @ np.linalg.inv(TO_LAB).T) ** 3 @ np.linalg.inv(TO_LMS).T
    linear = linear.clip(0, 1)
    return np.where(
        linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055
    )


def in_the_dark(rgb: np.ndarray) -> np.ndarray:
    """Return colours on white paper, uint8 (..., 3), as they are on dark paper.

    White becomes the paper and black the ink. What is drawn in a colour gets lighter
    with its distance from white, a full colour faster than grey; so a stroke and its
    soft edge, a mixture with white, stay on one line from the paper.
    """
    lab = oklab(rgb / 255)
    depth = 1 - lab[..., :1]
    chroma = np.linalg.norm(lab[..., 1:], axis=-1, keepdims=True)
    full = (chroma / np.maximum(depth, 0.02) / 0.4).clip(0, 1)
    light = PAPER + depth**SOFT * (INK - PAPER) * (1 + COLOUR * full)
    return (srgb(np.concatenate([light.clip(0, 0.95), lab[..., 1:]], -1)) * 255).round()


def dark(picture: Image.Image, boxes: list[list[int]]) -> Image.Image:
    """Return ``picture`` for the dark page, with the rectangles as they were."""
    pixels = np.asarray(picture.convert("RGB"))
    colours, where = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    turned = in_the_dark(colours).astype(np.uint8)[where].reshape(pixels.shape)
    for left, top, right, bottom in boxes:
        turned[top:bottom, left:right] = pixels[top:bottom, left:right]
    return Image.fromarray(turned)


def webp(picture: Image.Image, path: Path) -> None:
    """Write ``picture`` without loss."""
    picture.convert("RGB").save(path, "WEBP", lossless=True, quality=90, method=5)


def convert(png: Path, store: Path) -> dict:
    """Write the WebP of ``png``, and the dark one, into ``store``; return both names.

    The dictionary has the names, the size in pixels, and no name for the dark version
    if the PNG does not say where pictures stand.
    """
    name = hashlib.sha256(png.read_bytes()).hexdigest()[:16]
    note = store / f"{name}.json"
    if not note.is_file():
        picture = Image.open(png)
        boxes = picture.info.get(PICTURES)
        made = {"light": f"{name}.webp", "size": picture.size}
        webp(picture, store / made["light"])
        if boxes is not None:
            made["dark"] = f"{name}-dark.webp"
            webp(dark(picture, json.loads(boxes)), store / made["dark"])
        note.write_text(json.dumps(made))
    return json.loads(note.read_text())


def on_the_page(tag: str, size: list[int]) -> tuple[int, int]:
    """Return width and height on the page, CSS pixels: as ``tag`` says, else half."""
    said = {m[1] or m[4]: float(m[2] or m[5]) for m in STYLE.finditer(tag)}
    width = said.get("width", size[0] / 2)
    return round(width), round(width * size[1] / size[0])


def element(tag: str, folder: str, made: dict, lazy: bool) -> str:
    """Return the ``img`` elements that replace ``tag``."""
    alt = re.search(r'alt="([^"]*)"', tag)
    width, height = on_the_page(tag, made["size"])
    rest = f'alt="{alt[1] if alt else ""}" width="{width}" height="{height}"'
    rest += ' decoding="async"' + (' loading="lazy"' if lazy else "")
    if "dark" not in made:
        shown = f'<img class="plate" src="{folder}{made["light"]}" {rest}>'
    else:
        hidden = rest if lazy else f'{rest} loading="lazy"'
        shown = (
            f'<img class="only-light" src="{folder}{made["light"]}" {rest}>'
            f'<img class="only-dark" src="{folder}{made["dark"]}" {hidden}>'
        )
    return f'<div class="scroll picture" style="--w: {width}px">{shown}</div>'


def rewrite(page: Path, pictures: dict[str, dict]) -> None:
    """Put the made pictures in place of the PNGs; the first loads at once."""
    text, count = page.read_text(encoding="utf8"), 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        folder, name = match[1].rsplit("/", 1)
        return element(match[0], f"{folder}/", pictures[name], lazy=count > 1)

    text = LINKED.sub(r"\1", text)  # a picture need not lead to itself
    page.write_text(IMG.sub(replace, text), encoding="utf8")


def finish(app, exception):
    """Convert all figures, several at a time, and rewrite the pages that show them."""
    if exception is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    images, store = out / "_images", out.parent / "pictures"
    store.mkdir(exist_ok=True)
    pngs = sorted(images.glob("*.png"))
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda png: convert(png, store), pngs))
    pictures = {png.name: what for png, what in zip(pngs, made, strict=True)}
    app.book_pictures = pictures  # the cards show them too
    for page in out.rglob("*.html"):
        rewrite(page, pictures)
    for png, what in zip(pngs, made, strict=True):
        for key in ("light", "dark"):
            if key in what:
                (images / what[key]).write_bytes((store / what[key]).read_bytes())
        png.unlink()
    plain = sum("dark" not in what for what in made)
    if plain:
        logger.info(escape(f"{plain} figures keep white paper in the dark"))


def setup(app):
    """Register the last step of the build."""
    app.connect("build-finished", finish, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
