"""A run records the digest of the text that it trains on, whatever happens to the files meanwhile."""

import contextlib
import hashlib
import io
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nmt import checkpoint, data, train
from nmt.cli.compose import Config, run_command
from nmt.cli.continuation import data_fingerprints
from nmt.data import DataConfig
from nmt.data.fingerprints import check_unchanged
from nmt.data.sources import dataset_fingerprint
from nmt.evaluation.results import EvaluationSet, training_frequencies
from nmt.training.distributed import DistributedContext

WORDS = ["one", "two", "three", "four", "five", "six", "seven"]
RUN = f"""
    name=run data=text data.train=text/train data.valid=text/valid data.tokenizer.type=word
    data.tokenizer.vocab_size={10 * len(WORDS)} model.embedding_dim=8 model.hidden_size=8 model.attention.dim=8
    train.guided_alignment_weight=0.1 train.batch_tokens=300 train.save_every=1 train.valid_every=100
    train.early_stopping_metric=loss train.precision=fp32 search.beam_size=1 search.max_length_ratio=1
    search.max_length_offset=2 num_threads=1 device=cpu
""".split()
SPLITS = {"train.de": "train", "train.gold": "train", "valid.gold": "valid"}


def call(*more: str) -> tuple[int, str]:
    """Train in this process; return the exit code and standard error."""
    logger = logging.getLogger("nmt")
    before, logger.handlers = logger.handlers, []
    code = 0
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            run_command(train.main, Config, "train", [*RUN, *more])
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            logger.handlers = before
    return code, err.getvalue()


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the text, in the current directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("text")
    folder.mkdir()
    choose = random.Random(1)
    for split, size in (("train", 30), ("valid", 3)):
        lines = [" ".join(choose.choices(WORDS, k=4)) for _ in range(size)]
        (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"{split}.de").write_text("".join(f"{line.upper()}\n" for line in lines))
        (folder / f"{split}.gold").write_text("0-0 1-1 2-2 3-3\n" * size)
    return folder


def change(path: Path) -> None:
    """Replace a file by another one of the same size and lines."""
    other = path.with_name("other")
    other.write_text(path.read_text().translate(str.maketrans("oO3", "xX2")))
    other.replace(path)


def before(name: str, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch, where: Any = train) -> None:
    """Let something happen before a function is called for the first time."""
    real, acts = getattr(where, name), [act]

    def acting(*arguments: Any, **options: Any) -> Any:
        if acts:
            acts.pop()()
        return real(*arguments, **options)

    monkeypatch.setattr(where, name, acting)


@pytest.mark.parametrize("name", SPLITS)
def test_text_replaced_after_the_preparation(name: str, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in text.iterdir()}
    former = (text / name).read_text()
    before("_make_model", lambda: change(text / name), monkeypatch)
    code, err = call("train.max_updates=1")
    assert code == 0, err
    assert (text / name).read_text() != former
    texts = checkpoint.load(Path("runs/run/checkpoints/last.pt"))["texts"]
    assert {Path(path).name: digest for files in texts.values() for path, digest in files} == prepared

    code, err = call("train.max_updates=2")
    assert code == 1
    assert f"data.{SPLITS[name]}: text/{name} has changed since the run was started" in err.splitlines()[-1]
    (text / name).write_text(former)
    code, err = call("train.max_updates=2")
    assert code == 0, err
    assert "continues at update 1" in err


@pytest.mark.parametrize(
    ("where", "function", "name"),
    [
        (train, "_resolve_config", "train.en"),
        (data, "load_corpus", "train.en"),  # the tokenizer has been trained on the former text
        (data, "load_corpus", "train.gold"),
        (data, "attach_alignments", "train.de"),
        (data, "attach_alignments", "valid.en"),
        (EvaluationSet, "read", "valid.de"),  # the validation loss is of the former text, the metrics of the new one
        (EvaluationSet, "read", "valid.gold"),
    ],
)
def test_text_replaced_during_the_preparation(
    where: Any, function: str, name: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before(function, lambda: change(text / name), monkeypatch, where)
    code, err = call("train.max_updates=1")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: text/{name}: the text was changed while it was read")
    assert not Path("runs/run/checkpoints").exists()
    assert [path.name for path in Path("cache").glob(".*")] == []


def test_a_text_that_is_put_back_was_changed_too(text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer is of the text in between, the corpora are of the text before and after."""
    former = text.parent / "former"

    def replace() -> None:
        (text / "train.en").rename(former)
        (text / "train.en").write_text(former.read_text().replace("one", "ONE"))

    before("_resolve_config", replace, monkeypatch)
    before("load_corpus", lambda: [former.replace(text / "train.en")].clear(), monkeypatch, data)
    code, err = call("train.max_updates=1")
    assert code == 1
    assert err.splitlines()[-1].startswith("error: text/train.en: the text was changed while it was read")


def test_a_folder_of_the_datasets_library(text: Path) -> None:
    """It is identified by its rows, and by the name of its splits."""
    config = Config(data=DataConfig(format="hub", hf_dataset="folder"))
    Path("folder").mkdir()
    for split in ("train", "validation"):
        Path(f"folder/{split}.jsonl").write_text('{"translation": {"en": "one", "de": "eins"}}\n')
    texts = data_fingerprints(config)
    assert texts == data_fingerprints(config)
    Path("folder/train.jsonl").write_text('{"translation": {"en": "two", "de": "zwei"}}\n')
    changed = data_fingerprints(config)
    check_unchanged(texts["valid"], changed["valid"])
    with pytest.raises(ValueError, match=r"folder \(train\): the text was changed while it was read"):
        check_unchanged(texts["train"], changed["train"])


def test_words_of_another_text_are_not_those_that_the_model_has_seen(text: Path) -> None:
    config = DataConfig(format="text", train="text/train", valid="text/valid", test="text/valid")
    tests = [EvaluationSet.read(config, "test")]
    digests = [file.sha256 for file in dataset_fingerprint(config, "train").files]
    counts = training_frequencies(config, tests, [*digests, "of links"])
    assert counts is not None
    assert counts["one"] == Path("text/train.en").read_text().split().count("one") > 0
    change(text / "train.de")
    assert training_frequencies(config, tests, digests) is None
    assert training_frequencies(config, tests, []) == counts  # of a run that has not recorded them


def test_every_process_must_read_the_same_text() -> None:
    """Files of machines may lie in other places, but differ in nothing else."""

    class SecondRank(DistributedContext):
        def broadcast(self, value: Any) -> Any:
            return {"train": [["/theirs/a.en", "1"], ["/theirs/a.de", "2"]], "valid": [["/theirs/v.en", "3"]]}

    same = {"train": [["a.en", "1"], ["a.de", "2"]], "valid": [["v.en", "3"]]}
    setup = train.TrainingSetup(None, Config(), *[None] * 4, same, [])  # type: ignore[arg-type]
    train._check_same_text(setup, SecondRank(1, 2))
    other = {**same, "valid": [["v.en", "4"]]}
    with pytest.raises(ValueError, match=r"data\.valid: process 1 has read other text than process 0"):
        train._check_same_text(setup._replace(texts=other), SecondRank(1, 2))
    train._check_same_text(setup._replace(texts=other), DistributedContext())
