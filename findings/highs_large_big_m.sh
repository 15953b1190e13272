#!/usr/bin/env bash
# HiGHS calls a feasible integer program infeasible when its big-M is large.
#
# One ReLU, a = max(0, z), z = b + w x, x in [0, 1], in the textbook encoding with one
# binary d: a >= z, a >= 0, a <= z + M (1 - d), a <= M d; and one more row, v a <= t.
# The point x = 1, d = 1 satisfies every row with room to spare, whatever M is.
# Expected: "Optimal" for every M; a large M may cost time or tightness.
# Happens, with all options at their defaults: "Optimal" up to 1e5, "Infeasible" from
# 1e6 on. A verifier that reads "infeasible" as "no counterexample exists" then proves
# what is false.
# Versions: highspy 1.15.1, numpy 2.4.6, Python 3.11, 2026-11-28. Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q highspy==1.15.1 numpy==2.4.6
"$work/venv/bin/python" - <<'EOF'
import highspy
import numpy as np

W, B, V, T = -0.021731746304781255, 0.2589970546989306, 0.7805917642525522, 0.18622632936775


def program(big_m):
    """Columns x, z, a, d and the rows, as (lower, upper, columns, values)."""
    columns = [(0, 1), (-big_m, big_m), (0, big_m), (0, 1)]
    inf = highspy.kHighsInf
    rows = [
        (B, B, (0, 1), (-W, 1.0)),
        (0.0, inf, (1, 2), (-1.0, 1.0)),
        (-inf, big_m, (1, 2, 3), (-1.0, 1.0, big_m)),
        (-inf, 0.0, (2, 3), (1.0, -big_m)),
        (-inf, T, (2,), (V,)),
    ]
    return columns, rows


def status(big_m):
    """What HiGHS says with all options at their defaults, but silent."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    columns, rows = program(big_m)
    for low, high in columns:
        solver.addVar(low, high)
    solver.changeColIntegrality(3, highspy.HighsVarType.kInteger)
    for low, high, at, values in rows:
        solver.addRow(low, high, len(at), np.array(at, np.int32), np.array(values))
    solver.run()
    return solver.modelStatusToString(solver.getModelStatus())


def room(big_m):
    """By how much the point x = 1, d = 1 is inside the inequalities."""
    z = B + W
    columns, rows = program(big_m)
    point = (1.0, z, z, 1.0)
    assert all(low <= p <= high for p, (low, high) in zip(point, columns))
    values = [sum(v * point[c] for c, v in zip(at, vs)) for _, _, at, vs in rows]
    assert all(low <= f <= high for f, (low, high, *_) in zip(values, rows))
    return T - values[-1]


found = {}
for power in range(1, 9):
    found[power] = status(10.0**power)
    print(f"M = 1e{power}: {found[power]:10}  room at the known point {room(10.0**power):.4f}")
assert all(found[p] == "Optimal" for p in (1, 2, 3, 4)), "small M: changed"
assert all(found[p] == "Infeasible" for p in (6, 7, 8)), "large M: no longer infeasible"
print("a feasible program is called infeasible from M = 1e6 on")
EOF
