"""Proofs: ``certificates`` that a ``checker`` proves anew in exact ``arithmetic``.

``reading`` is how the checker sees a network: the stored numbers of known layers.
``questions`` say what is to be proved, ``files`` keep certificates, and ``floats``
bounds what the program that runs the network rounds.
"""
