"""Upper bounds on the worst case by propagation: intervals and linear functions.

Everything here bounds the *margins* z_y - z_j from below, over all inputs in a box;
so it bounds the worst case from above. Sound for the network in real arithmetic, up
to the rounding of the computation (``advlib.proof`` closes that gap).

Two walks through the network, laid out by ``plan``: forward (``intervals``), a box
goes in and a box comes out; backward (``walk``, ``crown``, ``slopes``), a linear
function of the logits is pulled to the input. ``relaxations`` solve convex
``programs``. ``lipschitz`` and ``smoothing`` are certificates of another kind.

A network is first rewritten by ``networks.canonical``: an unknown layer is refused.
"""

from advlib.bounds.crown import (
    crown_margins,
    linear_lower,
    relu_bounds,
    wong_kolter_margins,
)
from advlib.bounds.intervals import interval_bounds, interval_margins
from advlib.bounds.margins import certified, input_box, margin_spec
from advlib.bounds.plan import Box
from advlib.bounds.slopes import alpha_crown_margins
from advlib.bounds.walk import relaxation

__all__ = [
    "Box",
    "alpha_crown_margins",
    "certified",
    "crown_margins",
    "input_box",
    "interval_bounds",
    "interval_margins",
    "linear_lower",
    "margin_spec",
    "relaxation",
    "relu_bounds",
    "wong_kolter_margins",
]
