"""What the site has in the end: its own model, predictions, and a report of its speech and of what left."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fedser.adapt import METHODS, make
from fedser.adapt.guard import CANDIDATES
from fedser.adapt.local import LocalRun, adapt_site, guard_personal
from fedser.adapt.method import Method
from fedser.adapt.site import SiteModel
from fedser.bundle import Bundle
from fedser.errors import PolicyError
from fedser.evaluate import outputs, view_left
from fedser.evaluate.report import write_report
from fedser.federation import audit
from fedser.federation.policy import Policy
from fedser.files import write_text
from fedser.privacy import sentences
from fedser.provenance import run_manifest
from fedser_client import policies, withdrawal
from fedser_client.data import SiteData
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder

_LARGEST = 64_000_000  # bytes of a results file


def personal(
    folder: SiteFolder,
    settings: SiteSettings,
    bundle: Bundle,
    data: SiteData,
    model: nn.Module,
    *,
    policy: Policy,
    command: str,
    begin: float,
) -> dict[str, Any]:
    """Write the outputs of a finished study.

    Args:
        folder: where to.
        settings: the site's.
        bundle: what was adapted.
        data: the site's utterances.
        model: the personal one.
        policy: what held.
        command: for the report.
        begin: of the node's work, by ``time.perf_counter``.

    Raises:
        OutputError: the folder cannot be written.
        PolicyError: the audit log's chain is broken.
    """
    order = folder.status().get("order") or {}
    method = str(order.get("method", "unknown"))
    speech = data.speech
    choice, found = guard_personal(
        bundle, speech.raw, data.local.x, model.cpu(), method=method, mask=data.local.class_mask
    )
    kept = choice.name == "source"
    site = SiteModel.adapted(
        bundle,
        next(each.model for each in found if each.name == choice.name),
        data.normaliser,
        method=choice.name,
        options={} if kept else dict(order.get("options") or {}),
        allowed=data.allowed,
        seed=int(order.get("seed", 0)),
    )
    seen = {each.name: each.probabilities for each in found}
    steps = 0 if kept else int(order.get("steps", 0))
    local = LocalRun(site, site.answer(speech.raw, speech.speakers), [], steps, choice, seen)
    extra = {
        "name": f"{settings.site} in the study {settings.study}",
        "made_by": "fedser-client",
        "left": what_left(folder, settings, policy),
        "withdrawal": withdrawal.told(folder, settings),
    }
    return outputs.write(
        folder.path, bundle, data.speech, local, command=command, seconds=time.perf_counter() - begin, extra=extra
    )


def what_left(folder: SiteFolder, settings: SiteSettings, policy: Policy) -> dict[str, Any]:
    """The entry ``left`` of ``results.json``, with the privacy that held and what it has cost.

    Raises:
        PolicyError: the audit log's chain is broken.
        LedgerError: the ledger cannot be trusted.
        OutputError: a file cannot be read.
    """
    path = folder.file("audit.jsonl")
    left = view_left.summary(audit.read(path) if path.exists() else ())
    private = sentences.facts(policy.privacy, policies.ledger(folder, settings, policy))
    name = settings.policy.name if settings.policy else "policy.yaml"
    return {"study": settings.study, "site": settings.site, "policy": name, "privacy": private, **left}


def departed(folder: SiteFolder, settings: SiteSettings, *, command: str) -> Path:
    """Write into the site's report that it left; a report of its own where there is none yet.

    Raises:
        OutputError: the folder cannot be written.
        UsageError: the report that is there is damaged.
        PolicyError: the audit log's chain is broken.
        ConfigError: the policy cannot be read.
        LedgerError: the ledger cannot be trusted.
    """
    path = folder.file("results.json")
    policy = policies.read(policies.place(folder, settings.policy))
    known = folder.json(path.name, _LARGEST) or {"kind": "withdrawal", "schema": 1, **run_manifest(command)}
    added = {
        "name": f"{settings.site} in the study {settings.study}",
        "made_by": "fedser-client",
        "left": {**(known.get("left") or {}), **what_left(folder, settings, policy)},
        "withdrawal": withdrawal.told(folder, settings),
    }
    write_text(path, json.dumps({**known, **added}, indent=1, ensure_ascii=False), mode=0o600)
    return write_report(folder.path)


def alone(
    folder: SiteFolder,
    settings: SiteSettings,
    bundle: Bundle,
    data: SiteData,
    policy: Policy,
    *,
    device: torch.device,
    command: str,
    begin: float,
) -> dict[str, Any]:
    """Adapt without rounds, as ``fedser adapt`` does, where the provider publishes only.

    Raises:
        PolicyError: the policy does not allow the method.
        FedserError: see :func:`fedser.adapt.site.adapt_site`.
    """
    speech = data.speech
    methods = allowed_methods(settings.method, policy)
    local = adapt_site(bundle, speech.raw, speech.speakers, methods, seed=0, device=device, allowed=data.allowed)
    extra = {
        "name": f"{settings.site}, by itself",
        "made_by": "fedser-client",
        "withdrawal": withdrawal.told(folder, settings),
    }
    return outputs.write(
        folder.path, bundle, speech, local, command=command, seconds=time.perf_counter() - begin, extra=extra
    )


def allowed_methods(asked: str | None, policy: Policy) -> list[Method]:
    """The methods that the guard chooses among without rounds: the command line's one, else what the policy allows.

    Raises:
        PolicyError: the policy does not allow the method, or none that this version knows.
    """
    allowed = policy.methods
    names = [asked] if asked else [name for name in (CANDIDATES if allowed is None else allowed) if name in METHODS]
    if not names or (allowed is not None and names[0] not in allowed):
        raise PolicyError(
            f"The policy does not allow {f'the method {asked}' if asked else 'any method of this version'}.",
            f"It allows: {', '.join(allowed or ()) or 'none'}.",
        )
    return [make(name) for name in names]
