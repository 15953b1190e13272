"""Runs in the kernel of ``refresh.py``: figures say where in them pictures stand.

Each PNG gets the text chunk "Pictures": left, top, right, bottom in pixels of every
image, heat map and filled contour, whose grey levels and colours are data.
"""

import io
import json

import IPython.core.pylabtools as tools
import matplotlib as mpl
from matplotlib.collections import QuadMesh
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_draw = tools.print_figure


def boxes(fig: Figure, size: tuple[int, int]) -> list[list[int]]:
    """Return where pictures stand in ``fig``, drawn as a PNG of ``size`` pixels."""
    fig.set_layout_engine("none")  # as it was drawn: another pass moves some figures
    fig.draw_without_rendering()
    renderer = fig.canvas.get_renderer()
    pad = mpl.rcParams["savefig.pad_inches"]
    tight = fig.get_tightbbox(renderer).padded(pad)
    scale = size[0] / tight.width
    if abs(scale * tight.height - size[1]) > 3:
        raise RuntimeError(f"a figure of {size} pixels is not {tight} cut at its edges")
    found = []
    for ax in fig.axes:
        for child in ax.get_children():
            filled = isinstance(child, QuadContourSet) and child.filled
            if not child.get_visible() or not (
                isinstance(child, AxesImage | QuadMesh) or filled
            ):
                continue
            spot = ax.bbox
            if isinstance(child, AxesImage):
                spot = mpl.transforms.Bbox.intersection(
                    spot, child.get_window_extent(renderer)
                )
            if spot is None or spot.width < 2 or spot.height < 2:
                continue
            (left, low), (right, high) = spot.get_points() / fig.dpi
            corners = (
                (left - tight.x0) * scale,
                (tight.y1 - high) * scale,
                (right - tight.x0) * scale,
                (tight.y1 - low) * scale,
            )
            found.append([round(float(value)) for value in corners])
    return found


def noting(fig: Figure, fmt: str = "png", bbox_inches="tight", base64=False, **options):
    """Draw as IPython does; a PNG gets the note."""
    made = _draw(fig, fmt, bbox_inches, False, **options)
    if fmt not in ("png", "retina") or not isinstance(made, bytes):
        return _draw(fig, fmt, bbox_inches, base64, **options) if base64 else made
    picture, stored, note = Image.open(io.BytesIO(made)), io.BytesIO(), PngInfo()
    dpi = fig.dpi
    fig.dpi = 2 * dpi if fmt == "retina" else dpi  # letters are as wide as in the file
    try:
        note.add_text("Pictures", json.dumps(boxes(fig, picture.size)))
    finally:
        fig.dpi = dpi
    picture.save(stored, "PNG", pnginfo=note, dpi=picture.info.get("dpi"))
    if not base64:
        return stored.getvalue()
    from binascii import b2a_base64

    return b2a_base64(stored.getvalue(), newline=False).decode("ascii")


tools.print_figure = noting
