"""What DIR means, in every command: one rule.

1. A manifest file, or a folder with ``manifest.csv`` (or ``manifest.jsonl``) inside; an audformat database.
2. The corpus reader named by ``--corpus``, else by the folder's name.
3. The single corpus reader that matches at least 95 % of the files.
4. Parent folders that are emotion words.
5. Unlabelled recordings; an error where labels are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedser.audio import audformat, folder, labels, manifest
from fedser.audio.corpora import CORPORA, Aside, Corpus
from fedser.audio.quality import Finding
from fedser.audio.speakers import speaker_rule
from fedser.audio.utterance import Utterance
from fedser.errors import NoAudioError, UnknownLabelError, UsageError, did_you_mean

MATCH = 0.95
"""Share of the files that a reader must match to be chosen without being named."""

RULES = (
    "Labels come from (1) a manifest file or manifest.csv inside the folder, (2) --corpus NAME or a folder "
    f"named after a corpus ({', '.join(CORPORA)}), (3) the one corpus whose file names match at least 95 % "
    "of the files, (4) parent folders named after emotions, such as happy/."
)


@dataclass(frozen=True, slots=True)
class Recordings:
    """The utterances that a DIR stands for.

    Attributes:
        root: the folder (or file) that was named.
        utterances: sorted by path; from a manifest in its order.
        reader: how they were found: ``manifest``, ``audformat``, a corpus' name, ``folders`` or
            ``unlabelled``.
        speakers_from: where the speakers come from, for people.
        aside: files that belong to no utterance, each with a reason; pass them on to ``quality.inspect``.
    """

    root: Path
    utterances: tuple[Utterance, ...]
    reader: str
    speakers_from: str
    aside: tuple[Finding, ...] = ()


def resolve(
    directory: Path,
    *,
    corpus: str | None = None,
    speaker_from: str | None = None,
    need_labels: bool = False,
    mapping: Mapping[str, str] | None = None,
    ignore: Path | None = None,
) -> Recordings:
    """Find the utterances of a folder, a manifest or a single recording.

    Args:
        directory: what the user named.
        corpus: name of a corpus reader, or None.
        speaker_from: see :func:`fedser.audio.speakers.speaker_rule`; overrides declared speakers.
        need_labels: whether recordings without any labels are an error.
        mapping: label translations, see :func:`fedser.audio.labels.emotion`.
        ignore: a manifest inside the folder that does not count: the one about to be written anew.

    Raises:
        NoAudioError: there is nothing to read, or no recording of the named corpus.
        UsageError: unknown corpus name or speaker rule.
        ManifestError, UnknownLabelError: a manifest does not fit.
        DependencyError: an audformat database without the package.
    """
    chosen = _named(corpus)
    rule = speaker_rule(speaker_from) if speaker_from is not None else None
    try:
        found = _declared(directory, mapping, ignore) or _from_files(directory, chosen, corpus, need_labels)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NoAudioError(f"{directory} cannot be read: {reason}.", "Check its permissions.") from None
    if need_labels and not any(utterance.emotion for utterance in found.utterances):
        raise UnknownLabelError(f"{directory}: the recordings have no emotion labels.", RULES)
    return rule(found) if rule else _honest(found)


def _honest(found: Recordings) -> Recordings:
    """Say so where no speaker is known."""
    if any(utterance.speaker for utterance in found.utterances):
        return found
    return replace(found, speakers_from="nothing: the speakers are unknown")


def _named(corpus: str | None) -> Corpus | None:
    """The corpus that the user asked for."""
    if corpus is None:
        return None
    key = "".join(letter for letter in corpus.casefold() if letter.isalnum())
    known = next((one for one in CORPORA.values() if key in (one.name, *one.aliases)), None)
    if known is not None:
        return known
    guess = did_you_mean(key, CORPORA)
    raise UsageError(f"There is no corpus reader '{corpus}'.{guess}", f"Use one of {', '.join(CORPORA)}.")


def _declared(directory: Path, mapping: Mapping[str, str] | None, ignore: Path | None) -> Recordings | None:
    """Rule 1: a manifest or a database that declares its utterances."""
    inside = [directory / name for name in manifest.NAMES]
    candidates = [directory] if manifest.is_manifest(directory) else inside
    skipped = ignore.absolute() if ignore else None
    for source in candidates:
        if source.is_file() and (source == directory or source.absolute() != skipped):
            return Recordings(directory, manifest.read(source, mapping), "manifest", "the manifest")
    if (directory / audformat.HEADER).is_file():
        return Recordings(directory, audformat.read(directory, mapping), "audformat", "the database")
    return None


def _from_files(directory: Path, chosen: Corpus | None, name: str | None, need_labels: bool) -> Recordings:
    """Rules 2 to 5."""
    found = _recordings(directory)
    paths = [path.absolute() for path in found.audio]
    root = directory.absolute()
    aside = [Finding(Utterance(path), "unsupported", "this format cannot be read") for path in found.other]
    aside += [Finding(Utterance(path), "unreadable", reason) for path, reason in found.closed]
    reading = _by_corpus(root, paths, chosen)
    if reading is not None:
        reader, utterances, left = reading
        if not utterances:
            raise NoAudioError(
                f"{directory} holds no recording of the corpus {reader}: none of its {len(paths)} files is "
                f"named like one, for instance {paths[0].name}.",
                f"Check --corpus {name}, or leave it out." if name else "Check the folder.",
            )
        return Recordings(directory, utterances, reader, f"the corpus {reader}", (*left, *aside))
    utterances, reader = _by_folders(root, paths, need_labels)
    return Recordings(directory, utterances, reader, "nothing", tuple(aside))


def _recordings(directory: Path) -> folder.Found:
    if directory.is_file():
        if directory.suffix.casefold() not in folder.AUDIO:
            raise NoAudioError(
                f"{directory} is neither a folder, nor a manifest, nor a recording.",
                "Manifests end in .csv or .jsonl; recordings are WAV, FLAC, OGG, AIFF or MP3.",
            )
        found = folder.Found(audio=[directory])
    elif not directory.exists():
        raise NoAudioError(f"{directory} does not exist.", "Name an existing folder, manifest or recording.")
    else:
        found = folder.find(directory)
    if not found.audio:
        reason = next((why for path, why in found.closed if path == directory), None)
        if reason:
            raise NoAudioError(f"{directory} cannot be read: {reason}.", "Check its permissions.")
        if found.videos or found.other:
            count = found.videos + len(found.other)
            raise NoAudioError(
                f"{directory} holds {count} files, but none in a format that can be read.",
                "Convert them to WAV or FLAC first, for instance with ffmpeg.",
            )
        raise NoAudioError(
            f"{directory} holds no recordings.",
            "Name a folder with WAV, FLAC, OGG, AIFF or MP3 files, or a manifest.",
        )
    return found


_Found = tuple[str, tuple[Utterance, ...], list[Finding]]


def _by_corpus(root: Path, paths: Sequence[Path], chosen: Corpus | None) -> _Found | None:
    """Rules 2 and 3. A folder's name is a hint: it counts if at least half of the files fit it."""
    if chosen is not None:
        return _read(chosen, root, paths)
    named = [corpus for corpus in CORPORA.values() if corpus.is_named_by(root.name)]
    if len(named) == 1:
        reading = _read(named[0], root, paths)
        if 2 * (len(paths) - _unmatched(reading)) >= len(paths):
            return reading
    fitting = []
    for corpus in CORPORA.values():
        reading = _read(corpus, root, paths, sure=True)
        if len(paths) - _unmatched(reading) >= MATCH * len(paths):
            fitting.append(reading)
    return fitting[0] if len(fitting) == 1 and fitting[0][1] else None


def _unmatched(reading: _Found) -> int:
    return sum(finding.reason == "not_in_corpus" for finding in reading[2])


def _read(corpus: Corpus, root: Path, paths: Sequence[Path], sure: bool = False) -> _Found:
    reader = corpus.sure if sure and corpus.sure else corpus.reader(root)
    utterances, left = [], []
    for path in paths:
        reading = reader(path)
        if isinstance(reading, Utterance):
            utterances.append(reading)
        elif isinstance(reading, Aside):
            left.append(Finding(Utterance(path), reading.reason, reading.detail))
        else:
            detail = f"its name is not that of a recording of {corpus.name}"
            left.append(Finding(Utterance(path), "not_in_corpus", detail))
    return corpus.name, tuple(utterances), left


def _by_folders(root: Path, paths: Sequence[Path], need_labels: bool) -> tuple[tuple[Utterance, ...], str]:
    """Rules 4 and 5: the nearest folder below the root that is an emotion word labels its files."""
    utterances = tuple(replace(Utterance(path), emotion=_folder_label(root, path)) for path in paths)
    unlabelled = [utterance for utterance in utterances if utterance.emotion is None]
    if 2 * len(unlabelled) > len(utterances):
        return tuple(Utterance(path) for path in paths), "unlabelled"
    if unlabelled and need_labels:
        raise UnknownLabelError(
            f"{unlabelled[0].path} lies in no folder named after an emotion, but other recordings here do.",
            f"Name its folder after one of {', '.join(labels.EMOTIONS)}, or write a manifest.",
        )
    return utterances, "folders"


def _folder_label(root: Path, path: Path) -> str | None:
    folders = path.parent.parts[len(root.parts) :]
    return next((label for name in reversed(folders) if (label := labels.folder_emotion(name))), None)
