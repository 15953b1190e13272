"""Error rates: clean <= attacked <= true robust <= certified, with their intervals.

``errors`` counts; ``sides`` holds the true robust error from both sides at once;
``statistics`` says what a difference means; ``masking`` looks for signs that an
attacked error is too low.
"""

from advlib.evaluation.errors import (
    Bound,
    ErrorRate,
    attacked,
    attacked_error,
    certified_error,
    clean_error,
    uncertified,
    wrong,
)
from advlib.evaluation.masking import SIGNS, MaskingCheck, masking_checks
from advlib.evaluation.sides import BothSides, Complete, both_sides
from advlib.evaluation.statistics import (
    bootstrap_interval,
    detectable_difference,
    holm,
    images_needed,
    mean_interval,
    paired_p_value,
    paired_t_p_value,
)

__all__ = [
    "SIGNS",
    "BothSides",
    "Bound",
    "Complete",
    "ErrorRate",
    "MaskingCheck",
    "attacked",
    "attacked_error",
    "bootstrap_interval",
    "both_sides",
    "certified_error",
    "clean_error",
    "detectable_difference",
    "holm",
    "images_needed",
    "masking_checks",
    "mean_interval",
    "paired_p_value",
    "paired_t_p_value",
    "uncertified",
    "wrong",
]
