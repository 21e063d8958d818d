"""Figures of a run in words."""

from convfabric.evaluation.exit_thresholds import Exits
from convfabric.evaluation.scoring import HEADLINES, Score
from convfabric.runs.record import DataRecord, TuningRecord


def figure_name(data: DataRecord) -> str:
    """The name of the score that networks of a run are compared by, with its split.

    >>> facts = {"classes": (), "images": {}, "size": (8, 8), "channels": 1, "digest": "", "notes": ()}
    >>> figure_name(DataRecord(name="a", task="classification", scored_split="val", **facts))
    'val accuracy'
    """
    return f"{data.scored_split} {HEADLINES[data.task]}"


def said_share(score: Score) -> str:
    """The headline of a score, in percent.

    >>> said_share(Score(images=8, loss=0.5, accuracy=0.9812, miou=None, class_iou=()))
    '98.12 %'
    """
    return f"{100 * score.headline:.2f} %"


def said_figure(score: Score) -> str:
    """As :func:`said_share`, with what it is where that is not the share of right answers.

    >>> said_figure(Score(images=8, loss=0.5, accuracy=0.9, miou=0.5, class_iou=(0.6, 0.4)))
    '50.00 % mIoU, 90.00 % of pixels right'
    """
    if score.ap50 is not None:
        return f"{said_share(score)} AP50, {100 * score.accuracy:.2f} % of boxes surely found"
    pixels = "" if score.miou is None else f" mIoU, {100 * score.accuracy:.2f} % of pixels right"
    return said_share(score) + pixels


def said_tuning(tuning: TuningRecord) -> str:
    """Whether fine-tuned weights were kept, in words.

    >>> score = Score(images=8, loss=0.5, accuracy=0.98, miou=None, class_iou=())
    >>> said_tuning(TuningRecord(after_pruning=score, after_recalibration=score, fine_tuned=True))
    'fine-tuned'
    """
    return "fine-tuned" if tuning.fine_tuned else "not fine-tuned"


def said_macs(macs: int) -> str:
    """Multiply-accumulates per image with their unit.

    >>> said_macs(1_860_168)
    '1.86 M MACs'
    """
    return f"{macs / 1e6:.2f} M MACs"


def exit_rows(exits: Exits) -> list[list[str]]:
    """Of each exit, and of stopping where the recommended thresholds say: name, score, cost, share that leaves there.

    >>> from convfabric.evaluation.exit_thresholds import Exit
    >>> exit_rows(Exits(split="test", each=(Exit(name="exit1", score=0.5, macs=2_000_000),)))
    [['exit1', '50.00 %', '2.00 M MACs', '']]
    """
    best = exits.recommended
    shares = [f"{share:.0%}" for share in best.shares] if best else [""] * len(exits.each)
    rows = [
        [exit_.name, f"{100 * exit_.score:.2f} %", said_macs(exit_.macs), share]
        for exit_, share in zip(exits.each, shares, strict=True)
    ]
    if best:
        rows.append(["early", f"{100 * best.accuracy:.2f} %", f"{best.macs / 1e6:.2f} M MACs, mean", "100%"])
    return rows
