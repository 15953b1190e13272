"""The whole book as an ePub that passes epubcheck: ``make epub``.

Sphinx writes the ePub; what its readers' standard asks for and Sphinx leaves out is
mended in the pages: MathML is declared in the package, a summary holds words alone, and
style sheets that are not there are not named.
"""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "epub" / "AdversarialRobustnessfromBothSides.epub"
TARGET = ROOT / "_build" / "book.epub"
MENDS = [
    (
        r"(<summary[^>]*>)\s*<p([^>]*)>(.*?)</p>\s*(?:<p[^>]*>.*?</p>\s*)?(?=</summary>)",
        r"\1<span\2>\3</span>",
    ),
    (r'<link rel="stylesheet"[^>]*mystnb[^>]*/>', ""),
    (r"<style[^>]*>.*?</style>", ""),
    (r'(<table\b[^>]*?) border="\d+"', r"\1"),
    (r"<script\b.*?</script>|<script\b[^>]*/>", ""),
]


def page(text: str) -> str:
    """Return one page, mended."""
    for pattern, instead in MENDS:
        text = re.sub(pattern, instead, text, flags=re.S)
    return text


def package(text: str, with_math: set[str]) -> str:
    """Return the list of files, the pages with formulas declared."""

    def declare(match: re.Match[str]) -> str:
        if match[1] not in with_math or "properties=" in match[0]:
            return match[0]
        return match[0].replace("<item ", '<item properties="mathml" ')

    text = re.sub(r"<item [^>]*mystnb[^>]*/>", "", text)
    return re.sub(r'<item [^>]*href="([^"]+)"[^>]*/>', declare, text)


def mended(source: Path, target: Path) -> None:
    """Write ``target`` from the ePub ``source``; the type comes first, uncompressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        texts = {n: old.read(n) for n in old.namelist() if "mystnb" not in n}
        pages = {n: page(t.decode()) for n, t in texts.items() if n.endswith(".xhtml")}
        with_math = {n for n, t in pages.items() if "<math" in t}
        new.writestr("mimetype", texts.pop("mimetype"), zipfile.ZIP_STORED)
        for name, data in texts.items():
            if name in pages:
                data = pages[name].encode()
            elif name == "content.opf":
                data = package(data.decode(), with_math).encode()
            new.writestr(name, data, zipfile.ZIP_DEFLATED)


def main() -> None:
    """Build, mend, and say how large it is."""
    shutil.rmtree(BUILT.parent, ignore_errors=True)
    book = [str(Path(sys.executable).with_name("jupyter-book")), "build", "-q"]
    epub = ["--builder", "custom", "--custom-builder", "epub"]
    subprocess.run([*book, *epub, "."], cwd=ROOT, check=True)
    mended(BUILT, TARGET)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
