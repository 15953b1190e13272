"""What an exact method returns: a margin between two numbers, or a verdict."""

from dataclasses import dataclass

from torch import Tensor

ROUNDING = 1e-9  # of a bound in float64; what is below it counts as undecided


def check_limits(
    *, time_limit: float | None = None, total_time: float | None = None,
    max_nodes: int = 1, total_nodes: int | None = None,
) -> None:  # fmt: skip
    """Refuse a limit of time below 0 or NaN, and one of subproblems below 1.

    ``time_limit``, ``total_time`` in seconds, ``max_nodes``, ``total_nodes`` numbers;
    None is no limit. Raises ``ValueError`` that names the argument.
    """
    for name, limit in (("time_limit", time_limit), ("total_time", total_time)):
        if limit is not None and not limit >= 0:  # refuses NaN, too
            raise ValueError(
                f"need max_nodes >= 1 and time_limit >= 0: {name} = {limit}"
            )
    for name, limit in (("max_nodes", max_nodes), ("total_nodes", total_nodes)):
        if limit is not None and not limit >= 1:
            raise ValueError(
                f"need max_nodes >= 1 and time_limit >= 0: {name} = {limit}"
            )


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
