"""The planted bugs still fit the source, and the command tells caught from survived."""

import ast
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).resolve().parent.parent


MUTANTS = mutants.MUTANTS
ONE = "tests/test_bounds.py::test_margin_spec_asks_for_differences"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_each_bug_fits_the_source_once(mutant):
    """Its text occurs exactly once, and what stands there then is still Python."""
    changed = mutant.source()
    assert ast.dump(ast.parse(changed)) != ast.dump(
        ast.parse((ROOT / mutant.file).read_text())
    )
    for test in mutant.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text()
        assert not name or f"def {name}(" in text


def test_the_list_is_complete():
    """Thirteen kinds: ten in bounds and exact methods, three in attacks."""
    names = " ".join(m.name for m in MUTANTS)
    for kind in (
        "bias dropped",
        "slope's sign",
        "l and u swapped",
        "slope of 1.1",
        "wrong padding",
        "fold transposed",
        "box not intersected",
        "another image's intermediate bound",
        "rounded up by 1e-3",
        "timed-out incumbent",
        "off the ball by 1e-3",
        "wrong units",
        "clamp inside the graph",
    ):
        assert kind in names
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)


SCRIPT = """
import sys
import mutants
old, sign = "    return rows[y][:, None] - rows", {"turned": "-", "same": "+"}
for name, s in sign.items():
    new = f"    return {s}(rows[y][:, None] - rows)"
    file = "advlib/bounds/margins.py"
    bug = mutants.Mutant(name, file, old, new, (sys.argv[1],))
    mutants.MUTANTS.append(bug)
print(mutants.main(["turned"]), mutants.main(["same"]))
"""


def test_the_command_tells_caught_from_survived():
    """A question with its sign turned fails a test; a plus in front changes nothing."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, ONE],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = ended.stdout.splitlines()
    assert lines[0].endswith("caught by " + ONE.removeprefix("tests/") + "[2]")
    assert lines[2].endswith("SURVIVED")
    assert lines[-1] == "0 1"


def test_a_bug_that_fits_nowhere_is_an_error():
    """So is one that fits twice, or changes nothing."""
    for old, new in (("no such text", "x"), ("import", "export"), ("BUDGET = ",) * 2):
        with pytest.raises(ValueError, match="matches"):
            replace(MUTANTS[0], old=old, new=new).source()
