"""The reader plays: figures whose two sides move under the finger.

``show("squeeze")`` in a chapter is the picture that a page stores and prints; on the
book's site, in JupyterLab and on Colab the same figure can be moved. Its engine is a
few plain scripts in ``js`` (``README.md`` there says how they fit together), its
networks are notes in ``data``: ``note`` makes one, ``from_note`` is the same network in
torch.
"""

from advlib.play.notes import from_note, note
from advlib.play.shown import Played, names, show
from advlib.play.stored import images, stored

__all__ = ["Played", "from_note", "images", "names", "note", "show", "stored"]
