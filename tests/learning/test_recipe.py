"""Recipes: every shipped one can be read and built, and a wrong one is refused by the name of its setting."""

from pathlib import Path

import pytest
import yaml

from obverse.errors import FormatError, InputError
from obverse.learning import Recipe, read_recipe
from obverse.learning.objectives import make_objective
from obverse.learning.recipe import data_folder
from obverse.networks import build

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_can_be_built(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert sum(parameter.numel() for parameter in build(recipe.network).parameters()) > 0
    assert recipe.data.licence


def test_what_a_recipe_leaves_out_keeps_its_meaning():
    """Weights were made with these defaults; one that changes would change what a recipe makes, silently."""
    data = {"train": "a", "validation": "b", "licence": "-"}
    found = Recipe(name="a", network={}, objective={}, data=data, steps=9).model_dump(mode="json")  # type: ignore
    assert found["data"] | data == found["data"]
    assert [found["data"][name] for name in ("channels", "crop", "validation_crop")] == [1, 64, 128]
    kept = {"batch": 16, "rate": 1e-3, "warmup": 200, "clip": 1.0, "average": 0.999, "precision": "bfloat16"}
    assert found | kept | {"seed": 0, "patience": None, "shard": False, "start": None} == found
    objective = make_objective({"kind": "Denoising"})
    assert objective.sigma_range == (1e-4, 4.0)  # type: ignore[attr-defined]
    assert (objective.share, objective.top) == (0.125, 55 / 255)  # type: ignore[attr-defined]


def test_a_recipe_reads_back_as_it_was(recipe, recipe_file):
    found = read_recipe(recipe_file)
    assert found == Recipe(**recipe) == Recipe(**found.model_dump(mode="json"))
    assert found.data.kind == "images" and found.data.percentiles is None


def test_settings_come_instead_of_the_files(recipe_file):
    found = read_recipe(recipe_file, {"steps": 3, "data.crop": 16, "objective.high": None, "data.percentiles": [1, 99]})
    assert (found.steps, found.data.crop, found.objective["high"]) == (3, 16, None)
    assert found.data.percentiles == (1, 99) and found.data.validation_crop == 8


@pytest.mark.parametrize(
    "change, told",
    [
        ({"steps": -1}, r"steps:.*-1"),
        ({"rate": "fast"}, r"rate:.*'fast'"),
        ({"precision": "float16"}, "precision"),
        ({"name": "Not A Name"}, "name"),
        ({"stepz": 3}, "stepz"),
        ({"data": {"kind": "films"}}, "data.*films"),
        ({"data": {"train": "a", "validation": "b"}}, "data.licence"),
        ({"data": {"kind": "pairs", "train": "a", "validation": "b", "licence": "-", "crops": 3}}, "data.crops"),
        ({"data": {"train": "a", "validation": "b", "licence": "-", "percentiles": [99, 1]}}, "data.percentiles"),
        ({"data": 3}, "data"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(recipe, tmp_path, change, told):
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(recipe | change))
    with pytest.raises(InputError, match=told) as refusal:
        read_recipe(tmp_path / "a.yaml")
    assert "\n" not in str(refusal.value)


def test_what_is_no_recipe_is_refused(tmp_path):
    with pytest.raises(InputError, match="found no file"):
        read_recipe(tmp_path / "a.yaml")
    for text in ("- a\n- b", "a: [", "!!python/object/apply:os.system ['true']"):
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(FormatError):
            read_recipe(tmp_path / "a.yaml")


def test_data_lie_below_the_folder_that_the_environment_names(monkeypatch, tmp_path):
    monkeypatch.setenv("OBVERSE_DATA", str(tmp_path))
    assert data_folder("natural/train") == tmp_path / "natural" / "train"
    assert data_folder(str(tmp_path / "x")) == tmp_path / "x"
    monkeypatch.delenv("OBVERSE_DATA")
    with pytest.raises(InputError, match="OBVERSE_DATA"):
        data_folder("natural/train")
