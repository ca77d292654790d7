"""Settings of a run: defaults ← configuration file ← `--set` ← flags, resolved once and stored beside every output.

A configuration file is YAML (`key: value`, read safely), with the fields that `obverse config INSTRUMENT` prints.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import FormatError, InputError

__all__ = ["INSTRUMENTS", "as_yaml", "instrument", "parse_assignments", "read_config", "resolve"]

INSTRUMENTS = {
    "microscopy": "obverse.instruments.microscopy",
    "exoplanet": "obverse.instruments.exoplanet",
}

_CONFIG_LIMIT = 1_000_000  # bytes; a hand-written file is a thousand times smaller


def instrument(name: str) -> ModuleType:
    """The module that knows one kind of instrument: its settings, reading, physics, methods and writing."""
    if name not in INSTRUMENTS:
        raise InputError(
            f"expected an instrument out of {', '.join(INSTRUMENTS)}, got {name!r}; pass --instrument NAME"
        )
    return import_module(INSTRUMENTS[name])


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, read without running any code."""
    if not path.is_file():
        raise InputError(f"expected a configuration file, found none at {path}; `obverse config microscopy` prints one")
    if path.stat().st_size > _CONFIG_LIMIT:
        raise FormatError(
            f"expected a configuration of at most {_CONFIG_LIMIT} bytes, {path.name} is larger; check the path"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise FormatError(
            f"expected YAML in {path.name}, got text that does not parse ({detail}); mend that line"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise FormatError(
            f"expected `key: value` lines in {path.name}, got a {type(content).__name__}; see `obverse config`"
        )
    return {str(key): value for key, value in content.items()}


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs as a mapping, each value read as YAML (`3`, `0.5`, `true`, `auto`, `[1, 2]`)."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise InputError(f"expected --set KEY=VALUE, got {assignment!r}; write for instance --set rank=20")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(
                f"expected a simple value in --set {assignment!r}, got text that does not parse; quote it"
            ) from error
    return values


def resolve(name: str, *layers: Mapping[str, Any]) -> BaseModel:
    """The instrument's settings with every layer applied in turn, later layers winning.

    Raises:
        InputError: a field is unknown or its value is out of range; the sentence names the field.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    model: type[BaseModel] = instrument(name).Settings
    try:
        return model(**merged)
    except ValidationError as error:
        first, *others = error.errors()
        # Where a field takes one of several types, there is an error for each of them, under names of pydantic's own.
        field = str(first["loc"][0]) if first["loc"] else "settings"
        told = [e["msg"].removeprefix("Input should be ") for e in (first, *others) if e["loc"][:1] == first["loc"][:1]]
        if first["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            raise InputError(f"expected a setting of {name} out of {known}; got {field!r}; correct the name") from error
        raise InputError(
            f"expected for the setting {field!r}: {' or '.join(dict.fromkeys(told))}; got {first.get('input')!r}; "
            f"`obverse config {name}` lists the defaults"
        ) from error


def as_yaml(settings: BaseModel) -> str:
    """Settings as a commented YAML file that `--config` reads back to the same settings."""
    lines = []
    for name, field in type(settings).model_fields.items():
        if field.description:
            lines.append(f"# {field.description}")
        value = settings.model_dump(mode="json")[name]
        lines.append(yaml.safe_dump({name: value}, sort_keys=False).strip())
    return "\n".join(lines) + "\n"
