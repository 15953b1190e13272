"""Answers to questions about networks: ``sat`` with a point, or ``unsat``."""
