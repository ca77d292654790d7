"""How far a run is, on standard error: a bar with the time left on a terminal, elsewhere a plain line now and then."""

import sys
import threading
import time
from collections.abc import Callable

__all__ = ["Bar", "Lines", "progress", "say"]

Callback = Callable[[int, int | None, float], None]

_EVERY = 30.0  # seconds between two lines in a log


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def progress(label: str) -> "Bar | Lines":
    """The kind that suits standard error; use it as a context that gives the callback."""
    return Bar(label) if sys.stderr.isatty() else Lines(label)


class Lines:
    """A line every half minute, whether or not the method reports: some of its stages are long and silent.

    Args:
        label: what is being done.
        every: seconds between lines.
        tell: takes a line.
    """

    def __init__(self, label: str, every: float = _EVERY, tell: Callable[[str], None] = say):
        self.label, self.every, self.tell = label, every, tell
        self.step = ""
        self.over = threading.Event()

    def __enter__(self) -> Callback:
        self.begun = time.monotonic()
        self.thread = threading.Thread(target=self._tick, daemon=True)
        self.thread.start()
        return self._note

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _note(self, iteration: int, total: int | None, value: float) -> None:
        self.step = f", step {iteration}" + (f" of at most {total}" if total else "")

    def _tick(self) -> None:
        while not self.over.wait(self.every):
            self.tell(f"obverse: {self.label}: {time.monotonic() - self.begun:.0f} s{self.step}")


class Bar:
    """One progress bar on standard error, with the time left.

    Args:
        label: what is being done.
    """

    def __init__(self, label: str):
        self.label = label

    def __enter__(self) -> Callback:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.bar.start()
        task = self.bar.add_task(self.label, total=None)
        return lambda iteration, total, value: self.bar.update(task, completed=iteration, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
