"""CTranslate2 as the engine: the translations and scores of torch, and torch where it lacks what is asked for."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nmt
from nmt import checkpoint, search
from nmt.cli.configs import Config, EvaluateConfig, ServeConfig, TranslateConfig
from nmt.config import to_dict
from nmt.data import BOS, EOS, PAD, UNK, SentencePair, collate
from nmt.evaluation.evaluator import Evaluator
from nmt.evaluation.metrics import MetricsConfig
from nmt.evaluation.report import ReportData
from nmt.evaluation.report.identity import model_facts
from nmt.evaluation.results import EvaluationSet
from nmt.export import ctranslate2_engine
from nmt.export.ctranslate2_engine import make_engine
from nmt.inference.glossary import load_glossary
from nmt.inference.line_request import LineRequest
from nmt.inference.line_translator import LineTranslator
from nmt.inference.translator import Translation, Translator
from nmt.models import MODELS
from nmt.search import SearchConfig

pytest.importorskip("ctranslate2")

BEAM = SearchConfig(beam_size=4, early_stopping="beam", max_length_offset=20)


@pytest.fixture
def both(trained: Any, tmp_path: Path) -> Any:
    """Return a function from search options to translators with torch and with CTranslate2."""
    base, config = trained("post")
    config.data.cache_dir = str(tmp_path / "cache")

    def made(name: str = "ctranslate2", **options: Any) -> tuple[Translator, Translator]:
        pair = [Translator(base.model, base.tokenizer, replace(BEAM, **options), base.device) for _ in range(2)]
        pair[1].engine = make_engine(pair[1], config, name)
        return pair[0], pair[1]

    return made


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list of how many sentences each call of torch's search has."""
    decode, numbers = search.decode, []

    def record(model: Any, sources: Any, *arguments: Any, **options: Any) -> Any:
        numbers.append(len(sources))
        return decode(model, sources, *arguments, **options)

    monkeypatch.setattr(search, "decode", record)
    return numbers


def forced_log_prob(model: Translator, text: str, translation: Translation) -> float:
    batch = collate(model.tokenizer.encode_source([text]), [translation.tokens])
    with torch.no_grad():
        logits, _ = model.model.eval()(batch.source, batch.source_mask, batch.inputs)
    return float(logits.log_softmax(-1).gather(2, batch.labels.unsqueeze(2)).sum())


@pytest.mark.parametrize("options", [{}, {"beam_size": 1, "early_stopping": "never"}, {"length_penalty": 0.6}])
def test_translations_are_those_of_torch(
    options: dict[str, Any], both: Any, rows: list[str], by_torch: list[int]
) -> None:
    ours, engine = both(**options)
    translations = engine.translate(rows)
    assert by_torch[-1] < len(rows) / 2  # the rest is CTranslate2's
    expected = ours.translate(rows)
    assert sum(a.text == b.text for a, b in zip(expected, translations, strict=True)) >= 0.95 * len(rows)
    for text, translation in zip(rows, translations, strict=True):
        length = len(translation.tokens) + 1
        if translation.truncated:
            continue
        assert translation.log_prob == pytest.approx(forced_log_prob(ours, text, translation), abs=1e-4)
        assert translation.score == pytest.approx(translation.log_prob / length**engine.config.length_penalty, abs=1e-6)


def test_n_best_is_sorted_distinct_and_begins_with_its_prefix(both: Any, rows: list[str]) -> None:
    ours, engine = both(n_best=3)
    prefixes = [["the dog", "two", ""][i % 3] for i in range(len(rows))]
    expected = ours.n_best(rows, prefixes=prefixes)
    for text, prefix, mine, theirs in zip(
        rows, prefixes, engine.n_best(rows, prefixes=prefixes), expected, strict=True
    ):
        assert len({t.text for t in mine}) == len(mine) <= 3
        assert [t.score for t in mine] == sorted((t.score for t in mine), reverse=True)
        assert all(t.text.startswith(prefix) for t in mine)
        for t in mine:
            assert t.log_prob == pytest.approx(forced_log_prob(ours, text, t), abs=1e-3 if t.truncated else 1e-4)
        assert mine[0].score >= theirs[0].score - 0.2
    assert engine.n_best([""], prefixes=["two"])[0][0].text.startswith("two")


@pytest.mark.parametrize(
    "options",
    [{"max_length_ratio": 0.5, "max_length_offset": 2}, {"min_length_ratio": 1.5}, {"no_repeat_ngram_size": 1}],
)
def test_constraints_hold(options: dict[str, Any], both: Any, rows: list[str], by_torch: list[int]) -> None:
    ours, engine = both(**options)
    translations = engine.translate(rows)
    assert by_torch[-1] > 0
    expected = ours.translate(rows)
    assert sum(a == b for a, b in zip(expected, translations, strict=True)) > 0.5 * len(rows)
    for source, t in zip(ours.tokenizer.encode_source(rows), translations, strict=True):
        assert len(t.tokens) <= np.ceil(engine.config.max_length_ratio * len(source)) + engine.config.max_length_offset
        assert t.truncated or len(t.tokens) >= engine.config.min_length_ratio * len(source)
        assert not engine.config.no_repeat_ngram_size or len(set(t.tokens)) == len(t.tokens)


@pytest.mark.parametrize(
    "options",
    [
        {"early_stopping": "never"},
        {"method": "sample"},
        {"length_normalization": "gnmt"},
        {"coverage_penalty": 0.2},
        {"diverse_groups": 2},
        {"replace_unknown": "copy"},
        {"length_penalty": 0.0},
    ],
)
def test_torch_decodes_what_ctranslate2_has_not(
    options: dict[str, Any], both: Any, rows: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    ours, engine = both(**options)
    ((option, value),) = options.items()
    assert engine.engine_used == ""
    assert engine.translate(rows[:4]) == ours.translate(rows[:4])
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith(f"engine=ctranslate2: search.{option}={value} is not CTranslate2's, which has ")
    assert message.endswith("; torch decodes instead")
    caplog.clear()
    _, quiet = both("auto", **options)
    assert quiet.translate(rows[:4]) == ours.translate(rows[:4])
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_models_that_ctranslate2_has_not(
    both: Any, make: Any, rows: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, engine = both()
    assert "ensemble" in _reason(engine, member=1)
    assert "device=cpu" in _reason(engine, device=torch.device("cuda"))
    additive, config = make(attention__score="additive")
    additive.engine = make_engine(additive, config, "ctranslate2")
    assert "model.attention.score=additive" in additive.engine._model_reason
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install" in _reason(engine)
    (tmp_path / "file").write_text("")
    engine.engine.config.data.cache_dir = str(tmp_path / "file")
    assert "could not load" in engine.engine._load_reason
    assert not engine.engine_used


def _reason(translator: Translator, **attributes: Any) -> str:
    changed = Translator(translator.model, translator.tokenizer, translator.config, translator.device)
    engine = make_engine(changed, translator.engine.config, "ctranslate2")  # type: ignore[union-attr]
    for name, value in attributes.items():
        setattr(changed, name, value)
    assert engine is not None
    return engine._model_reason


def test_the_export_is_made_once_and_repaired(both: Any, rows: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    export, made = ctranslate2_engine.export, []

    def counted(*arguments: Any) -> Any:
        made.append(1)
        return export(*arguments)

    monkeypatch.setattr(ctranslate2_engine, "export", counted)
    expected = [both()[1].translate(rows) for _ in range(2)]
    assert expected[0] == expected[1]
    assert len(made) == 1
    _, engine = both("ctranslate2_int8")
    assert "int8" in engine.engine_used
    assert len(made) == 1
    (folder,) = Path(engine.engine.config.data.cache_dir).glob("ctranslate2-*")
    weights = bytearray((folder / "model.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "model.bin").write_bytes(weights)
    assert both()[1].translate(rows) == expected[0]
    assert len(made) == 2


def test_load_from_python(trained: Any, rows: list[str], tmp_path: Path) -> None:
    translator, config = trained("pre")
    config.data.cache_dir = str(tmp_path / "cache")
    content = {"config": to_dict(config), "model": translator.model.state_dict()}
    checkpoint.save(tmp_path / "model.pt", content | {"tokenizer": translator.tokenizer.state_dict()})
    options = {"beam_size": 3, "early_stopping": "beam", "device": "cpu"}
    models = [nmt.load(tmp_path / "model.pt", engine=engine, **options) for engine in ("auto", "torch")]
    assert "CTranslate2" in models[0]._translator.engine_used
    texts = [[result.text for result in model.translate(rows)] for model in models]
    assert sum(a == b for a, b in zip(*texts, strict=True)) >= 0.95 * len(rows)
    assert models[0].attention(rows[0]).weights.shape == models[1].attention(rows[0]).weights.shape
    with pytest.raises(ValueError, match="engine=fast: must be one of torch, auto, ctranslate2, ctranslate2_int8"):
        nmt.load(tmp_path / "model.pt", engine="fast")


@pytest.mark.parametrize("config", [TranslateConfig, EvaluateConfig, ServeConfig])
def test_the_option_is_checked(config: Any) -> None:
    config(checkpoint="a", engine="ctranslate2").validate()
    with pytest.raises(ValueError, match=r"engine=ctranslate: must be one of .*; did you mean ctranslate2"):
        config(checkpoint="a", engine="ctranslate").validate()
    assert not hasattr(Config(), "engine")


def test_an_evaluation_names_its_engine(both: Any, rows: list[str], tmp_path: Path) -> None:
    pairs = [SentencePair(row, row) for row in rows]
    for translator in both():
        about = ReportData(facts=model_facts([{}], [translator_config(both)], translator, ()))
        test = EvaluationSet("test", "", pairs, None, {})
        metrics = MetricsConfig(names=["chrf"], num_resamples=10)
        Evaluator(translator, metrics).evaluate_sets([test], tmp_path / "report", about)
        scores = json.loads((tmp_path / "report/scores.json").read_text())
        assert scores.get("engine", "") == translator.engine_used
        page = (tmp_path / "report/report.html").read_text()
        assert ("decoded by CTranslate2" in page) == bool(translator.engine_used)


def translator_config(both: Any) -> Config:
    config: Config = both()[1].engine.config
    return config


@pytest.mark.parametrize("options", [{}, {"prefix": "two"}, {"suffix_of": "the dog "}, {"placeholders": True}])
@pytest.mark.parametrize("terms", [None, {"dog": "two", "the": "the"}])
def test_markup_prefixes_and_terms_are_those_of_torch(
    options: dict[str, Any], terms: dict[str, str] | None, both: Any, rows: list[str], by_torch: list[int]
) -> None:
    lines = [f"<b>{row.split(' ')[0]}</b> {row} <i>{{name}}</i>".encode() for row in rows[:8]]
    request, records = LineRequest(markup=True, **options), []
    for model in both():
        translator = LineTranslator(model, 100, request, glossary=load_glossary(terms, model))
        records.append([translator.to_json(*numbered) for numbered in enumerate(translator.translate_lines(lines))])
        by_torch.append(-1)
    for ours, theirs in zip(*records, strict=True):
        for name in ("score", "log_prob"):
            assert ours.pop(name) == pytest.approx(theirs.pop(name), abs=1e-3)
        assert ours == theirs
    assert by_torch[-2] < len(lines) or terms  # of what CTranslate2 left


def test_soft_terms_are_in_the_sources_of_ctranslate2_too(tmp_path: Path, by_torch: list[int]) -> None:
    from tests.inference.test_terms import made

    config, records, log_probs = Config(model=MODELS["transformer"].config()), [], []
    config.model.d_model = config.model.ffn_dim = 16
    config.data.cache_dir, config.data.augment.terms = str(tmp_path), 0.3
    for name in ("torch", "ctranslate2"):
        model = made()
        model.config = replace(model.config, early_stopping="beam", max_length_offset=60)
        with torch.no_grad():
            bias = model.model.get_parameter("output.bias")
            bias[EOS] += 2  # or no translation would end
            bias[[PAD, BOS, UNK, -3, -2, -1]] = -50  # what a trained model does not write
        model.engine = make_engine(model, config, name)
        glossary = load_glossary({"c a": "b b"}, model, "soft")
        translator = LineTranslator(model, 100, LineRequest(markup=True), glossary=glossary)
        results = translator.translate_lines([b"b <i>c a</i> b", b"a b", b"c a"])
        records.append([(result.text, result.terms) for result in results])
        log_probs.append([result.n_best()[0].log_prob for result in results])
    assert records[0] == records[1]
    assert log_probs[0] == pytest.approx(log_probs[1], abs=1e-4)
    assert by_torch[-1] == 0
