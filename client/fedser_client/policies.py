"""``policy.yaml``: written once with every key's default and meaning, and never touched again by a program."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path

import yaml

from fedser.config import load
from fedser.errors import ConfigError
from fedser.federation.policy import Policy
from fedser.files import write_text
from fedser_client.state import SiteFolder

_TOP = """\
# This site's policy. It belongs to the owner of the recordings: no program changes this file, and nothing of it ever
# comes from the network. What an order asks beyond it is refused with a code, recorded, and the site keeps working.
# 'fedser-client join INVITATION --data DIR --dry-run' shows what would leave under it. There is no differential
# privacy in this policy: updates are bounded, not noised.
"""


def place(folder: SiteFolder, named: Path | None) -> Path:
    """Where the policy lies: the named file, or ``policy.yaml`` in the state folder, written when missing.

    Raises:
        ConfigError: the named file is not there.
        OutputError: the default cannot be written.
    """
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"The policy {named} is not a file.", "Name the policy with --policy.")
        return named
    path = folder.file("policy.yaml")
    if not path.exists():
        write_text(path, default_text(), mode=0o600)
    return path


def read(path: Path) -> Policy:
    """Read a policy.

    Raises:
        ConfigError: it cannot be read, or a key does not fit.
    """
    return load(Policy, path)


def default_text() -> str:
    """The default policy as YAML, each key under a comment that explains it."""
    told = _meanings()
    parts = [_TOP]
    for name, value in Policy().model_dump(mode="json").items():
        comment = textwrap.fill(
            told[name], 116, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False, break_long_words=False
        )
        line = yaml.safe_dump({name: value}, default_flow_style=False, allow_unicode=True)
        parts.append(f"{comment}\n{line}")
    return "\n".join(parts)


def _meanings() -> dict[str, str]:
    """What each key means, from the ``Attributes:`` part of the policy's own documentation."""
    text = inspect.cleandoc(Policy.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    ([\w, ]+): (.*(?:\n {8,}.*)*)", text, flags=re.MULTILINE)
    told = {
        name.strip(): re.sub(r":\w+:`([^`]+)`", r"\1", " ".join(words.split())).replace("``", "'")
        for names, words in found
        for name in names.split(",")
    }
    plain = {name: told.get(name, name.replace("_", " ")).replace("None", "null") for name in Policy.model_fields}
    return {name: words[:1].upper() + words[1:] for name, words in plain.items()}
