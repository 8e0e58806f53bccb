"""What the report of a simulation says in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedser.evaluate.pages import is_number, number_of, percent, signed

Results = Mapping[str, Any]

SHORT = {
    "source": "source",
    "bn": "statistics only",
    "alone": "alone",
    "federated": "federated",
    "personal": "personal",
    "pooled": "pooled",
    "newcomer": "newcomer",
}
MEANING = {
    "source": "the provider's model as it came, normalised by each site's statistics",
    "bn": "the same with the model's internal statistics renewed at the site, no training",
    "alone": "every site adapts by itself",
    "federated": "the sites adapt together and share one model, all but what stays at each",
    "personal": "as federated, then each site adapts the shared model once more for itself",
    "pooled": "all recordings in one place: what privacy costs, not an option for the sites",
    "newcomer": "the federated model of the other sites, used unchanged at a site that took no part",
}


def meanings(results: Results) -> list[str]:
    """What each setting of a run is, a sentence each; how the sites joined decides two of them."""
    joining: Results = (results.get("config") or {}).get("federation") or {}
    told = dict(MEANING)
    if (joining.get("student") or {}).get("steps"):
        told["federated"] = "each site adapts a network of its own, and all of them teach one joint model"
    if joining.get("personal") == 0:
        told["personal"] = "the same as federated, since this run keeps no step for the site alone"
    return [f"{SHORT.get(name, name)}: {told[name]}." for name in results.get("settings") or {} if name in told]


def count_seeds(results: Results) -> int:
    """How many seeds a run had."""
    return len(results.get("seeds") or [0])


def mean(settings: Results, name: str, score: str = "uar") -> Any:  # noqa: ANN401 - a number, or null
    """A setting's mean score over seeds, a fraction; None where it does not exist."""
    return (settings.get(name, {}).get("mean") or {}).get(score)


def lead(results: Results, settings: Results) -> list[str]:
    """The sentences at the top: who met whom, and what came of it."""
    sites = results.get("sites") or []
    utterances = sum(int(site.get("utterances", 0)) for site in sites)
    source: Results = results.get("source") or {}
    name = str(source.get("name") or "unknown")
    model = "The source bundle " + name.replace("\\", "/").rpartition("/")[2]
    if source.get("kind") == "trained":
        model = "A model trained on " + name.replace("+", " and ")
    lines = [
        f"{model} meets {len(sites)} sites with {utterances} unlabelled utterances in all. "
        f"Figures are unweighted average recall (UAR) in percent, means over {number_of(count_seeds(results), 'seed')}."
    ]
    before, after = mean(settings, "source"), mean(settings, "federated")
    if is_number(before) and is_number(after):
        gain = 100 * (after - before)
        change = f"raised UAR by {gain:.1f} points" if gain >= 0 else f"lowered UAR by {-gain:.1f} points"
        lines.append(f"Adapting together {change}, from {percent(before)} to {percent(after)} %.")
    alone = mean(settings, "alone")
    best = max((v for v in (after, mean(settings, "personal")) if is_number(v)), default=None)
    if best is not None and is_number(alone):
        gain = 100 * (best - alone)
        verdict = "worth it" if gain > 0.5 else "not worth it" if gain < -0.5 else "neither gain nor loss"
        lines.append(f"Against each site alone ({percent(alone)} %), joining was {verdict}: {signed(gain)} points.")
    return lines


def cautions(results: Results) -> list[str]:
    """What the figures do not mean."""
    classes = results.get("classes") or []
    answers = len((results.get("config") or {}).get("classes") or classes)
    left_out = results.get("left_out") or {}
    lines = [
        f"Guessing among the {answers} emotions that can be answered gives a UAR of {100 / max(answers, 1):.1f} %. "
        "UAR is the mean of the recalls of the emotions that occur, each weighing the same however rare it is.",
        "Inside this run the target labels made the scenario (which emotions take part, and in a Dirichlet partition "
        "which site has which) and these figures; no model was trained on them or chosen by them. Whoever chose "
        "settings by looking at such figures has used the labels after all, and then the figures flatter.",
        "The figures are transductive: models are scored on the utterances that they adapted to. On new "
        "utterances, and above all on new speakers, expect less. Only 'newcomer' is a site that took no part.",
        "Seeds change what is random in training and adaptation, not the recordings. Their spread says nothing "
        "about other corpora, and it does not support a claim that small differences are real.",
        "Acted and synthetic emotions are clearer than those of everyday life. The answers are categories that "
        "somebody chose; they are not what a person feels, and no basis for a decision about a person.",
        "'Pooled' breaks what federated learning is for. It shows what sharing recordings would have brought.",
    ]
    if left_out:
        rest = ", ".join(f"{emotion} ({count})" for emotion, count in left_out.items())
        lines.append(f"Utterances of emotions that the source does not know were left out: {rest}.")
    return lines
