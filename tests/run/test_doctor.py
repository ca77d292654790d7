"""What the doctor says of the shipped priors, whole and damaged."""

from obverse.networks import build, save
from obverse.priors import shipped
from obverse.run.doctor import examine


def test_shipped_priors_are_listed_and_a_damaged_one_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path)
    assert examine()["priors"] == "none with this installation"
    description = {"kind": "UNet", "inputs": 1, "outputs": 1, "widths": [2], "blocks": 1}
    path = tmp_path / "mine.safetensors"
    save(path, build(description), {"network": description})
    found = examine()
    assert found["priors"] == "mine" and found["tests"]["shipped priors"] == "passed"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    found = examine()
    assert not found["healthy"] and found["tests"]["shipped priors"].startswith("failed")
