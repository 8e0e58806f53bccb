"""The corpora that fedser reads by name. To add one: a file with a ``read`` function and a line below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fedser.audio.corpora import (
    casia,
    cremad,
    emodb,
    emovo,
    enterface,
    iemocap,
    nemo,
    ravdess,
    savee,
    tess,
    urdu,
)
from fedser.audio.corpora.base import Aside, Corpus, Reader, Reading

_ALL = (casia, cremad, emodb, emovo, enterface, iemocap, nemo, ravdess, savee, tess, urdu)

CORPORA: Mapping[str, Corpus] = MappingProxyType({module.CORPUS.name: module.CORPUS for module in _ALL})
"""Corpus name → corpus."""

__all__ = ["CORPORA", "Aside", "Corpus", "Reader", "Reading"]
