"""What every method refuses before it starts, whatever the annotations say: users run without a checker of types."""

import numpy as np
import pytest
import torch

import obverse as ob
from obverse.errors import InputError
from obverse.methods.base import check_pair
from obverse.priors.denoiser import check_denoiser
from obverse.problem import Problem

PROBLEM = Problem(ob.operators.Identity((1, 4, 4)), ob.noise.Gaussian(0.1))


def test_data_and_problem_in_the_wrong_order_or_as_arrays_are_refused_in_a_sentence():
    y = torch.zeros(1, 4, 4)
    check_pair(y, PROBLEM, "Gaussian")
    with pytest.raises(InputError, match=r"got Tensor second; call method\(y, problem\)"):
        check_pair(PROBLEM, y, "Gaussian")
    with pytest.raises(InputError, match="got ndarray; pass torch.as_tensor"):
        check_pair(np.zeros((1, 4, 4)), PROBLEM, "Gaussian")


def test_the_name_of_a_prior_is_no_prior_and_the_error_says_how_to_load_it():
    check_denoiser(ob.priors.GaussianField(torch.ones(4, 4), (1, 4, 4)), "Tweedie")
    with pytest.raises(InputError, match=r"got str; obverse\.priors\.load\(name\)"):
        check_denoiser("natural-gray", "Tweedie")
