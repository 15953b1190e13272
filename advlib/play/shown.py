"""What ``show`` returns: a picture to be stored, and, where it can move, the figure."""

import os
from html import escape
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg

HERE = Path(__file__).parent
BASE = ("start", "look", "stage", "draw")
_number = count(1)


def names() -> list[str]:
    """Return the names of all figures, in alphabetical order."""
    found = (HERE / "figures").glob("[!_]*.py")
    return sorted(path.stem for path in found)


def _module(name: str) -> ModuleType:
    if name not in names():
        raise ValueError(f"no figure is called {name!r}; one of {names()}")
    return import_module(f"advlib.play.figures.{name}")


def show(name: str) -> "Played":
    """Return the figure ``name``, to be the last line of a cell.

    A notebook shows and stores its static picture; in JupyterLab and on Colab the
    reader can move it, unless the environment variable ADVLIB_PLAY is "static". Raises
    ``ValueError`` for an unknown name.
    """
    _module(name)
    return Played(name)


class Played:
    """A figure by ``name``, as a notebook shows it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"play.show({self.name!r})"

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict]:
        picture, size = _picture(self.name)
        data = {"image/png": picture, "text/plain": repr(self)}
        if os.environ.get("ADVLIB_PLAY") != "static":
            data["text/html"] = html(self.name)
        return data, {"image/png": size}


def _picture(name: str) -> tuple[str, dict[str, int]]:
    """Return the static picture as PNG in base64, and its size on the page.

    It is drawn as a notebook draws others, with twice the dots.
    """
    figure = _module(name).draw()
    plt.close(figure)  # else the notebook shows it a second time
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()  # its layout settles
    from IPython.core import pylabtools  # it is there: a notebook asks

    return pylabtools.retina_figure(figure, base64=True)


def html(name: str) -> str:
    """Return the figure ``name`` as HTML that loads nothing: all scripts inline.

    Raises ``ValueError`` for an unknown name.
    """
    figure = _module(name)
    files = [HERE / "js" / f"{part}.js" for part in (*BASE, *figure.USES)]
    files += [HERE / "data" / f"{part}.js" for part in figure.NEEDS]
    files.append(HERE / "js" / "figures" / f"{name}.js")
    scripts = [path.read_text(encoding="utf8") for path in files]
    place = f"play-{os.getpid()}-{next(_number)}"
    scripts.append(f'Sides.start(document.getElementById("{place}"));')
    if any("</script" in text for text in scripts):
        raise ValueError(f"a script of {name} would end too early")
    tags = "".join(f"<script>{text}</script>\n" for text in scripts)
    return f'<div id="{place}" data-play="{escape(name)}"></div>\n{tags}'
