"""Small folders of images, made as a test needs them."""

from pathlib import Path

import numpy as np
from PIL import Image

Colour = tuple[int, int, int]


def picture(file: Path, size: tuple[int, int] = (16, 12), colour: Colour = (200, 30, 30), seed: int = 0) -> Path:
    """A noisy picture of one colour, (width, height) pixels."""
    noise = np.random.default_rng(seed).integers(-30, 30, (size[1], size[0], 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(file)
    return file


def class_folders(root: Path, splits: tuple[str, ...] = ("train", "val"), images: int = 6) -> Path:
    """red/ and blue/ with a few images each, under each split (or under the root, for no splits)."""
    for at, split in enumerate(splits or ("",)):
        for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            for i in range(images):
                picture(root / split / name / f"{i}.png", colour=colour, seed=100 * at + i)  # type: ignore[arg-type]
    return root


def mask_folders(root: Path, values: tuple[int, ...] = (0, 1, 2, 255), images: int = 4) -> Path:
    """images/ and masks/ by split; each mask has columns of the given values."""
    for at, split in enumerate(("train", "val")):
        for i in range(images):
            picture(root / "images" / split / f"{i}.jpg", size=(32, 32), seed=100 * at + i)
            mask = np.repeat(np.repeat(np.array(values, dtype=np.uint8), 32 // len(values))[None], 32, axis=0)
            file = root / "masks" / split / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.pad(mask, ((0, 0), (0, 32 - mask.shape[1])), mode="edge")).save(file)
    return root
