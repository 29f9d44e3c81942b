"""The page of a report: one HTML document, from the report's content."""

from __future__ import annotations

from typing import Any

from noria.core.markup import Child, Markup, style, tag
from noria.training.evaluation import short_text
from noria.training.metrics import METRICS
from noria.training.report.charts import around, bar, number, row
from noria.training.report.figures import charts

_SLICES_NOTE = (
    "Each line is a 95 % interval, the dashed one the value over all rows. Of many slices, about one in twenty lies "
    "beside it by chance. Slices of fewer than 20 rows (or entities) say too little for a number."
)


def page(report: dict[str, Any], label: str | None = None) -> str:
    """The document.

    Args:
        report: the content.
        label: the version's, such as `late@3`, once it is known.
    """
    name = label or report["model"]
    parts = [
        _headline(report, name),
        _warnings(report),
        _against_baselines(report),
        _section("How it errs", tag("div", charts(report), class_="charts")),
        _importance(report),
        _slices(report["evaluation"]),
        _data(report),
        _origin(report, name, label),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{name} · model report"),
        tag("link", rel="icon", href="data:,"),
        tag("style", style("noria.training.report")),
    )
    return "<!doctype html>" + tag("html", head, tag("body", tag("main", parts)), lang="en")


def _section(title: str, *parts: Child) -> Markup:
    return tag("section", tag("h2", title), parts)


def _headline(report: dict[str, Any], name: str) -> Markup:
    evaluation, rows = report["evaluation"], report["rows"]
    verdict: str = evaluation["verdict"]
    kind, words = "good", "better than its baselines"
    if verdict.startswith("not judged"):
        kind, words = "busy", "not judged"
    elif not verdict.startswith("better"):
        kind, words = "bad", "no better than a baseline"
    elif "; not " in verdict:
        kind, words = "busy", "better than guessing"
    made = report["made"][:16].replace("T", " ")
    return tag(
        "header",
        tag("div", "noria · model report", class_="kind"),
        tag("h1", name, tag("span", words, class_=f"badge {kind}")),
        tag("p", verdict[0].upper() + verdict[1:], ".", class_="lead"),
        tag(
            "p",
            f"Trained {made} UTC on {rows['train']:,} rows, judged on {rows['test']:,} that it hadn't seen.",
            class_="quiet",
        ),
        tag("div", (_figure(report, one) for one in report["metrics"]), class_="figures"),
    )


def _figure(report: dict[str, Any], name: str) -> Markup:
    evaluation = report["evaluation"]
    found = evaluation["metrics"].get(name)
    title = tag("span", METRICS[name].title if name in METRICS else name)
    style = "first" if name == report["metrics"][0] else None
    if found is None:
        return tag("div", title, tag("b", "–"), tag("small", "isn't defined for these rows"), class_=style)
    baseline = _best(evaluation, name)
    against = None if baseline is None else f"best baseline {_score(baseline)}"
    return tag(
        "div",
        title,
        tag("b", _score(found["value"])),
        tag("span", _between(found)),
        tag("small", against),
        class_=style,
    )


def _best(evaluation: dict[str, Any], name: str) -> float | None:
    """What the best baseline has in a metric."""
    found = [one[name] for one in evaluation["baselines"].values() if name in one]
    return max(found, default=None) if METRICS[name].greater_is_better else min(found, default=None)


def _score(value: float | None) -> str:
    return "–" if value is None else short_text(value)


def _between(one: dict[str, Any]) -> str:
    return f"{_score(one['low'])} to {_score(one['high'])}"


def _warnings(report: dict[str, Any]) -> Markup | None:
    found = report["parameters"].get("leakage")
    found = found.get("warnings") if isinstance(found, dict) else found
    if not found:
        return None
    items = [tag("li", str(one)) for one in found]
    return tag("div", tag("h3", "It may know what it shouldn't", class_="busy"), tag("ul", items), class_="warning")


def _against_baselines(report: dict[str, Any]) -> Markup:
    evaluation = report["evaluation"]
    names = [name for name in report["metrics"] if name in evaluation["metrics"]]
    words = ["", "this model", "95 %", *(evaluation["titles"][of] for of in evaluation["baselines"])]
    kinds = [None, "number", "picture", *["number"] * len(evaluation["baselines"])]
    header = tag("tr", (tag("th", word, scope="col", class_=kind) for word, kind in zip(words, kinds, strict=True)))
    table = tag("table", tag("thead", header), tag("tbody", (_compared(evaluation, name) for name in names)))
    by = evaluation["by"]
    drawn = f"all rows of a {', '.join(by)} together" if by else "the rows"
    note = f"Intervals come of drawing {drawn} again and again, with replacement. Dashed: the best baseline."
    return _section("Beside baselines", tag("div", table, class_="wide baselines"), tag("p", note, class_="quiet"))


def _compared(evaluation: dict[str, Any], name: str) -> Markup:
    """A metric: the model's value and interval, and what each baseline has; the best stands out."""
    one, metric, reference = evaluation["metrics"][name], METRICS[name], _best(evaluation, name)
    values = [one["value"], *(scores.get(name) for scores in evaluation["baselines"].values())]
    known = [value for value in values if value is not None]
    best = max(known) if metric.greater_is_better else min(known)
    within = around([one["value"], one["low"], one["high"], reference], 0.12)
    cells = [tag("td", _score(value), class_="number best" if value == best else "number") for value in values]
    picture = tag("td", row(one["value"], one["low"], one["high"], within, "model", reference), class_="picture")
    return tag("tr", tag("th", metric.title, scope="row"), cells[0], picture, cells[1:])


def _importance(report: dict[str, Any]) -> Markup | None:
    found = report["importance"]
    if not found or not found["features"]:
        return None
    shown, metric = found["features"][:25], METRICS[found["metric"]].title
    within = around([0.0, *(one[end] for one in shown for end in ("value", "low", "high"))], 0.02)
    rows = [
        tag(
            "tr",
            tag("th", one["name"], scope="row"),
            tag("td", short_text(one["value"]), class_="number"),
            tag("td", bar(one["value"], one["low"], one["high"], within), class_="picture"),
        )
        for one in shown
    ]
    header = tag(
        "tr",
        (
            tag("th", text, scope="col", class_=kind)
            for text, kind in (("input", None), ("worse by", "number"), ("", None))
        ),
    )
    rest = len(found["features"]) - len(shown)
    shuffled = f"By how much {metric} gets worse when an input's values are shuffled among {found['rows']:,} rows."
    notes = [shuffled, "Of two inputs that say the same, both may look unimportant."]
    notes += [f"{rest} more are less important."] if rest > 0 else []
    notes += [f"Not measured, for time: {', '.join(found['not_measured'][:20])}."] if found["not_measured"] else []
    own = report["native_importance"]
    listed = tag("ol", (tag("li", f"{one['name']}: {one['value'] * 100:.3g} %") for one in own)) if own else None
    return _section(
        "What it relies on",
        tag("table", tag("thead", header), tag("tbody", rows)),
        tag("p", " ".join(notes), class_="quiet"),
        tag("details", tag("summary", "What the library itself counts"), listed) if own else None,
    )


def _slices(evaluation: dict[str, Any]) -> Markup | None:
    if not evaluation["slices"] or not evaluation["metrics"]:
        return None
    metric = next(iter(evaluation["metrics"]))
    overall = evaluation["metrics"][metric]["value"]
    tables = [_slice_table(column, parts, metric, overall) for column, parts in evaluation["slices"].items()]
    return _section(
        f"{METRICS[metric].title} by slices",
        tag("p", _SLICES_NOTE, class_="quiet"),
        tag("div", tables, class_="slices"),
    )


def _slice_table(column: str, parts: dict[str, Any], metric: str, overall: float) -> Markup:
    known = [part[metric] for part in parts.values() if metric in part]
    within = around([overall, *(one[end] for one in known for end in ("low", "high"))])
    body = [_slice_row(value, part, metric, overall, within) for value, part in parts.items()]
    names = (("", None), ("rows", "number"), (METRICS[metric].title, "number"), ("", None))
    header = tag("tr", (tag("th", text, scope="col", class_=kind) for text, kind in names))
    return tag("table", tag("caption", column), tag("thead", header), tag("tbody", body))


def _slice_row(value: str, part: dict[str, Any], metric: str, overall: float, within: tuple[float, float]) -> Markup:
    one = part.get(metric)
    head = tag("th", value, scope="row"), tag("td", f"{part['rows']:,}", class_="number")
    if one is None:
        few = "too few" if part.get("entities", part["rows"]) < 20 else "one class only"
        return tag("tr", head, tag("td", few, class_="number quiet"), tag("td", class_="picture"))
    kind, greater = "model", METRICS[metric].greater_is_better
    if one["high"] is not None and one["high"] < overall:
        kind = "worse" if greater else "better"
    elif one["low"] is not None and one["low"] > overall:
        kind = "better" if greater else "worse"
    picture = row(one["value"], one["low"], one["high"], within, kind, overall)
    return tag("tr", head, tag("td", _score(one["value"]), class_="number"), tag("td", picture, class_="picture"))


def _data(report: dict[str, Any]) -> Markup:
    rows, period, target = report["rows"], report["period"], report["target"]

    def line(part: str) -> str:
        between = f", {' to '.join(one[:10] for one in period[part])}" if period[part] else ""
        return f"{rows[part]:,} rows{between}"

    def spread(part: str) -> str:
        is_share = "mean" not in target[part]
        shown = {n: f"{value * 100:.3g} %" if is_share else number(value) for n, value in target[part].items()}
        return ", ".join(f"{name} {value}" for name, value in shown.items())

    listed = {
        "taught": line("train"),
        "judged": line("test"),
        "used by neither": f"{rows['neither']:,} rows" if rows["neither"] else None,
        "target, taught": spread("train"),
        "target, judged": spread("test"),
        "split": _named(report["parameters"].get("split", {})),
        "inputs": f"{report['inputs']}",
        "tables": ", ".join(f"{name} version {version}" for name, version in report["data"].items()),
        "feature groups": ", ".join(report["features"]),
    }
    return _section("The data", _list(listed))


def _origin(report: dict[str, Any], name: str, label: str | None) -> Markup:
    parameters = report["parameters"]
    model = parameters.get("model", {})
    definition = {
        "what it does": report["description"],
        "model": model.get("class") or _flat({key: value for key, value in model.items() if key != "parameters"}),
        "steps": "; ".join(_named(step) for step in parameters.get("steps", ())) or None,
        "seed": str(report["seed"]),
        "run": report["run"],
        "libraries and code": ", ".join(f"{library} {version}" for library, version in report["code"].items()),
    }
    own = model.get("parameters")
    settings = tag("details", tag("summary", "Its parameters"), tag("pre", _flat(own, "\n"))) if own else None
    version = label or f"{name}@VERSION"
    commands = [
        f"noria models show {version}     # all that is known about it",
        f"noria models dataset {version} --out rows.parquet     # its rows again, bit for bit",
        f"noria run --full {report['model']}     # train it anew, on the data of now",
    ]
    return _section(
        "Where it comes from", _list(definition), settings, tag("h3", "To do it again"), tag("pre", "\n".join(commands))
    )


def _list(parts: dict[str, str | None]) -> Markup:
    return tag("dl", ((tag("dt", name), tag("dd", value)) for name, value in parts.items() if value))


def _named(definition: dict[str, Any]) -> str:
    """A definition whose first entry is its kind: `time, test 0.2`."""
    first, *rest = [*definition.items()] or [("", "")]
    return ", ".join([str(first[1]), *(f"{key} {_flat(value)}" for key, value in rest if value is not None)])


def _flat(value: Any, between: str = ", ") -> str:
    if isinstance(value, dict):
        return between.join(f"{key} {_flat(one)}" for key, one in value.items() if one is not None)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value))
    return str(value)
