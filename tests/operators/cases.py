"""The registry: every linear operator at a tiny size, gathered from the `CASES` of the `cases_…` files."""

import importlib
import pkgutil

import tests.operators
from tests.operators.case import Case, random

__all__ = ["CASES", "Case", "random"]


def _gathered() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for module in pkgutil.iter_modules(tests.operators.__path__):
        if module.name.startswith("cases_"):
            cases = importlib.import_module(f"tests.operators.{module.name}").CASES
            assert not found.keys() & cases.keys(), f"{module.name} names a case that another file has"
            found |= cases
    return found


CASES = _gathered()
