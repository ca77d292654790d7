"""Claim: `import obverse` adds less than 0.1 s to Python and imports no torch; `obverse --help` takes less than 0.3 s.

Each command runs in a fresh process, alternately with a bare interpreter; the smallest time of each counts.

    python benchmarks/import_is_light.py
"""

import json
import subprocess
import sys
import time
from pathlib import Path

REPEATS = 15
HEAVY = ("torch", "torchvision", "scipy", "numba", "pydantic", "linear_operator")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import obverse": [sys.executable, "-c", "import obverse"],
    "import torch": [sys.executable, "-c", "import torch"],
    "obverse --help": [sys.executable, "-m", "obverse", "--help"],
}


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - began)
    listing = f"import sys, obverse; print([m for m in {HEAVY!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", listing], check=True, capture_output=True, text=True).stdout.strip()
    least = {name: min(values) for name, values in times.items()}
    result = {
        "seconds": least,
        "import_adds_seconds": least["import obverse"] - least["python -c pass"],
        "heavy_modules_loaded": loaded,
        "claims": {
            "import adds < 0.1 s": least["import obverse"] - least["python -c pass"] < 0.1,
            "import loads nothing heavy": loaded == "[]",
            "--help < 0.3 s": least["obverse --help"] < 0.3,
        },
    }
    for name, seconds in least.items():
        print(f"{name:20}{1e3 * seconds:8.1f} ms")
    print(f"import obverse adds {1e3 * result['import_adds_seconds']:.1f} ms and loads of the heavy packages: {loaded}")
    for claim, holds in result["claims"].items():
        print(f"{'holds' if holds else 'FAILS':7}{claim}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
