"""Which classes are taken for which: counts that, touched, leave the pictures of those mistakes alone."""

from collections.abc import Sequence
from html import escape

Confusion = tuple[tuple[int, ...], ...]
"""Images by class (rows) and prediction (columns)."""
MOST_CLASSES = 30
"""A matrix of more is a list of the most frequent mistakes."""
MOST_LISTED = 40

CONFUSION_STYLE = """
.confusion td,.confusion th{padding:2px 5px;text-align:center;border:0;min-width:2.2em}
.confusion th{font-weight:normal;font-size:12px;max-width:9em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.confusion th:first-child{text-align:right}
.confusion td span,.confusion button{display:block;box-sizing:border-box;width:100%;padding:3px;border-radius:4px;
font:inherit}
.confusion td span{background:color-mix(in srgb,var(--good) calc(var(--share)*45%),transparent)}
.mistake{border:1px solid transparent;color:inherit;cursor:pointer;font:inherit;
background:color-mix(in srgb,var(--bad) calc(12% + var(--share)*60%),transparent)}
.mistake[aria-pressed=true]{border-color:var(--ink)}
.mistake:focus-visible{outline:2px solid var(--accent)}
.listed .mistake{margin:2px;padding:3px 8px;border-radius:4px}
"""


def confusion_table(confusion: Confusion, classes: Sequence[str]) -> str:
    """The matrix as HTML, mistakes as buttons; of many classes the most frequent mistakes alone.

    >>> confusion_table(((3, 1), (0, 4)), ("cat", "dog")).count("<button")
    1
    """
    if not any(count for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j):
        return '<p class="note">No image is answered wrong.</p>'
    if len(classes) > MOST_CLASSES:
        return _listed(confusion, classes)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in classes)
    lines = "".join(
        f'<tr><th scope="row">{escape(classes[i])}</th>'
        + "".join(f"<td>{_cell(i, j, count, max(1, sum(row)), classes)}</td>" for j, count in enumerate(row))
        + "</tr>"
        for i, row in enumerate(confusion)
    )
    return (
        '<p class="note">Rows are classes, columns predictions. Touch a red count to see only its pictures, and again '
        "to see all.</p>"
        f'<table class="confusion"><tr><td></td>{head}</tr>{lines}</table>'
    )


def _cell(truth: int, guess: int, count: int, images: int, classes: Sequence[str]) -> str:
    if not count:
        return ""
    if truth == guess:
        return f'<span style="--share:{count / images:.2f}">{count}</span>'
    return _button(truth, guess, count, count / images, str(count), classes)


def _button(truth: int, guess: int, count: int, share: float, text: str, classes: Sequence[str]) -> str:
    said = f"{classes[truth]} taken for {classes[guess]}: {count} image{'s' * (count > 1)}"
    return (
        f'<button type="button" class="mistake" aria-pressed="false" data-truth="{truth}" data-guess="{guess}" '
        f'style="--share:{share:.2f}" aria-label="{escape(said)}" title="{escape(said)}">{escape(text)}</button>'
    )


def _listed(confusion: Confusion, classes: Sequence[str]) -> str:
    mistakes = sorted(
        ((count, i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j and count),
        key=lambda one: (-one[0], one[1:]),
    )
    shown = "".join(
        _button(i, j, count, count / max(1, sum(confusion[i])), f"{classes[i]} → {classes[j]}: {count}", classes)
        for count, i, j in mistakes[:MOST_LISTED]
    )
    said = f"The {min(len(mistakes), MOST_LISTED)} most frequent of {len(mistakes)} kinds of mistakes"
    note = f"{said}: class → prediction. One shows its pictures alone; again, all."
    return f'<p class="note">{note}</p><p class="listed">{shown}</p>'


def precision_of(confusion: Confusion, at: int) -> float | None:
    """The share of images predicted to be of a class that are; None where none is.

    >>> precision_of(((3, 1), (0, 4)), 1)
    0.8
    """
    predicted = sum(row[at] for row in confusion)
    return confusion[at][at] / predicted if predicted else None


def recall_of(confusion: Confusion, at: int) -> float | None:
    """The share of images of a class that are predicted to be; None where there is none.

    >>> recall_of(((3, 1), (0, 4)), 0)
    0.75
    """
    return confusion[at][at] / sum(confusion[at]) if sum(confusion[at]) else None
