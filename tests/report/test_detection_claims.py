"""What a report says of a search, from the figures of its run alone."""

from pathlib import Path

import numpy as np
import pytest

from obverse.report.contents import Contents
from obverse.report.detection_claims import detection_alarms, detection_claims


def contents(name="PACO", spread=1.0, highest=4.0, throughput=None, corrected=False):
    run = {
        "figures": {"snr_std_off_sources": spread, "threshold": 5.0},
        "diagnostics": {"reversed_maximum": highest, "throughput": throughput},
        "method": {"name": name},
    }
    arrays = {"curve_throughput": np.ones(3)} if corrected else {}
    return Contents(Path(), run, np.zeros((1, 5, 5)), arrays=arrays)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({}, []), ({"spread": 1.3}, ["scatters"]), ({"highest": 9.0}, ["reversed"]), ({"spread": 0.7, "highest": 9.0}, 2)],
)
def test_alarms_are_said_where_the_law_does_not_hold(changes, words):
    told = detection_alarms(contents(**changes))
    assert len(told) == (words if isinstance(words, int) else len(words))
    assert isinstance(words, int) or all(word in sentence for word, sentence in zip(words, told))


def test_a_score_is_not_called_a_ratio():
    assert "score of a network" in detection_claims(contents("DeepPACO"))[1]
    assert "score" not in detection_claims(contents())[1]


def test_limits_are_called_what_they_are():
    plain, corrected = (detection_claims(contents("x", 1, 1, "not corrected", c))[1] for c in (False, True))
    assert "and the limits, as they are" in plain and "but not their curve" in corrected
