"""How the command line tells what happens: progress, refusals, the next command to type."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from convfabric.environment import is_first_process, process_count
from convfabric.errors import BudgetError, ConvfabricError, UntimedError

if TYPE_CHECKING:
    from convfabric.progress import Moment

TORN = ("gloo", "Connection closed", "Connection reset", "NCCL")
"""In what is raised where the connection to another process ends."""
INSISTS, AGAIN = hasattr(signal, "setitimer"), 3.0
"""Whether the system has a clock that rings, and seconds after which an interruption that was dropped comes again."""
OVER_BUDGET, REFUSED, DOUBTFUL, UNTIMED, INTERRUPTED = 3, 1, 4, 5, 130


@contextmanager
def refusals(resume: str = "", folder: Path | None = None) -> Iterator[None]:
    """Turns what the library raises into one message and an exit code.

    3 over budget, 5 a board has to time first, 130 interrupted, else 1. What is interrupted before it made its folder
    has kept nothing to resume. A request to end, as torchrun sends it where another process of the run has died, is an
    interruption like Ctrl-C.
    """
    try:
        with _ending():
            yield
    except BudgetError as fault:
        typer.secho(f"over budget: {fault}", fg="red", err=True)
        raise typer.Exit(OVER_BUDGET) from None
    except UntimedError as fault:
        begun = resume and (folder is None or folder.exists())
        then = resume if begun else "Then type the same command again"
        typer.secho(f"waiting: {fault} {then}.", fg="yellow", err=True)
        raise typer.Exit(UNTIMED) from None
    except ConvfabricError as fault:
        typer.secho(f"error: {fault}", fg="red", err=True)
        raise typer.Exit(REFUSED) from None
    except OSError as fault:
        where = f"{fault.filename}: " if fault.filename else ""
        typer.secho(f"error: {where}{fault.strerror or fault}.", fg="red", err=True)
        raise typer.Exit(REFUSED) from None
    except KeyboardInterrupt:
        typer.secho(f"interrupted; {_advice(resume, folder)}", fg="yellow", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except RuntimeError as fault:
        if process_count() == 1 or not any(word in str(fault) for word in TORN):
            raise
        typer.secho(f"error: another process of this run has ended; {_advice(resume, folder)}", fg="red", err=True)
        raise typer.Exit(REFUSED) from None


def _advice(resume: str, folder: Path | None) -> str:
    begun = folder is None or folder.exists()
    return f"the state is kept. {resume}" if begun else "nothing was begun, so type the whole command again"


@contextmanager
def _ending() -> Iterator[None]:
    """While entered, a request to end interrupts like Ctrl-C, and both insist; what the caller ignores stays ignored.

    What is raised in a callback of the interpreter's, such as that of a weak reference, is dropped; so it is raised
    again until it arrives.
    """

    def interrupt(number: int, frame: object) -> None:
        if INSISTS:
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGALRM] if INSISTS else [])]
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        if INSISTS:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_answers_apart() -> None:
    """Lets nothing but answers onto standard output: what libraries print there in C goes to standard error.

    HiGHS 1.12, as scipy has it, prints lines for its authors there that no option silences. Where either stream is
    closed nothing is changed.
    """
    if sys.stdout is None or sys.stderr is None:
        return
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    buffering = 1 if os.isatty(own) else -1
    sys.stdout = os.fdopen(own, "w", buffering, encoding=sys.stdout.encoding, errors=sys.stdout.errors)


def keep_quiet_unless_first() -> None:
    """Of several processes of a run, lets the first one answer alone; what goes wrong is said by all."""
    if not is_first_process():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115


def say(text: str) -> None:
    """A line for people, on standard error so that --json stays alone on standard output."""
    typer.echo(text, err=True)


def answer(as_json: bool, facts: Mapping[str, Any], lines: list[str]) -> None:
    """The result of a command: one JSON object, or lines."""
    typer.echo(json.dumps(facts, ensure_ascii=False) if as_json else "\n".join(lines))


def tell_doubts(doubts: Sequence[str], strict: bool) -> None:
    """Why a result is not to be trusted; with ``strict`` the exit code is 4 then."""
    for doubt in doubts if is_first_process() else ():
        typer.secho(f"doubtful: {doubt}.", fg="yellow", err=True)
    if doubts and strict:
        raise typer.Exit(DOUBTFUL)


class ProgressBar:
    """Progress of training: a bar on a terminal, a line an epoch elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps"))
        self.bar = Progress(*columns, TextColumn("{task.fields[rate]}"), console=Console(file=sys.stderr))
        self.live = sys.stderr is not None and sys.stderr.isatty()
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> "ProgressBar":
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.bar.stop()

    def __call__(self, moment: "Moment") -> None:
        """Takes one moment of training."""
        if moment.row and not self.live:
            say(f"{moment.stage} epoch {moment.epoch}/{moment.epochs}: {_figures(moment.row)}, {_rate(moment)}")
        if self.live:
            if moment.stage not in self.tasks:
                self.tasks[moment.stage] = self.bar.add_task(moment.stage, total=moment.steps, rate="")
            self.bar.update(self.tasks[moment.stage], completed=moment.step, rate=_rate(moment))
            if moment.row:
                self.bar.update(self.tasks[moment.stage], description=f"{moment.stage}: {_figures(moment.row)}")


def _figures(row: Mapping[str, Any]) -> str:
    from convfabric.progress import FIGURES, figure_in

    name = figure_in(row)
    return f"val {FIGURES[name]} {100 * row[name]:.2f} %"


def _rate(moment: "Moment") -> str:
    from convfabric.progress import said_time

    return f"{moment.images_per_second:.0f} images/s, {said_time(moment.seconds_left)} left"
