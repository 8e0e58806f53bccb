"""The report of a simulation; the schema of its results stands in :mod:`fedser.evaluate.simulate`."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from fedser.evaluate import figures
from fedser.evaluate.pages import (
    Block,
    Drawing,
    Listing,
    Matrices,
    Number,
    Page,
    Section,
    Table,
    about,
    confusion_matrix,
    is_number,
    number_of,
    percent,
    spread,
)
from fedser.evaluate.simulation_text import SHORT, Results, cautions, count_seeds, lead, mean, meanings

_SCORES = {
    "uar": "UAR",
    "war": "WAR",
    "macro_f1": "macro-F1",
    "ece": "ECE",
    "mean_site_uar": "mean of sites",
    "worst_site_uar": "worst site",
}


def view(results: Results) -> Page:
    """Arrange a simulation's results; sections without data are left out."""
    settings: Results = results.get("settings") or {}
    sections = [
        _overview(results, settings),
        _recall(results, settings),
        _rounds(results),
        _confusions(results, settings),
        _calibration(settings),
        _sites(results, settings),
        _embedding(results),
        _refusals(results),
        Section("What these figures mean, and what they do not", blocks=[Listing(cautions(results))]),
        *about(results),
    ]
    classes: Sequence[str] = results.get("classes") or []
    return Page(
        title=str(results.get("name") or "simulation"),
        kind="fedser simulation",
        lead=lead(results, settings),
        warnings=[str(note) for note in results.get("notes") or []],
        numbers=_numbers(results, settings),
        sections=[section for section in sections if section is not None],
        files={
            f"confusion-{name}": figures.confusion(str(entry.get("label", name)), classes, entry["confusion"])
            for name, entry in settings.items()
            if entry.get("confusion")
        },
    )


def _numbers(results: Results, settings: Results) -> list[Number]:
    return [
        Number(
            SHORT.get(name, name),
            percent(mean(settings, name)),
            f"± {percent((entry.get('std') or {}).get('uar'))}" if count_seeds(results) > 1 else "",
            main=name == "federated",
        )
        for name, entry in settings.items()
    ]


def _overview(results: Results, settings: Results) -> Section | None:
    if not settings:
        return None
    count = count_seeds(results)
    names = list(settings)
    rows = [
        [str(settings[name].get("label", name))]
        + [spread(mean(settings, name, s), (settings[name].get("std") or {}).get(s), count) for s in _SCORES]
        for name in names
    ]
    candidates = [i for i, name in enumerate(names) if name != "pooled"]  # nobody can pool
    best = []
    for column, score in enumerate(_SCORES, start=1):
        known = [(v, i) for i in candidates if is_number(v := mean(settings, names[i], score))]
        if known:
            best.append(((min if score == "ece" else max)(known)[1], column))
    shown = [name for name in names if is_number(mean(settings, name))]
    chance = 100 / max(len(results.get("classes") or [1]), 1)
    drawing = figures.bars(
        [SHORT.get(name, name) for name in shown],
        [100 * mean(settings, name) for name in shown],
        [100 * float((settings[name].get("std") or {}).get("uar") or 0) for name in shown],
        chance=chance,
        label="UAR (%), dashed: chance",
    )
    alt = "Bars of UAR in percent: " + ", ".join(f"{SHORT.get(n, n)} {percent(mean(settings, n))}" for n in shown)
    table = Table(
        f"Percent, mean{' ± standard deviation' if count > 1 else ''} over {number_of(count, 'seed')}; "
        "best attainable in bold",
        ("", *_SCORES.values()),
        rows,
        "UAR joins all sites' answers before it counts. ECE is the calibration error: lower is better.",
        best=best,
    )
    caption = "UAR of each setting; whiskers are one standard deviation over seeds."
    return Section("Results", blocks=[Drawing("uar", Markup(drawing), alt, caption), table, Listing(meanings(results))])  # noqa: S704


def _recall(results: Results, settings: Results) -> Section | None:
    classes = list(results.get("classes") or [])
    rows = [
        [str(entry.get("label", name)), *(percent((entry.get("recall") or {}).get(c)) for c in classes)]
        for name, entry in settings.items()
        if entry.get("recall")
    ]
    return (
        Section("Recall of each emotion", blocks=[Table("Percent, all seeds", ("", *classes), rows)]) if rows else None
    )


def _rounds(results: Results) -> Section | None:
    series: dict[str, dict[float, list[float]]] = {}
    for name, points in (results.get("curves") or {}).items():
        for point in points:
            for key, label in (("uar", ""), ("worst_site_uar", ", worst site")):
                if is_number(point.get(key)):
                    line = series.setdefault(SHORT.get(name, name) + label, {})
                    line.setdefault(int(point["round"]), []).append(100 * point[key])
    if not series:
        return None
    ends = [
        f"{line} from {_average(points[min(points)])} to {_average(points[max(points)])}"
        for line, points in series.items()
    ]
    drawing = figures.curves(series, x="round", y="UAR (%)", name="rounds")
    alt = "Lines of UAR in percent over rounds: " + "; ".join(ends)
    caption = (
        "UAR after each round; bands reach from the smallest to the largest seed. "
        "Round 0 is the source model with the site's statistics."
    )
    return Section("Over the rounds", blocks=[Drawing("rounds", Markup(drawing), alt, caption)])  # noqa: S704


def _average(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1f}"


def _confusions(results: Results, settings: Results) -> Section | None:
    classes = list(results.get("classes") or [])
    matrices = [
        confusion_matrix(str(entry.get("label", name)), classes, entry["confusion"])
        for name, entry in settings.items()
        if entry.get("confusion")
    ]
    text = "Rows are the true emotions, columns the answers; percent of a row, all seeds and sites."
    return Section("Confusion matrices", [text], [Matrices(matrices)]) if matrices else None


def _calibration(settings: Results) -> Section | None:
    series = {
        SHORT.get(name, name): [(b["confidence"], b["accuracy"], b["count"]) for b in entry["reliability"]]
        for name, entry in settings.items()
        if entry.get("reliability") and name in ("source", "federated", "personal")
    }
    if not series:
        return None
    drawing = figures.reliability(series)
    alt = "Accuracy against confidence; ECE in percent: " + ", ".join(
        f"{SHORT.get(name, name)} {percent(mean(settings, name, 'ece'))}" for name in settings
    )
    caption = "Below the dashed line a model is surer than it is right. A mark's area shows how many answers it holds."
    return Section("Can the confidences be trusted?", blocks=[Drawing("reliability", Markup(drawing), alt, caption)])  # noqa: S704


def _sites(results: Results, settings: Results) -> Section | None:
    sites = results.get("sites") or []
    if not sites:
        return None
    facts = [
        [
            str(site.get("name")),
            str(site.get("utterances", "–")),
            str(site.get("speakers", "–")),
            ", ".join(f"{emotion} {count}" for emotion, count in (site.get("emotions") or {}).items()),
            str((site.get("normalisation") or {}).get("reason") or (site.get("normalisation") or {}).get("rule") or ""),
        ]
        for site in sites
    ]
    rows = [
        [str(site["name"]), *(percent(_site_mean(entry, str(site["name"]))) for entry in settings.values())]
        for site in sites
        if "name" in site
    ]
    blocks: list[Block] = [
        Table("UAR in percent, mean over seeds", ("site", *(SHORT.get(n, n) for n in settings)), rows),
        Table("Who they are", ("site", "utterances", "speakers", "emotions", "normalisation"), facts, prose=True),
    ]
    return Section("Sites", blocks=blocks)


def _site_mean(entry: Results, site: str) -> float | None:
    found = [(row.get("sites") or {}).get(site) for row in entry.get("seeds") or []]
    values = [float(value) for value in found if is_number(value)]
    return sum(values) / len(values) if values else None


def _embedding(results: Results) -> Section | None:
    """Optional: ``embeddings``: [{"label", "points": [[x, y]], "classes": [int]}]."""
    panels = results.get("embeddings") or []
    if not panels:
        return None
    drawing = figures.scatter(
        {str(p["label"]): p["points"] for p in panels},
        {str(p["label"]): p["classes"] for p in panels},
        list(results.get("classes") or []),
    )
    alt = "Utterances in the plane, coloured by emotion: " + ", ".join(str(p["label"]) for p in panels)
    caption = "The bottleneck, flattened by t-SNE. Distances between groups in such a picture mean little."
    return Section("Before and after", blocks=[Drawing("embedding", Markup(drawing), alt, caption)])  # noqa: S704


def _refusals(results: Results) -> Section | None:
    refused = results.get("refusals") or []
    if not refused:
        return None
    columns = ("site", "setting", "seed", "round", "code")
    rows = [[str(entry.get(column, "–")) for column in columns] for entry in refused]
    text = "A site's policy refused an order. The site kept its last model and the round went on without it."
    return Section("Refused orders", [text], [Table("Refusals", columns, rows, prose=True)])
