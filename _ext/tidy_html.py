"""Mend what the theme and Sphinx put into every page; each line says what it stops."""

MENDS = [
    # docutils: role=list whose children are no list items (axe: aria-required-children)
    ('<div role="list" class="citation-list">', '<div class="citation-list">'),
    # deprecated in ARIA 1.2 (axe: aria-deprecated-role)
    (' role="doc-biblioentry"', ""),
    # myst-nb: the name hides the visible words (axe: label-content-name-mismatch)
    ('<summary aria-label="Toggle hidden content">', "<summary>"),
]


def tidy(app, pagename, templatename, context, doctree):
    """Drop thebe (off, yet it names a CDN) and scripts that the theme lists twice."""
    seen, keep = set(), []
    for js in context.get("script_files", []):
        body = getattr(js, "attributes", {}).get("body", "")
        name = str(getattr(js, "filename", None) or "")
        if "thebe" in name.lower() or "THEBE_JS_URL" in body or (name, body) in seen:
            continue
        seen.add((name, body))
        keep.append(js)
    context["script_files"] = keep
    for old, new in MENDS:
        context["body"] = context.get("body", "").replace(old, new)


def setup(app):
    """Register the mend after the theme's own handlers."""
    app.connect("html-page-context", tidy, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
