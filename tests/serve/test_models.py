"""Examples of the served models: of the validation set, of the report, or none; never a download."""

import json
from pathlib import Path
from typing import Any

import pytest

from nmt.data import DataConfig, read_pairs, table_files
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.serve.models import MAX_EXAMPLE_CHARS, NUM_EXAMPLES, _examples

LONG = "x" * (MAX_EXAMPLE_CHARS + 1)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run/report").mkdir(parents=True)
    rows = "".join(json.dumps({"source": text}) + "\n" for text in (LONG, "of the report"))
    (tmp_path / "run/report/sentences.jsonl").write_text(rows)
    return tmp_path / "run"


def text_data(tmp_path: Path, lines: list[str]) -> DataConfig:
    (tmp_path / "valid.en").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (tmp_path / "valid.de").write_text("".join(f"Satz {i}\n" for i, _ in enumerate(lines)), encoding="utf-8")
    return DataConfig(format="text", valid=str(tmp_path / "valid"))


def test_they_are_short_sentences_of_the_validation_set(tmp_path: Path, run: Path) -> None:
    data = text_data(tmp_path, [LONG, "", "one", "  ", "one", LONG[1:], "three", "four"])
    assert _examples(data, run) == ["one", LONG[1:], "three"]
    assert len(_examples(data, run)) == NUM_EXAMPLES


def test_else_they_are_of_the_report_or_there_are_none(tmp_path: Path, run: Path) -> None:
    assert _examples(text_data(tmp_path, [LONG]), run) == ["of the report"]
    (tmp_path / "valid.de").write_text("too few\nlines\n", encoding="utf-8")
    assert _examples(DataConfig(format="text", valid=str(tmp_path / "valid")), run) == ["of the report"]
    missing = DataConfig(format="text", valid=str(tmp_path / "nothing"))
    assert _examples(missing, run) == ["of the report"]
    for content in ("{", '{"hypothesis": ""}\n', "3\n"):
        (run / "report/sentences.jsonl").write_text(content)
        assert _examples(missing, run) == []
    assert _examples(missing, tmp_path / "no run") == []


@pytest.mark.parametrize("languages", [("en", "de"), ("de", "en")])
def test_those_of_the_built_in_pair_need_no_cache(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, languages: tuple[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = SyntheticConfig(train=300, valid=20, test=30, long=2, seed=5)
    data = DataConfig(source_lang=languages[0], target_lang=languages[1], synthetic=sizes)
    examples = _examples(data, run)
    assert list(tmp_path.iterdir()) == [run]  # not even a cache
    data.cache_dir = str(tmp_path)
    sources = [pair.source for pair in read_pairs(data, "valid")]
    assert examples == [text for text in sources if len(text) <= MAX_EXAMPLE_CHARS][:NUM_EXAMPLES]
    assert len(examples) == NUM_EXAMPLES


def test_no_data_set_is_downloaded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(table_files, "open_hub_dataset", lambda path, *_: opened.append(path) or iter([]))
    assert _examples(DataConfig(format="hub", hf_dataset="somebody/something"), run) == ["of the report"]
    assert opened == []
    assert _examples(DataConfig(format="hub", hf_dataset=str(run)), run) == ["of the report"]
    assert opened == [str(run)]


def test_ctranslate2_decodes_and_torch_aligns(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ctranslate2")
    monkeypatch.chdir(tmp_path)  # where the cache is

    def change(served: Any) -> None:
        for model in served:
            model.translator.config.early_stopping = "beam"
            models.append(model)

    models: list[Any] = []
    answers = []
    for engine in ("torch", "ctranslate2"):
        client = serve("deep", change=change, engine=engine)
        answers.append(client.post("/api/translate", {"lines": ["the old man reads", "small dogs see", ""]}).json)
    assert "CTranslate2" in models[1].translator.engine_used
    for ours, theirs in zip(answers[0]["sentences"], answers[1]["sentences"], strict=True):
        assert theirs["translation"] == ours["translation"]
        assert theirs["links"] == ours["links"]
        assert theirs["log_prob"] == pytest.approx(ours["log_prob"], abs=1e-4)
