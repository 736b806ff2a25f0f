"""The README.md of an exported folder."""

from typing import Any

_COMMAND = """## Translate

```
python translate.py < source.txt > target.txt
```

Each line is one sentence and gets one line. A sentence longer than the model can read gets an empty line and a message
on standard error. `python translate.py --help` shows the options. Requires {needs}.
"""

_USAGE = {
    "ctranslate2": """## From Python

```python
from pathlib import Path

import ctranslate2
from text import TextCodec

translator = ctranslate2.Translator(".", device="cpu")  # compute_type="int8" is faster and slightly less exact
source, target = TextCodec(Path("."), "source"), TextCodec(Path("."), "target")
tokens = [source.pieces[index] for index in source.encode("A sentence.")]
result = translator.translate_batch(
    [tokens], beam_size={beam_size}, length_penalty={length_penalty}, patience={patience}
)[0]
print(target.decode([target.pieces.index(piece) for piece in result.hypotheses[0]]))
```

The pieces are SentencePiece's own (source.spm, target.spm). CTranslate2 adds the end token to the source by itself, and
translates an empty line as an empty one. It reads 1,024 tokens of a sentence and writes 256, unless `max_input_length`
and `max_decoding_length` say otherwise. With `patience` above 1 it searches longer for better translations. The weights
that `return_attention=True` returns are the mean over the heads of the last layer.
""",
    "huggingface": """## From Python

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
batch = tokenizer(["A sentence."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

generation_config.json holds the beam size ({beam_size}) and the length penalty ({length_penalty}, with the same
meaning in both). The tokenizer takes the beginning of a text such as ">>de<<" for a language code. The advice to
install sacremoses does not apply to this model.
""",
    "onnx": """## The graphs

encoder.onnx reads a batch of sentences; step.onnx writes one token. Their tensors, with types and shapes, are described
in export.json under "interface", and `OnnxModel` in translate.py runs them, in forty lines to copy from: `start` runs
the encoder, `step` returns the log-probabilities of the next token, the attention weights{attention} and the next
state. All tensors have the batch first. Greedy and beam search need nothing else (`beam_search` in the same file).
""",
}

_TAGS = """## Languages and tags

Directions: {directions}; `python translate.py` translates into {default} by default.{options}{corpora}
{begins} with a tag that says which is wanted, a reserved token that no text contains (ids: {ids}).
{usage}
"""

_CODEC = """`TextCodec(Path("."), "source", target_lang="{language}")` """
_TAG_USAGE = {
    "ctranslate2": {
        "source": _CODEC + "puts it there.",
        "target": """It is a target prefix of `translate_batch`, as in `target_prefix=[["{tag}"]]`;
`TextCodec.decode` drops it.""",
    },
    "huggingface": {
        "source": """The tokenizer leaves that to you, and then `tokenizer.pad` makes a batch:
`[tokenizer.convert_tokens_to_ids("{tag}"), *tokenizer("A sentence.")["input_ids"]]`.""",
        "target": """Choose a language by `model.generate(**batch, forced_bos_token_id=ids["{language}"])` with
`ids = model.generation_config.lang_to_id`; a corpus's tag comes second, in `decoder_input_ids`.""",
    },
    "onnx": {
        "source": _CODEC + "puts it there.",
        "target": """`TextCodec(Path("."), "target", target_lang="{language}").prefix` is what `beam_search` takes.""",
    },
}

_PACKAGES = {"ctranslate2": ["ctranslate2"], "huggingface": ["torch", "transformers"], "onnx": ["onnxruntime", "numpy"]}


def readme(name: str, manifest: dict[str, Any], notes: list[str]) -> str:
    """Return the README of a format, filled in from the manifest."""
    packages = _PACKAGES[name] + (
        [] if manifest["tokenizer"] in ("word", "char", "pretokenized") else ["sentencepiece"]
    )
    source, target = manifest["source language"], manifest["target language"]
    pair = f" from {source} to {target}" if source and target else ""
    values = dict(manifest["search"])
    if name == "onnx":
        values["attention"] = "" if manifest["interface"]["attention"] else " (this model has none)"
    lines = [
        f"# A translation model{pair}",
        "",
        f"Architecture {manifest['model']['architecture']}, in the format {name}, written by {manifest['written by']}.",
        "Before the folder was written, its log-probabilities were compared with those of the original model: the",
        f"largest difference was {manifest['check']['largest difference of a log-probability']:.1e}.",
    ]
    limits = [
        f"{verb} at most {manifest[limit]:,} tokens"
        for verb, limit in (("reads", "max_source"), ("writes", "max_target"))
        if manifest[limit] is not None
    ]
    lines += [f"It {' and '.join(limits)} of a sentence, end token included."] if limits else []
    lines += [f"Of the options it was evaluated with, {note}." for note in notes]
    usage = [_COMMAND.format(needs=", ".join(packages)), _USAGE[name].format(**values)]
    return "\n".join([*lines, "", *usage, *([_describe_tags(name, manifest)] if "tags" in manifest else [])])


def _describe_tags(name: str, manifest: dict[str, Any]) -> str:
    tags, languages, default = manifest["tags"], manifest["target languages"], manifest["target language"]
    begins = "The sentence begins" if tags["side"] == "source" else "The translation begins"
    size, names = manifest["vocabulary"][tags["side"]], tags["names"]
    ids = ", ".join(f"{names[i]} {size - len(names) + i}" for i in range(len(names)))
    corpora = f" `--tag` ({', '.join(tags['corpora'])}) asks for text as of a corpus." if tags["corpora"] else ""
    return _TAGS.format(
        directions=", ".join(manifest["directions"]), default=default, begins=begins, ids=ids, corpora=corpora,
        options="" if len(languages) == 1 else f" `--target-lang` is one of {', '.join(languages)}.",
        usage=_TAG_USAGE[name][tags["side"]].format(tag=names[0], language=languages[0]),
    )  # fmt: skip
