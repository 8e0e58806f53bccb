"""Every error that fedser raises on purpose.

::

    FedserError                      what happened, what to do, an exit code
    ├── UsageError            2      the command line asks for something that cannot be
    ├── ConfigError           3      a configuration file or override does not fit
    ├── DataError                    recordings, manifests and labels
    │   ├── NoAudioError     10      nothing to read
    │   ├── UnknownLabelError 11     an emotion outside the vocabulary
    │   ├── ManifestError    12      a manifest that does not fit
    │   ├── AudioError       13      one recording cannot be read
    │   └── TooLittleDataError 14    too few utterances, speakers or classes
    ├── BundleError                  source bundles and keys
    │   ├── BundleFormatError 20     not a bundle, or a damaged one
    │   ├── SignatureError   21      the signature does not fit, or an unknown signer
    │   ├── RollbackError    22      older than a version already accepted
    │   └── KeyFileError     23      a key cannot be read or is not protected
    ├── FederationError              rounds
    │   ├── WireError        30      a message that is not on the schema
    │   ├── PolicyError      31      the site's policy forbids it
    │   ├── QuorumError      32      too few sites answered
    │   ├── NetworkError     33      the other side cannot be reached, or is not the one that was pinned
    │   ├── EnrolmentError   34      an invitation, its token or a key is refused
    │   ├── StateError       35      a node's state folder is in use, damaged or another study's
    │   ├── PrivacyError     36      a private run that would not keep what it claims
    │   ├── BudgetError      37      the privacy budget is spent
    │   └── LedgerError      38      the ledger of the budget is damaged, behind, or another site's
    ├── AttackError                  what the attack lab found
    │   ├── BarError         50      a defence let more through than a bar allows
    │   └── ControlError     51      an attack failed where nothing is defended, and so proves nothing
    ├── OutputError          40      a result cannot be written
    ├── DependencyError      41      an optional package is missing
    └── DeviceError          42      the device asked for is not there

Each message has two sentences: what happened (`str(error)`) and what to do (`error.hint`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class FedserError(Exception):
    """Root of all deliberate errors.

    Args:
        message: one sentence that says what happened.
        hint: one sentence that says what to do about it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(FedserError):
    """The command line asks for something that cannot be."""

    exit_code = 2


class ConfigError(FedserError):
    """A configuration file or an override does not fit."""

    exit_code = 3


class DataError(FedserError):
    """Recordings, manifests and labels."""


class NoAudioError(DataError):
    """There is nothing to read at the given place."""

    exit_code = 10


class UnknownLabelError(DataError):
    """An emotion label lies outside the vocabulary; the message names the file."""

    exit_code = 11


class ManifestError(DataError):
    """A manifest row or header does not fit."""

    exit_code = 12


class AudioError(DataError):
    """One recording cannot be read."""

    exit_code = 13


class TooLittleDataError(DataError):
    """Too few utterances, speakers or classes for what was asked."""

    exit_code = 14


class BundleError(FedserError):
    """Source bundles and keys."""


class BundleFormatError(BundleError):
    """The file is not a bundle, or it is damaged."""

    exit_code = 20


class SignatureError(BundleError):
    """The signature does not fit, or the signer is not known."""

    exit_code = 21


class RollbackError(BundleError):
    """The bundle is older than one that was already accepted."""

    exit_code = 22


class KeyFileError(BundleError):
    """A key cannot be read, or its file is open to other users."""

    exit_code = 23


class FederationError(FedserError):
    """Rounds between provider and sites."""


class WireError(FederationError):
    """A message is not on the wire schema."""

    exit_code = 30


class PolicyError(FederationError):
    """The site's policy forbids what was asked."""

    exit_code = 31


class QuorumError(FederationError):
    """Too few sites answered."""

    exit_code = 32


class NetworkError(FederationError):
    """The other side cannot be reached, or it is not the one that was pinned."""

    exit_code = 33


class EnrolmentError(FederationError):
    """An invitation, its token or a key is refused."""

    exit_code = 34


class StateError(FederationError):
    """A node's state folder is in use, damaged, or belongs to another study."""

    exit_code = 35


class PrivacyError(FederationError):
    """A private run would not keep what it claims; the hint names the nearest sound setting."""

    exit_code = 36


class BudgetError(FederationError):
    """The privacy budget of this site and unit is spent."""

    exit_code = 37


class LedgerError(FederationError):
    """The ledger of the privacy budget is damaged, behind what it held before, or another site's or unit's."""

    exit_code = 38


class AttackError(FedserError):
    """What the attack lab found."""


class BarError(AttackError):
    """A defended setting let more through than a bar of the configuration allows."""

    exit_code = 50


class ControlError(AttackError):
    """An attack failed where nothing is defended: the run proves nothing."""

    exit_code = 51


class OutputError(FedserError):
    """A result cannot be written."""

    exit_code = 40


class DependencyError(FedserError):
    """An optional package is not installed."""

    exit_code = 41


class DeviceError(FedserError):
    """The device asked for is not there."""

    exit_code = 42


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known name next to a word that is none, as a sentence behind another one; empty where none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
