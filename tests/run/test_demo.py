"""The bundled sequence of beta Pictoris: the star where its source states it, and what the frames say against that."""

import pytest

from obverse.errors import InputError
from obverse.instruments import exoplanet
from obverse.run.demo import example

pytest.importorskip("astropy")


def facts_of(**changes):
    chosen = example("exoplanet")
    settings = exoplanet.Settings(**{**chosen.settings, **changes})
    return exoplanet.characterise(exoplanet.read(chosen.data, settings), settings)


def test_the_star_is_in_the_middle_and_the_symmetry_of_the_halo_is_told():
    facts = facts_of()
    assert facts["centre"] == [50.0, 50.0] and facts["frames"] == 61 and facts["sign"]["inferred"] == 1
    assert facts["centre_of_symmetry"] == pytest.approx([51.0, 51.0], abs=0.3)
    assert any("most symmetric about x 5" in note for note in facts["warnings"])


def test_a_declared_centre_is_taken_and_not_spoken_of():
    facts = facts_of(centre=(51.0, 51.0))
    assert facts["centre"] == [51.0, 51.0] and not any("symmetric" in note for note in facts["warnings"])


def test_the_command_takes_settings(obverse, tmp_path):
    done = obverse("demo", "exoplanet", "-o", tmp_path, "--set", "centre=[510,51]")
    assert done.code == 2 and "within the frames of 101 × 101 pixels" in done.stderr


def test_other_examples_are_refused():
    with pytest.raises(InputError, match="exoplanet"):
        example("nebula")
