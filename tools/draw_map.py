"""Write the map of the book, for the README (_static) and for the site (_ext)."""

import io
import re
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from advlib import plot

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "_static" / "both-sides.svg"
SITE = (
    ROOT / "_ext" / "book_theme" / "both-sides.svg"
)  # inside the page, in its colours
INHERITED = {"#000000": "currentColor", "#262626": "currentColor"}
INHERITED |= {
    plot.COLORS[side]: f"var(--{side})" for side in ("attack", "exact", "bound")
}


def draw(fonttype: str) -> bytes:
    """Return the map as SVG, its letters as "path" or as text ("none")."""
    plt.rcParams.update({"svg.hashsalt": "both-sides", "svg.fonttype": fonttype})
    fig, ax = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    plot.both_sides(ax)
    stored = io.BytesIO()
    fig.savefig(stored, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(fig)
    return stored.getvalue()


def of_the_page(svg: str) -> str:
    """Return ``svg`` without paper, in colours and font of the page that holds it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    paper = r'<g id="patch_[12]">\s*<path [^>]*style="fill: #ffffff[^>]*/>\s*</g>'
    svg = re.sub(paper, "", svg)
    for color, name in INHERITED.items():
        svg = re.sub(color, name, svg, flags=re.I)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S).replace(
        "xlink:href", "href"
    )
    svg = re.sub(r"\d+\.\d{3,}", lambda m: f"{float(m[0]):.1f}", svg).replace("\n", " ")
    svg = re.sub(r"<text (?![^>]*fill)", '<text fill="currentColor" ', svg)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', svg)
    return re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", svg, flags=re.S)) + "\n"


if __name__ == "__main__":
    plot.use_style()
    TARGET.write_bytes(draw("path"))
    SITE.write_text(of_the_page(draw("none").decode()))
