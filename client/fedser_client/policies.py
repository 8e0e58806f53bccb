"""``policy.yaml``: written once with every key's default and meaning, and never touched again by a program."""

from __future__ import annotations

from pathlib import Path

import yaml

from fedser.config import load
from fedser.errors import ConfigError
from fedser.federation.audit import read as read_audit
from fedser.federation.policy import Policy, template
from fedser.files import write_text
from fedser.privacy.ledger import Ledger, open_ledger
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder

_TOP = """\
# This site's policy. It belongs to the owner of the recordings: no program changes this file, and nothing of it ever
# comes from the network. What an order asks beyond it is refused with a code, recorded, and the site keeps working.
# 'fedser-client join INVITATION --data DIR --dry-run' shows what would leave under it. With privacy.unit at none there
# is no differential privacy: updates are bounded, not noised. With masking.required at false nothing masks them.
# docs/privacy.md says what each unit protects; configs/policy/private.yaml is the recommended private policy.
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
    """Read a policy; a relative path of its ledger is beside it, wherever the program was started.

    Raises:
        ConfigError: it cannot be read, or a key does not fit.
    """
    relative = _ledger(path)
    return load(Policy, path, () if relative is None else (f"privacy.ledger={(path.resolve().parent / relative)}",))


def ledger(folder: SiteFolder, settings: SiteSettings, policy: Policy) -> Ledger | None:
    """The site's budget: the policy's file, else ``ledger.jsonl`` in the state folder; None where nothing is noised.

    It must hold every charge that the audit log knows of.

    Raises:
        LedgerError: it is torn, altered, behind, or another site's.
        PolicyError: the audit log's chain is broken.
        OutputError: it cannot be read.
    """
    log = folder.file("audit.jsonl")
    told = (record.get("privacy") or {} for record in (read_audit(log) if log.exists() else ()))
    known = max((int(each.get("charges", 0)) for each in told), default=0)
    return open_ledger(policy.privacy, settings.site, folder.file("ledger.jsonl"), expect=known)


def default_text() -> str:
    """The default policy as YAML, each key under a comment that explains it."""
    return _TOP + template().partition("\n")[2]


def _ledger(path: Path) -> Path | None:
    """The policy's ledger, where it is a relative path."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        named = values["privacy"]["ledger"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return None  # load says what is wrong
    return Path(named) if isinstance(named, str) and named and not Path(named).is_absolute() else None
