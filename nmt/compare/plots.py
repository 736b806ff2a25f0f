"""Charts of a comparison as inline SVG: groups over training, against what they cost, and over length.

Every group has a colour, a dash and a mark of its own, so that colour is never needed to tell two of them apart. Charts
that stand for one another are all in the page; its script shows the one that is chosen.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from nmt.compare.comparison import Comparison
from nmt.compare.grouping import Group
from nmt.compare.tables import COSTS, SCORES
from nmt.evaluation.report.charts import Frame, tick_label
from nmt.evaluation.report.html import escape

STYLES = 8
"""Groups that look different; those after them begin again."""
MAX_MARKS = 40
"""Points of a line that are marked; of more only the last."""
MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    "M-3.6 -3.6H3.6V3.6H-3.6Z",
    "M0 -5L4.8 3.6H-4.8Z",
    "M0 -5.2L5.2 0L0 5.2L-5.2 0Z",
    "M0 5L4.8 -3.6H-4.8Z",
    "M-1.5 -4.5H1.5V-1.5H4.5V1.5H1.5V4.5H-1.5V1.5H-4.5V-1.5H-1.5Z",
    "M0 -5.2L1.4 -1.6H5L2.2 0.8L3.3 4.6L0 2.4L-3.3 4.6L-2.2 0.8L-5 -1.6H-1.4Z",
    "M-5 -2.5H5V2.5H-5Z",
)
CURVES = {"bleu": "validation BLEU", "perplexity": "validation perplexity", "aer": "validation AER %"}
AXES = {"updates": "updates", "minutes": "minutes of training"}
WEIGHED = ("bleu", "chrf", "aer")
"""Scores that are drawn against costs."""
_MILLIONS = ("parameters", "flops")
_LETTER = 6.6  # width of a letter in units of the viewBox


class Place(NamedTuple):
    """A point of a line: where, the lowest and highest value of the seeds there, and what is told of it."""

    x: float
    mean: float
    low: float
    high: float
    about: str


def legend(found: Comparison) -> str:
    """A button for each group, with the look of its lines."""
    keys = "".join(
        f'<button type="button" data-toggle="{i}" aria-pressed="true">{_key(i)} {escape(group.label)}'
        f"{' (baseline)' if i == 0 else ''}</button>"
        for i, group in enumerate(found.groups)
    )
    return f'<div class="legend" role="group" aria-label="Groups">{keys}</div>'


def curves(found: Comparison) -> str:
    """Each quantity of the validations over updates and over time; "" when there is none."""
    drawn = []
    for axis, unit in AXES.items():
        for name, title in CURVES.items():
            lines = [_over_training(group, name, axis) for group in found.groups]
            drawn.append(_figure(f"{title} over {unit}", lines, f'data-curve="{name}" data-axis="{axis}"'))
    if not any(drawn):
        return ""
    return _choice("Over", "axis", AXES) + f'<div class="charts">{"".join(drawn)}</div>'


def _over_training(group: Group, name: str, axis: str) -> list[Place]:
    """At the updates at which every seed was validated."""
    runs = [{each.update: each for each in outcome.validations if name in each.values} for outcome in group.outcomes]
    places = []
    for update in sorted(set.intersection(*map(set, runs))):
        here = [run[update] for run in runs]
        values = [each.values[name] for each in here]
        at, when = float(update), f"update {update:,}"
        if axis == "minutes":
            seconds = [each.seconds for each in here if each.seconds is not None]
            if len(seconds) < len(here):
                continue
            at = statistics.fmean(seconds) / 60
            when = f"{at:.2f} minutes, {when}"
        places.append(_place(at, values, f"{group.label}: {statistics.fmean(values):.4g}", when))
    return places


def by_length(found: Comparison) -> str:
    """BLEU and alignment error by words of the source; "" when there is none."""
    sizes = found.groups[0].outcomes[0].buckets
    drawn = []
    for name in ("bleu", "aer"):
        own = (each for group in found.groups for each in group.summaries if each.startswith(f"{name} "))
        known = {each.partition(" ")[2] for each in own}
        buckets = sorted(known, key=lambda bucket: int(bucket.partition("-")[0]))
        lines = []
        for group in found.groups:
            here = [(i, bucket, group.summaries.get(f"{name} {bucket}")) for i, bucket in enumerate(buckets)]
            lines.append(
                [
                    _place(i, each.values, f"{group.label}: {each.mean:.2f}", f"{bucket} words")
                    for i, bucket, each in here
                    if each is not None
                ]
            )
        about = ", ".join(f"{bucket}: {sizes[bucket]}" for bucket in buckets if bucket in sizes)
        title = f"{SCORES[name]} by words of the source"
        drawn.append(_figure(title, lines, f'data-length="{name}"', buckets, f"Sentences: {about}." if about else ""))
    return f'<div class="charts">{"".join(drawn)}</div>' if any(drawn) else ""


def against_cost(found: Comparison) -> str:
    """Each score against each cost, a mark for each group; "" when no cost is known."""
    costs = {name: title for name, title in COSTS.items() if any(name in each.summaries for each in found.groups)}
    scores = [name for name in WEIGHED if any(name in each.summaries for each in found.groups)]
    if not costs or not scores:
        return ""
    drawn = "".join(_scatter(found, score, cost) for cost in costs for score in scores)
    choices = _choice("Score", "score", {name: SCORES[name] for name in scores})
    return f'{choices}{_choice("against", "cost", costs)}<div class="charts wide">{drawn}</div>'


def _scatter(found: Comparison, score: str, cost: str) -> str:
    scale = 1e6 if cost in _MILLIONS else 1.0
    unit = f"{COSTS[cost]} (millions)" if scale > 1 else COSTS[cost]
    points = []
    for i, group in enumerate(found.groups):
        if score in group.summaries and cost in group.summaries:
            paid, got = group.summaries[cost], group.summaries[score]
            xs, ys = [value / scale for value in paid.values], list(got.values)
            points.append((i, group.label, xs, ys, paid.mean / scale, got.mean))
    ends = [(x, y) for _, _, xs, ys, *_ in points for x in (min(xs), max(xs)) for y in (min(ys), max(ys))]
    if not ends:
        return ""
    frame = Frame(ends, margin=0.08)
    taken = [(*frame.place(x, y), 8.0, 8.0) for *_, x, y in points]
    marks = []
    for i, label, xs, ys, x, y in points:
        at = frame.place(x, y)
        whiskers = f"M{_at(frame.place(min(xs), y))}L{_at(frame.place(max(xs), y))}"
        whiskers += f"M{_at(frame.place(x, min(ys)))}L{_at(frame.place(x, max(ys)))}"
        about = escape(f"{label}: {SCORES[score]} {y:.2f}, {unit} {tick_label(x)}")
        marks.append(
            f'<g class="g{i % STYLES}" data-group="{i}"><path class="whisker" d="{whiskers}"/>'
            f"{_mark(i, at, about)}{_label(label, at, taken)}</g>"
        )
    title = f"{SCORES[score]} against {unit}"
    return _framed(title, frame, "".join(marks), f'data-score="{score}" data-cost="{cost}"')


def _label(text: str, at: tuple[float, float], taken: list[tuple[float, float, float, float]]) -> str:
    """The name of a mark where nothing else is, right, left, above or below of it; "" where there is no such place."""
    width, height = len(text) * _LETTER, 12.0
    for dx, dy in ((9 + width / 2, 0), (-9 - width / 2, 0), (0, -13), (0, 13)):
        x, y = at[0] + dx, at[1] + dy
        inside = width / 2 < x < Frame.width - width / 2 and height < y < Frame.height - 34
        if inside and all(
            abs(x - other[0]) > (width + other[2]) / 2 or abs(y - other[1]) > (height + other[3]) / 2 for other in taken
        ):
            taken.append((x, y, width, height))
            return f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(text)}</text>'
    return ""


def _place(x: float, values: Sequence[float], what: str, where: str) -> Place:
    low, high = min(values), max(values)
    between = f" ({low:.4g} to {high:.4g} of {len(values)} seeds)" if len(values) > 1 else ""
    return Place(x, statistics.fmean(values), low, high, f"{what}{between} at {where}")


def _figure(
    title: str, lines: Sequence[list[Place]], attributes: str, names: Sequence[str] = (), caption: str = ""
) -> str:
    """Lines with their bands; "" when there is no point."""
    ends = [(place.x, value) for line in lines for place in line for value in (place.low, place.high)]
    if not ends:
        return ""
    frame = Frame(ends, names, margin=0.07 if names else 0.0)
    drawn = "".join(
        f'<g class="g{i % STYLES}" data-group="{i}">{_line(i, line, frame.place)}</g>'
        for i, line in enumerate(lines)
        if line
    )
    return _framed(title, frame, drawn, attributes, caption)


def _line(style: int, line: list[Place], place: Callable[[float, float], tuple[float, float]]) -> str:
    drawn = ""
    if len(line) > 1:
        edge = [place(each.x, each.high) for each in line] + [place(each.x, each.low) for each in reversed(line)]
        if any(each.high > each.low for each in line):
            drawn += f'<path class="band" d="{_path(edge)}Z"/>'
        drawn += f'<path class="line" d="{_path(place(each.x, each.mean) for each in line)}"/>'
    marked = line if len(line) <= MAX_MARKS else line[-1:]
    return drawn + "".join(_mark(style, place(each.x, each.mean), escape(each.about)) for each in marked)


def _framed(title: str, frame: Frame, drawn: str, attributes: str, caption: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="card" {attributes}><h3>{escape(title)}</h3><svg viewBox="0 0 {frame.width} {frame.height}" '
        f'role="img" aria-label="{escape(title)}">{frame}{drawn}</svg>{below}</figure>'
    )


def _mark(style: int, at: tuple[float, float], about: str) -> str:
    """`about` is HTML."""
    shape = MARKS[style % len(MARKS)]
    return (
        f'<path class="mark" transform="translate({at[0]:.1f} {at[1]:.1f})" d="{shape}"><title>{about}</title></path>'
    )


def _key(style: int) -> str:
    mark = f'<path class="mark" transform="translate(17 0)" d="{MARKS[style % len(MARKS)]}"/>'
    return (
        f'<svg class="key" viewBox="0 -6 34 12" aria-hidden="true"><g class="g{style % STYLES}">'
        f'<path class="line" d="M0 0H34"/>{mark}</g></svg>'
    )


def _choice(label: str, name: str, choices: dict[str, str]) -> str:
    """A list to choose from, shown by the script."""
    options = "".join(f'<option value="{value}">{escape(text)}</option>' for value, text in choices.items())
    return f'<label class="choice" hidden>{label} <select data-choice="{name}">{options}</select></label> '


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(map(_at, points))


def _at(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"
