"""House rules of advlib, read off its source: hints, docstrings, sizes, silence."""

import ast
import re
from pathlib import Path

import pytest

import advlib

PACKAGE = Path(advlib.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """``attacks.pgd`` for a module, ``attacks`` for a room's front door."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "advlib"


TREES = {room(path): ast.parse(path.read_text("utf-8")) for path in MODULES}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# what matplotlib takes is wider than any hint that would help a reader
UNTYPED = {
    ("plot.image", "pixels"),
    ("plot.images", "batch"),
    ("plot.perturbation", "delta"),
    ("plot.band", "x"),
    ("plot.band", "center"),
    ("plot.band", "low"),
    ("plot.band", "high"),
    ("networks.models.seeded", "args"),  # handed on as they are
    ("networks.models.seeded", "kwargs"),
}


def definitions() -> dict[str, ast.AST]:
    """All functions and methods, also private ones, by their dotted name."""
    found = {}
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, FUNCTIONS):
                found[f"{module}.{node.name}"] = node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, FUNCTIONS):
                        found[f"{module}.{node.name}.{inner.name}"] = inner
    return found


def is_public(name: str) -> bool:
    """No part of the name is private; special methods have their class's docstring."""
    return not any(part.startswith("_") for part in name.split("."))


ALL = definitions()
PUBLIC = {name: node for name, node in ALL.items() if is_public(name)}
CLASSES = {
    f"{module}.{node.name}": node
    for module, tree in TREES.items()
    for node in tree.body
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
}


def owned(table: dict[str, ast.AST], module: str) -> dict[str, ast.AST]:
    """The entries of ``table`` that ``module`` itself defines: one test a module."""
    defined = {
        f"{module}.{n.name}": n for n in TREES[module].body if hasattr(n, "name")
    }
    return {
        name: node
        for name, node in table.items()
        if name in defined or name.rpartition(".")[0] in defined
    }


def arguments(node) -> list[ast.arg]:
    """All arguments but ``self``."""
    a = node.args
    every = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    return [arg for arg in every if arg is not None and arg.arg != "self"]


def same_room(name: str, other: str) -> list[str]:
    """What ``other`` can mean in the docstring of ``name``: a name of its room."""
    first = name.split(".")[0]
    found = [n for n in ALL if n.split(".")[0] == first and n.endswith(f".{other}")]
    return [n for n in found if f"{n.rsplit('.', 1)[0]}" in TREES]


def described(name: str, seen: frozenset = frozenset()) -> str:
    """The docstring of ``name`` and of those to which it refers.

    A reference is a phrase such as "as ``f``", "see ``f``", "what ``f`` raises", "as
    there"; the functions meant are those that the docstring names.
    """
    text = " ".join((ast.get_docstring(ALL[name]) or "").split())
    if re.search(r"\b([Aa]s|see|what) (``\w+``|there)", text):
        for other in re.findall(r"``(\w+)``", text):
            for target in same_room(name, other):
                if target not in seen | {name}:
                    text += " " + described(target, seen | {name})
    return text


def test_the_walk_finds_the_package():
    """The rules below are checked on something: known functions are among them."""
    known = {"attacks.pgd.pgd_linf", "exact.linear.worst_delta", "zoo.Recipe.rates"}
    assert known <= set(PUBLIC)
    assert "attacks.strong._turns" in ALL
    assert "attacks.strong._turns" not in PUBLIC
    assert {"data.Dataset", "evaluation.errors.ErrorRate"} <= set(CLASSES)
    assert len(PUBLIC) > 40


def test_the_exceptions_are_real():
    """Each exception stands for an argument that exists and has no hint."""
    for name, argument in UNTYPED:
        (found,) = [a for a in arguments(PUBLIC[name]) if a.arg == argument]
        assert found.annotation is None


def test_every_definition_belongs_to_one_module():
    """The tests below go by modules, and leave none of the definitions out."""
    for table in (ALL, PUBLIC, CLASSES):
        found = [name for module in TREES for name in owned(table, module)]
        assert sorted(found) == sorted(table)


@pytest.mark.parametrize("module", TREES)
def test_type_hints(module):
    """Every argument and every result, of private functions too."""
    for name, node in owned(ALL, module).items():
        bare = [a.arg for a in arguments(node) if a.annotation is None]
        assert [arg for arg in bare if (name, arg) not in UNTYPED] == [], name
        assert node.returns is not None, name


@pytest.mark.parametrize("module", TREES)
def test_docstring(module):
    """Modules, classes and functions: a first line that ends as a sentence."""
    nodes = owned(CLASSES, module) | owned(PUBLIC, module)
    for name, node in {module: TREES[module], **nodes}.items():
        text = ast.get_docstring(node)
        assert text, name
        first = text.split("\n\n")[0]
        assert first.rstrip().endswith((".", ":")), name


@pytest.mark.parametrize("module", TREES)
def test_every_argument_is_described(module):
    """Its name occurs in the docstring, or in the one that this refers to."""
    for name, node in owned(PUBLIC, module).items():
        text = described(name)
        names = [a.arg for a in arguments(node)]
        assert [n for n in names if not re.search(rf"\b{n}\b", text)] == [], name


@pytest.mark.parametrize("module", TREES)
def test_keywords_in_docstrings_exist(module):
    """A name given as an argument in a docstring, ``name=``, is one somewhere."""
    every = {a.arg for node in ALL.values() for a in arguments(node)} | {"axis"}
    for name, node in owned(PUBLIC, module).items():
        used = set(re.findall(r"\b(\w+)=", ast.get_docstring(node) or ""))
        assert used <= every | {"ADVLIB_PROGRESS", "ADVLIB_DATASET"}, name


def raised(node) -> set[str]:
    """The names of the exceptions raised lexically inside ``node``."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and inner.exc is not None:
            called = inner.exc.func if isinstance(inner.exc, ast.Call) else inner.exc
            if isinstance(called, ast.Name) and called.id.endswith("Error"):
                found.add(called.id)
    return found


@pytest.mark.parametrize("module", TREES)
def test_raised_errors_are_documented(module):
    """Every ``raise X`` of the function itself: X is in its docstring."""
    for name, node in owned(PUBLIC, module).items():
        text = described(name)
        assert {error for error in raised(node) if error not in text} == set(), name


@pytest.mark.parametrize("module", TREES)
def test_errors_of_constructors_are_documented(module):
    """What ``__init__`` and ``__post_init__`` raise is in the class's docstring."""
    for name, node in owned(CLASSES, module).items():
        text = ast.get_docstring(node)
        starts = [f"{name}.{method}" for method in ("__init__", "__post_init__")]
        errors = set().union(*(raised(ALL[s]) for s in starts if s in ALL))
        assert {error for error in errors if error not in text} == set(), name


def code_lines(node) -> int:
    """The number of lines with code: without docstring, blank lines and comments."""
    kept = set()
    body = node.body[1:] if ast.get_docstring(node) else node.body
    last_header = node.body[0].lineno - 1
    kept.update(range(node.lineno, last_header + 1))
    for statement in body:
        for inner in ast.walk(statement):
            if hasattr(inner, "lineno"):
                kept.update((inner.lineno, inner.end_lineno))
    return len(kept)


@pytest.mark.parametrize("module", TREES)
def test_functions_are_short(module):
    """At most 40 lines of code."""
    long = {n: code_lines(node) for n, node in owned(ALL, module).items()}
    assert {name: lines for name, lines in long.items() if lines > 40} == {}


def test_the_median_function_is_shorter_still():
    """At most 12 lines of code for half of the functions."""
    sizes = sorted(code_lines(node) for node in ALL.values())
    assert sizes[len(sizes) // 2] <= 12


@pytest.mark.parametrize("module", TREES)
def test_no_print_no_bare_except_no_star_import(module):
    """A library is silent, names what it catches and what it imports."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names)


def imports(module: str) -> list[tuple[str, str]]:
    """What ``module`` imports of advlib: (module, name), name "" for a module."""
    found = []
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "advlib"
        ):
            inner = node.module.removeprefix("advlib").lstrip(".")
            for alias in node.names:
                whole = f"{inner}.{alias.name}".lstrip(".")
                is_module = whole in TREES or alias.name in advlib.MODULES
                found.append((whole, "") if is_module else (inner, alias.name))
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("advlib.")]
            found += [(name.removeprefix("advlib."), "") for name in names]
    return found


# who may import whom, room by room: the order of the argument
FOUNDATION = {"_check", "files", "networks", "data"}
INNER = FOUNDATION | {"attacks", "bounds", "exact", "proof"}
ABOVE = {
    "_check": set(),
    "_vision": set(),
    "files": set(),
    "activations": {"networks"},
    "tables": set(),
    "plot": {"tables"},
    "results": {"files"},
    "data": {"_vision"},
    "networks": {"_check"},
    "attacks": FOUNDATION,
    "bounds": FOUNDATION,
    "exact": FOUNDATION | {"attacks", "bounds"},
    "proof": FOUNDATION | {"bounds"},
    "play": FOUNDATION
    | {"activations", "attacks", "bounds", "exact", "plot", "results"},
    "units": FOUNDATION,
    "words": FOUNDATION | {"units", "results"},
    "verify": FOUNDATION | {"bounds", "proof"},
    "training": INNER,
    "evaluation": INNER,
    "exercises": INNER | {"activations", "evaluation", "results", "tables", "zoo"},
    "train": INNER | {"activations", "training", "evaluation", "results", "_vision"},
}


@pytest.mark.parametrize("module", [m for m in TREES if m.split(".")[0] in ABOVE])
def test_dependence_is_one_way(module):
    """No module imports one that comes later in the argument; plot only tables."""
    first = module.split(".")[0]
    short = advlib.MODULES
    used = {short.get(other, other).split(".")[0] for other, _ in imports(module)}
    assert used <= ABOVE[first] | {first}


@pytest.mark.parametrize("module", TREES)
def test_no_module_uses_the_underscore_names_of_another(module):
    """Neither imported nor reached through the module's name."""
    taken = imports(module)
    assert [pair for pair in taken if pair[1].startswith("_")] == []
    names = {other.split(".")[-1] for other, name in taken if not name}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert not (node.value.id in names and node.attr.startswith("_")), node.attr


@pytest.mark.parametrize("path", MODULES, ids=lambda p: room(p))
def test_modules_are_short(path):
    """At most 450 lines."""
    assert len(path.read_text("utf-8").splitlines()) <= 450


def test_every_short_name_is_a_module_of_a_room():
    """``from advlib import NAME``: each stands for one module, and for no other."""
    for name, where in advlib.MODULES.items():
        assert where in TREES
        assert getattr(advlib, name).__name__ == f"advlib.{where}"
        assert name in dir(advlib)
        assert name not in TREES
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        advlib.nothing  # noqa: B018
