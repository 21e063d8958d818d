"""The pictures of docs/lessons.md.

python benchmarks/lesson_pictures.py           writes docs/lessons/*.svg
"""

import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DOCS = Path(__file__).parents[1] / "docs"
DARK, LIVE, PALE = "#1b4965", "#5fa8d3", "#d7dee4"


def main() -> None:
    mpl.rcParams.update(
        {"svg.hashsalt": "lessons", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    folder = DOCS / "lessons"
    folder.mkdir(exist_ok=True)
    for name, draw in {"patches": patches, "fields": fields, "weights": weights}.items():
        figure = draw()
        figure.savefig(folder / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)
        print(folder / f"{name}.svg")


def patches() -> Figure:
    """A map, its patches side by side, and the products with two kernels."""
    values = np.arange(36.0).reshape(6, 6)
    views = np.lib.stride_tricks.sliding_window_view(values, (3, 3)).reshape(16, 9).T
    kernels = np.stack([np.full(9, 1 / 9), np.array([1, 0, -1] * 3)])
    shown = {"a map, 6×6": values, "its 16 patches, 9 values each": views, "2 kernels × 16 patches": kernels @ views}
    figure, axes = plt.subplots(1, 3, figsize=(8, 2.4), width_ratios=(1, 2, 2))
    for axis, (title, matrix) in zip(axes, shown.items(), strict=True):
        axis.imshow(matrix, cmap="Blues")
        axis.set(title=title, xticks=[], yticks=[])
        axis.title.set_fontsize(9)
    axes[0].add_patch(Rectangle((-0.5, -0.5), 3, 3, fill=False, color="#e09f3e", lw=2))
    axes[1].add_patch(Rectangle((-0.5, -0.5), 1, 9, fill=False, color="#e09f3e", lw=2))
    return figure


def fields() -> Figure:
    """What a pixel sees after each of seven 3×3 layers, with and without strides."""
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for strides, colour, name in (
        ((1,) * 7, LIVE, "stride 1"),
        ((1, 1, 2, 1, 2, 1, 1), DARK, "stride 2 in the 3rd and 5th"),
    ):
        seen, jump, sizes = 1, 1, [1]
        for stride in strides:
            seen, jump = seen + 2 * jump, jump * stride
            sizes.append(seen)
        axis.plot(range(8), sizes, "o-", color=colour, label=name)
        axis.annotate(str(sizes[-1]), (7, sizes[-1]), xytext=(6, -3), textcoords="offset points", color=colour)
    axis.set(xlabel="3×3 layers", ylabel="pixels seen, a side")
    axis.legend(frameon=False)
    return figure


def weights() -> Figure:
    """Spread of responses by depth, by the very function of the lesson."""
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "lessons.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    for block in (blocks[0], blocks[-1]):
        exec(compile(block, "lessons.md", "exec"), names)
    figure, axis = plt.subplots(figsize=(6, 2.6))
    for name, colour, said in (
        ("large", "#e09f3e", "2/√fan-in"),
        ("he", DARK, "√2/√fan-in (He et al. 2015)"),
        ("small", LIVE, "1/√fan-in"),
    ):
        spreads = names[name]
        assert isinstance(spreads, list)
        axis.semilogy(range(1, len(spreads) + 1), spreads, "o-", color=colour, label=said, markersize=3)
    axis.set(xlabel="layers", ylabel="standard deviation")
    axis.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
