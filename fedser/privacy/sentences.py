"""What the program says about privacy, made of the settings that hold: one place, so that nothing else is printed.

Every sentence here is a claim that a test must be able to break; docs/privacy.md lists them with their tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedser.privacy.accountant import epsilon_alone
from fedser.privacy.ledger import Ledger
from fedser.privacy.settings import PrivacySettings

ACCOUNTANTS = {
    "site": "zero-concentrated DP of the discrete Gaussian",
    "speaker": "privacy loss random variable (PRV) of the sampled Gaussian",
    "utterance": "privacy loss random variable (PRV) of the sampled Gaussian",
}
_MEANING = {
    "site": "whether all of this site's recordings took part, or none of them",
    "speaker": "whether any one declared speaker's recordings took part",
    "utterance": "whether any one utterance took part",
}
_NOT_HIDDEN = {
    "site": "it says nothing about what the other sites, or the provider's own corpora, have in common with this one",
    "speaker": "what all speakers of this site have in common, such as a gender or a language, stays visible",
    "utterance": "a speaker of many utterances, and what all speakers have in common, stay visible",
}


def facts(privacy: PrivacySettings, ledger: Ledger | None = None) -> dict[str, Any]:
    """The settings that hold and what was spent, as plain values for reports and cards.

    Args:
        privacy: of the policy.
        ledger: of the site; None where nothing is charged, or before the first order.

    Raises:
        LedgerError, OutputError: the ledger cannot be trusted, or not read.
    """
    masking = privacy.masking
    told: dict[str, Any] = {
        "unit": privacy.unit,
        "masked": masking.required,
        "honest": masking.honest if masking.required else None,
        "peers": len(masking.peers),
        "active": masking.required and masking.active,
    }
    if privacy.on:
        spent = 0.0 if ledger is None else ledger.spent()
        told |= {
            "form": privacy.form,
            "shared": privacy.ledger is not None,
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "accountant": ACCOUNTANTS[privacy.unit],
            "clip": privacy.clip,
            "spent": round(spent, 4),
            "left": round(max(privacy.epsilon - spent, 0.0), 4),
        }
        if privacy.form == "central":
            told["epsilon_alone"] = epsilon_alone(privacy.epsilon, privacy.delta, masking.honest)
        if privacy.unit != "site":
            told |= {"groups": privacy.groups, "rate": privacy.rate}
    return told


def sentences(told: Mapping[str, Any]) -> list[str]:
    """The claims and their limits, for people.

    Args:
        told: what :func:`facts` gave; an empty mapping stands for a policy without any privacy.
    """
    unit = str(told.get("unit") or "none")
    return [*(_noised(unit, told) if unit != "none" else _plain()), *_masked(told)]


def _plain() -> list[str]:
    return [
        "There is no differential privacy: updates are bounded and recorded, not noised.",
        "An update can reveal something about the recordings behind it, up to the inputs themselves where a hostile "
        "provider crafts the model.",
    ]


def _noised(unit: str, told: Mapping[str, Any]) -> list[str]:
    given = f"(ε, δ) = ({told['epsilon']:g}, {told['delta']:g})"
    where = " in the sum" if told.get("form") == "central" else ""
    return [
        f"Differential privacy{where}, unit {unit}: {given} bounds what can be learnt from all that leaves about "
        f"{_MEANING[unit]}.",
        "The budget lasts over all rounds, runs, studies and versions of the model: its ledger is the one that the "
        "policy names."
        if told.get("shared")
        else "The budget lasts over all rounds and runs of this state folder: the policy names no ledger, so another "
        "folder has a budget of its own, and the promise is about the sum of both.",
        "When the budget is spent, orders are refused with a code and the site goes on by itself.",
        f"Its limit: {_NOT_HIDDEN[unit]}.",
        "No count and no figure leaves beside the update.",
    ]


def _masked(told: Mapping[str, Any]) -> list[str]:
    if not told.get("masked"):
        return ["Nothing masks this site's update: the provider sees it."]
    lines = [
        f"Updates leave masked: the provider learns the sum of at least {told['honest']} sites' updates, and no single "
        "one."
    ]
    if told.get("active"):
        lines.append("Peers' keys are those of the policy, so that the provider cannot invent sites.")
    elif told.get("peers"):
        lines.append(
            "Peers' keys are those of the policy; the rest holds against a provider that follows the protocol."
        )
    else:
        lines.append(
            "This holds against a provider that follows the protocol, and against no other: no key of a peer "
            "stands in the policy."
        )
    if told.get("form") == "central":
        lines.append(
            f"Each share of the noise is that of {told['honest']} honest sites with the same clip and noise: where all "
            f"others collude with the provider, ε is {told['epsilon_alone']:.3g} instead."
        )
    return lines
