"""Pages of the library, from its docstrings, linked with the chapters in both ways.

``{api} attacks`` lists what the module ``advlib.attacks`` offers: signature, docstring,
and the chapter that derives it. In a chapter, a name such as ``attacks.pgd_linf`` or
``crown_margins``, set as code, leads here.

The chapter that derives a name is the first that says it in its text, outside code
cells; if none does, the first that runs it.
"""

import importlib
import inspect
import json
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from links import CHAPTER, labels
from sphinx import addnodes
from sphinx.errors import ExtensionError

SHORT = {"Tensor": "torch.Tensor", "nn.Module": "torch.nn.Module"}
INLINE = re.compile(r"``(.+?)``|\*([^*\s][^*]*)\*", re.S)
# where a method is derived; of all else the page says which chapter first speaks of it
DERIVED = {
    "4a": "attacks.fgsm attacks.pgd_linf attacks.pgd_l2 attacks.pgd_l1 attacks.project "
    "attacks.steepest_direction attacks.best_of attacks.targeted_loss "
    "attacks.targeted_sum_loss",
    "4b": "attacks.margin_loss attacks.dlr_loss attacks.targeted_dlr_loss attacks.apgd "
    "attacks.square attacks.strong_attack",
    "10a": "attacks.lbfgs attacks.minimal_pgd_l2 attacks.rescale attacks.Minimal "
    "attacks.carlini_wagner_l2 exact.shortest_linear",
    "2a": "linear.binary_margins linear.worst_delta linear.dual_norm "
    "linear.min_product linear.robustly_wrong",
    "2b": "linear.pairwise_margins linear.cross_entropy_bound",
    "3": "exact.breakpoints exact.segment_max",
    "5": "exact.milp_margin exact.milp_robust exact.big_m_bounds exact.proven_bound "
    "exact.Margin exact.Verdict",
    "6a": "bounds.interval_bounds bounds.interval_margins bounds.wong_kolter_margins "
    "bounds.crown_margins bounds.alpha_crown_margins bounds.linear_lower "
    "bounds.relu_bounds bounds.relaxation bounds.margin_spec bounds.certified "
    "bounds.input_box relaxations.lp_margins",
    "6b": "relaxations.lp_bounds relaxations.sdp_margin lipschitz.lipschitz_bound "
    "lipschitz.lipschitz_margins lipschitz.operator_norm smoothing.certify "
    "smoothing.Certificate smoothing.lower_confidence smoothing.predict "
    "smoothing.votes",
    "6c": "branch_and_bound.branch_and_bound branch_and_bound.exact_error "
    "branch_and_bound.minimal_margin branch_and_bound.ExactError challenge.score",
    "7a": "evaluation.both_sides evaluation.BothSides",
    "7b": "certificates.make_certificate certificates.check_certificate "
    "certificates.exact_logits certificates.forward_error_bound certificates.Exact",
    "8a": "training.fit training.Ramp training.IntervalLoss training.fast",
    "8b": "evaluation.masking_checks evaluation.MaskingCheck",
    "8c": "training.TradesLoss",
    "9a": "units.purity units.verdict units.random_directions units.rotate",
    "10b": "training.PoolLoss lipschitz.circular_norm",
    "11a": "activations.ParametricSoftplus activations.SmoothReLU "
    "activations.Surrogate activations.with_gradient",
}
BOOK = Path(__file__).resolve().parent.parent


class api_text(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes so)
    """One function or class; its link to a chapter is made when all pages are read."""


def module(name: str):
    """Return the module that a chapter imports as ``name``."""
    advlib = importlib.import_module("advlib")
    return importlib.import_module(f"advlib.{advlib.MODULES.get(name, name)}")


def members(name: str) -> dict[str, object]:
    """Return the public functions and classes of a module, in alphabetical order."""
    found = module(name)
    names = getattr(found, "__all__", None)
    if names is None:
        names = [
            key
            for key, value in vars(found).items()
            if not key.startswith("_")
            and getattr(value, "__module__", "") == found.__name__
        ]
    values = {key: getattr(found, key) for key in sorted(names, key=str.lower)}
    return {
        k: v for k, v in values.items() if inspect.isfunction(v) or inspect.isclass(v)
    }


def signature(name: str, value) -> str:
    """Return how ``value`` is called, one argument a line if it is long."""
    try:
        said = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    if inspect.isclass(value):
        said = said.replace(return_annotation=said.empty)
    text = re.sub(
        r"\b(?:torch|collections\.abc|typing|advlib)\.(?:\w+\.)*(?=[A-Z])",
        "",
        str(
            said.replace(return_annotation=said.empty)
            if inspect.isclass(value)
            else said
        ),
    )
    text = re.sub(r"\b(?:matplotlib|scipy|cvxpy)\.(?:\w+\.)+(?=\w)", "", text)
    text = re.sub(r"<(?:function|class) '?([\w.]+)'?[^>]*>", r"\1", text)
    text = re.sub(r"functools\.partial\(.*?\)\)?", "...", text)
    if len(name) + len(text) <= 76:
        return name + text
    inside, _, result = text.rpartition(")")
    depth, parts, last = 0, [], 1
    for place, sign in enumerate(inside):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 1:
            parts.append(inside[last:place].strip())
            last = place + 1
    parts.append(inside[last:].strip())
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"


def prose(text: str) -> list[nodes.Node]:
    """Return a docstring as paragraphs, with its code and its stress."""
    made = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.lstrip().startswith((">>>", "- ")) or "\n    " in block:
            made.append(nodes.literal_block(block, block, language="text"))
            continue
        paragraph, done = nodes.paragraph(), 0
        for match in INLINE.finditer(block):
            paragraph += nodes.Text(block[done : match.start()].replace("\n", " "))
            if match[1]:
                paragraph += nodes.literal("", match[1].replace("\n", " "))
            else:
                paragraph += nodes.emphasis("", match[2].replace("\n", " "))
            done = match.end()
        paragraph += nodes.Text(block[done:].replace("\n", " "))
        made.append(paragraph)
    return made


class Api(Directive):
    """``{api} attacks``: what a module offers."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a section for each function and class."""
        name = self.arguments[0]
        made: list[nodes.Node] = prose(module(name).__doc__ or "")
        for member, value in members(name).items():
            anchor = f"{name}.{member}"
            section = nodes.section(ids=[anchor])
            section += nodes.title("", "", nodes.literal("", anchor))
            entry = ("single", f"{member} ({name})", anchor, "", None)
            section += addnodes.index(entries=[entry])
            said = signature(member, value)
            section += nodes.literal_block(said, said, language="python")
            section += prose(inspect.getdoc(value) or "")
            section += api_text("", name=anchor)
            made.append(section)
        return made


def mentioned() -> dict[str, dict[str, tuple[str, str]]]:
    """Return what each notebook says in its text, and what it runs."""
    found = {}
    for path in sorted((BOOK / "chapters").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf8"))["cells"]
        kinds = {"markdown": "", "code": ""}
        for cell in cells:
            kinds[cell["cell_type"]] += "".join(cell["source"]) + "\n"
        code = re.findall(r"`([^`]+)`", kinds["markdown"])
        found[f"chapters/{path.stem}"] = ("\n".join(code), kinds["code"])
    return found


def derived(app, name: str) -> str | None:
    """Return the page of the chapter that derives ``name``, None if none uses it."""
    if not hasattr(app, "book_mentions"):
        app.book_mentions = mentioned()
    for label, names in DERIVED.items():
        if name in names.split():
            return labels(app.env)[label]
    room, member = name.split(".")
    full = re.compile(rf"\b{room}\.{member}\b|(?<![\w.]){member}\b")
    for kind, pattern in ((0, full), (1, re.compile(rf"\b{room}\.{member}\b"))):
        for page, texts in app.book_mentions.items():
            if pattern.search(texts[kind]):
                return page
    return None


def known(app) -> dict[str, tuple[str, str]]:
    """Return page and anchor of each name, and of what is named once without module."""
    if not hasattr(app, "book_names"):
        places: dict[str, tuple[str, str]] = {}
        bare: dict[str, list[tuple[str, str]]] = {}
        for page in app.env.found_docs:
            for node in app.env.get_doctree(page).findall(api_text):
                places[node["name"]] = (page, node["name"])
                member = node["name"].split(".")[1]
                bare.setdefault(member, []).append(places[node["name"]])
        for member, spots in bare.items():
            if len(spots) == 1 and (len(member) > 6 or "_" in member):
                places[member] = spots[0]
        app.book_names = places
    return app.book_names


def resolve(app, doctree: nodes.document, page: str) -> None:
    """Link entries with their chapters, and names in chapters with their entries."""
    if app.builder.format != "html":
        for node in list(doctree.findall(api_text)):
            node.parent.remove(node)
        return
    for node in list(doctree.findall(api_text)):
        chapter = derived(app, node["name"])
        if chapter is None:
            node.parent.remove(node)
            continue
        label = CHAPTER.match(app.env.titles[chapter].astext())
        uri = app.builder.get_relative_uri(page, chapter)
        link = nodes.reference("", f"Chapter {label[1]}", internal=True, refuri=uri)
        first = any(node["name"] in names.split() for names in DERIVED.values())
        lead = "Derived in " if first else "First used in "
        node.replace_self(
            nodes.paragraph(
                "",
                "",
                nodes.Text(lead),
                link,
                nodes.Text("."),
                classes=["derived"],
            )
        )
    if not page.startswith(("chapters/", "api/")):
        return
    names = known(app)
    for code in list(doctree.findall(nodes.literal)):
        if isinstance(code.parent, nodes.reference | nodes.title):
            continue
        name = re.sub(r"\(.*\)$", "", code.astext()).removeprefix("advlib.")
        if page.startswith("api/"):
            name = meant(code, name)
        if name in names:
            to, anchor = names[name]
            uri = f"{app.builder.get_relative_uri(page, to)}#{anchor}"
            link = nodes.reference("", "", internal=True, refuri=uri, classes=["api"])
            code.replace_self(link)
            link += code


def meant(code: nodes.literal, name: str) -> str:
    """Return which name a docstring means: one of its own module before all others.

    Nothing for an argument of the function itself, and for the function itself.
    """
    section = code.parent
    while section is not None and not any("." in i for i in section.get("ids", [])):
        section = section.parent
    if section is None:
        return name
    room, member = section["ids"][0].split(".", 1)
    value = getattr(module(room), member)
    try:
        own = {*inspect.signature(value).parameters, member}
    except (TypeError, ValueError):
        own = {member}
    if name in own:
        return ""
    return f"{room}.{name}" if name in members(room) else name


def check(app, env) -> None:
    """Complain of a public name that no page lists."""
    listed = {
        node["name"]
        for page in env.found_docs
        for node in env.get_doctree(page).findall(api_text)
    }
    rooms = {name.split(".")[0] for name in listed}
    lost = [n for names in DERIVED.values() for n in names.split() if n not in listed]
    lost += [f"{r}.{m}" for r in rooms for m in members(r) if f"{r}.{m}" not in listed]
    if lost:
        raise ExtensionError(f"api pages lack {sorted(lost)}")


def setup(app):
    """Register directive and links."""
    app.add_node(api_text, html=(lambda self, node: None, lambda self, node: None))
    app.add_directive("api", Api)
    app.connect("env-check-consistency", check)
    app.connect("doctree-resolved", resolve, priority=800)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
