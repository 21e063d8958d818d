"""Operators whose channels belong together, so that none of them can be taken out alone."""

from convfabric.operators.banded import BandedConv
from convfabric.operators.composites import Work, primitives
from convfabric.operators.convolutions import Conv
from convfabric.operators.operator import Operator
from convfabric.operators.parameterless import Maxout, Shuffle

Ends = tuple[int, int]
"""Channels read and written."""


def belong_together(operator: Operator) -> bool:
    """Whether a primitive operator deals with its channels by their positions among all of them.

    >>> belong_together(Conv(groups=2)), belong_together(Conv())
    (True, False)
    """
    return isinstance(operator, BandedConv | Shuffle | Maxout) or (isinstance(operator, Conv) and operator.groups > 1)


def check_not_torn(operator: Operator, whole: Ends, smaller: Ends) -> None:
    """Raises ValueError where an operator cannot join so few channels, or one inside it would be torn apart.

    >>> check_not_torn(Conv(), (4, 4), (2, 4))
    >>> check_not_torn(Conv(groups=2), (4, 4), (2, 4))
    Traceback (most recent call last):
    ValueError: channels of Conv in 2 groups belong together: of 4 it reads and 4 it makes, 2 and 4 would stay
    """
    operator.parameters(*smaller)
    parts = (primitives(Work(operator, *ends, (1, 1), (1, 1))) for ends in (whole, smaller))
    for before, after in zip(*parts, strict=True):
        if belong_together(before.operator) and before[1:3] != after[1:3]:
            named = type(before.operator).__name__
            named += f" in {before.operator.groups} groups" if isinstance(before.operator, Conv) else ""
            raise ValueError(
                f"channels of {named} belong together: of {before.channels_in} it reads and {before.channels_out} it "
                f"makes, {after.channels_in} and {after.channels_out} would stay"
            )
