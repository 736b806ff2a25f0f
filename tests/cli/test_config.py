"""The command line, named configurations, stored configurations and run names."""

import copy
import os
import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from nmt import checkpoint
from nmt.cli import compose as compose_module
from nmt.cli.compose import GROUPS, run_command, save_yaml
from nmt.cli.config_groups import group_choices, load_sweep, search_path
from nmt.cli.configs import COMMANDS, PATH_OPTIONS, Config
from nmt.cli.continuation import RESUMABLE_OPTIONS, check_continuation, merge_with_checkpoint
from nmt.cli.help import EXAMPLES, GROUP_LINES, OPTIONS, help_text
from nmt.cli.hydra_groups import log_user_file
from nmt.cli.run_directory import command_line, report_folder, run_name
from nmt.config import conceal, diff, from_dict, get_node, leaves, nodes, option_docs, suggest, to_dict, validate
from nmt.models import MODELS
from nmt.renames import RENAMED_COMMAND_OPTIONS, RENAMED_OPTIONS, RENAMED_VALUES, upgrade_keys

PRESETS = [(group, choice) for group in GROUPS["train"] for choice in group_choices(group)]


def read(*arguments: str, name: str = "train") -> Any:
    """Return the configuration that a task is called with."""
    configs: list[Any] = []
    run_command(lambda config, overrides: configs.append(config), COMMANDS[name], name, list(arguments))
    (config,) = configs
    return config


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, name: str = "train") -> str:
    """Return the error line of a command line that must not reach the task, without its "error: "."""
    with pytest.raises(SystemExit) as stop:
        run_command(lambda config, overrides: pytest.fail("the task was called"), COMMANDS[name], name, list(arguments))
    out, err = capsys.readouterr()
    assert stop.value.code == 1
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(("group", "choice"), PRESETS)
def test_every_named_configuration_composes(group: str, choice: str) -> None:
    needs = ["data.hf_dataset=somewhere"] if choice == "hub" else []
    config = read(f"{group}={choice}", *needs)
    assert isinstance(config.model, MODELS[config.model.architecture].config)
    if group == "data":
        assert config.data.format == choice
    if group == "model":
        assert config.model.architecture == choice


def test_no_arguments_give_the_defaults_of_the_code() -> None:
    expected = Config(name="default")
    expected.data.tokenizer.vocab_size = 2000  # what the built-in pair needs (configs/data/builtin.yaml)
    assert to_dict(read()) == to_dict(expected)


def test_every_architecture_and_source_has_a_named_configuration() -> None:
    from nmt.data.sources import SOURCES

    assert set(group_choices("model")) == set(MODELS)
    assert set(group_choices("data")) == set(SOURCES)


def test_experiment_takes_other_files_and_limits() -> None:
    config = read(
        "experiment=multi30k_rnn",
        "data.train=D/train",
        "data.valid=D/val",
        "data.test=D/x",
        "name=my_run",
        "train.max_minutes=60",
    )
    assert (config.data.format, config.data.source_lang, config.data.target_lang) == ("text", "en", "de")
    assert (config.data.train, config.data.valid, config.data.test) == ("D/train", "D/val", "D/x")
    assert (config.name, config.train.max_minutes) == ("my_run", 60.0)
    assert read("experiment=multi30k_rnn").data.train == "data/multi30k/train"
    assert read("data=tsv", "experiment=multi30k_rnn").data.format == "tsv"


@pytest.mark.parametrize(
    ("argument", "option", "value"),
    [
        ("data.train=a", "train", "a"),
        ("data.train=[a,b]", "train", ["a", "b"]),
        ("data.train=['a b',c]", "train", ["a b", "c"]),
        ("data.train='a,b'", "train", "a,b"),
        ("data.train=my dir/train", "train", "my dir/train"),
        ("data.train=2016", "train", "2016"),
        ("data.train=[2016,x]", "train", ["2016", "x"]),
        ("data.train=007", "train", "007"),
        ("data.train=1e3", "train", "1e3"),
        ("data.train=a=b", "train", "a=b"),
        ("data.train=日本語/列", "train", "日本語/列"),
        ("data.train=a/x(1)#2", "train", "a/x(1)#2"),
        ("data.train=[007,no,1e3]", "train", ["007", "no", "1e3"]),
        ("data.extra_tests=[007,true]", "extra_tests", ["007", "true"]),
        ("data.train=null", "train", None),
        ("data.extra_tests=a", "extra_tests", ["a"]),
        ("data.extra_tests=[a,b]", "extra_tests", ["a", "b"]),
        ("data.max_length_ratio=2", "max_length_ratio", 2.0),
        ("data.max_length=1e2", "max_length", 100),
        ("data.error_on_dropped=true", "error_on_dropped", True),
        ("data.train=[é/a:b,日本]", "train", ["é/a:b", "日本"]),
    ],
)
def test_values_arrive_as_they_were_meant(argument: str, option: str, value: object) -> None:
    actual = getattr(read(argument).data, option)
    assert actual == value
    assert type(actual) is type(value)


def test_a_model_of_lower_case_is_scored_without_regard_to_case(capsys: Any) -> None:
    assert "set metrics.lowercase=true too" in failure(capsys, "data.tokenizer.lowercase=true")
    assert read("data.tokenizer.lowercase=true", "metrics.lowercase=true").data.tokenizer.lowercase


def test_values_may_refer_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORPORA", "/corpora")
    assert read("data.train=${oc.env:CORPORA}/train").data.train == "/corpora/train"


def test_values_from_the_environment_are_not_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """In what is stored, paths stay as they were written; they are those of today's environment when they are read."""
    import yaml

    monkeypatch.setenv("CORPORA", "/secret")
    monkeypatch.setenv("SEED", "7")
    arguments = ["data.train=[${oc.env:CORPORA}/a,b]", "data.valid=${data.test}", "data.test='${oc.env:CORPORA}/t'"]
    config = read(*arguments, "seed=${oc.env:SEED}", "data.cache_dir=${oc.env:NOWHERE,c}", "data=text", "name=n")
    assert (config.data.train, config.data.valid, config.seed) == (["/secret/a", "b"], "/secret/t", 7)
    assert config.data.cache_dir == "c"
    stored = to_dict(config)
    assert stored["data"]["train"] == ["${oc.env:CORPORA}/a", "b"]
    assert stored["data"]["valid"] == stored["data"]["test"] == "${oc.env:CORPORA}/t"
    assert (stored["data"]["cache_dir"], stored["seed"]) == ("${oc.env:NOWHERE,c}", 7)
    save_yaml(config, tmp_path / "config.yaml")
    run_command(lambda *_: None, Config, "train", ["--cfg", "job", *arguments])
    assert "secret" not in (tmp_path / "config.yaml").read_text() + capsys.readouterr().out
    again = Config.from_dict(yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert again == config
    assert to_dict(again) == to_dict(copy.deepcopy(pickle.loads(pickle.dumps(config)))) == stored
    assert conceal("/secret/a.en", config) == "${oc.env:CORPORA}/a.en"
    assert conceal("data/secret/a.en", config) == "data/secret/a.en"
    checkpoint.save(tmp_path / "c.pt", {"config": stored})
    assert b"secret" not in (tmp_path / "c.pt").read_bytes()
    check_continuation(stored, stored)
    plain = {**stored, "data": {**stored["data"], "train": ["/secret/a", "b"]}}  # as earlier versions stored it
    check_continuation(plain, stored)
    monkeypatch.setenv("CORPORA", "/elsewhere")
    check_continuation(stored, stored)
    assert Config.from_dict(stored).data.test == "/elsewhere/t"
    monkeypatch.delenv("CORPORA")
    assert Config.from_dict(stored).data.test == "${oc.env:CORPORA}/t"
    monkeypatch.setenv("TOKEN", "secret")  # a stored configuration may be a stranger's: no request contains its values
    assert Config.from_dict({"data": {"hf_dataset": "x/${oc.env:TOKEN}"}}).data.hf_dataset == "x/${oc.env:TOKEN}"


def test_a_tilde_is_the_home_folder_in_every_option_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    described = r"\b(file|files|folder|directory|prefix|set's name)\b"
    texts = {
        "name",
        "data.format",
        "data.column",
        "data.hf_config",
        "data.source_lang",
        "data.target_lang",
        "host",
        "formats",
    }  # no paths, although their texts mention some
    for name, tree in COMMANDS.items():
        for option, hint in leaves(tree()).items():
            parent, _, leaf = option.rpartition(".")
            text = option_docs(type(get_node(tree(), parent)))[leaf]
            is_path = option in PATH_OPTIONS and hint is not bool  # evaluate.markup is one, translate.markup is not
            if hint in (str, str | None, Any, list[str]) and option not in texts and not option.startswith("model."):
                assert is_path or not re.search(described, text), option
            if not is_path or option == "data.corpora":  # see test_members_of_mappings
                continue
            before, after = {"external_scores": ("a:", ""), "metrics.plugins": ("", ":f")}.get(option, ("", ""))
            given = [f"{option}={before}~/x{after}"]
            given += ["checkpoint=a"] if name != "train" and option != "checkpoint" else []
            config = compose_module._read(name, tree, given)
            value = getattr(get_node(config, parent), leaf)
            expected = f"{before}/home/me/x{after}"
            assert value in (expected, [expected]), option
    assert read("data.train=[~/a,b~]", "data=text").data.train == ["/home/me/a", "b~"]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.attention.scor=dot", "model.attention.scor=dot: unknown option; did you mean model.attention.score?"),
        ("learning_rate=1", "learning_rate=1: write optim.learning_rate=1"),
        ("train.learning_rate=1", "train.learning_rate=1: write optim.learning_rate=1"),
        ("lr=1", "lr=1: write optim.learning_rate=1"),
        ("score=dot", "score=dot: write model.attention.score=dot"),
        ("data.tokeniser.vocab_size=9", "unknown option; did you mean data.tokenizer.vocab_size?"),
        ("SEED=1", "SEED=1: unknown option; did you mean seed?"),
        ("model.attention={scor: dot}", "unknown option model.attention.scor; did you mean model.attention.score?"),
        ("+foo=1", "+foo=1: unknown option; --help shows the options"),
        ("zzz.q=1", "zzz.q=1: unknown option; --help shows the options"),
        ("hydra.run.dir=x", "hydra.run.dir=x: unknown option"),
        ("+seed=2", "+seed=2: write it as seed=2"),
        ("++seed=2", "++seed=2: write it as seed=2"),
        ("~seed=2", "~seed=2: write it as seed=2"),
        ("data=txt", "data=txt: must be one of builtin, hub, jsonl, parquet, text, tsv; did you mean data=text?"),
        ("model=lstm", "transformer_rnn; write model.cell=lstm or model.cell=gru"),
        ("data={max_length: 9}", "data={max_length: 9}: must be one of builtin"),
        ("data.train=é,ü", "data.train=é,ü: several values make several runs"),
        ("data=null", "data=null: must be one of builtin"),
        (
            "model=rn",
            "model=rn: must be one of rnn, rnn_transformer, transformer, transformer_rnn; did you mean model=rnn?",
        ),
        ("experiment=multi", "did you mean experiment=multi30k_rnn?"),
        ("train.max_updates=abc", "train.max_updates=abc: a whole number is needed"),
        ("train.max_updates=1.5", "train.max_updates=1.5: a whole number is needed"),
        ("train.max_updates=null", "train.max_updates=null: a whole number is needed"),
        ("train.max_updates=true", "train.max_updates=true: a whole number is needed"),
        ("train.max_updates=", "train.max_updates=: a whole number is needed"),
        ("optim.learning_rate=fast", "optim.learning_rate=fast: a number is needed"),
        ("data.error_on_dropped=1", "data.error_on_dropped=1: true or false is needed"),
        ("runs=[a]", "runs=[a]: text is needed"),
        ("name=[a]", "name=[a]: text is needed, or null"),
        ("data.train={a: 1}", "data.train={'a': 1}: must be a name or a list of names"),
        ("data.columns=[a,b]", "data.columns=[a,b]: a list is needed, written [a,b]"),
        ("model.attention=dot", "did you mean model.attention.score=dot?"),
        ("optim=adam", "optim=adam: optim holds several options, set one of them: optim.learning_rate"),
        ("house", "house: options are written name=value, such as seed=2"),
        ("data.train", "data.train: options are written name=value; did you mean data.train=…?"),
        ("", "'': options are written name=value"),
        ("=3", "=3: unknown option"),
        ("data.train=a b'c", "data.train=a b'c: the value cannot be read; quote it twice, as in"),
        ("data.train=a\nb'c", "the value cannot be read"),
        (
            "data.train=a,b",
            "data.train=a,b: several values make several runs, which needs -m; one list is written [a,b]",
        ),
        ("data.test=${nope}", "data.test: Interpolation key 'nope' not found"),
        ("--hlep", "--hlep: unknown flag; did you mean --help?"),
        ("-x", "-x: unknown flag"),
        ("--cfg=all", "only --cfg job is known"),
        ("device=gpu", "device=gpu: must be auto, cpu, cuda or cuda:N"),
        ("num_threads=-1", "num_threads=-1: must be at least 0"),
        ("train.max_epochs=-1", "train.max_epochs=-1: must be at least 0"),
        ("train.max_epochs=1.5", "train.max_epochs=1.5: a whole number is needed"),
        (
            "train.max_updates=0",
            "train.max_updates=0: must be at least 1, unless train.max_epochs, train.max_minutes or",
        ),
        ("num_threads=100000", "num_threads=100000: must be at least 0 and at most 1024"),
        ("seed=-1", "seed=-1: must be at least 0"),
        ("seed=18446744073709551616", "seed=18446744073709551616: must be at most 18446744073709551615"),
        ("name=../x", "name=../x: must be a folder name inside runs/"),
        ("name=/x", "name=/x: must be a folder name inside runs/"),
        ("runs=", "runs=: the folder for the runs needs a name"),
    ],
)
def test_a_mistake_costs_one_line(capsys: pytest.CaptureFixture[str], argument: str, message: str) -> None:
    assert message in failure(capsys, argument)


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        (
            "train",
            "search.beam=3",
            "search.beam=3: search.beam is called search.beam_size since version 0.4; write search.beam_size=3",
        ),
        ("train", "threads=2", "threads=2: threads is called num_threads since version 0.4; write num_threads=2"),
        ("train", "data.builtin_pairs=9", "is called data.synthetic.train since version 0.4; write data.synthetic.tr"),
        ("train", "model.encoder_self.dropout=0.1", "write model.encoder_self_attention.dropout=0.1"),
        ("train", "model.encoder_self={dim: 8}", "write model.encoder_self_attention={dim: 8}"),
        (
            "evaluate",
            "outside=[comet:FILE]",
            "outside is called external_scores since version 0.4; write external_scores=[comet:FILE]",
        ),
        ("align", "weights=false", "weights is called save_weights since version 0.4; write save_weights=false"),
        ("export", "longest=9", "longest is called max_length since version 0.4; write max_length=9"),
        ("serve", "max_waiting=9", "max_waiting is called queue_size since version 0.4; write queue_size=9"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_an_option_of_version_0_3_costs_one_line_with_its_name_today(
    name: str, argument: str, message: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failure(capsys, *flags, argument, name=name)


def test_an_option_of_version_0_3_inside_a_mapping_costs_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert failure(capsys, "model.attention={normaliser: entmax15}") == (
        "model.attention={normaliser: entmax15}: model.attention.normaliser is called model.attention.normalizer since "
        "version 0.4"
    )


def test_sweeps_over_an_option_of_version_0_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "search.beam is called search.beam_size since version 0.4; write search.beam_size="
    assert message + "1,2" in failure(capsys, "-m", "search.beam=1,2")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/sweep").mkdir(parents=True)
    (tmp_path / "configs/sweep/mine.yaml").write_text("search.beam: [1, 2]\n")
    for arguments in (["sweep=mine"], ["model.attention={normaliser: softmax},{normaliser: sparsemax}"]):
        with pytest.raises(SystemExit):
            run_command(lambda *_: pytest.fail("the task was called"), Config, "train", ["-m", *arguments])
        err = capsys.readouterr().err
        assert err.count(" since version 0.4") == 4  # when each run is read, and in the list of failures
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("content", "old", "new"),
    [
        ("search: {beam: 3}", "search.beam", "search.beam_size"),
        ("threads: 3", "threads", "num_threads"),
        ("model: {attention: {normaliser: softmax}}", "model.attention.normaliser", "model.attention.normalizer"),
        ("model: {encoder_self: {dim: 8}}", "model.encoder_self.dim", "model.encoder_self_attention.dim"),
        ("data: {tokenizer: {kind: bpe}}", "data.tokenizer.kind", "data.tokenizer.type"),
    ],
)
def test_options_of_version_0_3_in_the_users_experiments(
    content: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/experiment").mkdir(parents=True)
    (tmp_path / "configs/experiment/mine.yaml").write_text(f"# @package _global_\n{content}\n")
    message = failure(capsys, "experiment=mine")
    assert message.startswith("configs/experiment/mine.yaml: line 2: ")
    assert message.endswith(f": {old} is called {new} since version 0.4")


def test_every_renamed_option_exists() -> None:
    options = set(leaves(Config())).union(*(leaves(spec.config(), "model.") for spec in MODELS.values()))
    paths = options | {option.rpartition(".")[0] for option in options}
    assert set(RENAMED_OPTIONS.values()) <= paths
    assert not set(RENAMED_OPTIONS) & paths  # otherwise configurations of this version would be misread
    assert {option for option, _ in RENAMED_VALUES} <= options
    commands = {option for tree in COMMANDS.values() for option in leaves(tree())}
    assert set(RENAMED_COMMAND_OPTIONS.values()) <= commands
    assert not set(RENAMED_COMMAND_OPTIONS) & commands


def test_files_of_version_0_3_are_read_under_the_keys_of_today() -> None:
    old = {
        "mean_bleu": 1.0,
        "attention": {"end": [[0.5]]},
        "outside": {"end": {"score": 2.0}},
        "runs": [{"reading": {}}],
    }
    new = {
        "averaged_bleu": 1.0,
        "attention": {"eos_weight": [[0.5]]},
        "external": {"end": {"score": 2.0}},
        "runs": [{"alignment_source": {}}],  # "end" is the user's own name here
    }
    assert upgrade_keys(old) == new
    assert upgrade_keys(new) == new


def test_a_stored_configuration_of_version_0_3_is_read() -> None:
    per_layer = [{"normaliser": "sparsemax", "width": 5}, {"score": "dot", "top": 3, "project": True}]
    stored = {
        "name": "old",
        "threads": 2,
        "data": {
            "kind": "text",
            "path": "some/set",
            "config": "de-en",
            "builtin_pairs": 9,
            "builtin_seed": 4,
            "more_tests": ["a"],
            "max_ratio": 3.0,
            "alignment": "x",
            "strict": True,
            "cache": "c",
            "max_length": 7,
            "tokenizer": {"kind": "bpe", "sampling": 0.1, "max_pairs": 11, "max_characters": 12, "vocab_size": 99},
        },
        "model": {
            "architecture": "transformer",
            "width": 64,
            "feed_forward": 32,
            "layer_drop": 0.1,
            "tie": "all",
            "match": "flops",
            "match_width": "feed_forward",
            "attention": {"heads": 2, "normaliser": "entmax15", "positions": 77, "layers": per_layer},
            "encoder_self": {"heads": 2, "width": 6, "dim": 32, "layers": []},
            "decoder_self": {"heads": 2, "top": 2, "layers": [{"window": "sliding", "width": 9}, {}]},
        },
        "optim": {"warmup": 5, "final_ratio": 0.2, "decay": 0.3, "learning_rate": 1e-4},
        "train": {
            "coverage_loss": 0.1,
            "guided_alignment": 0.2,
            "r_drop": 0.3,
            "keep_last": 4,
            "keep_best": 5,
            "average": "last",
            "guard": "skip",
            "guard_factor": 6.0,
            "accumulate": 7,
            "ema": 0.8,
            "stop_metric": "chrf",
            "valid_sentences": 10,
            "max_updates": 11,
        },
        "search": {
            "beam": 3,
            "num_best": 2,
            "no_repeat": 4,
            "groups": 1,
            "diversity": 0.5,
            "stop": "bound",
            "min_ratio": 0.1,
            "min_extra": 1,
            "max_ratio": 2.0,
            "max_extra": 3,
            "length_norm": "gnmt",
            "samples": 5,
            "utility": "chrf",
            "length_penalty": 0.7,
        },
        "metrics": {"names": ["bleu", "chrf"], "resamples": 8, "paired": "ar"},
        "alignment": {"links": "threshold", "null": "score", "choose_on": 6, "importance_on": 7},
    }
    config = Config.from_dict(stored)
    expected = Config(name="old", num_threads=2, model=MODELS["transformer"].config())
    for option, value in {
        **{f"model.{node}.heads": 2 for node in ("attention", "encoder_self_attention", "decoder_self_attention")},
        "data.format": "text",
        "data.hf_dataset": "some/set",
        "data.hf_config": "de-en",
        "data.synthetic.train": 9,
        "data.synthetic.seed": 4,
        "data.extra_tests": ["a"],
        "data.max_length_ratio": 3.0,
        "data.max_length": 7,
        "data.train_alignments": "x",
        "data.error_on_dropped": True,
        "data.cache_dir": "c",
        "data.tokenizer.type": "bpe",
        "data.tokenizer.subword_regularization": 0.1,
        "data.tokenizer.vocab_size": 99,
        "data.tokenizer.max_training_pairs": 11,
        "data.tokenizer.max_training_characters": 12,
        "model.d_model": 64,
        "model.ffn_dim": 32,
        "model.layerdrop": 0.1,
        "model.tie_embeddings": "all",
        "model.match": "flops",
        "model.match_width": "ffn_dim",
        "model.attention.normalizer": "entmax15",
        "model.attention.max_positions": 77,
        "model.attention.per_layer": [
            {"normalizer": "sparsemax", "window_size": 5},
            {"score": "dot", "top_k": 3, "project_qk": True},
        ],
        "model.encoder_self_attention.window_size": 6,
        "model.encoder_self_attention.dim": 32,
        "model.decoder_self_attention.top_k": 2,
        "model.decoder_self_attention.per_layer": [{"window": "sliding", "window_size": 9}, {}],
        "optim.warmup_updates": 5,
        "optim.min_lr_ratio": 0.2,
        "optim.plateau_factor": 0.3,
        "optim.learning_rate": 1e-4,
        "train.max_updates": 11,
        "train.coverage_loss_weight": 0.1,
        "train.guided_alignment_weight": 0.2,
        "train.r_drop_alpha": 0.3,
        "train.keep_last_checkpoints": 4,
        "train.keep_best_checkpoints": 5,
        "train.average_checkpoints": "last",
        "train.on_divergence": "skip",
        "train.max_grad_norm_ratio": 6.0,
        "train.gradient_accumulation": 7,
        "train.ema_decay": 0.8,
        "train.early_stopping_metric": "chrf",
        "train.valid_bleu_sentences": 10,
        "search.beam_size": 3,
        "search.n_best": 2,
        "search.no_repeat_ngram_size": 4,
        "search.diverse_groups": 1,
        "search.diversity_penalty": 0.5,
        "search.early_stopping": "never",
        "search.min_length_ratio": 0.1,
        "search.min_length_offset": 1,
        "search.max_length_ratio": 2.0,
        "search.max_length_offset": 3,
        "search.length_normalization": "gnmt",
        "search.mbr_samples": 5,
        "search.mbr_utility": "chrf",
        "search.length_penalty": 0.7,
        "metrics.names": ["bleu", "chrf"],
        "metrics.num_resamples": 8,
        "metrics.significance_test": "randomization",
        "alignment.decision": "threshold",
        "alignment.allow_null": "score",
        "alignment.selection_pairs": 6,
        "alignment.head_importance_pairs": 7,
    }.items():
        node, _, name = option.rpartition(".")
        assert hasattr(get_node(expected, node), name), option
        setattr(get_node(expected, node), name, value)
    assert to_dict(config) == to_dict(expected)
    assert config == expected
    assert Config.from_dict(to_dict(config)) == config
    assert diff(to_dict(Config.from_dict(stored)), to_dict(expected)) == []


@pytest.mark.parametrize(
    "argument",
    [
        "data.tokenizer.vocab_size=-3",
        "optim.schedule=line",
        "train.max_updates=0",
        "search.beam_size=0",
        "metrics.tokenize=14a",
        "model.attention.score=dott",
        "model.cell=rnn",
        "data.max_length=0",
    ],
)
def test_every_part_of_the_tree_is_validated(capsys: pytest.CaptureFixture[str], argument: str) -> None:
    assert failure(capsys, argument).startswith(argument.partition("=")[0])


def test_a_schedule_needs_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    limits = ["train.max_updates=0", "train.max_minutes=5"]
    assert "optim.schedule=cosine: set train.max_updates or train.max_epochs" in failure(capsys, *limits)
    assert read(*limits, "train.max_epochs=3").train.max_epochs == 3
    assert read(*limits, "optim.schedule=inverse_sqrt").train.max_updates == 0


@pytest.mark.parametrize("model", ["rnn", "rnn_transformer", "transformer", "transformer_rnn"])
def test_debug_has_small_sizes_that_the_command_line_changes(model: str) -> None:
    config = read("experiment=debug", f"model={model}", "data=text", "train.max_updates=7")
    assert (config.model.architecture, config.data.format, config.train.max_updates) == (model, "text", 7)
    assert config.search.max_length_ratio == 1.0  # an untrained model decodes to the limit


def test_the_quoting_that_an_error_proposes_works(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys, "data.train=it's [here]")
    (argument,) = shlex.split(message.partition("as in ")[2])
    assert read(argument).data.train == "it's [here]"


def test_every_option_is_its_own_nearest_and_survives_a_typing_error() -> None:
    known = list(leaves(Config()))
    for option in known:
        assert suggest(option, known) == option
        leaf = option.rpartition(".")[2]
        if len(leaf) > 5:
            assert suggest(option[:-2] + option[-1], known) == option


def test_evaluate_and_translate_need_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("evaluate", "translate"):
        assert failure(capsys, name=name).startswith("checkpoint: must be given")
        assert read("checkpoint=runs/a", name=name).checkpoint == "runs/a"


def test_members_of_mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    (tmp_path / "configs/experiment").mkdir(parents=True)
    mine, home = tmp_path / "configs/experiment/members.yaml", str(Path.home())
    content = """# @package _global_
data:
  format: text
  valid: {a: v, b: w}
  test: t
  corpora:
    clean: {path: ~/a, weight: 3}
    web: {path: [b, c], weight: 1, tag: web}
optim:
  lr_scales: {encoder: 0.5, decoder: 0.1}
"""
    mine.write_text(content)
    monkeypatch.chdir(tmp_path)
    config = read("experiment=members", "data.corpora.web.weight=2", "data.valid.b=x", "optim.lr_scales.encoder=0")
    web = {"path": ["b", "c"], "weight": 2, "tag": "web"}
    assert config.data.corpora == {"clean": {"path": f"{home}/a", "weight": 3}, "web": web}
    capsys.readouterr()
    assert (config.data.valid, config.optim.lr_scales) == ({"a": "v", "b": "x"}, {"encoder": 0, "decoder": 0.1})
    assert read("experiment=members", "data.corpora={c: {path: d}}").data.corpora == {"c": {"path": "d"}}
    assert "data.corpora.wbe: needs a path" in failure(capsys, "experiment=members", "data.corpora.wbe.weight=2")
    guided = failure(capsys, "experiment=members", "data.corpora.web.max_pairs=9", "train.guided_alignment_weight=0.1")
    assert "data.corpora.web.max_pairs=9: the file of alignments is read whole" in guided
    stop = "train.early_stopping_set=a"
    several = failure(capsys, "experiment=members", "data.valid=v", "data.languages=[en,de]", stop)
    assert f"{stop}: the mean over the directions chooses" in several
    mine.write_text(content.replace("weight: 3", "weight: -3"))
    message = failure(capsys, "experiment=members")
    assert "clean.weight=-3.0: must be at least 0 and below inf (configs/experiment/members.yaml: line 7)" in message


def test_the_users_own_folder_adds_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = tmp_path / "it's here, [ü]"
    (folder / "configs/experiment").mkdir(parents=True)
    monkeypatch.chdir(folder)
    mine = folder / "configs/experiment/mine.yaml"
    mine.write_text("# @package _global_\nseed: 7\nmodel:\n  attention:\n    score: dot\n", encoding="utf-8")
    config = read("experiment=mine")
    assert (config.seed, config.model.attention.score) == (7, "dot")
    assert capsys.readouterr().err.endswith(" options of configs/experiment/mine.yaml\n")
    assert "multi30k_rnn" in failure(capsys, "experiment=nothing")
    mine.write_text("# @package _global_\nmodel:\n  attention:\n    scor: dot\n", encoding="utf-8")
    assert "scor" in failure(capsys, "experiment=mine")
    mine.write_text("# @package _global_\ntrain:\n  max_updates: many\n", encoding="utf-8")
    assert "max_updates" in failure(capsys, "experiment=mine")
    mine.write_text("# @package _global_\ntrain: [\n", encoding="utf-8")
    assert "mine.yaml" in failure(capsys, "experiment=mine")
    assert sorted(path.name for path in folder.iterdir()) == ["configs"]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that writes a file of the user's own configs/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    log_user_file.cache_clear()

    def write(name: str, content: str | bytes) -> None:
        path = tmp_path / "configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def test_the_users_file_wins_over_the_projects_and_the_log_says_so(own: Any, capsys: Any) -> None:
    own("experiment/multi30k_rnn", "seed: 77\n")
    own("model/rnn", "architecture: rnn\nhidden_size: 64\n")
    own("sweep/beam", "search.beam_size: [3]\n")
    config = read("experiment=multi30k_rnn")
    assert (config.seed, config.data.format, config.model.hidden_size) == (77, "builtin", 64)
    lines = [line.partition(" ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        f"options of configs/{name}.yaml, in place of the project's file of this name"
        for name in ("experiment/multi30k_rnn", "model/rnn")
    ]
    assert load_sweep("beam") == [["search.beam_size=3"]]
    own("experiment/mine", "defaults: [multi30k_transformer]\nseed: 78\n")  # builds on the project's
    config = read("experiment=mine")
    assert (config.seed, config.data.format, config.data.source_lang) == (78, "text", "en")


def test_the_file_in_the_documents(own: Any) -> None:
    text = (Path(compose_module.__file__).parents[2] / "docs/usage.md").read_text("utf-8")
    own("experiment/mine", text.partition("```yaml\n")[2].partition("```")[0])
    config = read("experiment=mine")
    assert (config.seed, config.data.format, config.data.target_lang) == (7, "tsv", "no")
    assert (config.model.attention.score, config.model.hidden_size) == ("dot", 512)


def test_a_file_may_build_on_several(own: Any) -> None:
    own("experiment/a", "seed: 1\noptim.warmup_updates: 1\ndefaults: [override /data: tsv]\n")
    own("experiment/b", "seed: 2\noptim.beta1: 0.5\ndefaults: [override /data: text]\n")
    own("experiment/c", "defaults: [a, b, _self_]\noptim.beta2: 0.25\n")
    config = read("experiment=c")
    assert (config.seed, config.data.format) == (2, "text")  # the later one wins
    assert (config.optim.warmup_updates, config.optim.beta1, config.optim.beta2) == (1, 0.5, 0.25)
    assert read("experiment=c", "data=jsonl", "seed=5").data.format == "jsonl"


@pytest.mark.parametrize("header", ["", "# @package _global_\n", "# mine\n\n#  @package _global_\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_header_and_a_byte_order_mark_make_no_difference(header: str, mark: str, own: Any) -> None:
    own("experiment/mine", mark + header + "defaults:\n- override /model: transformer\nmodel.d_model: 64\nseed: 7\n")
    config = read("experiment=mine")
    assert (config.seed, config.model.d_model) == (7, 64)


TEXTS = ["no", "on", "off", "yes", "y", "1e3", "007", "1.50", "0x10", "1_000", "2024-01-02", "1:30", "true", "nan", "é"]


@pytest.mark.parametrize("text", TEXTS)
def test_text_options_get_the_text_as_it_is_written(text: str, own: Any, tmp_path: Path) -> None:
    import yaml

    own(
        "experiment/mine",
        f"data:\n  source_lang: {text}\n  train: [{text}, x]\n  test: {text}\n  extra_tests: [{text}]\n",
    )
    own("sweep/mine", f"data.source_lang: [{text}, z]\n")
    builtin = ["data.train=a", "data.valid=a", "data.test=a"]
    for arguments in (["experiment=mine", "data=text"], [f"data.source_lang={text}", f"data.test={text}", "data=text"]):
        config = read(*arguments)
        assert (config.data.source_lang, config.data.test) == (text, text)
        save_yaml(config, tmp_path / "config.yaml")
        assert Config.from_dict(yaml.safe_load((tmp_path / "config.yaml").read_text("utf-8"))) == config
    assert read("experiment=mine", "data=text").data.train == [text, "x"]
    assert read("experiment=mine", "data=text").data.extra_tests == [text]
    for arguments in (["sweep=mine"], [f"data.source_lang={text},z"]):
        languages = []
        task = lambda config, overrides: languages.append(config.data.source_lang)  # noqa: B023, E731
        run_command(task, Config, "train", ["-m", *arguments, "data=text", *builtin])
        assert languages == [text, "z"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mine.yaml: the file is empty; it needs options, such as seed: 2"),
        ("# only a comment\n", "mine.yaml: the file is empty"),
        ("seed\n", "mine.yaml: line 1: a mapping of options is needed"),
        ("- seed: 2\n", "mine.yaml: line 1: a mapping of options is needed"),
        ("seed: 2\ndata:\n\ttrain: x\n", "mine.yaml: line 3: found character '\\t' that cannot start any token"),
        ("seed: 2\n  x: 3\n", "mine.yaml: line 2: mapping values are not allowed here"),
        ("seed: 2\ntrain: [\n", "mine.yaml: line 3: "),
        ("seed: 2\nseed: 3\n", "mine.yaml: line 1: seed is given twice"),
        (b"seed: 2 # \xe9\n", "mine.yaml: the file is not UTF-8 (byte 11); convert it first"),
        (
            "seed: 2\ndata.target_lan: x\n",
            "line 2: data.target_lan=x: unknown option data.target_lan; did you",
        ),
        ("optim:\n  rate: 1\n", "line 2: optim.rate=1: unknown option optim.rate; did you mean optim."),
        ("optim: {lr: 0.005}\n", "mine.yaml: line 1: optim.lr=0.005: write optim.learning_rate=0.005"),
        ("seed: 2\nhydra: {run: {dir: x}}\n", "line 2: hydra.run.dir=x: unknown option; write runs=FOLDER name=NAME"),
        ("hydra: {sweeper: {params: {seed: 'range(1,4)'}}}\n", "write python -m nmt.tune NAME 'seed=range(1,4)'"),
        ("train:\n  max_updates: many\n", "line 2: train.max_updates=many: a whole number is needed"),
        ("seed: null\n", "line 1: seed=null: a whole number is needed"),
        ("model.d_model: 64\n", "line 1: model.d_model=64: not an option of model=rnn; an option of model=transformer"),
        ("model:\n", "line 1: model=: model holds several options, set one of them: "),
        ("seed: 2\nsearch: {beam: 3}\n", "line 2: search.beam=3: search.beam is called search.beam_size since"),
        ("# @package model\nseed: 2\n", "line 2: model.seed=2: unknown option model.seed; did you mean"),
        (
            "seed: 2\ndefaults: [{override /data: txt}]\n",
            "line 2: defaults: {'override /data': 'txt'}: must be one of builtin, hub",
        ),
        ("defaults: [{/model: 7}]\n", "line 1: defaults: {'/model': 7}: must be one of rnn, rnn_transformer"),
        ("defaults: {a: [b]}\n", "line 1: defaults: a list is needed, such as [override /model: rnn]"),
        ("defaults: [[x]]\n", "line 1: defaults: ['x']: write a name, or"),
        ("defaults: [other]\nseed: 2\n", "line 1: defaults: other: there is no experiment=other"),
        ("defaults: [mine]\nseed: 2\n", "line 1: defaults: mine: a file cannot build on itself"),
        (
            "defaults: [{override /optim: x}]\n",
            "Could not override 'optim'. No match in the defaults list.",
        ),
        ("x: !!python/object/apply:os.system ['true']\n", "mine.yaml: line 1: could not determine a constructor for"),
    ],
)
def test_a_mistake_in_a_file_costs_one_line_with_its_place(
    content: str | bytes, message: str, own: Any, capsys: Any
) -> None:
    own("experiment/mine", content)
    error = failure(capsys, "experiment=mine")
    assert error.startswith("configs/experiment/mine.yaml: ")
    assert message in error


def test_a_value_that_is_not_allowed_has_its_place(own: Any, capsys: Any) -> None:
    own("experiment/mine", "seed: 2\nmodel: {attention: {score: dott}}\n")
    for given, end in (
        ("seed=3", "a head (configs/experiment/mine.yaml: line 2)\n"),
        ("model.attention.score=dott", "a head\n"),
        ("model.attention={score: dott}", "a head\n"),
        ("model.attention.score=bahdanau", "a head; write model.attention.score=additive\n"),
        ("model.attention.score=Luong", "a head; write model.attention.score=general\n"),
    ):
        with pytest.raises(SystemExit):
            read("experiment=mine", given)
        assert capsys.readouterr().err.endswith(end)


def test_errors_of_the_task(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(error: BaseException) -> Any:
        def task(config: Config, overrides: list[str]) -> None:
            raise error

        return task

    for error, line in [
        (ValueError("two\nlines"), "error: two lines\n"),
        (FileNotFoundError(2, "No such file or directory", "a.en"), "error: a.en: No such file or directory\n"),
        (OSError("no reason"), "error: no reason\n"),
    ]:
        with pytest.raises(SystemExit) as stop:
            run_command(raising(error), Config, "train", [])
        assert stop.value.code == 1
        assert capsys.readouterr().err == line
    with pytest.raises(SystemExit) as stop:
        run_command(raising(KeyboardInterrupt()), Config, "train", [])
    assert stop.value.code == 130
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), Config, "train", [])
    monkeypatch.setenv("NMT_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        run_command(raising(ValueError("why")), Config, "train", [])
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: why\n")


def test_several_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done: list[tuple[str | None, str, int]] = []

    def task(config: Config, overrides: list[str]) -> None:
        if config.seed == 2:
            raise ValueError("seed two")
        if config.seed == 3:
            raise ZeroDivisionError("seed three")
        done.append((config.name, config.model.attention.score, config.seed))
        assert read(*overrides) == config

    with pytest.raises(SystemExit) as stop:
        run_command(
            task,
            Config,
            "train",
            ["-m", "model.attention.score=dot,additive,nonsense", "seed=1,2,3,4", "num_threads=1"],
        )
    assert stop.value.code == 1
    assert [(score, seed) for _, score, seed in done] == [("dot", 1), ("dot", 4), ("additive", 1), ("additive", 4)]
    assert len({name for name, _, _ in done}) == 4
    out, err = capsys.readouterr()
    summary = err[err.index("8 of 12 runs failed:") :].splitlines()
    assert out == ""
    assert len(summary) == 9
    assert "  model.attention.score=dot seed=2: seed two" in summary
    assert "  model.attention.score=dot seed=3: ZeroDivisionError: seed three" in summary
    assert list(tmp_path.iterdir()) == []


def test_several_runs_have_their_own_directories() -> None:
    names: list[str | None] = []

    def task(config: Config, overrides: list[str]) -> None:
        names.append(config.name)

    run_command(task, Config, "train", ["--multirun", "name=study", "train.max_updates=1,2"])
    run_command(task, Config, "train", ["-m", "name=a,b"])
    run_command(task, Config, "train", ["-m", "data.train='x,y','x,z'"])
    assert len(set(names)) == 6
    assert all(name is not None and name.startswith("study/") for name in names[:2])
    assert names[2:4] == ["a", "b"]


def test_run_names() -> None:
    assert run_name([]) == "default"
    assert run_name(["seed=2", "model.attention.score=dot"]) == run_name(["model.attention.score=dot", "seed=2"])
    assert run_name(["seed=1", "seed=2"]) == run_name(["seed=2"])
    assert run_name(["train.max_updates=9", "device=cpu", "search.beam_size=2"]) == "default"
    assert run_name(["seed=2"]) == "seed-2-e70e6b"  # a name that changes orphans every existing run
    variants = [
        ["seed=2"],
        ["data.synthetic.seed=2"],
        ["data.train=a/x"],
        ["data.train=b/x"],
        ["data=text"],
        ["name=q", "seed=3"],
    ]
    variants += [[f"data.train=[{'long,' * 30}{i}]"] for i in range(20)]
    names = [run_name(variant) for variant in variants]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 55 and "/" not in name and read(f"name={name}").name == name for name in names)


def test_command_line_is_quoted_for_the_shell() -> None:
    arguments = ["data.train=[a b,c]", "name=it's"]
    assert shlex.split(command_line("train", arguments)) == ["python", "-m", "nmt.train", *arguments]


@pytest.mark.parametrize(
    "arguments", [[], ["experiment=multi30k_rnn", "data.train=[a,b]", "model.attention.score=none"]]
)
def test_stored_configurations_come_back(arguments: list[str]) -> None:
    config = read(*arguments)
    stored = to_dict(config)
    assert Config.from_dict(stored) == config
    assert to_dict(Config.from_dict(stored)) == stored
    assert diff(stored, to_dict(Config.from_dict(stored))) == []


def test_stored_configurations_of_another_version() -> None:
    assert Config.from_dict({}) == Config()
    assert Config.from_dict({"data": {"tokenizer": {"vocab_size": 99}}}).data.tokenizer.vocab_size == 99
    assert (
        Config.from_dict({"model": {"architecture": "rnn", "attention": {"score": "dot"}}}).model.attention.score
        == "dot"
    )
    for stored, message in [
        ({"optim": {"momentum": 0.9}}, "optim.momentum: the stored configuration has an option that this version"),
        ({"model": {"architecture": "rnn", "heads": 4}}, "model.heads: the stored"),
        ({"model": {"architecture": "convolutional"}}, "model.architecture=convolutional: the stored"),
        ({"train": {"max_updates": "many"}}, "train.max_updates='many' in the stored configuration: a whole number"),
        ({"train": 3}, "train=3 in the stored configuration: a mapping of options is needed"),
    ]:
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            Config.from_dict(stored)


def test_saved_yaml_reads_back(tmp_path: Path) -> None:
    import yaml

    config = read("experiment=multi30k_rnn", "data.train=[a:b,日本]", "name=true")
    save_yaml(config, tmp_path / "config.yaml")
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert Config.from_dict(stored) == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_the_whole_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    run_command(lambda config, overrides: pytest.fail("called"), Config, "train", ["--cfg", "job", "seed=5"])
    expected = Config(seed=5)
    expected.data.tokenizer.vocab_size = 2000
    assert Config.from_dict(yaml.safe_load(capsys.readouterr().out)) == expected


def test_continuing_a_run() -> None:
    old = to_dict(read("name=a"))
    for allowed in (
        "train.max_updates=7",
        "device=cpu",
        "num_threads=1",
        "search.beam_size=2",
        "train.log_every=3",
        "data.test=x",
    ):
        check_continuation(old, to_dict(read("name=a", allowed)))
    with pytest.raises(ValueError, match="the run a was started with other options") as refused:
        check_continuation(old, to_dict(read("name=a", "model.attention.score=dot", "seed=2", "search.beam_size=2")))
    message = str(refused.value)
    assert "(seed: 1 → 2; model.attention.score: additive → dot)" in message
    assert "name=" in message
    assert "runs/a" in message
    assert diff({"a": {"b": 1}}, {"a": {"c": None}}) == ["a.b: 1 → (none)", "a.c: (none) → null"]
    known = {*leaves(Config()), *to_dict(Config())}
    assert set(RESUMABLE_OPTIONS) <= known


def test_what_is_not_given_comes_from_the_checkpoint() -> None:
    trained = read(
        *("experiment=enja_rnn", "name=a", "search.beam_size=7", "search.batch_size=3"),
        *("device=cuda", "data.max_length=50"),
    )
    # 5 is also the default: it was given
    arguments = ["checkpoint=runs/a", "search.beam_size=5", "data.test=D/x", "num_threads=2"]
    merged = merge_with_checkpoint(trained, read(*arguments, name="evaluate"), arguments)
    assert (merged.search.beam_size, merged.search.batch_size) == (5, 3)
    assert (merged.data.format, merged.data.test, merged.data.target_lang, merged.data.max_length) == (
        "text",
        "D/x",
        "ja",
        50,
    )
    assert (merged.metrics, merged.model, merged.name) == (trained.metrics, trained.model, "a")
    assert (merged.device, merged.num_threads) == ("auto", 2)
    assert trained.search.beam_size == 7
    arguments = ["checkpoint=runs/a", "data=tsv", "data.test=x.tsv", "data.columns=[3,2]"]
    merged = merge_with_checkpoint(trained, read(*arguments, name="evaluate"), arguments)
    assert (merged.data.format, merged.data.columns, merged.data.train) == (
        "tsv",
        [3, 2],
        "data/small_parallel_enja/train",
    )
    arguments = ["checkpoint=runs/a", "search={beam_size: 2}"]
    assert merge_with_checkpoint(trained, read(*arguments, name="translate"), arguments).search.beam_size == 2
    # impossible beside the default target, possible beside "ja"
    arguments = ["checkpoint=runs/a", "data.source_lang=de"]
    assert merge_with_checkpoint(trained, read(*arguments, name="evaluate"), arguments).data.source_lang == "de"
    for refused in ("data.tokenizer.type=bpe", "search.beam_size=0", "data.target_lang=en"):
        arguments = ["checkpoint=runs/a", refused]
        with pytest.raises(ValueError, match=refused.partition("=")[0].replace(".", r"\.")):
            merge_with_checkpoint(trained, read(*arguments, name="evaluate"), arguments)


def test_where_a_report_goes() -> None:
    run = Path("runs/a")
    for options, folder in [
        ([], "runs/a/report"),
        (["search.beam_size=2"], "runs/a/report"),
        (["data.test=D/other"], "runs/a/report-other"),
        (["data.test=[D/x,E/y]"], "runs/a/report-x+y"),
        (["data=hub", "data.hf_dataset=some/set"], "runs/a/report-set"),
        (["data.test=D/other", "output=here"], "here"),
    ]:
        arguments = ["checkpoint=runs/a", *options]
        assert report_folder(run, read(*arguments, name="evaluate"), arguments) == Path(folder)


def test_every_option_is_described_in_the_docstring_of_its_class() -> None:
    trees = [tree() for tree in COMMANDS.values()] + [kind.config() for kind in MODELS.values()]
    for node in (node for tree in trees for node in nodes(tree)):
        names = {field.name for field in fields(node)}  # type: ignore[arg-type]
        nested = {name for name in names if is_dataclass(getattr(node, name))}
        described = set(option_docs(type(node)))
        assert names - nested <= described <= names, type(node)


def test_help_lists_what_texts_can_be_asked_for() -> None:
    for name in ("input_format", "markup", "placeholders", "glossary", "target_lang"):
        assert name in OPTIONS["translate"]
    assert "markup" in OPTIONS["align"]


def test_help_lists_options_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/my_run/checkpoints").mkdir(parents=True)
    (tmp_path / "runs/my_run/checkpoints/best.pt").touch()  # a sweep of evaluations looks for it
    for name, tree in COMMANDS.items():
        assert set(OPTIONS[name]) <= set(leaves(tree()))
        shown = help_text(name, tree(), {}, []).splitlines()
        for option in OPTIONS[name]:
            (line,) = [line for line in shown if line.split()[:1] == [option]]
            assert len(line.split()) > 1
        for example in EXAMPLES[name]:
            arguments = shlex.split(example.partition(" < ")[0])
            assert arguments[:3] == ["python", "-m", f"nmt.{name}"]
            # in this process, where nothing is trained
            overrides = [argument for argument in arguments[3:] if argument not in ("launcher=processes", "jobs=2")]
            run_command(lambda *_: None, tree, name, overrides)
    assert set(GROUP_LINES) == set(GROUPS["train"])


def test_groups_are_those_of_the_defaults_lists() -> None:
    import yaml

    for name, groups in GROUPS.items():
        defaults = yaml.safe_load((search_path()[0] / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]
        assert tuple(key for entry in defaults if isinstance(entry, dict) for key in entry) == groups


def test_options_hold_what_a_checkpoint_can_store() -> None:
    models = {name: spec.config for name, spec in MODELS.items()}
    for tree in COMMANDS.values():
        assert from_dict(tree, to_dict(tree()), models=models) == tree()
    validate(Config())


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_help_lists_every_group_and_choice(name: str, tmp_path: Path) -> None:
    root = Path(compose_module.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-m", f"nmt.{name}", "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for group in GROUPS[name]:
        assert f"  {group}={{{','.join(group_choices(group))}}}" in done.stdout
    assert done.stdout.rstrip().splitlines()[-1].strip().startswith(f"python -m nmt.{name}")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train.coverage_loss_weight=1", "model.attention.score=none"],
            "train.coverage_loss_weight=1: needs a model with attention; set it to 0, or choose a score other than",
        ),
        (
            ["model=rnn", "train.coverage_loss_weight=1", "model.attention.per_layer=[{score: none}]"],
            "train.coverage_loss_weight=1: needs a model with attention",
        ),
        (
            ["model=transformer", "model.decoder_self_attention.window=local_p"],
            "model.decoder_self_attention.window=local_p does not work in self-attention",
        ),
        (["model=transformer", "model.attention.heads=3"], "model.attention.heads=3: model.d_model=128 is no multiple"),
        (["model.encoder_self_attention.score=dot"], "not an option of model=rnn; an option of model=transformer"),
        (["model.attention.normalizr=sparsemax"], "did you mean model.attention.normalizer?"),
        (
            ["model=transformer", "model.attention.per_layer=[{score: dot}]"],
            "per_layer has 1 entries: 2 layers attend here",
        ),
        (["model=transformer", "model.attention.per_layer=[{heads: 2}, {}]"], "heads cannot differ by layer"),
        (["model.attention.score=[additive,dot]"], "2 scores for model.attention.heads=1; give one a head"),
        (
            ["model=transformer", "model.attention.per_layer=[{score: dot}]", "train.guided_alignment_weight=1"],
            "per_layer has 1 entries: 2 layers attend here",
        ),
        (
            ["model=transformer", "model.attention.per_layer=[{scor: dot},{}]", "train.guided_alignment_weight=1"],
            "model.attention.per_layer: scor cannot differ by layer (no option of an attention)",
        ),
        (
            ["model=transformer", "model.attention.per_layer=[{dropout: null},{}]"],
            "model.attention.per_layer[0].dropout=None: must be at least 0 and below 1",
        ),
        (
            ["metrics.names=[chrf]"],
            "train.early_stopping_metric=bleu: metrics.names=[chrf] leaves it out; add it there, or let another choose",
        ),
        (
            ["metrics.names=[ter,chrf]"],
            "or let another choose the best checkpoint, as train.early_stopping_metric=chrf",
        ),
        (
            ["metrics.names=[ter]", "train.early_stopping_metric=chrf"],
            "metrics.names=[ter] leaves it out; add it there, or let",
        ),
        (
            ["train.early_stopping_metric=aer", "model.attention.score=none"],
            "train.early_stopping_metric=aer: needs a model with attention; set it to bleu, chrf or loss, or choose a",
        ),
        (
            ["search.coverage_penalty=0.2", "model.attention.score=none"],
            "search.coverage_penalty=0.2: needs a model with attention; set it to 0, or choose a score",
        ),
        (["alignment.layer=2"], "alignment.layer=2: attention to the source has 1 layer; give one of them, or auto"),
        (
            ["model=transformer", "model.attention.per_layer=[{score: none},{}]", "alignment.layer=2"],
            "alignment.layer=2: attention to the source has 1 layer;",
        ),
        (["model=transformer", "alignment.head=9"], "alignment.head=9: attention to the source has 4 heads; give one"),
        (["alignment.layer=first"], "alignment.layer=first: must be auto, mean, or a number counted from 1"),
        (["model.match=size"], "model.match=size: must be one of none, parameters, flops"),
        (["train.ema_decay=1"], "train.ema_decay=1.0: must be at least 0 and below 1"),
    ],
)
def test_impossible_models_cost_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failure(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["metrics.names=[ter]", "train.early_stopping_metric=loss"],
        ["metrics.names=[ter]", "train.early_stopping_metric=aer"],
        ["model.attention.score=none", "alignment.layer=3"],  # nothing is read: a sweep of scores may have it
        ["model=transformer", "model.decoder_layers=3", "alignment.layer=3", "alignment.head=4"],
        ["model=transformer", "model.attention.per_layer=[{score: none},{}]", "search.coverage_penalty=0.2"],
    ],
)
def test_what_fits_together_is_accepted(arguments: list[str]) -> None:
    read(*arguments)


def test_an_empty_list_is_a_list() -> None:
    assert read("data.extra_tests=[]").data.extra_tests == []
    assert read("metrics.names=[bleu]").metrics.names == ["bleu"]
