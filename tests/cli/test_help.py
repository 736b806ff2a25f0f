"""--help NODE, docs/options.md, and the synonyms of options."""

import json
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nmt.alignment import METHODS
from nmt.attention import NORMALIZERS, SCORES
from nmt.attention.windows import CROSS, WINDOWS
from nmt.cli.compose import GROUPS, run_command
from nmt.cli.config_groups import SWEEP, group_choices
from nmt.cli.configs import COMMANDS, Config
from nmt.cli.flags import read_flags
from nmt.cli.help import OPTIONS as OPTIONS_SHOWN
from nmt.cli.help import help_text
from nmt.cli.options import collect_options, configurations, node_text, option_words, refusal
from nmt.cli.sweep.jobs import SweepOptions
from nmt.cli.synonyms import synonym
from nmt.config import coerce, get_node, leaves, option_docs
from nmt.data.sources import SOURCES
from nmt.data.tokenizer import TOKENIZERS
from nmt.models import MODELS
from nmt.models.rnn_decoder import DECODERS

ROOT = Path(__file__).parents[2]
OPTIONS = {command: collect_options(config()) for command, config in COMMANDS.items()}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def shown(topic: str, command: str = "train") -> str:
    choices = {group: group_choices(group) for group in GROUPS[command]}
    return help_text(command, COMMANDS[command](), choices, group_choices(SWEEP), topic)


def joined(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_node_and_option_is_explained(command: str) -> None:
    options = OPTIONS[command]
    for node in dict.fromkeys(name.rpartition(".")[0] for name in options) - {"": None}.keys():
        text = shown(node, command)
        assert node_text(COMMANDS[command](), node).split(" (")[0].split(":")[0][:30] in joined(text)
        inside = [option for name, option in options.items() if name.rpartition(".")[0] == node]
        for option in inside:
            for part in (option.path, option.values, option.text, *option.defaults):
                assert joined(part) in joined(text), (node, option.path)
        assert f"Example: python -m nmt.{command} " in text
        assert all(len(line) <= 100 for line in text.splitlines() if " " in line.strip() and "python" not in line)
    for name, option in options.items():
        assert len(option.text.split()) > 2, f"{name} needs an explanation"
        assert option.text.rstrip(".") not in option.values, f"{name} only repeats its values"


@pytest.mark.parametrize("command", ["train", "translate"])
def test_some_options_are_collected_as_among_all(command: str) -> None:
    names = OPTIONS_SHOWN[command]
    expected = {name: option for name, option in OPTIONS[command].items() if name in names}
    assert collect_options(COMMANDS[command](), names) == expected
    assert len(expected) == len(names)


def test_architectures_explain_an_option_alike() -> None:
    texts: dict[str, set[str]] = {}
    for tree in configurations(Config()).values():
        for path in leaves(tree):
            node, _, name = path.rpartition(".")
            texts.setdefault(path, set()).add(option_docs(type(get_node(tree, node)))[name])
    assert [path for path, found in texts.items() if len(found) > 1] == []


def test_options_of_other_architectures_say_so() -> None:
    assert "model.encoder_self_attention.score (with model=transformer or transformer_rnn)" in shown(
        "model.encoder_self_attention.score"
    )
    assert "(with model=rnn or transformer_rnn)" in joined(shown("model.decoder"))
    assert "default additive; scaled with model=transformer" in joined(shown("model.attention.score"))
    assert "(with" not in shown("model.attention.normalizer")


TABLES: dict[str, Any] = {
    "model.attention.score": [*SCORES, "none"],
    "model.encoder_self_attention.score": SCORES,
    "model.attention.normalizer": NORMALIZERS,
    "model.attention.window": [name for name, window in WINDOWS.items() if CROSS in window.attention_types],
    "model.encoder_self_attention.window": [name for name in WINDOWS if name in ("global", "sliding")],
    "model.decoder": DECODERS,
    "model.architecture": MODELS,
    "data.format": SOURCES,
    "data.tokenizer.type": TOKENIZERS,
    "search.method": ["beam", "sample", "mbr"],
    "metrics.names": ["bleu", "chrf", "chrf++", "ter"],
    "train.compile": ["true", "false"],
    "train.max_updates": [],
}


def test_choices_are_those_of_the_tables() -> None:
    assert {path: [*OPTIONS["train"][path].choices] for path in TABLES} == {p: [*table] for p, table in TABLES.items()}
    assert OPTIONS["align"]["symmetrize"].choices == tuple(METHODS)
    assert OPTIONS["train"]["optim.learning_rate"].values == "a number, above 0"
    assert OPTIONS["train"]["data.tokenizer.vocab_size"].values == "a whole number, at least 8"
    assert OPTIONS["serve"]["port"].values == "a whole number, at least 0 and at most 65535"


@pytest.mark.parametrize("command", COMMANDS)
def test_choices_are_what_validate_accepts(command: str) -> None:
    for path, option in OPTIONS[command].items():
        if option.choices in ((), ("true", "false")) or path == "model.architecture":
            continue
        tree = next(tree for tree in configurations(COMMANDS[command]()).values() if path in leaves(tree))
        is_list = option.values.startswith("a list of")
        for value in option.choices:  # others may forbid it, and packages be missing: it is none of the wrong ones
            assert ": must be" not in refusal(tree, path, [value] if is_list else value), f"{path}={value}"
        for wrong in ("wrong", option.choices[0] + "x"):
            message = refusal(tree, path, [wrong] if is_list else wrong)
            assert message.startswith(f"{path}={wrong}: must be one of {option.choices[0]}")


WITHOUT_EXAMPLE = (
    "per_layer",
    "coverage",
    "dim",
    "max_grad_norm_ratio",
    "diverse_groups",
    "plugins",
    "early_stopping_set",
)
NEEDING_ANOTHER = (
    *("data.tokenizer.lowercase", "source", "target", "gold", "data.source_lang", "data.target_lang"),
    *("source_lang", "target_lang", "reverse"),
    *("init.modules", "init.on_mismatch", "init.vocabulary", "data.corpora", "data.languages", "data.stages"),
    *("data.zero_shot", "data.streaming"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_set_the_option_to_something_else(command: str) -> None:
    for path, option in OPTIONS[command].items():
        given = dict(argument.split("=", 1) for argument in option.example.split())
        trees = configurations(COMMANDS[command]())
        tree = trees[given["model"]] if "model" in given else next(iter(trees.values()))
        text = given.get(path, "")
        if path == "model.architecture":
            assert option.example == "model=transformer"
            continue
        if not text:
            assert path.split(".")[-1] in WITHOUT_EXAMPLE, path
        else:
            value = coerce(leaves(tree)[path], _parsed(text), text.strip("[]").split(",") if "[" in text else text)
            assert value != getattr(get_node(tree, path.rpartition(".")[0]), path.rpartition(".")[2])
            if path not in NEEDING_ANOTHER:
                assert refusal(tree, path, value) == "", option.example


def test_groups_and_choices_are_explained() -> None:
    assert "multi30k_rnn: Multi30k, English to German." in shown("experiment")
    text = shown("experiment=multi30k_rnn")
    for setting in ("data=text", "model=rnn", "data.tokenizer.vocab_size=6000", "optim.learning_rate=0.002"):
        assert f"\n  {setting}\n" in text
    assert "\n  data.format=text" in shown("data=text")
    assert "  attention: The scores of cross-attention" in shown("sweep")
    assert "\n  model.encoder_layers=2 model.decoder_layers=2\n" in shown("sweep=depth")
    assert "Choices" not in shown("seed")


def test_other_names_find_the_option() -> None:
    assert shown("lr").startswith("optim.learning_rate\n")
    assert shown("score").count("how a query is compared") == 3
    assert "continues an interrupted run" in joined(shown("resume"))
    with pytest.raises(ValueError, match=r"did you mean --help model\.attention\?"):
        shown("modl.attention")
    with pytest.raises(ValueError, match="--help alone lists"):
        shown("zzzz")


def test_the_choices_of_a_sub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs/experiment/paper").mkdir(parents=True)
    content = "# Ours.\ndefaults: [/experiment/debug, multi30k_rnn, override /data: text]\nseed: 2\n"
    (tmp_path / "configs/experiment/paper/debug.yaml").write_text(content)
    lines = shown("experiment=paper/debug").splitlines()
    assert lines[3:] == ["  experiment=debug", "  experiment=multi30k_rnn", "  data=text", "  seed=2"]
    (tmp_path / "configs/experiment/paper/ablation.yaml").write_text("seed: 3\n")
    for topic, hint in (
        ("ablation", "did you mean --help experiment=paper/ablation"),
        ("zz", "--help experiment lists"),
    ):
        with pytest.raises(ValueError, match=f"--help experiment={topic}: there is no experiment={topic}; {hint}"):
            shown(f"experiment={topic}")


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    narrow = shown("optim").splitlines()
    assert max(map(len, narrow)) <= 60
    monkeypatch.setenv("COLUMNS", "100")
    assert len(shown("optim").splitlines()) < len(narrow)


def test_help_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in (
        (["--help", "model.attention"], "model.attention: attention to the source"),
        (["experiment=multi30k_rnn", "--help"], "experiment=multi30k_rnn: "),
        (["--help"], "usage: "),
    ):
        run_command(lambda *_: pytest.fail("the task was called"), Config, "train", arguments)
        assert capsys.readouterr().out.startswith(text)


def test_the_page_and_the_completion_are_current() -> None:
    """If this fails: make options."""
    made = runpy.run_path(str(ROOT / "scripts/make_options_page.py"))
    assert made["PAGE"].read_text(encoding="utf-8") == made["options_page"]()
    assert made["COMPLETION"].read_text(encoding="utf-8") == made["completion_script"]()


def test_the_page_has_every_option() -> None:
    page = (ROOT / "docs/options.md").read_text(encoding="utf-8")
    for command, options in OPTIONS.items():
        for name in options:
            anchors = (f'<a id="{name}"></a>', f'<a id="{command}.{name}"></a>')
            assert page.count(anchors[0]) + page.count(anchors[1]) >= 1, (command, name)
    assert all(f'<a id="{name}"></a>' in page for name in leaves(SweepOptions()))
    anchors = [line.split('"')[1] for line in page.splitlines() if '<a id="' in line]
    assert len(set(anchors)) == len(anchors)


ANSWERS = [
    ("lr=0.1", "optim.learning_rate=0.1"),
    ("learning-rate=0.1", "optim.learning_rate=0.1"),
    ("optim.lr=1e-3", "optim.learning_rate=1e-3"),
    ("lr=fast", "optim.learning_rate=…, a number, above 0"),
    ("lr=0.1,0.2", "optim.learning_rate=0.1,0.2"),
    ("scheduler=noam", "optim.schedule=inverse_sqrt"),
    ("scheduler=linear", "optim.schedule=…, one of constant, inverse_sqrt, cosine, plateau"),
    ("warmup_steps=100", "optim.warmup_updates=100"),
    ("max_grad_norm=1", "optim.clip_norm=1"),
    ("max_steps=100", "train.max_updates=100"),
    ("epochs=10", "train.max_epochs=10"),
    ("max_time=8", "train.max_minutes=60"),
    ("batch_size=32", "batches are counted in tokens: write train.batch_tokens=N"),
    ("train.batch_size=32", "train.batch_tokens=N"),
    ("update_freq=4", "train.gradient_accumulation=4"),
    ("early_stopping=true", "train.patience=5"),
    ("eval_steps=100", "train.valid_every=100"),
    ("save_steps=100", "train.save_every=100"),
    ("logging_steps=10", "train.log_every=10"),
    ("gpus=2", "train.devices=2"),
    ("cuda=true", "device=cuda"),
    ("fp16=true", "train.precision=bf16"),
    ("amp=true", "train.precision=bf16"),
    ("workers=4", "num_threads=4"),
    ("num_heads=8", "model.attention.heads=8"),
    ("num_layers=4", "model.encoder_layers=4 model.decoder_layers=4"),
    ("d_model=512", "model=transformer model.d_model=512"),
    ("hidden_dim=300", "model.hidden_size=300"),
    ("emb_dim=300", "model.embedding_dim=300"),
    ("dropout=0.3", "model.dropout=0.3"),
    ("attention=bahdanau", "model.attention.score=additive"),
    ("attention_type=luong", "model.attention.score=general"),
    ("attn=true", "one of additive, dot, scaled"),
    ("rnn_type=gru", "model.cell=gru"),
    ("lstm=true", "model.cell=lstm"),
    ("arch=transformer", "model=transformer"),
    ("arch=big", "one of rnn, transformer"),
    ("encoder=lstm", "model=transformer_rnn"),
    ("share_embeddings=all", "model.tie_embeddings=all"),
    ("label_smooth=0.1", "train.label_smoothing=0.1"),
    ("beam=5", "search.beam_size=5"),
    ("lenpen=0.6", "search.length_penalty=0.6"),
    ("nbest=5", "search.n_best=5"),
    ("metric=bleu", "metrics.names=bleu"),
    ("vocab_size=32000", "data.tokenizer.vocab_size=32000"),
    ("tokenizer=spm", "data.tokenizer.type=unigram"),
    ("bpe=true", "data.tokenizer.type=bpe"),
    ("src_lang=fr", "data.source_lang=fr"),
    ("src=train.en", "data.train=DIR/train"),
    ("train_file=my dir/a", "data.train='my dir/a'"),
    ("dev=a", "data.valid=a"),
    ("output_dir=out", "runs=out"),
    ("exp_name=a", "name=a"),
    ("resume=true", "give the same command again"),
    ("wandb=true", "TensorBoard"),
    ("optimizer=adam", "the optimizer is AdamW"),
    ("config_file=a.yaml", "config=FILE"),
    ("random_seed=3", "seed=3"),
    ("verbose", "standard error"),
]


@pytest.mark.parametrize(("typed", "answer"), ANSWERS)
def test_names_of_other_programs_are_answered(typed: str, answer: str) -> None:
    name, _, value = typed.partition("=")
    sentence = synonym(name, value, "train")
    assert sentence is not None
    assert sentence.startswith(f"{typed}: ")
    assert answer in sentence
    tree = {path: tree for tree in configurations(Config()).values() for path in leaves(tree)}
    for argument in shlex.split(sentence.partition(": write ")[2].partition(";")[0].rstrip(",")):
        option, equals, proposed = argument.rstrip(",:").partition("=")
        if equals and option in tree and proposed not in ("N", "…") and "," not in proposed:
            parsed = coerce(leaves(tree[option])[option], _parsed(proposed), proposed)
            assert ": must be" not in refusal(tree[option], option, parsed), argument


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        if "{" in text:
            return OverridesParser.create().parse_override(f"x={text}").value()
        return text.strip("[]").split(",") if text.startswith("[") else text


@pytest.mark.parametrize(
    ("command", "typed", "answer"),
    [
        ("translate", "beam=5", "write search.beam_size=5"),
        ("translate", "batch_size=5", "write search.batch_size=5"),
        ("translate", "src=a.en", "write input=FILE"),
        ("translate", "file=a.en", "standard input"),
        ("translate", "out=a.de", "write output=FILE"),
        ("translate", "model=runs/a", "write checkpoint=runs/a"),
        ("translate", "lr=1", "optim.learning_rate is an option of python -m nmt.train, not of translate"),
        ("translate", "fp16=true", "belongs to python -m nmt.train: write train.precision=bf16"),
        ("evaluate", "test_file=D/x", "write data.test=D/x"),
        ("evaluate", "output_dir=D", "write output=D"),
        ("evaluate", "bleu=true", "write metrics.names=…, a list of bleu, chrf, chrf++, ter"),
        ("align", "src=a.en", "write source=a.en"),
        ("export", "model=a", "write checkpoint=a"),
        ("serve", "ckpt=a", "write checkpoint=a"),
    ],
)
def test_every_command_answers(command: str, typed: str, answer: str) -> None:
    assert answer in str(synonym(*typed.split("="), command))  # type: ignore[arg-type]


def test_the_table_of_synonyms_names_what_exists() -> None:
    words = option_words()
    known = {name for options in OPTIONS.values() for name in options} | set(GROUPS["train"])
    known.add("config")
    for option in [name for names in words["synonyms"] for name in names.split()] + [*words["values"]]:
        assert option in known, option
    names = [name for names in words["synonyms"].values() for name in names.split()]
    assert len(names) == len(set(names))
    for command, notes in words["notes"].items():
        assert command == "all" or command in COMMANDS
        for note in notes.values():
            for token in note.replace(",", " ").replace("(", " ").replace(":", " ").split():
                option = token.partition("=")[0].rstrip(".;")
                if ("=" in token and token[0].islower()) or option.startswith(
                    ("train.", "optim.", "search.", "model.", "data.t")
                ):
                    assert option in known, token
    assert set(words["examples"]) <= {name for option in known for name in (option, option.rpartition(".")[2])} | {
        *leaves(SweepOptions())
    }


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("--beam 5", "--beam 5: write search.beam_size=5"),
        ("--lr=0.1", "--lr 0.1: write optim.learning_rate=0.1"),
        ("--batch-size 32", "train.batch_tokens=N"),
        ("--seed 3", "--seed 3: write seed=3"),
        ("--optim.learning_rate 3", "write optim.learning_rate=3"),
        ("--train.max-updates 3", "write train.max_updates=3"),
        ("-v seed=2", "-v: the log goes to standard error"),
        ("--config a.yaml", "config=FILE"),
        ("--cfg a.yaml", "config=FILE"),
        ("--hlep", "did you mean --help?"),
    ],
)
def test_flags_of_other_programs_are_answered(arguments: str, answer: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        read_flags(arguments.split())
    assert answer in str(error.value)
