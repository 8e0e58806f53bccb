from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedser.bundle import BundleHeader, SigningKey, format, keys, read, write
from fedser.bundle.container import header_text
from fedser.errors import BundleError, BundleFormatError, OutputError, RollbackError, SignatureError

Tensors = dict[str, Tensor]


def resign(path: Path, data: bytes, key: SigningKey) -> None:
    """Whatever the bytes are, sign them: what a signer could publish by mistake."""
    path.write_bytes(data)
    format.signature_path(path).write_text(key.sign(data).hex())


def envelope(header: dict[str, object], rest: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def test_what_is_written_comes_back(bundle_path: Path, header: BundleHeader, tensors: Tensors, key: SigningKey) -> None:
    bundle = read(bundle_path, signer=key.public_hex)
    assert bundle.header == header.model_copy(update={"signer": key.public_hex})
    assert bundle.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(bundle.tensors[name], tensor)
    model = bundle.classifier()
    assert not model.training
    x = torch.randn(3, *header.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(x).shape == (3, 2)
        model.head.bias.add_(1.0)
    assert torch.equal(bundle.tensors["model.head.bias"], tensors["model.head.bias"]), "a classifier is a copy"
    assert bundle.linear() is None
    assert bundle.normaliser().statistics_for("a") == "site (6 utterances)", "no speaker's statistics travel"


def test_the_same_content_gives_the_same_bytes(
    tmp_path: Path, bundle_path: Path, header: BundleHeader, tensors: Tensors, key: SigningKey
) -> None:
    again = tmp_path / "again.safetensors"
    write(again, header, dict(reversed(tensors.items())), key)
    assert again.read_bytes() == bundle_path.read_bytes()


def test_an_unknown_signer_is_refused(tmp_path: Path, bundle_path: Path) -> None:
    stranger = keys.create(tmp_path / "stranger")
    with pytest.raises(SignatureError):
        read(bundle_path, signer=stranger.public_hex)
    with pytest.raises(SignatureError, match="Nothing says"):
        read(bundle_path)


def test_a_header_that_names_another_signer_is_refused(tmp_path: Path, bundle_path: Path, key: SigningKey) -> None:
    stranger = keys.create(tmp_path / "stranger")
    resign(bundle_path, bundle_path.read_bytes(), stranger)
    with pytest.raises(SignatureError, match="another signer"):
        read(bundle_path, signer=stranger.public_hex)


def test_an_older_version_is_refused_and_the_accepted_one_is_not(bundle_path: Path, key: SigningKey) -> None:
    assert read(bundle_path, signer=key.public_hex, accepted_version=3).header.version == 3
    with pytest.raises(RollbackError):
        read(bundle_path, signer=key.public_hex, accepted_version=4)


def test_signatures_that_are_missing_or_none_are_refused(bundle_path: Path, key: SigningKey) -> None:
    signature = format.signature_path(bundle_path)
    for content in (b"", b"zz" * 64, b"00" * 64, b"0" * 5000, b"\xff" * 128):
        signature.write_bytes(content)
        with pytest.raises(BundleError):
            read(bundle_path, signer=key.public_hex)
    signature.unlink()
    with pytest.raises(SignatureError, match="missing"):
        read(bundle_path, signer=key.public_hex)


def test_any_flipped_bit_is_noticed(bundle_path: Path, key: SigningKey) -> None:
    data = bundle_path.read_bytes()
    for place in range(0, len(data), 97):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        bundle_path.write_bytes(changed)
        with pytest.raises(SignatureError):
            read(bundle_path, signer=key.public_hex)


def test_truncated_files_are_refused_signed_or_not(bundle_path: Path, key: SigningKey) -> None:
    data = bundle_path.read_bytes()
    for length in range(0, len(data), 100):
        bundle_path.write_bytes(data[:length])
        with pytest.raises(SignatureError):
            read(bundle_path, signer=key.public_hex)
        resign(bundle_path, data[:length], key)
        with pytest.raises(BundleFormatError):
            read(bundle_path, signer=key.public_hex)
        resign(bundle_path, data, key)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_signed_damage_gives_only_bundle_errors(bundle_path: Path, key: SigningKey, data: st.DataObject) -> None:
    """Past the signature, too, damage ends in the project's own errors."""
    intact = getattr(test_signed_damage_gives_only_bundle_errors, "intact", None) or bundle_path.read_bytes()
    test_signed_damage_gives_only_bundle_errors.intact = intact  # type: ignore[attr-defined]
    head = 8 + int.from_bytes(intact[:8], "little")
    changed = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))] if data.draw(st.booleans()) else changed)
    try:
        bundle = format._parse(cut, bundle_path)
    except BundleError:
        return
    assert bundle.classifier() is not None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_give_only_bundle_errors(data: bytes) -> None:
    with pytest.raises(BundleFormatError):
        header_text(data)
    with pytest.raises(BundleFormatError):
        header_text(len(data).to_bytes(8, "little") + data)


def test_claims_of_great_size_cost_no_memory(bundle_path: Path, key: SigningKey) -> None:
    huge = {
        "__metadata__": {"fedser": "{}"},
        "model.x": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]},
    }
    deep = b"[" * 900_000
    cases = [envelope(huge), len(deep).to_bytes(8, "little") + deep, (2**63).to_bytes(8, "little") + b"{}"]
    tracemalloc.start()
    try:
        for case in cases:
            with pytest.raises(BundleFormatError):
                header_text(case)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_a_file_above_the_limit_is_not_read(bundle_path: Path, key: SigningKey) -> None:
    with bundle_path.open("r+b") as file:
        file.truncate(format.MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(BundleFormatError, match="larger"):
        read(bundle_path, signer=key.public_hex)
    with pytest.raises(BundleFormatError):
        read(bundle_path.parent, signer=key.public_hex)
    with pytest.raises(BundleFormatError):
        read(bundle_path.with_name("missing.safetensors"), signer=key.public_hex)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 2}, "schema version 2"),
        ({"feature_version": "logmel-0000"}, "features logmel-0000"),
        ({"temperature": 0.0}, "temperature"),
        ({"classes": ["anger", "anger"]}, "twice"),
        ({"model": {"encoder": "os.system"}}, "encoder"),
        ({"model": {"encoder": "mlp"}}, "no model"),
        ({"surplus": 1}, "unknown key"),
        ({"adaptable": ["nothing.weight"]}, "lacks"),
        ({"linear": True}, "linear"),
        ({"shape": [8, 4096]}, "statistics"),
        ({"name": "../../etc"}, "name"),
        ({"statistics": {}}, "normaliser"),
    ],
)
def test_signed_headers_that_do_not_fit_are_refused(
    bundle_path: Path, key: SigningKey, change: dict[str, object], told: str
) -> None:
    data = bundle_path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    entries["__metadata__"]["fedser"] = json.dumps(json.loads(entries["__metadata__"]["fedser"]) | change)
    resign(bundle_path, envelope(entries, data[8 + length :]), key)
    with pytest.raises(BundleFormatError, match=told):
        read(bundle_path, signer=key.public_hex)


def test_repeated_keys_foreign_metadata_and_gaps_are_refused() -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    good = {"__metadata__": {"fedser": "{}"}, "a": entry}
    assert header_text(envelope(good, b"\0" * 4)) == {}
    twice = envelope(good, b"\0" * 4).replace(b'"a":', b'"a": {}, "a":')
    twice = (len(twice) - 12).to_bytes(8, "little") + twice[8:]
    bad = [
        twice,
        envelope(good, b"\0" * 5),
        envelope(good | {"b": entry}, b"\0" * 4),
        envelope(good | {"a": entry | {"dtype": "BF16"}}, b"\0" * 4),
        envelope(good | {"a": entry | {"shape": [-1]}}, b"\0" * 4),
        envelope(good | {"a": entry | {"shape": [True]}}, b"\0" * 4),
        envelope(good | {"a": entry | {"data_offsets": [4, 8]}}, b"\0" * 8),
        envelope(good | {"__metadata__": {"fedser": "{}", "code": "x"}}, b"\0" * 4),
        envelope(good | {"__metadata__": {"fedser": '{"a": NaN}'}}, b"\0" * 4),
        envelope(good | {"__metadata__": {"fedser": "[]"}}, b"\0" * 4),
        envelope({"a": entry}, b"\0" * 4),
    ]
    for case in bad:
        with pytest.raises(BundleFormatError):
            header_text(case)


def test_tensors_that_do_not_fit_are_not_written(
    tmp_path: Path, header: BundleHeader, tensors: Tensors, key: SigningKey
) -> None:
    path = tmp_path / "wrong.safetensors"
    bias = tensors["model.head.bias"]
    for wrong in (bias[:1], bias.double(), bias * torch.nan):
        with pytest.raises(BundleFormatError, match=r"model\.head\.bias"):
            write(path, header, tensors | {"model.head.bias": wrong}, key)
    with pytest.raises(BundleFormatError, match="surplus"):
        write(path, header, tensors | {"surplus": bias}, key)
    assert list(tmp_path.glob("*wrong*")) == []


def test_writing_never_leaves_a_file_beside_the_signature_of_another(
    bundle_path: Path,
    header: BundleHeader,
    tensors: Tensors,
    key: SigningKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stop at each renaming and each removal in turn, as a crash would."""
    newer = header.model_copy(update={"version": 4})
    for stop in range(3):
        write(bundle_path, header, tensors, key)
        calls = 0

        def crash(self: Path, *_: object, original: object, **__: object) -> object:
            nonlocal calls
            calls += 1
            if calls > stop:  # noqa: B023
                raise KeyboardInterrupt
            return original(self, *_, **__)  # type: ignore[operator]

        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                real = getattr(Path, name)
                patch.setattr(Path, name, lambda self, *a, _real=real, **k: crash(self, *a, original=_real, **k))
            with pytest.raises(KeyboardInterrupt):
                write(bundle_path, newer, tensors, key)
        if format.signature_path(bundle_path).exists():
            assert read(bundle_path, signer=key.public_hex).header.version == 3
        else:
            with pytest.raises(SignatureError):
                read(bundle_path, signer=key.public_hex)
        for left in bundle_path.parent.glob(".*.part"):
            left.unlink()


def test_a_place_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, header: BundleHeader, tensors: Tensors, key: SigningKey
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write(tmp_path / "file" / "b.safetensors", header, tensors, key)
