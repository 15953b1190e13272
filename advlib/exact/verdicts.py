"""What an exact method returns: a margin between two numbers, or a verdict."""

from dataclasses import dataclass

from torch import Tensor

ROUNDING = 1e-9  # of a bound in float64; what is below it counts as undecided


@dataclass(frozen=True)
class Margin:
    """The smallest margin of an image against a class, between two numbers.

    ``bound`` is proven: no allowed perturbation has a smaller margin, up to the
    solver's tolerance. ``margin`` is attained: the network has it at ``delta``
    (float64, shaped as one image), which was checked by running the network there.
    ``status`` is "optimal", "time_limit", or, of a program whose solver's word could
    not be taken or left them apart, "unproven". ``seconds``: CPU time of this process
    for this image; of work that images shared, each has its part by subproblems.
    """

    bound: float
    margin: float
    delta: Tensor
    status: str
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What an exact method says of one image.

    ``status``: "certified" (no allowed perturbation is misclassified), "attacked"
    (``delta``, float64, shaped as the image, is: checked by running the network) or
    "unknown" (stopped by a limit, or within the solver's tolerance of a tie).
    ``bound``: a proven lower bound of the smallest margin over all classes; once an
    image is attacked nothing more is proven, and it is -inf. ``nodes`` of branch and
    bound, 0 for another method; ``seconds`` as in ``Margin``.
    """

    status: str
    bound: float
    delta: Tensor | None
    seconds: float
    nodes: int = 0
