"""P12: loading a model or posterior never runs code. A booby-trapped pickle is refused; no module unpickles a file."""

import ast
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from obverse.errors import FormatError
from obverse.io.safe import read_safetensors
from obverse.posterior import Posterior

PACKAGE = Path(__file__).parents[2] / "obverse"
# Modules whose only use is to turn bytes into objects or code. `pickle` itself may be imported, to see whether a thing
# can be sent to another process; what it may not do is load.
BANNED_MODULES = {"_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
BANNED_CALLS = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "torch.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "pandas.read_pickle",
    "numpy.lib.format.read_array",
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "builtins.__import__",
}


def dangers(source: str) -> list[str]:
    """Every way in which a module could turn a file into code, with its line."""
    tree, names, found = ast.parse(source), {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                if alias.name.split(".")[0] in BANNED_MODULES:
                    found.append(f"{node.lineno}: import {alias.name}")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module.split(".")[0] in BANNED_MODULES | {"pickle"}:
                found.append(f"{node.lineno}: from {node.module} import")
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := _full(node, names)) in BANNED_CALLS:
            found.append(f"{node.lineno}: {name}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                found.append(f"{node.value.lineno}: allow_pickle")
    return found


def _full(node: ast.expr, names: dict[str, str]) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    if node.id not in names and not parts:
        return f"builtins.{node.id}"
    return ".".join([names.get(node.id, node.id), *reversed(parts)])


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_can_turn_a_file_into_code(path):
    assert dangers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "snippet",
    [
        "import pickle\npickle.load(file)",
        "import pickle as p\np.loads(data)",
        "import pickle\nread = pickle.loads",
        "import pickle\nclass Reader(pickle.Unpickler): ...",
        "from pickle import loads as harmless",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x')",
        "from torch import load as read\nread('x')",
        "import torch\nreader = torch.load",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nnp.load('x', allow_pickle=flag)",
        "eval('1')",
        "exec(text)",
        "def f():\n    import marshal\n    return marshal.loads(b'')",
        "import joblib.numpy_pickle",
    ],
)
def test_the_scanner_catches_a_bad_snippet(snippet):
    assert dangers(snippet)


@pytest.mark.parametrize(
    "snippet",
    [
        "import yaml\nyaml.safe_load(text)",
        "import pickle\npickle.dumps(thing)",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "import re\nre.compile('x')",
        "import json\njson.load(file)",
        "model.eval()",
    ],
)
def test_the_scanner_lets_good_code_pass(snippet):
    assert dangers(snippet) == []


class Trap:
    """Unpickled, it leaves a mark; loading must never leave one."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def traps(mark: Path) -> dict[str, bytes]:
    archive, array, legacy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save(Trap(mark), archive)
    torch.save(Trap(mark), legacy, _use_new_zipfile_serialization=False)
    np.save(array, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as bundle:
        bundle.writestr("mean.npy", array.getvalue())
    made = {"pickle": pickle.dumps(Trap(mark)), "torch": archive.getvalue(), "old torch": legacy.getvalue()}
    return made | {"numpy": array.getvalue(), "npz": zipped.getvalue()}


@pytest.mark.parametrize("kind", ["pickle", "torch", "old torch", "numpy", "npz"])
def test_a_booby_trapped_file_is_refused_and_does_not_go_off(kind, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "posterior.safetensors"
    path.write_bytes(traps(mark)[kind])
    for load in (Posterior.load, read_safetensors):
        with pytest.raises(FormatError):
            load(path)
    assert not mark.exists()


def test_the_trap_does_go_off_when_unpickled(tmp_path):
    pickle.loads(traps(tmp_path / "mark")["pickle"])  # noqa: S301
    assert (tmp_path / "mark").exists()
