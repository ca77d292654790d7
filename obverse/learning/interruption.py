"""Ends training between two steps: Ctrl-C, or the signal by which a cluster's scheduler takes the machine back."""

import signal
import threading
import time
from types import FrameType

__all__ = ["Interruption"]

_ONE_REQUEST = 1.0  # seconds: a terminal and torchrun both pass one Ctrl-C on


class Interruption:
    """A context that notes SIGINT and SIGTERM in `asked` instead of stopping mid-step.

    A second request, a second or more later, stops at once. Outside the main thread, where Python takes no signals, the
    context does nothing.

    Example:
        >>> with Interruption() as interruption:
        ...     signal.raise_signal(signal.SIGINT)
        ...     interruption.asked
        True
    """

    def __init__(self):
        self.asked = False
        self._when = 0.0

    def __enter__(self) -> "Interruption":
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        self._previous = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and time.monotonic() - self._when > _ONE_REQUEST:
            raise KeyboardInterrupt
        if not self.asked:
            self.asked, self._when = True, time.monotonic()
