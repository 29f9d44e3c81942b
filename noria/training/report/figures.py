"""The figures of a report: each a chart with a caption, from the report's content."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from noria.core.markup import Child, Markup, tag
from noria.training.report.charts import Plot, around, number

_UNIT = (0.0, 1.0)


def charts(report: dict[str, Any]) -> Iterator[Markup]:
    """All that there are for this kind of model."""
    if report["curves"]:
        yield _roc(report)
        yield _precision(report)
        yield _calibration(report["curves"]["calibration"])
        yield _scores(report["curves"]["scores"])
    if report["confusion"]:
        yield _confusion(report["confusion"])
    if report["residuals"]:
        yield _predicted(report["residuals"])
        yield _errors(report["residuals"])
    if report["learning"]:
        yield _learning(report["learning"])


def _figure(title: str, drawing: Child, *caption: Child) -> Markup:
    return tag("figure", tag("h3", title), drawing, tag("figcaption", caption))


def _roc(report: dict[str, Any]) -> Markup:
    plot, points = Plot(_UNIT, _UNIT), report["curves"]["roc"]
    judged = report["evaluation"]["metrics"].get("roc_auc")
    # The curve has fewer points than there are rows: its own area differs in the fourth digit.
    area = judged["value"] if judged else sum((x2 - x1) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(points))
    drawing = plot.drawn(
        plot.area(points, "model"),
        plot.line([(0, 0), (1, 1)], "even"),
        plot.line(points, "model"),
        title=f"ROC curve: the area under it is {number(area)}",
        x="false positive rate",
        y="true positive rate",
    )
    return _figure("ROC curve", drawing, f"The area is {number(area)}; dashed: guessing.")


def _precision(report: dict[str, Any]) -> Markup:
    plot, share = Plot(_UNIT, _UNIT), report["curves"]["share"]
    drawing = plot.drawn(
        plot.line([(0, share), (1, share)], "even"),
        plot.line(report["curves"]["pr"], "model"),
        title=f"Precision over recall; {share * 100:.3g} % of the rows are positive",
        x="recall",
        y="precision",
    )
    return _figure("Precision and recall", drawing, f"Dashed: the share of positive rows, {share * 100:.3g} %.")


def _calibration(bins: Sequence[dict[str, float]]) -> Markup:
    most = max(one[end] for one in bins for end in ("said", "high"))
    top = min(1.0, math.ceil(most * 10) / 10) or 1.0
    plot = Plot((0.0, top), (0.0, top))
    marks = [plot.line([(0, 0), (top, top)], "even")]
    for one in bins:
        words = f"said {number(one['said'])}, happened {number(one['happened'])}, of {one['rows']:,} rows"
        marks += [
            plot.whisker(one["said"], one["low"], one["high"], "model"),
            plot.dot(one["said"], one["happened"], "model", words),
        ]
    drawing = plot.drawn(marks, title="Calibration: what happened, by what was said", x="said", y="happened")
    cells = [
        tag(
            "tr",
            (tag("td", text, class_="number") for text in (number(b["said"]), number(b["happened"]), f"{b['rows']:,}")),
        )
        for b in bins
    ]
    header = tag("tr", (tag("th", text, scope="col", class_="number") for text in ("said", "happened", "rows")))
    table = tag("table", tag("thead", header), tag("tbody", cells))
    fewest, largest = (int(end(one["rows"] for one in bins)) for end in (min, max))
    counts = f"{fewest:,}" if fewest == largest else f"{fewest:,} to {largest:,}"
    return _figure(
        "Calibration",
        drawing,
        f"Each point is {counts} rows; on the dashed line, what was said happened as often.",
        tag("details", tag("summary", "The numbers"), table),
    )


def _scores(scores: dict[str, Any]) -> Markup:
    edges = scores["edges"]
    shares = {side: _shares(scores[side]) for side in ("negative", "positive")}
    plot = Plot(_UNIT, (0.0, max(max(one) for one in shares.values()) * 1.05 or 1.0))
    drawing = plot.drawn(
        plot.bars(edges, shares["negative"], "rest"),
        plot.bars(edges, shares["positive"], "model"),
        title="How scores spread over the rows of each class",
        x="score",
        y="share of the class",
        percent=True,
    )
    return _figure(
        "Scores", drawing, tag("span", class_="key model"), "positive", tag("span", class_="key rest"), "negative"
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]


def _confusion(found: dict[str, Any]) -> Markup:
    names = found["classes"]
    header = tag("tr", tag("td", style="background:none"), (tag("th", f"said {name}", scope="col") for name in names))
    body = []
    for at, (name, counts) in enumerate(zip(names, found["counts"], strict=True)):
        total = sum(counts) or 1
        cells = [
            tag(
                "td",
                f"{count:,}",
                tag("small", f"{count / total * 100:.3g} %"),
                class_="right" if at == place else "wrong",
                style=f"--share:{count / total * 100:.0f}",
            )
            for place, count in enumerate(counts)
        ]
        body.append(tag("tr", tag("th", f"is {name}", scope="row"), cells))
    table = tag("table", tag("thead", header), tag("tbody", body), class_="confusion")
    return _figure("Confusion", tag("div", table, class_="wide"), "Percentages are of each row of the table.")


def _predicted(found: dict[str, Any]) -> Markup:
    edges, counts = found["edges"], found["counts"]
    plot, most = Plot((edges[0], edges[-1]), (edges[0], edges[-1])), max(map(max, counts)) or 1
    marks = [
        plot.box(
            edges[i], edges[i + 1], edges[j], edges[j + 1], "cell", round(0.08 + 0.92 * math.sqrt(count / most), 2)
        )
        for i, column in enumerate(counts)
        for j, count in enumerate(column)
        if count
    ]
    line = plot.line([(edges[0], edges[0]), (edges[-1], edges[-1])], "even")
    drawing = plot.drawn(marks, line, title="Predicted beside true values", x="true", y="predicted")
    return _figure("Predicted and true", drawing, "Darker: more rows; on the dashed line, they are equal.")


def _errors(found: dict[str, Any]) -> Markup:
    edges, shares = found["error_edges"], _shares(found["errors"])
    plot = Plot((edges[0], edges[-1]), (0.0, max(shares) * 1.05 or 1.0))
    quantiles = found["quantiles"]
    zero = [plot.line([(0, 0), (0, plot.y[1])], "even")] if edges[0] < 0 < edges[-1] else []
    drawing = plot.drawn(
        plot.bars(edges, shares, "model"),
        zero,
        title="How errors spread",
        x="predicted − true",
        y="share of rows",
        percent=True,
    )
    low, high = number(quantiles["0.05"]), number(quantiles["0.95"])
    caption = f"The mean is {number(found['mean_error'])}; 90 % are between {low} and {high}."
    return _figure("Errors", drawing, caption)


def _learning(series: dict[str, Sequence[float]]) -> Markup:
    shown = dict(list(series.items())[:3])
    rounds = max(len(values) for values in shown.values())
    plot = Plot((1.0, float(rounds)), around([value for values in shown.values() for value in values]))
    kinds = ("model", "other", "rest")
    lines = [
        plot.line([(at, value) for at, value in enumerate(values, 1)], kind)
        for values, kind in zip(shown.values(), kinds, strict=False)
    ]
    drawing = plot.drawn(lines, title=f"Learning over rounds: {', '.join(shown)}", x="round", y=" ")
    last = [
        (tag("span", class_=f"key {kind}"), f"{name}: {number(values[-1])}")
        for (name, values), kind in zip(shown.items(), kinds, strict=False)
    ]
    return _figure("Learning curve", drawing, last, " at the end")
