"""Requests to end: noted once, obeyed at once when repeated, and forgotten afterwards."""

import signal
import threading

import pytest

from obverse.learning import interruption as module
from obverse.learning.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_is_noted_and_a_later_one_obeyed(number, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        assert not interruption.asked
        signal.raise_signal(number)
        signal.raise_signal(number)  # the same Ctrl-C, passed on by the terminal and by torchrun
        assert interruption.asked
        now[0] += 5
        signal.raise_signal(number)
        pytest.fail("the second request was not obeyed")
    assert signal.getsignal(number) == before


def test_in_another_thread_it_waits():
    seen = []

    def work():
        with Interruption() as interruption:
            seen.append(interruption.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
