"""Reading and writing bundles: ``NAME.safetensors`` and, beside it, ``NAME.safetensors.sig``.

- The file is a safetensors file. Its metadata has one entry, ``fedser``: the header as JSON.
- Tensors: ``model.*`` (the classifier's state), ``statistics.*`` (means and spreads of the source's features,
  no speaker's), and ``linear.weight``, ``linear.bias`` where the header says so.
- The signature is Ed25519 over all bytes of the file, as 128 hexadecimal digits.
- Nothing of the file is interpreted before the signature has been verified.
- A bundle holds no code and names none: no pickle, no class path, no expression.
- What is frozen of a pretrained encoder is not inside: the header pins it by digest, and each machine has its own copy.
- Limits: 512 MiB a file, 1 MiB of header, 10,000 tensors; exactly the tensors that the settings ask for.

A signature says who made a bundle, not that it is good: it does not exclude a backdoor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor

from fedser.audio import features
from fedser.audio.normalise import SiteNormaliser
from fedser.bundle import keys
from fedser.bundle.container import METADATA_KEY, header_text
from fedser.bundle.keys import SigningKey
from fedser.bundle.schema import SCHEMA_VERSION, BundleHeader
from fedser.config import validate
from fedser.errors import BundleFormatError, ConfigError, RollbackError, SignatureError
from fedser.files import replacing
from fedser.models import EmotionClassifier, LinearClassifier

MAX_BYTES = 512 * 2**20
_SIGNATURE_TEXT = 2 * keys.SIGNATURE_BYTES
_AGAIN = "Fetch the bundle and its signature again from the provider."


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        header: settings and facts.
        tensors: by name, on the CPU.
        digest: SHA-256 of the file's bytes, in hexadecimal.
    """

    header: BundleHeader
    tensors: Mapping[str, Tensor]
    digest: str

    def classifier(self) -> EmotionClassifier:
        """A fresh copy of the source model, in evaluation mode."""
        model = EmotionClassifier(self.header.model, self.header.shape, self.header.classes)
        model.load_state_dict(_part(self.tensors, "model."))
        return model.eval()

    def linear(self) -> LinearClassifier | None:
        """A fresh copy of logistic regression on the same features, where the bundle has it."""
        if not self.header.linear:
            return None
        model = LinearClassifier(self.header.shape[0], self.header.classes)
        model.load_state_dict(_part(self.tensors, "linear."))
        return model.eval()

    def normaliser(self) -> SiteNormaliser:
        """The source's statistics, for recordings that belong to no site with statistics of its own."""
        return SiteNormaliser.restore(_part(self.tensors, "statistics."), self.header.statistics)


def signature_path(path: Path) -> Path:
    """Where the signature of the bundle ``path`` lies."""
    return path.with_name(path.name + ".sig")


def default_path() -> Path:
    """The bundle that ships inside the package."""
    return Path(__file__).parent / "default" / "emodb-functionals.safetensors"


def is_default(path: Path) -> bool:
    """Whether a path leads to the packaged bundle, by whatever name."""
    return path.resolve() == default_path().resolve()


def write(path: Path, header: BundleHeader, tensors: Mapping[str, Tensor], key: SigningKey) -> None:
    """Sign and write a bundle; ``header.signer`` becomes the key's public half.

    Either the new pair of files stands there afterwards, or (after a crash between the two) a file without a
    signature, which nobody accepts; never a file beside a signature that belongs to another one.

    Raises:
        BundleFormatError: the tensors are not the ones that the header's settings ask for, or too large together.
        OutputError: the place cannot be written.
    """
    header = header.model_copy(update={"signer": key.public_hex})
    _check_tensors(header, tensors)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    data = serialise(plain, metadata={METADATA_KEY: header.model_dump_json()})
    if len(data) > MAX_BYTES:
        raise BundleFormatError(
            f"The bundle would have {len(data)} bytes, and nobody reads more than {MAX_BYTES}.",
            "Train fewer layers of the pretrained encoder (model.layers), or low-rank changes (model.trained=lora).",
        )
    signature = signature_path(path)
    with replacing(signature) as signature_scratch:
        signature_scratch.write_text(key.sign(data).hex() + "\n", encoding="ascii")
        with replacing(path) as scratch:
            scratch.write_bytes(data)
            signature.unlink(missing_ok=True)


def read(path: Path | None, *, signer: str | None = None, accepted_version: int = 0) -> Bundle:
    """Read and verify a bundle.

    Args:
        path: the ``.safetensors`` file; None is the default bundle of this package, whose key is packaged too
            and trusts nothing else.
        signer: the public key to trust: 64 hexadecimal digits, or a public key file.
        accepted_version: the largest version of this bundle that was accepted before.

    Raises:
        BundleFormatError: no bundle, a damaged one, or one for another version of fedser.
        SignatureError: no signature, not the signer's, or no signer to trust was given.
        RollbackError: older than ``accepted_version``.
        KeyFileError: ``signer`` is no key.
    """
    path = path or default_path()
    if signer is None and is_default(path):
        signer = default_signer()
    if signer is None:
        raise SignatureError(
            f"Nothing says whose signature on {path} to trust.",
            "Give the provider's public key with --signer (64 hexadecimal digits or a .pub file).",
        )
    trusted = keys.signer(signer)
    data = _bytes(path, MAX_BYTES)
    keys.verify(trusted, data, _signature(path))
    bundle = _parse(data, path)
    if bundle.header.signer != trusted:
        raise SignatureError(f"{path} names another signer than the key that signed it.", _AGAIN)
    if bundle.header.version < accepted_version:
        raise RollbackError(
            f"{path} is version {bundle.header.version}, but version {accepted_version} was accepted before.",
            "Fetch the newest bundle from the provider.",
        )
    return bundle


def peek(path: Path) -> BundleHeader:
    """The header of a bundle that nobody has verified: for showing who claims to have signed it.

    Raises:
        BundleFormatError: no bundle, or a damaged one.
    """
    return _header(header_text(_bytes(path, MAX_BYTES)), path)


def default_signer() -> str:
    """The public key of the packaged default bundle."""
    return (default_path().parent / "signer.pub").read_text(encoding="ascii").strip()


def _bytes(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise BundleFormatError(f"{path} is not a file.", "Name a .safetensors file.")
            if about.st_size > limit:
                raise BundleFormatError(f"{path} is larger than {limit} bytes.", "Name a bundle's file.")
            return file.read(limit + 1)[:limit]
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BundleFormatError(f"{path} cannot be read: {reason}.", "Name a bundle's .safetensors file.") from None


def _signature(path: Path) -> bytes:
    place = signature_path(path)
    if not place.exists():
        raise SignatureError(f"{path} has no signature: {place.name} is missing.", _AGAIN)
    text = _bytes(place, 1024).strip()
    try:
        signature = bytes.fromhex(text.decode("ascii")) if len(text) == _SIGNATURE_TEXT else b""
    except ValueError:
        signature = b""
    if len(signature) != keys.SIGNATURE_BYTES:
        raise SignatureError(f"{place} is not a signature.", _AGAIN)
    return signature


def _parse(data: bytes, path: Path) -> Bundle:
    """Tensors and header of bytes whose signature was verified; a signer can still be wrong."""
    header = _header(header_text(data), path)
    current = features.version(header.features)
    if header.feature_version != current:
        raise BundleFormatError(
            f"{path} holds weights for the features {header.feature_version}; this fedser computes {current}.",
            "Use a bundle trained with this version of fedser, or train it again.",
        )
    try:
        tensors = parse(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise BundleFormatError(f"{path} holds damaged tensors: {error}.", _AGAIN) from None
    _check_tensors(header, tensors)
    bundle = Bundle(header, tensors, keys.digest(data))
    normaliser = bundle.normaliser()
    if normaliser.shape != header.shape or normaliser.speakers:
        raise BundleFormatError(f"{path} holds statistics that are not the source's.", _AGAIN)
    return bundle


def _header(values: dict[str, object], path: Path) -> BundleHeader:
    schema = values.get("schema_version")
    if schema != SCHEMA_VERSION:
        raise BundleFormatError(
            f"{path} has schema version {schema!r:.40}; this fedser reads {SCHEMA_VERSION}.",
            "Install the version of fedser that the provider names.",
        )
    try:
        return validate(BundleHeader, values, f"The header of {path}")
    except ConfigError as error:
        raise BundleFormatError(str(error), _AGAIN) from None


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _expected(header: BundleHeader) -> dict[str, tuple[torch.dtype, torch.Size]]:
    """Names, types and shapes of all tensors that the settings ask for; allocates no memory for them."""
    with torch.device("meta"):
        model = EmotionClassifier(header.model, header.shape, header.classes)
    names = {f"model.{name}": (tensor.dtype, tensor.shape) for name, tensor in model.state_dict().items()}
    if header.linear:
        classes, inputs = len(header.classes), header.shape[0]
        names["linear.weight"] = (torch.float32, torch.Size((classes, inputs)))
        names["linear.bias"] = (torch.float32, torch.Size((classes,)))
    unknown = set(header.adaptable) - set(model.adaptable())
    if unknown:
        raise BundleFormatError(f"The header lets sites adapt {min(unknown)!r}, which the model lacks.", _AGAIN)
    return names


def _check_tensors(header: BundleHeader, tensors: Mapping[str, Tensor]) -> None:
    try:
        expected = _expected(header)
    except (ConfigError, RuntimeError, ValueError) as error:
        raise BundleFormatError(f"The header's settings make no model: {error}", _AGAIN) from None
    if header.linear and len(header.shape) != 1:
        raise BundleFormatError("The header promises a linear model for features that are no vectors.", _AGAIN)
    wrong = {
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected or name not in tensors or (tensors[name].dtype, tensors[name].shape) != expected[name]
    }
    wrong = {name for name in wrong if not name.startswith("statistics.")}  # the normaliser checks its own
    if wrong:
        raise BundleFormatError(f"The tensor {min(wrong)!r} does not fit the header's settings.", _AGAIN)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BundleFormatError(f"The tensor {name!r} holds values that are not finite.", _AGAIN)
