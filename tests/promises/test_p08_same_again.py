"""P8: the same version, device and seed give the same result."""

import json

import torch

import obverse as ob


def outputs(obverse_process, files, folder, *more):
    done = obverse_process("reconstruct", files["2d"], "--psf", files["psf2d"], "-o", folder, "--json", *more)
    assert done.code == 0, done.stderr
    return json.loads((folder / "run.json").read_text())["outputs"]


def test_two_fresh_processes_write_equal_files(obverse_process, files, tmp_path):
    first = outputs(obverse_process, files, tmp_path / "a", "--method", "laplace")
    again = outputs(obverse_process, files, tmp_path / "b", "--method", "laplace")
    names = {"image.ome.tif", "std.ome.tif", "measurement.safetensors"}
    assert names <= set(first)
    assert {name: first[name] for name in names} == {name: again[name] for name in names}


def test_other_data_give_other_files(obverse_process, files, tmp_path):
    """The comparison above would see a difference."""
    first = outputs(obverse_process, files, tmp_path / "a", "--set", "background=100")
    other = outputs(obverse_process, files, tmp_path / "b", "--set", "background=90")
    assert first["image.ome.tif"] != other["image.ome.tif"]


def test_a_batch_equals_its_items():
    A = ob.operators.Convolution(torch.ones(3, 3) / 9, (1, 16, 16))
    problem = ob.Problem(A, ob.noise.Poisson(0.1))
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = problem.simulate(x, seed=3)
    method = ob.methods.MAP(prior=ob.priors.TotalVariation(), weight=0.1)
    whole = method(y, problem).image
    parts = torch.stack([method(item, problem).image for item in y])
    torch.testing.assert_close(whole, parts, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(whole[0], whole[1], atol=1e-2)


def test_noise_of_an_item_does_not_depend_on_its_batch():
    A = ob.operators.Identity((1, 8, 8))
    problem = ob.Problem(A, ob.noise.Gaussian(1.0))
    x = torch.zeros(4, 1, 8, 8)
    y = problem.simulate(x, seed=3)
    torch.testing.assert_close(problem.simulate(x[:2], seed=3), y[:2], atol=0, rtol=0)
    assert not torch.equal(y[0], y[1])
    assert not torch.equal(problem.simulate(x, seed=4), y)
