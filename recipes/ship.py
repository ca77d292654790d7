"""Put trained weights into the package: rounded to half precision, which halves the file and changes no figure.

    python recipes/ship.py OUT/NAME.safetensors [KEY=FILE.json ...]

The rounding (11 bits of mantissa) is finer than the bfloat16 (8 bits) that the networks were trained in. The card is
kept, and says so; further entries are read from JSON files. Networks compute in float32, as before.
"""

import json
import sys
from pathlib import Path

from obverse import networks, priors


def main() -> None:
    source, *entries = sys.argv[1:]
    network, card = networks.load(source)
    for entry in entries:
        key, file = entry.split("=", 1)
        card[key] = json.loads(Path(file).read_text(encoding="utf-8"))
    card["stored"] = "float16"
    target = Path(priors.__file__).parent / "weights" / f"{card['name']}.safetensors"
    networks.save(target, network.half(), card, overwrite=True)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
