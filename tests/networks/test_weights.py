"""A file of weights: what was saved comes back, and a file that was changed in any byte does not."""

import json
import random

import pytest
import torch

from obverse.errors import FormatError, InputError
from obverse.io.safe import read_safetensors, write_safetensors
from obverse.networks import build, load, read_card, save

UNET = {"kind": "UNet", "inputs": 3, "outputs": 1, "widths": [2, 3], "blocks": 1}
DESCRIPTION = {"kind": "Preconditioned", "network": UNET}


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    save(tmp_path / "a.safetensors", build(DESCRIPTION), {"network": DESCRIPTION, "licence": "of the test"})
    return tmp_path / "a.safetensors"


def test_what_was_saved_comes_back(path):
    torch.manual_seed(0)
    expected, (network, card) = build(DESCRIPTION), load(path)
    assert card == read_card(path) == {"network": DESCRIPTION, "licence": "of the test"}
    for one, other in zip(expected.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    x, sigma = torch.rand(2, 1, 7, 6), torch.tensor([0.1, 0.2])
    assert torch.equal(network(x, sigma), expected.eval()(x, sigma))


def test_equal_weights_are_equal_bytes(path, tmp_path):
    network, card = load(path)
    save(tmp_path / "b.safetensors", network, card)
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    with pytest.raises(InputError, match="exist"):
        save(path, network, card)


def test_a_flipped_bit_anywhere_is_refused(path):
    """In the header's length, the checksum, the card, the names and shapes, and the weights."""
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    regions = {
        "length": range(8),
        "checksum": range(whole.index(b'"sha256"'), whole.index(b'"sha256"') + 76),
        "card": range(whole.index(b'"card"'), whole.index(b"of the test") + 11),
        "shapes": range(whole.index(b"network.head.weight"), start),
        "data": range(start, len(whole)),
    }
    chosen = random.Random(0)
    for region, where in regions.items():
        for at in {where[0], where[-1], *(chosen.choice(where) for _ in range(20))}:
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << chosen.randrange(8))]) + whole[at + 1 :])
            with pytest.raises(FormatError):
                load(path)
                pytest.fail(f"byte {at}, in the {region}")
    path.write_bytes(whole)
    load(path)


def test_a_truncated_or_lengthened_file_is_refused(path):
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    for content in (b"", whole[:7], whole[:100], whole[:start], whole[: start + 9], whole[:-1], whole + b"\0"):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            load(path)


def rewritten(path, network=None, **arrays):
    """The same file with another description or other arrays, and a checksum that is right."""
    found, metadata = read_safetensors(path)
    card = json.loads(metadata["card"]) | ({} if network is None else {"network": network})
    write_safetensors(path, found | arrays, {"card": json.dumps(card)}, overwrite=True)


@pytest.mark.parametrize("change", [{"widths": [2, 4]}, {"blocks": 2}, {"bias": True}, {"inputs": 4}], ids=str)
def test_weights_of_another_architecture_are_refused(path, change):
    rewritten(path, {"kind": "Preconditioned", "network": UNET | change})
    with pytest.raises(FormatError, match="weights that fit its card"):
        load(path)


def test_an_array_too_many_is_refused(path):
    rewritten(path, extra=torch.zeros(3))
    with pytest.raises(FormatError, match="extra"):
        load(path)


@pytest.mark.parametrize(
    "network",
    [
        "UNet",
        [],
        {},
        {"kind": "os.system"},
        {"kind": ["UNet"]},
        {"kind": "UNet"},
        UNET | {"command": "rm"},
        UNET | {"widths": []},
        UNET | {"widths": "wide"},
        UNET | {"widths": [-1]},
        UNET | {"inputs": None},
        UNET | {"inputs": {"kind": "UNet", "inputs": 1, "outputs": 1}},
        UNET | {"blocks": 10**12},
        UNET | {"widths": [65536, 65536]},
        {"kind": "Preconditioned", "network": UNET, "deviation": -1},
    ],
    ids=str,
)
def test_a_hostile_card_is_refused_without_memory_or_time(path, network):
    rewritten(path, network)
    resource = pytest.importorskip("resource", reason="this system does not tell how much memory was used")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_a_card_that_is_no_card_is_refused(path):
    for text in ("", "[]", "{}", "nonsense", "[" * 100_000):
        write_safetensors(path, {}, {"card": text}, overwrite=True)
        for read in (load, read_card):
            with pytest.raises(FormatError):
                read(path)
    write_safetensors(path, {}, {}, overwrite=True)
    for read in (load, read_card):
        with pytest.raises(FormatError):
            read(path)


def test_loading_reads_no_pickle(path, monkeypatch):
    import pickle

    def refuse(*_, **__):
        raise AssertionError("a file of weights was unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    load(path)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(b"")  # noqa: S301


def test_build_says_what_is_wrong():
    with pytest.raises(InputError, match="UNet.*got 'Nett'"):
        build({"kind": "Nett"})
    with pytest.raises(InputError, match="depth"):
        build(UNET | {"depth": 3})
    with pytest.raises(InputError, match="got None"):
        build({"inputs": 1})
