"""Read a property from a file, in whichever version of VNN-LIB it is written."""

import gzip
import zlib
from pathlib import Path

from advlib.verify import vnnlib1, vnnlib2
from advlib.verify.questions import Number, Question, QuestionError

MAX_BYTES = 512 << 20


def read_vnnlib(path: str | Path, *, cut: Number | float | None = None) -> Question:
    """Return the question in the file ``path``, VNN-LIB 1.0 or 2.0, gzipped or not.

    Version 2.0 begins with ``(vnnlib-version <2.0>)``; it is read by the package
    ``vnnlib``. ``cut``: where inputs without bounds stop (``formulas.question``); by
    default they are an error. Raises ``QuestionError`` with line and column for what
    cannot be read, ``ImportError`` if the package is missing, ``OSError`` if the file
    is.
    """
    text = _text(Path(path))
    version = vnnlib2 if vnnlib2.is_version_2(text) else vnnlib1
    return version.parse(text, str(path), cut=cut)


def _text(path: Path) -> str:
    """The text of the file at ``path``, unpacked if it is gzipped."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise QuestionError(f"{path}: a damaged gzip file ({error})") from error
    if len(data) > MAX_BYTES:
        raise QuestionError(f"{path}: more than {MAX_BYTES} bytes of text")
    return data.decode("utf-8-sig", errors="replace")
