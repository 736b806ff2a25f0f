"""Evaluation of a test set into a report folder: hypotheses, scores, alignments, pictures and a page."""

import json
import logging
import platform
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nmt import __version__, alignment, metrics
from nmt.alignment import AlignmentScore, Gold
from nmt.data import DataConfig, Pair, gold_path, more_tests, read_pairs
from nmt.files import whole, write_text
from nmt.metrics import MetricsConfig, Result
from nmt.report import heatmap
from nmt.report.page import Report, ReportSentence, SplitReport, write_page
from nmt.translator import Translation, Translator

log = logging.getLogger(__name__)

NUM_HEATMAPS = 10
NUM_SHOWN = 30
ALIGNMENTS_SCHEMA = 1


@dataclass
class Scored:
    """Translations of a test set and what they are worth; `alignment` is over the references, when there is gold."""

    translations: list[Translation]
    scores: dict[str, Result]
    alignment: AlignmentScore | None
    reference_links: list[list[tuple[int, int]]] | None

    def numbers(self) -> dict[str, float]:
        """Scores by name: sacreBLEU's from 0 to 100, alignment error from 0 to 1."""
        found = {name: result.score for name, result in self.scores.items()}
        return found if self.alignment is None else {**found, "aer": self.alignment.aer}


@dataclass
class About:
    """What a report says beside the results: names of run and test set, how the run was made, and its history."""

    name: str = ""
    test: str = "test"
    command: str = ""
    config: str = ""
    history: Sequence[dict[str, Any]] = ()
    data: Sequence[SplitReport] = field(default_factory=list)


def score(
    translator: Translator,
    pairs: Sequence[Pair],
    gold: Sequence[Gold] | None,
    config: MetricsConfig,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Scored:
    """Translates, scores, and aligns the references when there is gold. Validation and final evaluation both call it.

    Raises:
        ValueError: gold of another number of sentences.
    """
    translations = translator.translate([pair.source for pair in pairs], on_batch=on_batch)
    scores = metrics.score([t.text for t in translations], [pair.target for pair in pairs], config)
    links = translator.links(pairs) if gold is not None else None
    aligned = alignment.score(links, gold) if links is not None and gold is not None else None
    return Scored(translations, scores, aligned, links)


def evaluate(
    translator: Translator,
    pairs: Sequence[Pair],
    gold: Sequence[Gold] | None,
    config: MetricsConfig,
    directory: Path,
    about: About,
    *,
    on_batch: Callable[[int], None] | None = None,
) -> Scored:
    """Evaluates a test set and writes the report folder, every file whole or not at all.

    Args:
        translator: the model.
        pairs: source and reference texts.
        gold: word alignments of the references, or None.
        config: which scores.
        directory: the report folder; what it held under the same names is replaced.
        about: what else the page says.
        on_batch: called with the number of sentences translated so far.

    Returns:
        what was written as scores.json and hypotheses.txt.
    """
    result = score(translator, pairs, gold, config, on_batch=on_batch)
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "hypotheses.txt", "".join(f"{t.text}\n" for t in result.translations))
    notes = _write_alignments(translator, pairs, result, directory)
    if result.reference_links is not None:
        alignment.write_pharaoh(directory / "reference_alignments.pharaoh", result.reference_links)
    write_text(directory / "scores.json", json.dumps(_scores(result), indent=2, ensure_ascii=False) + "\n")
    page = Report(
        title=f"{about.test}: {len(pairs)} sentences",
        name=about.name,
        scores=result.scores,
        alignment=None if result.alignment is None else result.alignment._asdict(),
        history=about.history,
        data=about.data,
        command=about.command,
        versions=versions(),
        config=about.config,
        notes=notes.texts,
        sentences=notes.sentences,
    )
    write_page(directory / "report.html", page, max_sentences=NUM_SHOWN)
    return result


@dataclass(frozen=True)
class EvaluationSet:
    """Texts to translate, their references, and word alignments when there is a gold file beside them."""

    name: str
    folder: str  # inside the report; "" for the report itself
    pairs: list[Pair]
    gold: list[Gold] | None
    repaired: dict[str, int]

    @classmethod
    def read(cls, config: DataConfig, split: str, folder: str = "") -> "EvaluationSet":
        """Reads all of it. Raises ValueError or FileNotFoundError where the text or the gold file is at fault."""
        repaired: Counter[str] = Counter()
        pairs = list(read_pairs(config, split, repaired))
        path = gold_path(config, split)
        gold = alignment.read_gold(path, pairs) if path is not None else None
        return cls(folder or split, folder, pairs, gold, dict(repaired))


def evaluation_sets(config: DataConfig) -> list[EvaluationSet]:
    """`data.test`, and each of `data.more_tests` under its own name."""
    has_test = config.test is not None or config.kind in ("builtin", "hub")
    first = [EvaluationSet.read(config, "test")] if has_test else []
    return first + [EvaluationSet.read(config, name, Path(name).name) for name in more_tests(config)]


def evaluate_sets(
    translator: Translator, metrics_config: MetricsConfig, sets: Sequence[EvaluationSet], directory: Path, about: About
) -> None:
    """Evaluates each test set into `directory`, or its own folder inside it."""
    for test in sets:
        folder = directory / test.folder
        part = SplitReport(test.name, len(test.pairs), len(test.pairs), {}, test.repaired)
        here = replace(about, test=test.name, data=[*about.data, part])
        result = evaluate(translator, test.pairs, test.gold, metrics_config, folder, here)
        shown = "  ".join(f"{key} {value.score:.2f} ({value.signature})" for key, value in result.scores.items())
        shown += "" if result.alignment is None else f"  AER {100 * result.alignment.aer:.1f} %"
        log.info("%s: %s  -> %s", test.name, shown, folder / "report.html")


def _scores(result: Scored) -> dict[str, Any]:
    found: dict[str, Any] = {name: value._asdict() for name, value in result.scores.items()}
    if result.alignment is not None:
        found["alignment"] = result.alignment._asdict()
    return found


@dataclass
class _Notes:
    texts: list[str]
    sentences: list[ReportSentence]


def _write_alignments(translator: Translator, pairs: Sequence[Pair], result: Scored, directory: Path) -> _Notes:
    """alignments.npz, alignments.pharaoh and heat maps of the hypotheses; what the page shows of them.

    alignments.npz holds for sentence i (counted from 0) `i.weights` (L, H, T, S) in float16, and the pieces of rows and
    columns, `i.target` (T,) and `i.source` (S,), the end token among them; `schema` is the version of this layout.
    """
    tokenizer = translator.tokenizer
    sources = tokenizer.encode_source([pair.source for pair in pairs])
    targets = [translation.tokens for translation in result.translations]
    arrays: dict[str, NDArray[Any]] = {"schema": np.array(ALIGNMENTS_SCHEMA)}
    links: list[list[tuple[int, int]]] = [[] for _ in pairs]
    shown: dict[int, ReportSentence] = {}
    texts: list[str] = []
    if num_cut := sum(translation.cut for translation in result.translations):
        texts.append(
            f"{num_cut} of {len(pairs)} translations reached the longest length allowed and end there: "
            "raise search.max_ratio or search.max_extra if they should not."
        )
    for i, weights in translator.attention(sources, targets):
        source_pieces = [*tokenizer.source_pieces(sources[i]), "</s>"]
        target_pieces = [*tokenizer.target_pieces(targets[i]), "</s>"]
        arrays[f"{i}.weights"] = weights.astype(np.float16)
        arrays[f"{i}.source"], arrays[f"{i}.target"] = np.array(source_pieces), np.array(target_pieces)
        links[i] = translator.word_alignment(weights, sources[i], targets[i]).links
        if i < NUM_SHOWN:
            shown[i] = ReportSentence(
                pairs[i].source,
                pairs[i].target,
                result.translations[i].text,
                source_pieces,
                target_pieces,
                weights.mean((0, 1)),
            )
    if len(arrays) == 1:
        texts.append("This model has no attention: there are no alignments.")
        for name in ("alignments.npz", "alignments.pharaoh"):
            (directory / name).unlink(missing_ok=True)
    else:
        _write_npz(directory / "alignments.npz", arrays)
        alignment.write_pharaoh(directory / "alignments.pharaoh", links)
    for i, sentence in sorted(shown.items())[:NUM_HEATMAPS]:
        assert sentence.matrix is not None
        picture = directory / "heatmaps" / f"{i + 1:04d}.png"
        drawn = heatmap.draw(picture, sentence.matrix, sentence.source_labels, sentence.target_labels)
        texts += [f"{picture.name}: {note}" for note in drawn]
    for text in texts:
        log.info("%s", text)
    plain = (
        ReportSentence(pairs[i].source, pairs[i].target, result.translations[i].text)
        for i in range(len(pairs))
        if i not in shown
    )
    return _Notes(texts, [shown[i] for i in sorted(shown)] or list(plain)[:NUM_SHOWN])


def _write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    with whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    from importlib.metadata import version

    packages = ("torch", "sentencepiece", "sacrebleu", "numpy", "datasets")
    return {"nmt": __version__, "python": platform.python_version(), **{name: version(name) for name in packages}}
