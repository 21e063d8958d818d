"""A folder with fewer training images, each class alike, and the test images as they are; links, nothing is copied.

python benchmarks/subset.py cifar10-jpeg cifar10-jpeg-5000 --images 5000
"""

import argparse
import random
from pathlib import Path


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("data", type=Path, help="folder with train/CLASS and test/CLASS")
    words.add_argument("to", type=Path, help="folder that is not there yet")
    words.add_argument("--images", type=int, default=5000)
    said = words.parse_args()
    said.to.mkdir(parents=True)
    (said.to / "test").symlink_to((said.data / "test").resolve())
    classes = sorted((said.data / "train").iterdir())
    for folder in classes:
        kept = said.to / "train" / folder.name
        kept.mkdir(parents=True)
        for file in random.Random(0).sample(sorted(folder.iterdir()), said.images // len(classes)):
            (kept / file.name).symlink_to(file.resolve())


if __name__ == "__main__":
    main()
