"""What each operator of ATen is in a graph: one row for each, called with the values that the trace gives it.

A row is called with arguments as ATen's schema has them, and returns the value of the call. Raises ImportingError for
what a graph has no operator for. Importing this room enters all of them.
"""

from convfabric.importing.patterns import layouts, pools, values, weighted
from convfabric.importing.patterns.forms import ROWS, Padded, response, seen

__all__ = ["ROWS", "Padded", "layouts", "pools", "response", "seen", "values", "weighted"]
