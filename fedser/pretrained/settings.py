"""Which pretrained encoder: a name out of a fixed table, and the digest of its weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from fedser.config import Settings

Family = Literal["wav2vec2", "hubert", "wavlm"]
Size = Literal["tiny", "base", "large", "large_lv60k"]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Pretrained(Settings):
    """A pretrained encoder, as a bundle's header may name it: no path, no address, no code.

    Attributes:
        family: wav2vec 2.0 (Baevski et al. 2020), HuBERT (Hsu et al. 2021) or WavLM (Chen et al. 2022).
        size: ``base`` (12 layers of 768), ``large`` (24 of 1024), ``large_lv60k`` (wav2vec2 alone: the large one
            with layer norms between its convolutions, as for LV-60k and XLSR-53), or ``tiny`` (for tests).
        weights: SHA-256 of the tensors (:func:`fedser.pretrained.weights.digest`), in hexadecimal.
    """

    family: Family
    size: Size = "base"
    weights: Digest
