"""Errors of this package.

::

    ConvfabricError
    ├── GraphError (ValueError)      a graph breaks a law, or is asked for an edge it does not have
    │   └── NoRouteError             a cut leaves no way from the images to the head
    ├── BudgetError (ValueError)     no sub-network meets the budget
    ├── SettingError (ValueError)    a name or number of a job is not accepted
    ├── DataError (ValueError)       images, masks or labels that cannot be used
    ├── ArchiveError (ValueError)    a file of ours that is damaged, foreign, in the way or cannot be written
    ├── TrainingError (RuntimeError) a run that had to stop
    │   └── StuckError               a run whose answers stay no better than chance
    ├── ExportError (RuntimeError)   an exported file that does not answer like the network
    ├── ImportingError (ValueError)  a network of others that cannot be made a graph
    ├── EmbeddingError (ValueError)  a network that no fabric of 3×3 edges is known to be
    └── DeviceError (RuntimeError)   a board that is not reached, or answers nonsense
        └── UntimedError             models that wait to be timed on a board that no connection reaches

>>> issubclass(NoRouteError, GraphError) and issubclass(GraphError, ValueError)
True
"""


class ConvfabricError(Exception):
    """The root of everything this package raises on purpose."""


class GraphError(ConvfabricError, ValueError):
    """A graph that breaks a law, or a question about a part it does not have."""


class NoRouteError(GraphError):
    """A restriction that leaves no way from the images to the head."""


class BudgetError(ConvfabricError, ValueError):
    """A budget that no sub-network meets."""


class SettingError(ConvfabricError, ValueError):
    """A setting whose name or value is not accepted."""


class DataError(ConvfabricError, ValueError):
    """Images, masks or labels that cannot be used as they are."""


class ArchiveError(ConvfabricError, ValueError):
    """A file of a run that is damaged, foreign, in the way, or cannot be written."""


class TrainingError(ConvfabricError, RuntimeError):
    """A training run that had to stop."""


class StuckError(TrainingError):
    """A training run whose answers stay no better than chance."""


class ExportError(ConvfabricError, RuntimeError):
    """An exported file that does not answer like the network it was made from."""


class ImportingError(ConvfabricError, ValueError):
    """A network of others that cannot be made a graph, or not one that answers alike."""


class EmbeddingError(ConvfabricError, ValueError):
    """A network that no construction is known for by which a fabric of 3×3 edges answers alike."""


class DeviceError(ConvfabricError, RuntimeError):
    """A board that cannot be reached, cannot run a model, or answers what no times are."""


class UntimedError(DeviceError):
    """Models that wait to be timed on a board that no connection reaches."""
