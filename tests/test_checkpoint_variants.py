"""Well-sealed checkpoints with wrong content: every entry is replaced by values of other types, sizes and names.

Each variant is one sentence that names the file, or it loads and can be used.
"""

import copy
import dataclasses
import math
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nmt import checkpoint
from nmt.attention import AttentionConfig
from nmt.cli.configs import Config
from nmt.config import to_dict
from nmt.data import BatchLoader, DataConfig, TokenizerConfig, load_corpus, train_or_load_tokenizer
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.inference.translator import Translator
from nmt.models import build_model
from nmt.models.rnn import RNNConfig
from nmt.models.transformer import TransformerConfig
from nmt.search import SearchConfig
from nmt.training.trainer import TrainConfig, Trainer

CPU = torch.device("cpu")
HUGE = 10**12
DELETE = object()
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, HUGE, 1.5, math.nan, math.inf, "", "x\x1b[2J", b"\xff", [], ["a", 1], [[]], {}, {"a": {}}),
    *(torch.ones(1), torch.ones(2, 3), DELETE),
)
KINDS = ("rnn", "transformer")
Path_ = tuple[Any, ...]


def tiny_config(kind: str, folder: Path) -> Config:
    attention, self_attention = AttentionConfig(score="scaled", heads=2, dim=8), AttentionConfig(heads=2)
    rnn = RNNConfig(embedding_dim=8, hidden_size=8, dropout=0.0, attention=attention)
    transformer = TransformerConfig(
        d_model=8,
        ffn_dim=8,
        positions="learned",
        max_positions=90,
        attention=AttentionConfig(heads=2, per_layer=[{"score": "additive"}, {"dim": 4}]),
        encoder_self_attention=self_attention,
        decoder_self_attention=self_attention,
    )
    data = DataConfig(
        synthetic=SyntheticConfig(train=60, valid=6, test=3, long=2),
        cache_dir=str(folder / "cache"),
        tokenizer=TokenizerConfig(type="word" if kind == "rnn" else "bpe", vocab_size=400),
    )
    return Config(
        runs=str(folder),
        name=kind,
        data=data,
        model=rnn if kind == "rnn" else transformer,
        train=TrainConfig(
            max_updates=2, batch_tokens=300, precision="fp32", ema_decay=0.5, on_divergence="skip", valid_every=99
        ),
        search=SearchConfig(beam_size=2, max_length_ratio=0.0, max_length_offset=2),
    )


def make_trainer(config: Config) -> Trainer:
    tokenizer = train_or_load_tokenizer(config.data)
    torch.manual_seed(1)
    model = build_model(config.model, tokenizer.source_size, tokenizer.target_size, joint=tokenizer.joint)
    return Trainer(
        model,
        BatchLoader(load_corpus(config.data, "train", tokenizer), tokenizer, 300, 1),
        None,
        config.train,
        config.optim,
        seed=1,
        device=CPU,
        directory=Path(config.runs) / str(config.name),
        header={"config": to_dict(config), "tokenizer": tokenizer.state_dict(), "texts": {"train": [["a", "0"]]}},
    )


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict[str, Any]]:
    """The configuration of a tiny run, and the content of its last checkpoint, with all that one can hold."""
    config = tiny_config(request.param, tmp_path_factory.mktemp("runs"))
    trainer = make_trainer(config)
    trainer.directory.mkdir(parents=True)
    with trainer._open_logger() as logger:
        trainer.step(list(trainer.batches.epoch(0, 0))[:1])
        logger.sums += 1  # type: ignore[attr-defined]
        trainer.progress.unlogged_sums = logger.unlogged_sums()
        trainer.progress.kept_best = [(0.5, 1)]
        trainer.save(logger)
    source = {"layer": 1, "head": 2, "shift": 0, "null": True, "threshold": 0.0, "by": "test"}
    checkpoint.update_metadata(trainer.last, {"alignment_source": source})
    return config, checkpoint.load(trainer.last)


def leaves_of(tree: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of every entry, inner ones too; of a list, and of an optimizer's parameters, the first."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key in [key for key in tree if key not in range(1, 1000)]:
            yield from leaves_of(tree[key], (*path, key))
    elif isinstance(tree, list | tuple) and tree:
        yield from leaves_of(tree[0], (*path, 0))


def with_value(content: Any, path: Path_, value: Any) -> Any:
    """Return a copy of the tree along a path with another value at its end."""
    changed = list(content) if isinstance(content, list | tuple) else dict(content)
    if len(path) > 1:
        changed[path[0]] = with_value(content[path[0]], path[1:], value)
    elif value is DELETE:
        del changed[path[0]]
    else:
        changed[path[0]] = copy.deepcopy(value)
    return tuple(changed) if isinstance(content, tuple) else changed


def tensor_variants(tensor: torch.Tensor) -> Iterator[Any]:
    """Yield tensors that are no weights of the model."""
    yield tensor.unsqueeze(0)
    yield tensor.to(torch.int64)
    yield tensor.to(torch.complex64)
    yield tensor.to_sparse()
    yield torch.full_like(tensor, math.nan)
    yield torch.zeros(()).expand(tensor.shape)
    yield tensor.to("meta")
    yield torch.zeros((), dtype=tensor.dtype).expand(HUGE)


def variants(content: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a description and a content with one entry changed, for every entry below these keys and every value."""
    for path in leaves_of({key: content[key] for key in keys if key in content}):
        value: Any = content
        for key in path:
            value = value[key]
        values = [*VALUES]
        if isinstance(value, torch.Tensor):
            values += tensor_variants(value)
        elif isinstance(value, bytes):
            values += [value[:-7], value[: len(value) // 2], b"", bytes(reversed(value))]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values += [value + 1, -value]
        for changed in values:
            yield f"{path} = {changed!r:.80}", with_value(content, path, changed)
        if isinstance(value, dict):
            yield f"{path} with an entry more", with_value(content, (*path, "more"), 1)


def failures(
    use: Callable[[dict[str, Any]], None], cases: list[tuple[str, dict[str, Any]]], names: tuple[str, ...]
) -> tuple[int, list[str]]:
    """Use every variant; return how many were refused, and those that ended in anything but a sentence with a name."""
    num_refused, failed = 0, []
    for description, content in cases:
        try:
            use(content)
        except (ValueError, OSError) as error:
            num_refused += 1
            if not any(name in str(error) for name in names):
                failed.append(f"{description}: {error!r}")
        except Exception as error:
            failed.append(f"{description}: {error!r}")
    return num_refused, failed


def translate(content: dict[str, Any]) -> None:
    """Load as translate, evaluate, export and serve do; translate and align."""
    config = Config.from_checkpoint(content)
    search = dataclasses.replace(SearchConfig(), beam_size=2, max_length_ratio=0.0, max_length_offset=2)
    translator = Translator.from_checkpoint(content, search, CPU)
    assert config.model.architecture in KINDS
    (translation,) = translator.translate(["a b c"])
    translator.links([("a b c", translation.text)])


def check_loading(content: dict[str, Any], num: int | None) -> None:
    translate(content)
    cases = list(variants(content, ("config", "tokenizer", "model", "alignment_source")))
    cases = cases[:: len(cases) // num if num else 1]
    num_refused, failed = failures(translate, cases, ("last.pt: ",))
    assert failed == []
    assert num_refused > len(cases) // 2


def check_continuing(config: Config, content: dict[str, Any], folder: Path, num: int | None) -> None:
    config = dataclasses.replace(config, runs=str(folder))
    path = folder / str(config.name) / "checkpoints/last.pt"

    def resume(content: dict[str, Any]) -> None:
        checkpoint.save(path, content)
        trainer = make_trainer(config)
        with trainer._open_logger() as logger:
            for batches in trainer._updates(logger):
                logger.log_update(*trainer.step(batches), num_tokens=9)
                break
            trainer.save(logger)

    resume(content)
    keys = ("optimizer", "plateau", "average", "position", "precision", "texts", "model")
    cases = list(variants(content, keys))
    cases = cases[:: len(cases) // num if num else 1]
    num_refused, failed = failures(resume, cases, ("last.pt: ", "position."))
    assert failed == []
    assert num_refused > len(cases) // 2


def test_wrong_content_costs_one_line_when_a_model_is_loaded(trained: Any) -> None:
    check_loading(trained[1], num=120)


def test_wrong_content_costs_one_line_when_a_run_is_continued(trained: Any, tmp_path: Path) -> None:
    check_continuing(*trained, tmp_path, num=30)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_wrong_content_costs_one_line(trained: Any, tmp_path: Path) -> None:
    check_loading(trained[1], num=None)
    check_continuing(*trained, tmp_path, num=None)


def reseal(path: Path, pickled: bytes) -> None:
    """Replace the pickle inside a checkpoint, with a right checksum."""
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    checkpoint._append_checksum(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_sealed_pickle_of_any_bytes_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "any.pt"
    checkpoint.save(path, {"model": {"weight": torch.ones(2, 3)}, "config": {"seed": 1, "names": ["a", None, 2.5]}})
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        pickled = archive.read(name)
    rng = random.Random(1)
    for number in range(200):
        data = bytearray(pickled)
        for _ in range(1 + number % 3):
            data[rng.randrange(len(data))] = rng.choice(pickled) if number % 2 else rng.randrange(256)
        reseal(path, bytes(data))
        _, failed = failures(lambda _: checkpoint.load(path) and None, [(f"{number}", {})], (f"{path}: ",))
        assert failed == []


@pytest.mark.parametrize("header", [{"format_version": "3"}, {"format_version": None}, {"nmt": 4}, {"nmt": None}])
def test_a_header_of_other_types_costs_one_line(header: dict[str, Any], tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one.pt", header)
    with pytest.raises(ValueError, match=r"one.pt: not a checkpoint of this project \(it does not say which version"):
        checkpoint.load(tmp_path / "one.pt")


def test_sizes_are_refused_before_memory_is_allocated(trained: Any) -> None:
    _, content = trained
    model, path = content["config"]["model"], ("config", "model")
    for name in [name for name in model if type(model[name]) is int]:
        for size in (HUGE, 2**62):
            with pytest.raises(ValueError, match=r"last.pt: "):
                translate(with_value(content, (*path, name), size))
    with pytest.raises(ValueError, match=r"last.pt: model.attention.*heads=1000000000: must be at most"):
        translate(with_value(content, (*path, "attention", "heads"), 10**9))


def test_the_name_of_the_file_is_not_stored(trained: Any, tmp_path: Path) -> None:
    _, content = trained
    checkpoint.save(tmp_path / "copy.pt", content)
    assert "path" not in torch.load(tmp_path / "copy.pt", weights_only=True)
