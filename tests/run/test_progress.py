"""Progress in a log: a line now and then, also while a method is silent, and none of a short run."""

import threading
import time

from obverse.run.progress import Lines, progress


def test_a_long_stage_is_told_of_while_it_is_silent():
    told, second = [], threading.Event()

    def tell(line):
        told.append(line)
        if len(told) >= 2:
            second.set()

    with Lines("tile 1 of 2", every=0.01, tell=tell) as callback:
        callback(3, 60, 0.5)
        assert second.wait(10)
    assert all(line.startswith("obverse: tile 1 of 2: ") for line in told)
    assert "step 3 of at most 60" in told[-1]
    count = len(told)
    time.sleep(0.05)
    assert len(told) == count  # nothing more once the stage is over


def test_a_short_stage_is_not(capsys):
    with progress("reconstructing") as callback:
        callback(1, None, 0.0)
    assert capsys.readouterr().err == ""
