"""Figures of a report as SVG, the same bytes for the same numbers.

Text and axes take the colour of the page around them (``currentColor``), so one drawing serves light and dark;
data keep the colours of Okabe and Ito (2008), which people with colour vision deficiencies can tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Values = Sequence[float]

COLOUR_OF = {
    "source": "#808080",
    "statistics only": "#8C7B00",
    "alone": "#E69F00",
    "federated": "#0072B2",
    "personal": "#009E73",
    "pooled": "#56B4E9",
    "newcomer": "#CC79A7",
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C7B00", "#808080")
_INK = "#0a0b0c"  # stands for the page's text colour until the drawing is finished
_STYLE: Any = {
    "svg.hashsalt": "fedser",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#8888883a",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}


def short(name: str, longest: int = 24) -> str:
    """A name that fits beside an axis; names of people's corpora and sites can be of any length."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def colour(name: str, number: int) -> str:
    """The colour of a line: a setting has the same one in all drawings, other lines take the next."""
    return COLOUR_OF.get(name.partition(",")[0], COLOURS[number % len(COLOURS)])


def bars(names: Sequence[str], values: Values, spreads: Values, *, chance: float, label: str) -> str:
    """Horizontal bars with a whisker of one standard deviation, and a line at chance level.

    Args:
        names: one a bar, from top to bottom.
        values: lengths, percent.
        spreads: standard deviations, percent.
        chance: where the dashed line stands, percent.
        label: of the axis.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 0.46 * len(names) + 0.9), layout="constrained")
        axes = figure.subplots()
        places = range(len(names))
        axes.barh(places, values, height=0.62, color=[colour(name, number) for number, name in enumerate(names)])
        axes.errorbar(values, places, xerr=spreads, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=3)
        axes.axvline(chance, color=_INK, linestyle="--", linewidth=1)
        for place, value, spread in zip(places, values, spreads, strict=True):
            axes.annotate(f"{value:.1f}", (value + spread, place), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(list(places), [short(name) for name in names])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, max(100.0, max(values, default=0.0)))
        axes.set_xlabel(label)
        return _svg(figure, "bars")


def curves(series: Mapping[str, Mapping[float, Values]], *, x: str, y: str, name: str = "curves") -> str:
    """Lines of means with a band from the smallest to the largest seed.

    Args:
        series: line → {position → one value a seed}.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        name: distinguishes several drawings on one page.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (line, points) in enumerate(series.items()):
            places = sorted(points)
            own = colour(line, number)
            means = [sum(points[place]) / len(points[place]) for place in places]
            style = "--" if "," in line else "-"
            axes.plot(places, means, style, marker="o", markersize=4, color=own, label=short(line))
            low, high = [min(points[place]) for place in places], [max(points[place]) for place in places]
            axes.fill_between(places, low, high, color=own, alpha=0.16, linewidth=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside right upper")
        return _svg(figure, name)


def reliability(series: Mapping[str, Sequence[tuple[float, float, int]]]) -> str:
    """Accuracy against confidence, both in percent; a calibrated model lies on the diagonal.

    Args:
        series: line → bins of (mean confidence, accuracy, count); a mark's area shows the count.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 4.6), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 100], [0, 100], color=_INK, linestyle="--", linewidth=1, label="calibrated")
        for number, (line, bins) in enumerate(series.items()):
            own = colour(line, number)
            most = max((count for _, _, count in bins), default=1)
            confidence, accuracy = [100 * c for c, _, _ in bins], [100 * a for _, a, _ in bins]
            axes.plot(confidence, accuracy, color=own, linewidth=1.2, alpha=0.55, label=short(line))
            axes.scatter(confidence, accuracy, s=[8 + 70 * n / most for _, _, n in bins], color=own, alpha=0.8)
        axes.set_xlim(0, 102)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence (%)")
        axes.set_ylabel("accuracy (%)")
        axes.legend(loc="upper left")
        return _svg(figure, "reliability")


def confusion(title: str, classes: Sequence[str], counts: Sequence[Values]) -> str:
    """A confusion matrix in percent of each row, for use outside the report (which has it as a table).

    Args:
        title: above the matrix.
        classes: names of rows (true) and columns (predicted).
        counts: [true][predicted].
    """
    shares = [[100 * value / max(sum(row), 1) for value in row] for row in counts]
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(1.6 + 0.62 * len(classes), 1.2 + 0.62 * len(classes)), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for i, row in enumerate(shares):
            for j, share in enumerate(row):
                axes.text(j, i, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else "black")
        axes.set_xticks(range(len(classes)), [short(name) for name in classes], rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), [short(name) for name in classes])
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(short(title), fontsize=10)
        return _svg(figure, "confusion")


def scatter(panels: Mapping[str, Sequence[Values]], groups: Mapping[str, Sequence[int]], names: Sequence[str]) -> str:
    """Utterances in the plane, a panel a model, coloured by emotion.

    Args:
        panels: title → points [N][2].
        groups: the same titles → class number of each point; outside ``names`` is drawn grey.
        names: class names.
    """
    with matplotlib.rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(3.9 * len(panels), 3.9), layout="constrained")
        for place, (title, points) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for number, name in enumerate(names):
                own = [p for p, group in zip(points, groups[title], strict=True) if group == number]
                colour = COLOURS[number % len(COLOURS)]
                place.scatter(
                    [p[0] for p in own], [p[1] for p in own], s=11, color=colour, alpha=0.8, label=short(name)
                )
            rest = [p for p, group in zip(points, groups[title], strict=True) if not 0 <= group < len(names)]
            place.scatter([p[0] for p in rest], [p[1] for p in rest], s=7, color="#80808080")
            place.set_title(short(title, 44), fontsize=10)
            place.set_xticks([])
            place.set_yticks([])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 4))
        return _svg(figure, "scatter")


def _svg(figure: Figure, name: str) -> str:
    """The drawing as an SVG element whose ids are its own on a page with others."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    return text.replace(_INK, "currentColor")
