"""The order key's word for a bundle's signer."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedser.bundle.keys import SigningKey
from fedser.errors import SignatureError
from fedser.federation.trust import check_vouch, vouch

ORDER, OTHER, SIGNER = (SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([n] * 32))) for n in (1, 2, 3))


def test_a_word_is_good_for_one_study_one_signer_and_one_key() -> None:
    word = vouch(ORDER, "study", SIGNER.public_hex)
    check_vouch(ORDER.public_hex, "study", SIGNER.public_hex, word)
    for key, study, signer, given in (
        (OTHER.public_hex, "study", SIGNER.public_hex, word),
        (ORDER.public_hex, "another", SIGNER.public_hex, word),
        (ORDER.public_hex, "study", OTHER.public_hex, word),
        (ORDER.public_hex, "study", SIGNER.public_hex, vouch(OTHER, "study", SIGNER.public_hex)),
        (ORDER.public_hex, "study", SIGNER.public_hex, "no hexadecimal"),
        (ORDER.public_hex, "study", SIGNER.public_hex, ""),
    ):
        with pytest.raises(SignatureError):
            check_vouch(key, study, signer, given)
