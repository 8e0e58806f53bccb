"""What the site has in the end: its own model, predictions, and a report of its speech and of what left."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

from fedser import adapt as adaptation
from fedser.adapt.site import LocalRun, SiteModel, adapt_site
from fedser.bundle import Bundle
from fedser.errors import PolicyError
from fedser.evaluate import outputs, view_left
from fedser.federation import audit
from fedser.federation.policy import Policy
from fedser_client.data import SiteData
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder

DEFAULT_METHOD = "ecan"


def personal(
    folder: SiteFolder,
    settings: SiteSettings,
    bundle: Bundle,
    data: SiteData,
    model: nn.Module,
    *,
    policy: str,
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
        policy: its file's name, for the report.
        command: for the report.
        begin: of the node's work, by ``time.perf_counter``.

    Raises:
        OutputError: the folder cannot be written.
        PolicyError: the audit log's chain is broken.
    """
    order = folder.status().get("order") or {}
    site = SiteModel.adapted(
        bundle,
        model.cpu(),
        data.normaliser,
        method=str(order.get("method", "unknown")),
        options=dict(order.get("options") or {}),
        allowed=data.allowed,
        seed=int(order.get("seed", 0)),
    )
    local = LocalRun(site, site.answer(data.speech.raw, data.speech.speakers), [], int(order.get("steps", 0)))
    left = view_left.summary(audit.read(folder.file("audit.jsonl")))
    extra = {
        "name": f"{settings.site} in the study {settings.study}",
        "made_by": "fedser-client",
        "left": {"study": settings.study, "site": settings.site, "policy": policy, **left},
    }
    return outputs.write(
        folder.path, bundle, data.speech, local, command=command, seconds=time.perf_counter() - begin, extra=extra
    )


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
    method = adaptation.make(choose(settings.method, policy), {})
    speech = data.speech
    local = adapt_site(bundle, speech.raw, speech.speakers, method, seed=0, device=device, allowed=data.allowed)
    extra = {"name": f"{settings.site}, by itself", "made_by": "fedser-client"}
    return outputs.write(
        folder.path, bundle, speech, local, command=command, seconds=time.perf_counter() - begin, extra=extra
    )


def choose(asked: str | None, policy: Policy) -> str:
    """The method that adapts without rounds: the command line's, else the policy's first, else ECAN.

    Raises:
        PolicyError: the policy does not allow it.
    """
    allowed = policy.methods
    name = asked or (DEFAULT_METHOD if allowed is None or DEFAULT_METHOD in allowed else next(iter(allowed), ""))
    if allowed is not None and name not in allowed:
        raise PolicyError(
            f"The policy does not allow the method {name or 'ecan'}.", f"It allows: {', '.join(allowed) or 'none'}."
        )
    return name
