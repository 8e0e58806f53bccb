"""Which corpora a model comes from, and which it goes to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedser.errors import ConfigError, TooLittleDataError

SEVERAL = "+"  # joins the names of several sources


@dataclass(frozen=True)
class Pair:
    """One transfer.

    Attributes:
        sources: names of the labelled corpora, in the order given.
        target: name of the unlabelled one.
        explicit: the user wrote it down; it is not one of ``all`` or ``leave_one_out``.
    """

    sources: tuple[str, ...]
    target: str
    explicit: bool = True

    @property
    def source(self) -> str:
        """The sources' names as the tables have them: ``a+b``."""
        return SEVERAL.join(self.sources)


def resolve(texts: Sequence[str], corpora: Iterable[str]) -> list[Pair]:
    """Pairs from ``a:b``, ``a+b:c``, ``all`` and ``leave_one_out``, each once.

    Raises:
        ConfigError: a name is not among the corpora, cannot be written in a pair, or nothing remains.
    """
    names = list(corpora)
    for name in names:
        if not name or set(name) & {SEVERAL, ":", ",", "/", "|", '"', "\n"}:
            raise ConfigError(f"'{name}' cannot be the name of a corpus.", "Use letters, digits, '-' and '_'.")
    found: dict[tuple[tuple[str, ...], str], Pair] = {}
    for text in texts:
        if text == "all":
            parts = [Pair((s,), t, explicit=False) for s in names for t in names if s != t]
        elif text == "leave_one_out":
            parts = [Pair(tuple(n for n in names if n != t), t, explicit=False) for t in names if len(names) > 1]
        else:
            parts = [_pair(text, names)]
        for pair in parts:
            found.setdefault((pair.sources, pair.target), pair)
    if not found:
        raise ConfigError("There is no pair of corpora to compare on.", "Name two: corpora.a=DIR corpora.b=DIR.")
    return list(found.values())


def _pair(text: str, names: Sequence[str]) -> Pair:
    source, _, target = text.partition(":")
    sources = tuple(source.split(SEVERAL))
    for name in (*sources, target):
        if name not in names:
            raise ConfigError(
                f"The pair '{text}' names '{name}', which is not under corpora.",
                f"Add corpora.{name or 'NAME'}=DIR, and write pairs as source:target or a+b:target.",
            )
    if len(set(sources)) < len(sources) or (target in sources and len(sources) > 1):
        raise ConfigError(f"The pair '{text}' names a corpus twice.", "Name each corpus once.")
    return Pair(sources, target)


def shared(emotions: Mapping[str, Iterable[str | None]], pair: Pair) -> tuple[str, ...]:
    """Emotions that all corpora of a pair have, in alphabetical order.

    Args:
        emotions: corpus name → the emotion of each utterance.
        pair: the corpora.

    Raises:
        TooLittleDataError: fewer than two.
    """
    each = [{emotion for emotion in emotions[name] if emotion} for name in (*pair.sources, pair.target)]
    both = set.intersection(*each)
    if len(both) < 2:
        raise TooLittleDataError(
            f"{' and '.join((*pair.sources, pair.target))} share {len(both)} emotions.",
            "Choose corpora that share at least two.",
        )
    return tuple(sorted(both))
