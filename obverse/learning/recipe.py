"""A recipe: everything that makes one set of weights, in a YAML file.

    name: natural-gray
    network: {kind: Preconditioned, network: {kind: UNet, inputs: 3, outputs: 1}}
    objective: {kind: Denoising, sigma: [0.0, 0.2]}
    data: {train: natural/bsds500/train, validation: natural/bsds500/val32, channels: 1, crop: 64, licence: ...}
    steps: 10000

Paths of data are relative to the folder in the environment variable OBVERSE_DATA, or absolute.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from ..errors import FormatError, InputError
from ..priors.shipped import find

__all__ = ["Recipe", "data_folder", "read_recipe", "start_files"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _ordered(percentiles: tuple[float, float] | None) -> tuple[float, float] | None:
    if percentiles is not None and not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError("expects two percentiles from 0 to 100, the lower first")
    return percentiles


Percentiles = Annotated[
    tuple[float, float] | None,
    AfterValidator(_ordered),
    Field(description="of a file's values, to become 0 and 1; null for the range of an 8- or 16-bit type"),
]
Axes = Annotated[str | None, Field(description="of TIFF stacks that do not say, such as ZYX")]


class ImageData(_Strict):
    """Folders of images, and the crops taken of them."""

    kind: Literal["images"] = "images"
    train: list[str] | str
    validation: list[str] | str
    channels: int = Field(1, ge=1)
    crop: int = Field(64, ge=8, description="side of a training crop, pixels")
    validation_crop: int = Field(128, ge=8, description="side of a validation crop, pixels")
    turned: bool = Field(True, description="crops turned by quarters and mirrored; not for digits, letters, faces")
    percentiles: Percentiles = None
    axes: Axes = None
    licence: str = Field(description="terms of the pictures, for the card")


class PairData(_Strict):
    """Measurements with their truths: an HDF5 file, a zarr store, or a folder with two folders of images."""

    kind: Literal["pairs"]
    train: str
    validation: str
    measurement: str = Field("measurement", description="name of the array or folder of measurements")
    truth: str = Field("truth", description="name of the array or folder of truths")
    channels: int = Field(1, ge=1, description="of images in folders")
    crop: int | None = Field(None, ge=8, description="side of a training crop, pixels; null for whole items")
    validation_crop: int | None = Field(None, ge=8)
    percentiles: Percentiles = None
    axes: Axes = None
    licence: str = Field(description="terms of the data, for the card")


def _kind(data: Any) -> Any:
    return data.get("kind", "images") if isinstance(data, Mapping) else getattr(data, "kind", None)


class Recipe(_Strict):
    """All settings of one training."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the weights")
    description: str = ""
    network: dict[str, Any]
    objective: dict[str, Any]
    data: Annotated[Annotated[ImageData, Tag("images")] | Annotated[PairData, Tag("pairs")], Discriminator(_kind)]
    start: str | dict[str, str] | None = Field(
        None,
        description="a shipped prior to start from, or a file, found as the data are; or one by part, such as mean",
    )
    steps: int = Field(ge=1)
    batch: int = Field(16, ge=1, description="items a step, over all processes")
    rate: float = Field(1e-3, gt=0, description="highest learning rate")
    warmup: int = Field(200, ge=0, description="steps until the highest rate; a cosine leads down to zero from there")
    clip: float = Field(1.0, gt=0, description="largest norm of a gradient")
    average: float = Field(
        0.999, ge=0, lt=1, description="decay of the running mean of the weights, which is what is kept"
    )
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    validate_every: int = Field(500, ge=1)
    patience: int | None = Field(
        None, ge=1, description="validations without progress before stopping; then the best weights are kept"
    )
    shard: bool = Field(False, description="spread the weights over the processes, for networks that do not fit")
    checkpoint_seconds: float = Field(60.0, ge=0)
    seed: int = Field(0, ge=0)


def read_recipe(path: Path, settings: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe in a YAML file.

    Args:
        path: of the file.
        settings: to be used instead of the file's; a dotted name such as `data.crop` reaches inside.

    Raises:
        InputError: no such file, or a setting that is missing, unknown or out of range.
        FormatError: not YAML.
    """
    if not path.is_file():
        raise InputError(f"expected a recipe, found no file at {path}; the project keeps its own under recipes/")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise FormatError(
            f"expected YAML in {path.name}, got text that does not parse ({detail}); mend that line"
        ) from error
    if not isinstance(content, dict):
        raise FormatError(f"expected `key: value` lines in {path.name}, got a {type(content).__name__}")
    for name, value in (settings or {}).items():
        _assign(content, name.split("."), value)
    try:
        return Recipe(**content)
    except ValidationError as error:
        first = error.errors()[0]
        # pydantic puts the kind of data between `data` and the setting's name.
        where = ".".join(str(part) for part in first["loc"] if part not in ("images", "pairs"))
        if first["type"] == "extra_forbidden":
            known = f" out of {', '.join(Recipe.model_fields)}" if len(first["loc"]) == 1 else " that recipes have"
            raise InputError(f"{path.name}: expected a setting{known}, got {where!r}; correct the name") from error
        raise InputError(
            f"{path.name}: {where}: {first['msg'].lower()}, got {first.get('input')!r}; mend it"
        ) from error


def data_folder(path: str) -> Path:
    """A data path of a recipe, below OBVERSE_DATA unless absolute."""
    given = Path(path).expanduser()
    if given.is_absolute():
        return given
    root = os.environ.get("OBVERSE_DATA")
    if root is None:
        raise InputError(f"expected OBVERSE_DATA to name the folder that holds {path}, it is not set; export it")
    return Path(root) / given


def start_files(recipe: Recipe) -> dict[str, Path]:
    """The weights to start from, by part of the network; "" is the whole of it.

    Each is a file ending in .safetensors, here or among the data, or a shipped prior by name.
    """
    if recipe.start is None:
        return {}
    parts = {"": recipe.start} if isinstance(recipe.start, str) else recipe.start
    return {part: _start_file(name) for part, name in parts.items()}


def _start_file(name: str) -> Path:
    if not name.endswith(".safetensors"):
        return find(name)
    given = Path(name).expanduser()
    return given if given.is_file() else data_folder(name)


def _assign(content: dict[str, Any], names: Sequence[str], value: Any) -> None:
    *parents, last = names
    for name in parents:
        content = content.setdefault(name, {})
        if not isinstance(content, dict):
            raise InputError(f"expected {'.'.join(names)} to reach into the recipe, but {name} is a plain value there")
    content[last] = value
