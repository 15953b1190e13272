"""A page at each old address that leads on: ``moved_pages`` in the configuration."""

import posixpath
from pathlib import Path

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>This chapter has moved</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="refresh" content="0; url={to}">
<link rel="canonical" href="{to}">
</head>
<body>
<main><p>This chapter has moved: <a href="{to}">go on to its page</a>.</p></main>
</body>
</html>
"""


def write(app, exception):
    """Write the pages, after a build that went well; a wrong target stops it."""
    if exception is not None or app.builder.name != "html":
        return
    for old, new in app.config.moved_pages.items():
        if new not in app.env.found_docs or old in app.env.found_docs:
            raise ValueError(f"moved_pages: {old} cannot lead on to {new}")
        to = posixpath.relpath(f"{new}.html", posixpath.dirname(old))
        page = Path(app.outdir) / f"{old}.html"
        page.parent.mkdir(exist_ok=True)
        page.write_text(PAGE.format(to=to), encoding="utf8")


def setup(app):
    """Register the option and the writer."""
    app.add_config_value("moved_pages", {}, "html")
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
