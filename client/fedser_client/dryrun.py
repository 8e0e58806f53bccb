"""``--dry-run``: what would leave this site at most, under which policy, and what never leaves."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from fedser.bundle import Bundle
from fedser.errors import FedserError
from fedser.evaluate.view_left import size
from fedser.federation.compress import DTYPES
from fedser.federation.layout import PEER
from fedser.federation.policy import Policy
from fedser.federation.schema import Scalars
from fedser.privacy import sentences
from fedser.privacy.accountant import epsilon_of, noise_of
from fedser.privacy.ledger import Ledger
from fedser_client.data import SiteData
from fedser_client.settings import SiteSettings

NEVER = (
    "recordings and waveforms",
    "features, before and after normalisation",
    "normalisation statistics, the site's and each speaker's",
    "pseudo-labels, probabilities, the memory bank and the personal model",
    "file names, speakers, the number of utterances of a class, and the exact number of utterances",
    "error texts, this policy, and run times (but the provider sees when an answer arrives)",
)


def describe(
    bundle: Bundle,
    data: SiteData,
    policy: Policy,
    place: Path,
    settings: SiteSettings,
    rounds: int,
    ledger: Ledger | None = None,
) -> dict[str, Any]:
    """All of it as plain values.

    Args:
        bundle: the provider's, verified.
        data: the site's.
        policy: what the site allows.
        place: the policy's file.
        settings: whom the site joins.
        rounds: as the provider tells; 0 where it only publishes.
        ledger: the privacy budget, where the policy has a unit.

    Raises:
        LedgerError: the ledger cannot be trusted.
        OutputError: it cannot be read.
    """
    parameters: dict[str, Tensor] = dict(data.local.model.named_parameters())
    allowed = policy.may_leave(parameters, data.local.model.first_layer()) if rounds else frozenset()
    if rounds and policy.shares_peer and data.local.linear is not None:
        parameters[PEER] = data.local.linear.weight
        allowed |= {PEER}
    width = max(DTYPES[encoding].itemsize for encoding in policy.encodings)  # of a value, in the widest format
    tensors = [
        {"name": name, "shape": list(p.shape), "bytes": width * p.numel()}
        for name, p in parameters.items()
        if name in allowed
    ]
    count, private = len(data.speech), policy.privacy.on
    return {
        "study": settings.study,
        "site": settings.site,
        "provider": settings.address,
        "bundle": {"name": bundle.header.name, "version": bundle.header.version, "digest": bundle.digest},
        "rounds": rounds,
        "leaves": {
            "tensors": tensors,
            "bytes_an_update": sum(width * parameters[name].numel() for name in parameters.keys() & allowed),
            "values_at_most": policy.values_max,
            "encodings": list(policy.encodings),
            "largest_norm": policy.privacy.clip if policy.privacy.unit == "site" else policy.clip,
            "utterances": policy.coarse(count) if rounds and not private else None,
            "scalars": [field.name for field in fields(Scalars)] if policy.scalars and rounds and not private else [],
            "orders_at_most": policy.rounds if rounds else 0,
            "at_enrolment": ["the token", "two public keys and a proof of each"] if rounds else [],
        },
        "never": list(NEVER),
        "kept_here": {"utterances": count, "speakers": data.local.speakers, "set_aside": _set_aside(data)},
        "privacy": {**sentences.facts(policy.privacy, ledger), **_price(policy)} if rounds else None,
        "takes_part": private or (count >= policy.utterances_min and data.local.speakers >= policy.speakers_min),
        "policy": str(place),
        "methods": None if policy.methods is None else list(policy.methods),
        "hours": policy.hours,
        "sent": "one GET of the published bundle",
    }


def text(told: dict[str, Any]) -> str:
    """The same for people."""
    leaves, kept = told["leaves"], told["kept_here"]
    lines = [
        f"dry run of {told['site']} in {told['study']}: nothing was sent but {told['sent']}",
        f"bundle {told['bundle']['name']} {told['bundle']['version']}, policy {told['policy']}",
        f"here: {_count(kept['utterances'], 'utterance')} of {_count(kept['speakers'], 'speaker')}, "
        f"{kept['set_aside']} set aside",
    ]
    if not told["rounds"]:
        lines.append("the provider publishes only: the site would adapt by itself, and nothing would leave")
    else:
        lines += ["", f"would leave, in each of at most {leaves['orders_at_most']} answers to orders:"]
        lines += [
            f"  {t['name']:<40} {'×'.join(map(str, t['shape'])):>12} {size(t['bytes']):>12}" for t in leaves["tensors"]
        ]
        noised = ", before the noise" if told["privacy"]["unit"] == "site" else ""
        form = "integers under a mask" if told["privacy"]["masked"] else " or ".join(leaves["encodings"])
        lines += [
            f"  the changes of these tensors, {size(leaves['bytes_an_update'])} in all, of an L2 norm of at most "
            f"{leaves['largest_norm']:g}{noised}, as {form}",
            f"  number of utterances: {f'about {count}' if (count := leaves['utterances']) else 'does not leave'}",
            f"  figures: {', '.join(leaves['scalars']) or 'none leave'}",
            f"by {'any installed method' if told['methods'] is None else ' or '.join(told['methods'])}, "
            f"{'at all hours' if told['hours'] is None else 'at ' + told['hours'] + ' o’clock'}",
            f"and once, at enrolment: {', '.join(leaves['at_enrolment'])}",
            *(
                ["and for each masked sum: public keys, sealed shares of secrets, one signed list"]
                * told["privacy"]["masked"]
            ),
        ]
        if not leaves["tensors"]:
            lines.append("the policy lets no tensor leave: every order to train would be refused")
        if not told["takes_part"]:
            lines.append("this site has fewer utterances or speakers than its policy asks for: it would refuse orders")
    if told["rounds"]:
        lines += ["", *sentences.sentences(told["privacy"]), *_budget(told["privacy"])]
    lines += ["", "never leaves:", *(f"  {thing}" for thing in told["never"])]
    return "\n".join(lines)


def _price(policy: Policy) -> dict[str, Any]:
    """Noise, and the ε of the first release alone; nothing where no noise reaches the budget."""
    privacy = policy.privacy
    if not privacy.on:
        return {}
    try:
        noise, site = noise_of(privacy), privacy.unit == "site"
        first = epsilon_of(noise, 1.0 if site else privacy.rate, 1, privacy.delta, discrete=site)
    except (FedserError, ValueError):
        return {"noise": None, "first": None, "releases": privacy.releases}
    return {"noise": round(noise, 4), "first": round(first, 4), "releases": privacy.releases}


def _budget(told: dict[str, Any]) -> list[str]:
    """What a release costs and what is left."""
    if told["unit"] == "none":
        return []
    what = "updates" if told["unit"] == "site" else "steps"
    if told["noise"] is None:
        return ["No noise reaches this budget: every order to train would be refused."]
    return [
        f"Noise of {told['noise']:g} clipping norms, chosen for {told['releases']} {what}; one alone costs "
        f"ε = {told['first']:g}. Spent so far: ε = {told['spent']:g}, left: {told['left']:g}."
    ]


def _set_aside(data: SiteData) -> int:
    return len(data.speech.inspection.quarantined) if data.speech.inspection else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
