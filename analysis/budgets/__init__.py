"""From what virtual tokens are worth to a length for every layer. Every result sums exactly to the total asked for.

Pure numpy. Axes: L layers, P virtual tokens (NaN where a layer has fewer).
"""

from analysis.budgets.allocate import Budget, allocate, allocate_covering, allocate_within, uniform
from analysis.budgets.methods import METHODS, Method
from analysis.budgets.rules import Rules

__all__ = ["METHODS", "Budget", "Method", "Rules", "allocate", "allocate_covering", "allocate_within", "uniform"]
