"""Corpora: texts as lists of words, from gensim or from the disk."""

import hashlib
import lzma
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import ModuleType

from advlib import data

IMDB8 = "text/imdb8.xz"
IMDB8_SHA256 = "b7620413568c3a1d341ea93a5ec6411c8facf654c84d125004a17140658c0b8b"
CHARACTERS = 100_000_000  # of text8 and of imdb8, to the letter
CORPORA = ("text8", "imdb8", "lee")


def import_gensim(module: str) -> ModuleType:
    """Return the ``module`` of gensim, imported when it is needed.

    Raises ``ImportError``, and says how to get gensim, if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"gensim.{module}")
    except ImportError as error:
        raise ImportError(
            "gensim trains word vectors and is not installed: pip install gensim. "
            "The committed vectors need no gensim: words.load(...)."
        ) from error


@dataclass(frozen=True)
class Corpus:
    """A text as a list of lower-case ``words``, with a ``name``.

    ``note`` says why this corpus was taken, and is part of ``str``.
    """

    name: str
    words: list[str]
    note: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {len(self.words)} words"
        return text + (f" ({self.note})" if self.note else "")


def _interned(text: str) -> list[str]:
    """Split at spaces; equal words are one object, which saves a gigabyte."""
    known: dict[str, str] = {}
    return [known.setdefault(word, word) for word in text.split()]


def _text8(timeout: float) -> Corpus:
    downloader, before = import_gensim("downloader"), socket.getdefaulttimeout()
    socket.setdefaulttimeout(timeout)
    try:
        parts = downloader.load("text8")
    except (OSError, ValueError, HTTPException) as error:  # gensim: no list, no network
        raise FileNotFoundError(f"text8 could not be downloaded: {error}") from error
    finally:
        socket.setdefaulttimeout(before)
    text = " ".join(" ".join(part) for part in parts)
    if abs(len(text) - CHARACTERS) > 2:  # gensim drops the spaces at the ends
        raise ValueError(f"text8 has {len(text)} characters: delete it, load again")
    return Corpus("text8", _interned(text))


def _imdb8(timeout: float) -> Corpus:
    paths = [root / IMDB8 for root in data.roots()]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"{IMDB8} is in none of {[*map(str, data.roots())]}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != IMDB8_SHA256:
        raise ValueError(f"{path} is not the published file: truncated or altered")
    return Corpus("imdb8", _interned(lzma.decompress(content).decode("ascii")))


def _lee(timeout: float) -> Corpus:
    path = Path(import_gensim("test.utils").datapath("lee_background.cor"))
    text = path.read_text("utf-8").lower()
    return Corpus("lee", _interned(" ".join(re.findall("[a-z]+", text))))


_LOADERS = {"text8": _text8, "imdb8": _imdb8, "lee": _lee}


def load_corpus(name: str | None = None, *, timeout: float = 5) -> Corpus:
    """Load corpus ``name``, or the largest that can be had.

    "text8": the first 100 MB of Wikipedia, by ``gensim.downloader``, which waits at
    most ``timeout`` seconds for a silent server; "imdb8": film reviews of the same
    size and cleaning, from the folder ``ADVLIB_DATA``; "lee": 300 news items that
    travel inside gensim, in letters a-z too. Without ``name`` the first of these that
    is there, and the note says what was not. Raises ``ValueError`` for another name or
    a damaged file, ``FileNotFoundError`` if it cannot be had, ``ImportError`` without
    gensim (imdb8 needs none).
    """
    if name is not None:
        if name not in _LOADERS:
            raise ValueError(f"unknown corpus {name!r}; one of {CORPORA}")
        try:
            return _LOADERS[name](timeout)
        except OSError as error:
            raise FileNotFoundError(f"{name} cannot be had: {error}") from error
    missed = []
    for other in CORPORA:
        try:
            found = load_corpus(other, timeout=timeout)
        except (FileNotFoundError, ImportError):
            missed.append(other)
            continue
        why = f"{' and '.join(missed)} cannot be had" if missed else ""
        return Corpus(found.name, found.words, why)
    raise FileNotFoundError("no corpus: pip install gensim, or set ADVLIB_DATA")


def split(
    words: Sequence[str], *, size: int = 10_000, every: int = 10
) -> tuple[list[list[str]], list[list[str]]]:
    """Cut ``words`` into pieces of ``size``; hold out each ``every``-th piece.

    Returns (training pieces, held-out pieces). A piece is what gensim calls a
    sentence, of at most 10 000 words. Raises ``ValueError`` if either part is empty.
    """
    if size < 1 or every < 2:
        raise ValueError(f"need size >= 1 and every >= 2, not {size}, {every}")
    pieces = [list(words[i : i + size]) for i in range(0, len(words), size)]
    kept = [piece for i, piece in enumerate(pieces) if i % every != every - 1]
    held_out = pieces[every - 1 :: every]
    if not held_out:
        raise ValueError(f"{len(words)} words make {len(pieces)} pieces: none held out")
    return kept, held_out
