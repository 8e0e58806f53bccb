"""``--speaker-from RULE``: speakers from paths, where no corpus or manifest declares them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedser.errors import UsageError

if TYPE_CHECKING:
    from fedser.audio.recordings import Recordings

_HINT = "Use 'parent', 'grandparent', 'none', or a regular expression with one group, such as '([A-Z]+)_[0-9]+'."


def speaker_rule(rule: str) -> Callable[[Recordings], Recordings]:
    """Compile a rule.

    Args:
        rule: ``parent`` (the name of the folder that holds the file), ``grandparent`` (of the one above it),
            ``none`` (no speakers), or a regular expression that is searched in the file's path relative to
            DIR, with one group or a group called ``speaker``.

    Returns:
        A function that replaces the speakers (and drops declared genders with them).

    Raises:
        UsageError: from here, the rule is none of these; from the function, it fits no file.
    """
    named: dict[str, Callable[[Path, Path], str | None]] = {
        "parent": lambda path, root: path.absolute().parent.name or None,
        "grandparent": lambda path, root: path.absolute().parent.parent.name or None,
        "none": lambda path, root: None,
    }
    speaker_of = named.get(rule) or _searching(rule)

    def apply(recordings: Recordings) -> Recordings:
        root = recordings.root if recordings.root.is_dir() else recordings.root.parent
        changed = tuple(
            replace(utterance, speaker=speaker_of(utterance.path, root), gender=None)
            for utterance in recordings.utterances
        )
        unknown = sum(utterance.speaker is None for utterance in changed)
        if rule == "none":
            return replace(recordings, utterances=changed, speakers_from="nothing: dropped by --speaker-from none")
        if unknown == len(changed):
            example = changed[0].path
            raise UsageError(f"The rule --speaker-from {rule} fits no file, for instance not {example}.", _HINT)
        gap = f" ({unknown} of {len(changed)} files do not fit it: unknown speaker)" if unknown else ""
        return replace(recordings, utterances=changed, speakers_from=f"the rule '{rule}'{gap}")

    return apply


def _searching(rule: str) -> Callable[[Path, Path], str | None]:
    try:
        pattern = re.compile(rule)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"--speaker-from '{rule}' is no regular expression: {error}.", _HINT) from None
    group: int | str = "speaker" if "speaker" in pattern.groupindex else 1
    if pattern.groups != 1 and group == 1:
        raise UsageError(f"--speaker-from '{rule}' has {pattern.groups} groups, not one.", _HINT)

    def search(path: Path, root: Path) -> str | None:
        place, base = path.absolute(), root.absolute()
        text = place.relative_to(base) if place.is_relative_to(base) else place
        match = pattern.search(text.as_posix())
        return (match[group] or None) if match else None

    return search
