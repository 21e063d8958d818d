"""A result beside the trivial one: the most frequent class alone, and classes that are never answered."""

from collections.abc import Sequence
from math import sqrt

from convfabric.evaluation.scoring import Score

REMEDY = "; a lower rate (--set lr=), more epochs, or a fabric trained alone (--set subnetworks=0) may help"
MOST_NAMED = 5
LEAST_PRECISION = 0.01
"""AP50 below which boxes are found by chance."""


def said_beside(score: Score) -> str:
    """Standard error, balanced accuracy and the share of the most frequent class, in words; empty for old scores.

    >>> said_beside(Score(images=75, loss=0.5, accuracy=0.75, miou=None, class_iou=(), recall=(1.0, 0.0), largest=0.75))
    'standard error 4.95 %, balanced 50.00 %, the most frequent class alone 75.00 %'
    """
    if score.balanced_accuracy is None:
        return ""
    if score.ap is not None:
        return f"AP over overlaps from 0.50 to 0.95 {100 * score.ap:.2f} %"
    error = "" if score.standard_error is None else f"standard error {100 * score.standard_error:.2f} %, "
    balanced = f"balanced {100 * score.balanced_accuracy:.2f} %"
    return f"{error}{balanced}, the most frequent class alone {100 * score.largest:.2f} %"


def is_chance(score: Score) -> bool:
    """Whether the recall of all classes together is no surer than answering by chance, or always alike, would be.

    The mean recall of K classes is 1/K then, and its standard error over N images about sqrt(1/K (1 - 1/K) / N); two
    of these are allowed for, of few images a tenth at most. Of boxes an AP50 below a hundredth is no better.

    >>> said = {"images": 100, "loss": 1.0, "miou": None, "class_iou": (), "largest": 0.9}
    >>> [is_chance(Score(accuracy=0.9, recall=recall, **said)) for recall in ((1.0, 0.0), (0.9, 0.8))]
    [True, False]
    """
    if score.ap50 is not None:
        return score.ap50 < LEAST_PRECISION
    occurring = [share for share in score.recall if share is not None]
    if len(occurring) < 2:
        return False
    chance = 1 / len(occurring)
    spread = sqrt(chance * (1 - chance) / score.images)
    return sum(occurring) * chance <= chance + min(2 * spread, 0.1)


def doubts(score: Score, classes: Sequence[str], remedy: str = REMEDY) -> list[str]:
    """Why a result is not to be trusted: it is not surely above the most frequent class, or never answers some class.

    ``remedy``: what may help, said behind the first.

    >>> score = Score(images=8, loss=0.5, accuracy=0.75, miou=None, class_iou=(), recall=(1.0, 0.0), largest=0.75)
    >>> doubts(score, "ab")[1]
    'class b is never answered'
    """
    found = []
    if score.ap50 is not None and is_chance(score):
        found.append(f"an AP50 of {score.ap50:.2%}: the network has learned little or nothing{remedy}")
    spread = 0.0  # of pixels there are many
    if score.miou is None:
        spread = sqrt(score.largest * (1 - score.largest) / max(score.images, 1))
    if score.recall and score.ap50 is None and score.accuracy <= score.largest + spread:
        found.append(
            f"{score.accuracy:.2%} right is not surely above {score.largest:.2%}, which the most frequent class alone "
            f"would have: the network has learned little or nothing{remedy}"
        )
    never = [name for name, share in zip(classes, score.recall, strict=False) if share == 0]
    if never:
        more = f" and {len(never) - MOST_NAMED} more" if len(never) > MOST_NAMED else ""
        kind, verb = ("class", "is") if len(never) == 1 else ("classes", "are")
        found.append(f"{kind} {', '.join(never[:MOST_NAMED])}{more} {verb} never answered")
    return found
