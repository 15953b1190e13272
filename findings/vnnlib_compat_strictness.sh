#!/usr/bin/env bash
# vnnlib's own translation to polytopes makes > into >=, and = into <=.
#
# The package vnnlib reads VNN-LIB 2.0; vnnlib.compat.transform turns a query into boxes
# of inputs and polytopes {y : A y <= b} of outputs, the form of earlier competitions.
# Expected: a strict comparison is told apart from the other one, or refused (as != is);
# an equality becomes two rows.
# Happens: (> Y[0] 1.5) and (>= Y[0] 1.5) give the same polytope, (== Y[0] 1.5) gives
# that of (<= Y[0] 1.5), and (== X[0] 0.5) the box 0 <= X[0] <= 0.5. Everything is made
# larger: "unsat" stays right, but a solver that answers "sat" from it can be wrong.
# Versions: vnnlib 1.0.2, Python 3.11, 2026-12-01. Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q vnnlib==1.0.2
"$work/venv/bin/python" - <<'EOF'
from vnnlib import compat, parse_query_string

HEAD = """(vnnlib-version <2.0>)
(declare-network N (declare-input X float32 [1]) (declare-output Y float32 [1]))
(assert (>= X[0] 0.0))
(assert (<= X[0] 1.0))
"""


def translated(line):
    """The one case of a query: its box, and its polytope's rows and right sides."""
    (case,) = compat.transform(parse_query_string(HEAD + line))
    (polytope,) = case.output_constraints
    return case.input_box, polytope.coeff_matrix, polytope.rhs


found = {}
for relation in (">", ">=", "==", "<=", "<"):
    line = f"(assert ({relation} Y[0] 1.5))"
    found[relation] = translated(line)
    _, rows, right = found[relation]
    print(f"{line:24} {rows} y <= {right}")
assert found[">"] == found[">="], "> and >= are told apart"
assert found["<"] == found["<="], "< and <= are told apart"
assert found["=="] == found["<="], "an equality is no longer one inequality"
line = "(assert (== X[0] 0.5))"
((low, high),), _, _ = translated(line + "(assert (<= Y[0] 1.5))")
print(f"{line:24} {abs(low)} <= x <= {high}")
assert (low, high) == (0.0, 0.5), "an equality of an input is no longer one end"
print("strict comparisons lose their strictness, equalities one of their two sides")
EOF
