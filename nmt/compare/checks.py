"""Why scores of runs may not mean the same, and why their differences may not mean much."""

from collections.abc import Sequence
from typing import Any

from nmt.cli.continuation import has_prefix
from nmt.compare.grouping import RunGroup, auto_set_options, format_value
from nmt.compare.run_results import RunResult

MIN_SEEDS = 3
"""Seeds below which an interval says little."""


def check_comparable(outcomes: Sequence[RunResult], varied: Sequence[str] = ()) -> None:
    """Raise ValueError when scores of these runs do not mean the same: other test sets, signatures or tokenizers."""
    first = outcomes[0]
    for other in outcomes[1:]:
        both = f"{first.label} and {other.label}"
        if (first.sources, first.references) != (other.sources, other.references):
            raise ValueError(
                f"not ranked: {both} were evaluated on different test sets ({_where(first, other)}); evaluate all on "
                "one with nmt.evaluate and name the reports"
            )
        if first.signatures != other.signatures:
            name = next(
                name
                for name in {**first.signatures, **other.signatures}
                if first.signatures.get(name) != other.signatures.get(name)
            )
            told = " and ".join(each.signatures.get(name, "none") for each in (first, other))
            raise ValueError(f"not ranked: {both} have different signatures of {name} ({told}); evaluate all with one")
        known = first.vocabulary and other.vocabulary
        on_purpose = any(has_prefix(option, ["data"]) for option in varied)
        if known and first.vocabulary != other.vocabulary and not on_purpose:
            raise ValueError(
                f"not ranked: {both} have different vocabularies (nmt.compare --diff tells more); if that is what was "
                "studied, say so: --factors data.tokenizer.vocab_size, or what it was"
            )


def _where(first: RunResult, other: RunResult) -> str:
    if len(first.sources) != len(other.sources):
        return f"{len(first.sources)} and {len(other.sources)} sentences"
    pairs = [zip(each.sources, each.references, strict=True) for each in (first, other)]
    row = next(i for i, (one, two) in enumerate(zip(*pairs, strict=True), start=1) if one != two)
    return f"sentence {row} differs"


def confounded(groups: Sequence[RunGroup], values: dict[str, list[Any]], varied: Sequence[str]) -> list[str]:
    """Return warnings about groups that differ from the baseline in more than one option."""
    warnings = []
    base = groups[0]
    for group in groups[1:]:
        found_by_runs = {option for each in (base, group) for option in auto_set_options(each.results[0])}
        differ = [o for o in values if group.options[o] != base.options[o] and o not in found_by_runs]
        others = [option for option in differ if option not in varied] if varied else differ
        if (varied and others) or len(others) > 1:
            listed = ", ".join(
                f"{o}: {format_value(base.options[o])} → {format_value(group.options[o])}" for o in others[:6]
            )
            more = f" and {len(others) - 6} more" if len(others) > 6 else ""
            what = "also differs" if varied else f"differs in {len(others)} options"
            warnings.append(
                f"{group.label} {what} from {base.label} ({listed}{more}): what each of them does cannot be told apart"
            )
    return warnings


def few_seeds(groups: Sequence[RunGroup]) -> list[str]:
    warnings = []
    least = min(len(group.results) for group in groups)
    if least == 1:
        warnings.append(
            "there are groups of one seed: nothing can be said of their options, only of these very models; train more "
            "seeds (seed=1,2,3)"
        )
    elif least < MIN_SEEDS:
        warnings.append(f"{least} seeds in a group are few: intervals are wide and only large differences show")
    if len({tuple(group.seeds) for group in groups}) > 1:
        warnings.append("not all groups have the same seeds: pairs are made of those in common, else in their order")
    return warnings


def target_not_reached(groups: Sequence[RunGroup], bleu: float | None) -> list[str]:
    """Return warnings about groups whose time to so much BLEU is not known."""
    warnings = []
    for group in groups if bleu is not None else []:
        minutes = [outcome.minutes_to(bleu or 0.0) for outcome in group.results]
        if None in minutes:
            missed = f"{minutes.count(None)} of {len(minutes)} runs"
            warnings.append(
                f"{group.label}: {missed} had no such BLEU ({bleu:g}) on validation, or do not tell the time"
            )
    return warnings


def versions(outcomes: Sequence[RunResult]) -> list[str]:
    """Return warnings about what runs were computed with, beside their options."""
    versions = sorted({outcome.version for outcome in outcomes if outcome.version})
    warnings = [f"runs were made by different versions of nmt ({', '.join(versions)})"] if len(versions) > 1 else []
    precisions = sorted({outcome.precision for outcome in outcomes if outcome.precision})
    if len(precisions) > 1 and len({outcome.config.train.precision for outcome in outcomes}) == 1:
        warnings.append(
            f"runs were trained in different precisions ({', '.join(precisions)}): train.precision=auto depends on the "
            "machine and its load; where that matters, name one and train again"
        )
    return warnings
