"""The static pictures: one module a figure, with ``draw`` and the data that it needs.

Each has beside it ``js/figures/NAME.js``, which makes it move. ``USES`` names the
scripts of ``js`` that it builds on, beside look, stage and draw; ``NEEDS`` names the
files of ``data`` that the interaction reads; ``draw()`` returns the picture that a page
stores and prints.
"""
