"""Exact worst cases: neither an attack's luck nor a bound's slack.

``linear`` models have a formula; along ``segments`` a network has finitely many kinks;
in a ball it is an ``encoding`` of ``instances`` for ``integer_programs``, or a search
by ``branch_and_bound`` over ``splits``. ``verdicts`` are what they say.
"""

from advlib.exact.integer_programs import (
    big_m_bounds,
    milp_margin,
    milp_robust,
    proven_bound,
)
from advlib.exact.linear import shortest_linear
from advlib.exact.segments import breakpoints, segment_max
from advlib.exact.verdicts import ROUNDING, Margin, Verdict

__all__ = [
    "ROUNDING",
    "Margin",
    "Verdict",
    "big_m_bounds",
    "breakpoints",
    "milp_margin",
    "milp_robust",
    "proven_bound",
    "segment_max",
    "shortest_linear",
]
