"""Checks that scores of runs are comparable, and warnings about what limits conclusions from their differences."""

from collections.abc import Sequence
from typing import Any

from nmt.cli.config_groups import format_override
from nmt.cli.continuation import has_prefix
from nmt.compare.grouping import RunGroup, auto_set_options
from nmt.compare.run_results import RunResult
from nmt.compare.statistics import MIN_SEEDS, TOO_FEW

_MAX_LISTED = 6


def check_comparable(results: Sequence[RunResult], factors: Sequence[str] = ()) -> None:
    """Raise ValueError when runs differ in test set, gold, metric signatures, or (unless it is a factor) vocabulary."""
    first = results[0]
    for other in results[1:]:
        labels = f"not ranked: {first.label} and {other.label}"
        if len(first.further) != len(other.further):
            numbers = f"{1 + len(first.further)} and {1 + len(other.further)} references of each sentence"
            raise ValueError(f"{labels} were scored with {numbers}; evaluate all with the same files")
        if (first.sources, first.references, first.further) != (other.sources, other.references, other.further):
            raise ValueError(
                f"{labels} were evaluated on different test sets ({_first_difference(first, other)}); evaluate all on "
                "one with nmt.evaluate and name the reports"
            )
        for name in {**first.signatures, **other.signatures}:
            pair = [result.signatures.get(name, "none") for result in (first, other)]
            if pair[0] != pair[1]:
                raise ValueError(
                    f"{labels} have different signatures of {name} ({' and '.join(pair)}); evaluate all with one"
                )
        if len({first.gold, other.gold} - {""}) > 1:
            raise ValueError(f"{labels} were evaluated against different gold alignments; evaluate all with one")
        vocabularies = {first.vocabulary, other.vocabulary}
        if "" not in vocabularies and len(vocabularies) > 1 and not any(has_prefix(name, ["data"]) for name in factors):
            raise ValueError(
                f"{labels} have different vocabularies (see nmt.compare --diff); if these are what you study, name the "
                "option: --factors data.tokenizer.vocab_size, or whichever it was"
            )


def _first_difference(first: RunResult, other: RunResult) -> str:
    if len(first.sources) != len(other.sources):
        return f"{len(first.sources)} and {len(other.sources)} sentences"
    pairs = [zip(result.sources, result.references, *result.further, strict=True) for result in (first, other)]
    number = next(i for i, (pair, other_pair) in enumerate(zip(*pairs, strict=True), start=1) if pair != other_pair)
    return f"sentence {number} differs"


def confounded(groups: Sequence[RunGroup], values: dict[str, list[Any]], factors: Sequence[str]) -> list[str]:
    """Return warnings about groups that differ from the baseline in more than one option."""
    warnings = []
    base = groups[0]
    for group in groups[1:]:
        auto_set = {option for member in (base, group) for option in auto_set_options(member.results[0])}
        changes = [
            f"{option}: {format_override(base.options[option])} → {format_override(group.options[option])}"
            for option in values
            if group.options[option] != base.options[option] and option not in auto_set | set(factors)
        ]
        if len(changes) > (0 if factors else 1):
            listed = ", ".join(changes[:_MAX_LISTED])
            more = f" and {len(changes) - _MAX_LISTED} more" if len(changes) > _MAX_LISTED else ""
            relation = "also differs" if factors else f"differs in {len(changes)} options"
            where = f"{group.label} {relation} from {base.label} ({listed}{more})"
            warnings.append(f"{where}: their effects cannot be separated")
    return warnings


def few_seeds(groups: Sequence[RunGroup]) -> list[str]:
    """Return warnings about groups of few seeds, or of different ones."""
    warnings = []
    fewest = min(len(group.results) for group in groups)
    if fewest == 1:
        warnings.append(
            "there are groups of one seed: conclusions hold for these very models only, not for their options; train "
            "more seeds (seed=1,2,3)"
        )
    elif fewest < MIN_SEEDS:
        warnings.append(f"{fewest} seeds in a group are few ({TOO_FEW}): only large differences show")
    if len({tuple(group.seeds) for group in groups}) > 1:
        warnings.append(
            "not all groups have the same seeds: differences and wins are over common seeds, else over runs in "
            "their order; scores are over all seeds"
        )
    return warnings


def target_not_reached(groups: Sequence[RunGroup], bleu: float | None) -> list[str]:
    """Return warnings about groups whose training time to the target BLEU is unknown."""
    warnings = []
    for group in groups if bleu is not None else []:
        minutes = [result.minutes_to(bleu or 0.0) for result in group.results]
        if None in minutes:
            missed = f"{minutes.count(None)} of {len(minutes)} runs"
            warnings.append(f"{group.label}: {missed} had no such BLEU ({bleu:g}) on validation, or recorded no time")
    return warnings


def version_warnings(results: Sequence[RunResult]) -> list[str]:
    """Return warnings about reports of former models, different versions of nmt, or precisions that were not chosen."""
    versions = sorted({result.version for result in results if result.version})
    warnings = [f"runs were made by different versions of nmt ({', '.join(versions)})"] if len(versions) > 1 else []
    precisions = sorted({result.precision for result in results if result.precision})
    if len(precisions) > 1 and len({result.config.train.precision for result in results}) == 1:
        warnings.append(
            f"runs were trained in different precisions ({', '.join(precisions)}): train.precision=auto depends on the "
            "machine and its load; where that matters, name one and train again"
        )
    stale = [str(result.report) for result in results if result.is_stale]
    return warnings + [
        f"{report} is not of the best.pt that its run has now: evaluate the run again" for report in stale
    ]
