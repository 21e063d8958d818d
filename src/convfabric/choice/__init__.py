"""From graph, worths, costs and a budget to a smaller graph. Never sees a tensor."""

from convfabric.choice.budgets import (
    Budget,
    Ceiling,
    Measure,
    Summed,
    budget_from,
    ceiling,
    fits,
    measures,
    said_amount,
    taken_by,
)
from convfabric.choice.exact import choose_exactly
from convfabric.choice.greedy import choose

__all__ = [
    "Budget",
    "Ceiling",
    "Measure",
    "Summed",
    "budget_from",
    "ceiling",
    "choose",
    "choose_exactly",
    "fits",
    "measures",
    "said_amount",
    "taken_by",
]
