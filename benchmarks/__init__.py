"""How fast is advlib beside its peers and beside the physical limit?

``python -m benchmarks`` prints one table. No part of the book depends on this folder.
"""
