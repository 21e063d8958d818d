"""A network is a graph on a grid of layers × scales: the frozen value, and what is asked of it."""

from convfabric.graph.parts import NORM_AND_RELU, POINT, Edge, Entry, Head, Join, Node, Place, Step, Task, Tie
from convfabric.graph.structure import Graph, remembered

__all__ = [
    "NORM_AND_RELU",
    "POINT",
    "Edge",
    "Entry",
    "Graph",
    "Head",
    "Join",
    "Node",
    "Place",
    "Step",
    "Task",
    "Tie",
    "remembered",
]
