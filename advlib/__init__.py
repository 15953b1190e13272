"""Helpers of the book *Adversarial Robustness from Both Sides*.

The order of the modules is the order of the argument: what is attacked (``data``,
``models``), from below (``attacks``), exactly (``linear``, ``exact``), then training
and measuring. ``plot`` draws; it knows none of the others.
"""

__version__ = "0.1.0"
