"""What a corpus reader is: a small function from a path to what the corpus declares of that file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedser.audio.utterance import Utterance

FEMALE, MALE = "female", "male"


@dataclass(frozen=True, slots=True)
class Aside:
    """A file that belongs to a corpus but is no utterance of speech with an emotion.

    Attributes:
        reason: one word for ``quarantine.csv``, such as ``song``.
        detail: one clause that explains it.
    """

    reason: str
    detail: str


Reading = Utterance | Aside | None
"""What a reader says of a file: an utterance, a file to set aside, or None for "not of this corpus"."""

Reader = Callable[[Path], Reading]
"""Readers look at the last components of an absolute path only, whatever the letter case and extension."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """One corpus that fedser knows by name.

    Attributes:
        name: the name for ``--corpus``.
        aliases: forms of a folder name that mean this corpus, in lower case, letters and digits only.
        read: the reader.
        open: for a corpus whose labels lie in annotation files: root folder → reader. Replaces ``read``.
        sure: a stricter reader for files whose folder does not name the corpus; None means ``read`` will do.
    """

    name: str
    aliases: tuple[str, ...]
    read: Reader
    open: Callable[[Path], Reader] | None = None
    sure: Reader | None = None

    def reader(self, root: Path) -> Reader:
        """The reader for recordings below ``root``."""
        return self.open(root) if self.open else self.read

    def is_named_by(self, folder: str) -> bool:
        """Whether a folder's name means this corpus: ``EmoDB``, ``emo-db``, ``EmoDB_v1.2``, ``my-emodb``."""
        words = [word for word in re.split(r"[^a-z0-9]+", folder.casefold()) if word]
        joined = "".join(words)
        return any(
            alias in words or joined.startswith(alias) or (len(alias) > 4 and alias in joined) for alias in self.aliases
        )
