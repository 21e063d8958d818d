"""Whether a run can be trusted: killed, cut short, damaged and misused, what it answers is the same, or a named error.

python benchmarks/trust.py --json trust.json            all parts; what a file holds already is not done again
python benchmarks/trust.py --json trust.json --part kills --count 20

Every trial runs in a process of its own, forked from one that has loaded everything. Verdicts: identical (same answer
as without), named (an error of ours), traceback, hang, silent (another answer, nothing said), memory.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from agreement import disagreements
from convfabric.data.opening import open_data
from convfabric.data.options import DataOptions
from convfabric.data.reading import read_picture
from convfabric.errors import ConvfabricError
from convfabric.execution.allocation import keep_imports, keep_memory
from convfabric.latency import devices, survey
from convfabric.latency.prediction import calibrate
from convfabric.pipeline import steps
from convfabric.pipeline.evaluate import evaluate, predictor
from convfabric.pipeline.fit import fit
from convfabric.runs.record import read_record
from trials import QUICK, Trial, digests, job, mutated, odd_images, photographs, tried


@dataclass(frozen=True)
class Share:
    """One of several shares of so many trials."""

    number: int
    of: int
    count: int

    def positions(self) -> range:
        """The trials of this share."""
        return range(self.number, self.count, self.of)


def kills(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """Whole jobs killed at random moments and gone on with; the shares take classes and masks in turns."""
    masks, dice, done = bool(share.number % 2), random.Random(share.number), 0
    data, began = photographs(work / "data", masks), time.monotonic()
    verdict, said = tried(partial(job, data, work / "whole", False))
    took = time.monotonic() - began
    assert verdict == "identical", said
    wanted = digests(work / "whole")
    while done < share.count // share.of:
        out = work / f"killed-{done}"
        verdict = "killed"
        while verdict == "killed":
            trial = partial(job, data, out, out.exists())
            patient = None if dice.random() < 0.1 or done >= share.count // share.of else dice.random() * took
            verdict, said = tried(trial, wanted, kill_after=patient)
            done += verdict == "killed"
        yield verdict, said
        shutil.rmtree(out, ignore_errors=True)
    yield from [("killed", "")] * done


def boundaries(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """A fit that ends at each of its calls of the file system that change something, and is gone on with."""
    data = photographs(work / "data", False)
    tried(partial(job, data, work / "whole", False, False))
    wanted = digests(work / "whole", False)
    for stop in share.positions():
        out = work / f"stopped{stop}"
        verdict, said = tried(partial(_stopping, stop, partial(job, data, out, False, False)), wanted)
        if verdict == "identical":
            yield verdict, said
            return
        yield tried(partial(job, data, out, out.exists(), False), wanted)
        shutil.rmtree(out, ignore_errors=True)


def _stopping(stop: int, trial: Trial) -> Any:
    """The trial, ended without a word before the so-manieth change of a file."""
    left = [stop]

    def ending(function: Any) -> Any:
        def called(*words: Any, **named: Any) -> Any:
            if left[0] == 0:
                os._exit(1)
            left[0] -= 1
            return function(*words, **named)

        return called

    for name in ("replace", "fsync", "unlink", "mkdir"):
        setattr(os, name, ending(getattr(os, name)))
    return trial()


def answers_of(run: Path, images: list[Path]) -> Any:
    """What a run says of a few images, its record and its score."""
    answer = predictor(run)
    read_record(run)
    return [{k: v for k, v in answer(image).items() if k != "image"} for image in images], str(evaluate(run).score)


def mutations(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """Files of a run changed: bits, lengths, values in JSON and YAML, tensors."""
    dice = random.Random(share.number)
    data, run = photographs(work / "data", False), work / "run"
    fit(str(data), run, macs="60%", **QUICK)
    images = sorted(data.rglob("*.png"))[:3]
    wanted = json.loads(json.dumps(answers_of(run, images)))
    files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
    weighty = [path for path in files if path.suffix in (".safetensors", ".json", ".yaml")]
    for _ in share.positions():
        file = dice.choice(weighty if dice.random() < 0.7 else files)
        whole = file.read_bytes()
        how = mutated(file, whole, dice)
        verdict, said = tried(partial(answers_of, run, images), wanted)
        yield verdict, f"{file.relative_to(run)}, {how}: {said[-500:]}"
        if file.suffix == ".safetensors" and how == "tensor" and verdict == "identical" and "state" not in file.name:
            unread = file.parent.name in ("fabric", "cut")
            verdict, said = tried(partial(_loaded, file.parent))
            yield (verdict if verdict == "named" or not unread else "silent"), f"{file.relative_to(run)}: {said}"
        file.write_bytes(whole)


def _loaded(folder: Path) -> str:
    from convfabric.fabric.archive import load_fabric

    load_fabric(folder)
    return "loaded"


def images(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """Image files with damaged bytes: read, or named."""
    colours = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
    files = []
    for ending in ("png", "jpg", "gif", "bmp", "tif", "webp"):
        Image.fromarray(colours).save(work / f"a.{ending}")
        files.append((work / f"a.{ending}", (work / f"a.{ending}").read_bytes()))

    def some(start: int) -> Any:
        own, met = random.Random(start), Counter[str]()
        for _ in range(500):
            file, whole = own.choice(files)
            damaged = bytearray(whole[: own.randrange(len(whole))] if own.random() < 0.2 else whole)
            for _change in range(own.choice((1, 1, 3, 20))):
                if damaged:
                    damaged[own.randrange(min(len(damaged), own.choice((64, 10_000))))] = own.randrange(256)
            target = work / f"{start}{file.suffix}"
            target.write_bytes(damaged)
            try:
                read_picture(target, own.choice((1, 3)))
                met["identical"] += 1
            except ConvfabricError:
                met["named"] += 1
        return met

    for start in range(0, share.count, 500):
        verdict, said = tried(partial(some, start))
        found = json.loads(said.replace("'", '"')) if verdict == "identical" else {verdict: 1}
        for name, times in found.items():
            for _ in range(times):
                yield name, said


def graphs(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """Random graphs of every family, exported and compared."""
    for seed in share.positions():
        yield tried(partial(disagreements, seed), [])


def odd(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """Sixty odd images through training, ``convfabric predict`` and ``predict.py``, grey and in colour.

    The last two have to agree to 1e-5 or refuse in the same words; what training takes both have to answer.
    """
    for masks in (False, True):
        data, run = photographs(work / f"data{masks}", masks), work / f"run{masks}"
        fit(str(data), run, macs="60%", **QUICK)
        files = odd_images(work / f"odd{masks}")
        words = [sys.executable, str(run / "predict.py"), *map(str, files)]
        (work / f"answers{masks}").mkdir()
        spoken = os.environ | {"PYTHONIOENCODING": "utf-8"}
        here = work / f"answers{masks}"
        ran = subprocess.run(words, capture_output=True, text=True, check=False, cwd=here, env=spoken)
        theirs = {found.pop("image"): found for found in map(json.loads, ran.stdout.splitlines())}
        refused = dict(line.split(": ", 1) for line in ran.stderr.splitlines() if ": " in line)
        for file in files:
            verdict, said = tried(partial(_answer_of, run, file))
            if verdict == "named":
                told = refused.get(str(file), "")[:60]
                alike = bool(told) and told in said.encode("ascii", "backslashreplace").decode()
            else:
                alike = verdict == "identical" and _close(theirs.get(str(file), {}), said)
            yield (verdict if alike else "silent"), f"{file.name}: {said}, predict.py {refused.get(str(file))}"
            if not masks and file.suffix and file.is_file():
                taken, why = tried(partial(_trained_on, work / "taken", data, file))
                agrees = (taken == "named" and file.name in why) or taken == verdict == "identical"
                yield (taken if agrees else "silent"), f"{file.name} in training: {why}"


def _answer_of(run: Path, file: Path) -> Any:
    os.chdir(run)  # where predicted masks are written
    found = {name: value for name, value in predictor(run)(file).items() if name not in ("image", "mask")}
    return json.dumps(found)


def _close(theirs: dict[str, Any], said: str) -> bool:
    mine = json.loads(said)
    numbers = [name for name, value in mine.items() if isinstance(value, float)]
    return all(abs(theirs.get(name, 9.0) - mine[name]) <= 1e-5 for name in numbers) and all(
        theirs.get(name) == value for name, value in mine.items() if isinstance(value, str)
    )


def _trained_on(folder: Path, data: Path, file: Path) -> Any:
    """What opening a data set with one more image gives: how many training images there are."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(data, folder)
    shutil.copy(file, folder / "train" / "red" / file.name)
    assert len(open_data(folder).splits["train"]) == 33
    return "taken"


def surroundings(work: Path, share: Share) -> Iterator[tuple[str, str]]:
    """A job where files may not be large, folders not be written, shared memory and a home are not there."""
    data = photographs(work / "data", False)

    def limited(what: int, most: int) -> Trial:
        def trial() -> Any:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(what, (most, most))
            return fit(str(data), work / f"out{what}-{most}", macs="60%", **QUICK) and "done"

        return trial

    def homeless() -> Any:
        os.environ.pop("HOME")
        return fit(str(data), work / "homeless", macs="60%", **QUICK) and "done"

    def in_the_way() -> Any:
        (work / "file").write_text("x")
        return fit(str(data), work / "file" / "run", macs="60%", **QUICK) and "done"

    def streamed() -> Any:
        found = open_data(str(data), DataOptions(hold_mb=0, workers=2))
        return [len(batch) for batch, _ in found.splits["train"].batches([[0, 1]])]

    sizes = [
        (resource.RLIMIT_FSIZE, most) for most in (0, 100, 1000, 5000, 20_000, 30_000, 40_000, 50_000, 70_000, 100_000)
    ]
    for what, most in [*sizes, (resource.RLIMIT_NOFILE, 40), (resource.RLIMIT_NOFILE, 64)]:
        yield tried(limited(what, most))
    for trial in (homeless, in_the_way, streamed):
        yield tried(trial)


PARTS: dict[str, tuple[Callable[[Path, Share], Iterator[tuple[str, str]]], int, int]] = {
    "graphs": (graphs, 1000, 8),
    "kills": (kills, 200, 4),
    "mutations": (mutations, 2000, 4),
    "boundaries": (boundaries, 1000, 2),
    "odd": (odd, 1, 1),
    "images": (images, 10_000, 1),
    "surroundings": (surroundings, 1, 1),
}
"""What is tried, how often, and in how many shares."""


def counted(name: str, share: Share) -> tuple[str, dict[str, Any]]:
    """The name of one share, its verdicts, and examples of those that should not be."""
    with tempfile.TemporaryDirectory() as work:
        met, bad, began = Counter[str](), list[str](), time.monotonic()
        for verdict, said in PARTS[name][0](Path(work), share):
            met[verdict] += 1
            if verdict not in ("identical", "named", "killed"):
                bad.append(f"{verdict}: {said}")
        found = {"verdicts": dict(met), "seconds": round(time.monotonic() - began), "examples": bad[:40]}
        return f"{name} {share.number + 1}/{share.of} of {share.count}", found


def prepare() -> None:
    """Makes every trial quicker, whose processes are forked from this one: nothing here is about time."""
    torch.set_num_threads(1)
    setattr(survey, "SAMPLE_SECONDS", 0.001)  # noqa: B010
    setattr(survey, "calibrate", partial(calibrate, count=3))  # noqa: B010
    setattr(steps, "measure", partial(devices.measure, seconds=0.0))  # noqa: B010
    registry = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
    setattr(registry, "from_torchlib", staticmethod(cache(registry.from_torchlib)))  # noqa: B010 - it takes a second, every time
    with tempfile.TemporaryDirectory() as work:
        job(photographs(Path(work) / "data", False), Path(work) / "run", False)
    keep_memory()
    keep_imports()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--part", choices=PARTS, action="append")
    words.add_argument("--count", type=int)
    words.add_argument("--workers", type=int, default=2)
    said, began = words.parse_args(), time.monotonic()
    found: dict[str, Any] = json.loads(said.json.read_text()) if said.json.is_file() else {}
    prepare()
    shares = [
        (name, Share(number, PARTS[name][2], said.count or PARTS[name][1]))
        for name in said.part or PARTS
        for number in range(PARTS[name][2])
    ]
    missing = [(name, one) for name, one in shares if f"{name} {one.number + 1}/{one.of} of {one.count}" not in found]
    with ProcessPoolExecutor(said.workers, multiprocessing.get_context("fork")) as pool:
        for done in as_completed([pool.submit(counted, name, one) for name, one in missing]):
            name, part = done.result()
            found[name] = part
            said.json.write_text(json.dumps(found, indent=1))
            print(f"{name}: {part['verdicts']} in {part['seconds']} s", file=sys.stderr, flush=True)
    for name in PARTS:
        met = sum((Counter(one["verdicts"]) for key, one in found.items() if key.startswith(name)), Counter[str]())
        print(f"{name}: {dict(met)}")
    print(f"{time.monotonic() - began:.0f} s with {said.workers} processes")


if __name__ == "__main__":
    main()
