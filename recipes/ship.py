"""Put trained weights into the package: rounded to half precision, which halves the file and changes no figure.

    python recipes/ship.py OUT/NAME.safetensors [OTHER/NAME.safetensors ...] [KEY=FILE.json ...]

The rounding (11 bits of mantissa) is finer than the bfloat16 (8 bits) that the networks were trained in. The card is
kept, and says so; further entries are read from JSON files. Networks compute in float32, as before.

Of several legs of one training the mean is taken, which is better than the best of them where each ends beside the
minimum (Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018). The card is
that of the first, with the validation done again (needs OBVERSE_DATA) and the names of all.
"""

import hashlib
import json
import sys
from pathlib import Path

import torch

from obverse import networks, priors
from obverse.learning.datasets import datasets
from obverse.learning.objectives import make_objective
from obverse.learning.recipe import Recipe


def main() -> None:
    sources = [Path(name) for name in sys.argv[1:] if "=" not in name]
    network, card = networks.load(sources[0])
    if len(sources) > 1:
        network = mean([networks.load(source)[0] for source in sources])
        card["averaged"] = [{"name": s.name, "sha256": hashlib.sha256(s.read_bytes()).hexdigest()} for s in sources]
        card["metrics"] = validated(network, card)
    for entry in (name for name in sys.argv[1:] if "=" in name):
        key, file = entry.split("=", 1)
        card[key] = json.loads(Path(file).read_text(encoding="utf-8"))
    card["stored"] = "float16"
    target = Path(priors.__file__).parent / "weights" / f"{card['name']}.safetensors"
    networks.save(target, network.half(), card, overwrite=True)
    sys.stdout.write(f"{target}: {target.stat().st_size} bytes, {card['metrics']}\n")


def mean(legs: list[torch.nn.Module]) -> torch.nn.Module:
    with torch.no_grad():
        for first, *others in zip(*(leg.float().parameters() for leg in legs), strict=True):
            first.copy_(torch.stack([first, *others]).mean(0))
    return legs[0]


def validated(network: torch.nn.Module, card: dict) -> dict[str, float]:
    """Figures of the recipe's own validation."""
    recipe = Recipe.model_validate(card["recipe"])
    return make_objective(recipe.objective).validate(network, datasets(recipe)[1], torch.device("cpu"))


if __name__ == "__main__":
    main()
