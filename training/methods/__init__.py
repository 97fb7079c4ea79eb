"""How the tasks' losses are weighed against each other: a method a file, by the name that the config gives it.

A new method is one file beside this one and two lines here: its import, and its METHODS in METHODS.
"""

from training.methods import fixed, gradients, scalarization, uncertainty
from training.methods.base import Context, Method, MethodSettings

METHODS: dict[str, Method] = fixed.METHODS | uncertainty.METHODS | gradients.METHODS | scalarization.METHODS

__all__ = ["METHODS", "Context", "Method", "MethodSettings"]
