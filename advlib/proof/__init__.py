"""Proofs: ``certificates`` that a ``checker`` proves anew in exact ``arithmetic``.

``files`` keep them; ``floats`` bounds what the program that runs the network rounds.
"""
