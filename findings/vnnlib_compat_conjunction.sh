#!/usr/bin/env bash
# vnnlib's own translation unites assertions that must hold together.
#
# In VNN-LIB the assertions of a query are a conjunction. The package vnnlib reads
# VNN-LIB 2.0; vnnlib.compat.transform turns a query into cases, one of which must hold:
# a box of inputs, and polytopes of outputs of which one must hold.
# Expected: a bound written (assert (and (>= X[0] 0.0) (<= X[0] 1.0))) bounds X[0] in
# every case, and two disjunctions of two give four polytopes.
# Happens: each assertion that is an "and" or an "or" becomes cases of its own. Two
# inputs bounded by one "and" each give two cases, in each of which one input has no
# bound; with an "or" on the output, cases without any constraint on the output; and two
# disjunctions give their four parts, each alone. A solver that trusts the cases calls
# queries "sat" that have no solution: 0 <= x <= 1, y[0] >= 2.5 for y[0] = x[0] + x[1].
# Versions: vnnlib 1.0.2, Python 3.11, 2026-12-01. Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q vnnlib==1.0.2
"$work/venv/bin/python" - <<'EOF'
from math import inf

from vnnlib import compat, parse_query_string

HEAD = """(vnnlib-version <2.0>)
(declare-network N (declare-input X float32 [2]) (declare-output Y float32 [2]))
"""
JOINED = """(assert (and (>= X[0] 0.0) (<= X[0] 1.0)))
(assert (and (>= X[1] 0.0) (<= X[1] 1.0)))
"""
PLAIN = """(assert (>= X[0] 0.0)) (assert (<= X[0] 1.0))
(assert (>= X[1] 0.0)) (assert (<= X[1] 1.0))
"""
EITHER = "(assert (or (<= Y[0] -3.0) (>= Y[0] 0.0)))\n"
OTHER = "(assert (or (<= Y[1] -3.0) (>= Y[1] 0.0)))\n"


def translated(lines):
    """The cases of a query, in an order of their own: boxes and polytopes."""
    cases = compat.transform(parse_query_string(HEAD + lines))
    found = [
        (c.input_box, [(p.coeff_matrix, p.rhs) for p in c.output_constraints])
        for c in cases
    ]
    return sorted(found, key=str)


def show(title, lines):
    """Print the cases and return them."""
    cases = translated(lines)
    print(f"{title}:")
    for box, polytopes in cases:
        print("   x in", [(low + 0.0, high) for low, high in box], " y in", polytopes)
    return cases


free = (-inf, inf)
cases = show("bounds as plain assertions, y[0] >= 2.5", PLAIN + "(assert (>= Y[0] 2.5))")
assert [box for box, _ in cases] == [[(0.0, 1.0), (0.0, 1.0)]]
cases = show("bounds as (and ...), y[0] >= 2.5", JOINED + "(assert (>= Y[0] 2.5))")
assert len(cases) == 2, "no longer one case for each (and ...)"
assert all(free in box for box, _ in cases), "every input has bounds"
cases = show("bounds as (and ...), an (or ...) on y", JOINED + EITHER)
assert any([] in polytopes[0] for _, polytopes in cases), "all cases constrain y"
cases = show("two disjunctions", PLAIN + EITHER + OTHER)
assert [len(rows) for _, ps in cases for rows, _ in ps] == [1] * 4, "a real product"
print("assertions that must hold together are taken as alternatives")
EOF
