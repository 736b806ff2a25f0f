"""Several validation sets: each has the numbers that it has alone, and one of them chooses the checkpoint."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nmt import train
from nmt.cli.compose import compose_config, run_command
from nmt.cli.configs import Config
from nmt.cli.continuation import data_fingerprints
from nmt.config import validate
from nmt.data import DataConfig, read_pairs
from nmt.data.sources import resolve_split, validation_splits
from nmt.evaluation.report.charts import training_curves

TINY = (
    "model.embedding_dim=16",
    "model.hidden_size=16",
    "train.max_updates=8",
    "train.valid_every=2",
    "data.tokenizer.type=word",
)
TINY += ("train.precision=fp32", "search.max_length_offset=0", "search.max_length_ratio=1.5", "optim.warmup_updates=0")
TINY += (
    "num_threads=1",
    "device=cpu",
    "metrics.num_resamples=10",
    "alignment.head_importance_pairs=0",
    "train.patience=50",
)
TEXTS = (
    "data=text",
    "data.train=train",
    "data.test=main",
    "train.early_stopping_metric=loss",
    "optim.learning_rate=0.05",
)
BOTH = "data.valid={main: main, domain: [domain, domain2]}"
RUNS: dict[str, tuple[str, ...]] = {
    "main": ("data.valid=main",),
    "domain": ("data.valid=[domain,domain2]",),
    "both": (BOTH,),
    "chosen": (BOTH, "train.early_stopping_set=domain"),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    draws = random.Random(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, num, words in (
            ("train", 60, "abcdef"),
            ("main", 8, "abcdef"),
            ("domain", 5, "fffe"),
            ("domain2", 4, "fe"),
        ):
            lines = [" ".join(draws.choice(words) for _ in range(draws.randint(2, 6))) for _ in range(num)]
            Path(f"{name}.en").write_text("".join(f"{line}\n" for line in lines))
            Path(f"{name}.de").write_text("".join(f"{line.upper()}\n" for line in lines))
        Path("main.gold").write_text(
            "".join(
                " ".join(f"{i}-{i}" for i in range(len(line.split()))) + "\n"
                for line in Path("main.en").read_text().splitlines()
            )
        )
        for name, options in RUNS.items():
            run_command(train.main, Config, "train", [*TEXTS, *TINY, f"name={name}", *options])
    return folder


def validations(work: Path, name: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (work / f"runs/{name}/metrics.jsonl").read_text().splitlines()]
    return [
        {key[6:]: value for key, value in row.items() if key.startswith("valid_")}
        for row in rows
        if "valid_loss" in row
    ]


def position(work: Path, name: str) -> dict[str, Any]:
    content = train.checkpoint.load(work / f"runs/{name}/checkpoints/last.pt")
    return {key: content["position"][key] for key in ("best_update", "best_score")}


def test_each_set_has_the_numbers_that_it_has_alone(work: Path) -> None:
    main, domain = validations(work, "main"), validations(work, "domain")
    assert len(main) == 4
    assert "aer" in main[0]
    assert "aer" not in domain[0]
    for both, first, second in zip(validations(work, "both"), main, domain, strict=True):
        assert both == {**first, **{f"domain/{name}": value for name, value in second.items()}}
    for chosen, first, second in zip(validations(work, "chosen"), domain, main, strict=True):
        assert chosen == {**first, **{f"main/{name}": value for name, value in second.items()}}


def test_the_first_set_or_the_named_one_chooses_the_checkpoint(work: Path) -> None:
    assert position(work, "both") == position(work, "main")
    assert position(work, "chosen") == position(work, "domain")
    assert position(work, "main")["best_score"] != position(work, "domain")["best_score"]
    for name, alone in (("both", "main"), ("chosen", "domain")):
        best = min(row["loss"] for row in validations(work, alone))
        assert min(row["loss"] for row in validations(work, name)) == best == position(work, name)["best_score"]


def test_the_numbers_are_in_tensorboard_log_and_report(work: Path) -> None:
    board = EventAccumulator(str(work / "runs/both/tensorboard"))
    board.Reload()
    last = validations(work, "both")[-1]
    for name in ("loss", "bleu", "chrf", "aer", "domain/loss", "domain/perplexity", "domain/bleu", "domain/chrf"):
        assert board.Scalars(f"valid/{name}")[-1].value == pytest.approx(last[name], rel=1e-6)
    log = (work / "runs/both/train.log").read_text("utf-8")
    assert f"domain/loss {last['domain/loss']:.2f}" in log
    assert "valid:main chooses the best checkpoint, of valid:main, valid:domain" in log
    assert "chooses" not in (work / "runs/main/train.log").read_text("utf-8")
    page = (work / "runs/both/report/report.html").read_text("utf-8")
    assert "domain loss (dashed)" in page
    assert "domain BLEU (dashed)" in page
    assert "domain" not in (work / "runs/main/report/report.html").read_text("utf-8").partition("Provenance")[0]
    for name in ("valid:main", "valid:domain"):
        assert f'<th scope="row">{name}</th>' in page


def test_every_curve_is_drawn_however_many_sets() -> None:
    names = [f"set{i}" for i in range(7)]
    rows = [
        {"update": u, "valid_bleu": u, **{f"valid_{name}/bleu": u + i for i, name in enumerate(names)}} for u in (1, 2)
    ]
    page = training_curves(rows)
    assert all(f"{name} BLEU (" in page for name in names)
    assert page.count("<figure") == 1
    with_losses = training_curves([{"update": 1, "valid_a/perplexity": 2.0, "valid_loss": 1.0, "loss": 3.0}])
    assert "a loss (dotted): lowest 0.6931" in with_losses


def test_a_run_with_sets_is_continued(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    command = [*TEXTS, *TINY, "name=both", BOTH]
    run_command(train.main, Config, "train", [*command, "train.max_updates=10"])
    assert len(validations(work, "both")) == 5
    with pytest.raises(SystemExit):
        run_command(train.main, Config, "train", [*TEXTS, *TINY, "name=both", "data.valid=main"])


def test_splits_and_their_texts() -> None:
    data = DataConfig(format="text", train="t", valid={"main": "m", "domain": ["d", "e"]}, test="t")
    assert validation_splits(data) == ["valid:main", "valid:domain"]
    assert validation_splits(data, "domain") == ["valid:domain", "valid:main"]
    assert resolve_split(data, "valid") == resolve_split(data, "valid:main") == ["m"]
    assert resolve_split(data, "valid:domain") == ["d", "e"]
    assert resolve_split(data, "valid:other") == ["valid:other"]  # a location
    one = DataConfig(format="text", train="t", valid="m", test="t")
    assert (validation_splits(one), resolve_split(one, "valid")) == (["valid"], ["m"])
    built_in = DataConfig()
    assert validation_splits(built_in) == ["valid"]


def test_every_set_is_fingerprinted(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    config = compose_config(Config, "train", [*TEXTS, BOTH])
    names = {split: [file.name for file in files] for split, files in data_fingerprints(config).items()}
    assert names == {
        "train": ["train.en", "train.de"],
        "valid:main": ["main.en", "main.de", "main.gold"],
        "valid:domain": ["domain.en", "domain.de", "domain2.en", "domain2.de"],
    }
    assert list(read_pairs(config.data, "valid")) == list(read_pairs(config.data, "valid:main"))


def test_a_mapping_is_read_from_command_line_files_and_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    text = ["data=text", "data.train=t", "data.test=t"]
    config = compose_config(Config, "train", [*text, 'data.valid={main: "~/m", other: [o, "${oc.env:HOME}/p"]}'])
    assert config.data.valid == {"main": "/home/me/m", "other": ["o", "/home/me/p"]}
    stored = train.to_dict(config)
    assert stored["data"]["valid"] == {"main": "/home/me/m", "other": ["o", "${oc.env:HOME}/p"]}
    monkeypatch.setenv("HOME", "/home/you")
    assert Config.from_dict(stored).data.valid == {"main": "/home/me/m", "other": ["o", "/home/you/p"]}
    Path("configs/experiment").mkdir(parents=True)
    Path("configs/experiment/two.yaml").write_text(
        "data: {format: text, train: t, test: t, valid: {a: x, b: [y, z]}}\n"
    )
    assert compose_config(Config, "train", ["experiment=two"]).data.valid == {"a": "x", "b": ["y", "z"]}
    assert compose_config(Config, "train", ["experiment=two", "data.valid={c: w}"]).data.valid == {"c": "w"}
    assert compose_config(Config, "train", ["experiment=two", "data.valid=v"]).data.valid == "v"
    Path("stored.yaml").write_text(train.to_yaml(config))
    again = compose_config(Config, "train", ["config=stored.yaml"])
    assert again.data.valid == {"main": "/home/me/m", "other": ["o", "/home/you/p"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.valid={}"], "data.valid={}: must be a name or a list of names"),
        (["data.valid={a b: m}"], "data.valid={a b: m}: needs a name of letters and digits, and a text"),
        (["data.valid={a.b: m}"], "data.valid={a.b: m}: needs a name of letters and digits, and a text"),
        (["data.valid={1: m}"], "data.valid={1: m}: needs a name of letters and digits, and a text"),
        (["data.valid={a: m, b: null}"], "data.valid={b: None}: needs a name of letters and digits, and a text"),
        (["data.valid={a: [m, []]}"], "data.valid=['m', []]: must be a name or a list of names"),
        (["data.train={a: m}"], "data.train={'a': 'm'}: must be a name or a list of names"),
        (["data.test={a: m}"], "data.test={'a': 'm'}: must be a name or a list of names"),
        (
            [BOTH, "train.early_stopping_set=domian"],
            "train.early_stopping_set=domian: must be one of main, domain; did you mean domain?",
        ),
        (
            ["train.early_stopping_set=main"],
            "train.early_stopping_set=main: must be one of the names of a mapping data.valid={NAME: PREFIX}",
        ),
    ],
)
def test_mistakes_are_one_sentence(options: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r"must be|needs") as raised:
        validate(
            compose_config(Config, "train", ["data=text", "data.train=t", "data.test=t", "data.valid=m", *options])
        )
    assert str(raised.value) == message


def test_alignment_errors_choose_only_where_the_set_has_gold(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(work)
    options = [*TEXTS, *TINY, BOTH, "train.early_stopping_metric=aer", "train.early_stopping_set=domain", "name=aer"]
    with pytest.raises(SystemExit):
        run_command(train.main, Config, "train", options)
    assert "aer: the validation text domain, domain2 has no word alignment" in capsys.readouterr().err


def test_a_sentence_that_is_too_long_is_named_in_its_set(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(work)
    Path("long.en").write_text("a b\n" + "a " * 40 + "\n")
    Path("long.de").write_text("A\nB\n")
    options = ["data=text", "data.train=train", "data.test=main", "data.valid={main: main, long: long}", "name=long"]
    options += ["model=transformer", "model.positions=learned", "model.max_positions=20", "data.tokenizer.type=word"]
    options += ["num_threads=1", "device=cpu", "train.max_updates=1"]
    with pytest.raises(SystemExit):
        run_command(train.main, Config, "train", options)
    assert "long.en: line 2: 41 tokens" in capsys.readouterr().err
