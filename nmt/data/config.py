"""The options of the data: `data.…`."""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from nmt.config import check_range
from nmt.data.corpora import directions, join, training_corpora, validate_corpora
from nmt.data.sources import SPLITS, as_name_list, data_source, extra_test_sets
from nmt.data.synthetic import dataset
from nmt.data.synthetic.dataset import SyntheticConfig
from nmt.data.terms import AugmentConfig
from nmt.data.tokenizer import TokenizerConfig


@dataclass
class DataConfig:
    """Sentence pairs and their preparation.

    format: where sentence pairs come from; data=NAME sets it.
    train: training text: a prefix, file or split name, or a list [a,b], which is joined. text: a prefix, read from
        PREFIX.<source_lang> and PREFIX.<target_lang>; tsv, parquet, jsonl: a file; hub: a split's name (default: train,
        validation, test). builtin: the synthetic pair by default; a prefix is read as with text.
    valid: validation text; named as `train` is. Several sets are a mapping {main: PREFIX, domain: PREFIX}, of which the
        first chooses the checkpoint unless `train.early_stopping_set` names another.
    test: test text; named as `train` is.
    source_lang: source language, also the suffix of its text files.
    target_lang: target language, likewise.
    max_pairs: training pairs that are read, the first ones; 0: all.
    corpora: several training texts instead of `train`, a mapping {clean: {path: PREFIX, weight: 3}, web: {path: FILE,
        format: parquet, weight: 1, tag: web}}. An entry has a path, perhaps a weight and a tag, and options of `data`
        of its own: format, source_lang, target_lang, max_pairs, max_length, max_length_ratio, columns, column,
        hf_dataset, hf_config, train_alignments. Weights are shares of the target tokens; without any, each pair is read
        once in an epoch.
    temperature: T of shares p ∝ n^(1/T) of corpora with n target tokens (Arivazhagan et al. 2019, section 4.2): above 1
        small ones are read more often; 1 = as large as they are.
    stages: mixtures one after the other, a list [{mix: {clean: 1, web: 3}, until: 2 epochs of web}, {mix: {clean: 1}}]:
        shares by corpus, until a corpus was read so often or for so many updates ("5000 updates"). Patience counts in
        the last one only.
    languages: two or more, [en,de,fr], whose texts are beside each other as PREFIX.en, PREFIX.de, PREFIX.fr: the model
        translates each into each.
    zero_shot: directions of `languages`, such as [de-fr], that are evaluated and not trained.
    tags: where a model is told the language to translate into, and the tag of a corpus: before the source (Johnson et
        al. 2017), as the first target tokens (decoder), or nowhere (none). Texts cannot contain a tag.
    extra_tests: further test sets, each evaluated on its own.
    hf_dataset: format=hub only: the name of the dataset, or a local folder.
    hf_config: format=hub only: configuration of the dataset, such as de-en.
    streaming: format=hub only: train while the training text is read, without downloading or preparing all of it first.
    shuffle_buffer: with streaming: pairs that are read, shuffled and batched together; memory grows with them.
    column: parquet, jsonl, hub: the column of {language: sentence} records; without it, one column for each language.
    columns: tsv: the columns of source and target, counted from 1; others are ignored.
    max_length: subwords of a side, the end token not counted; longer pairs are dropped and counted.
    max_length_ratio: longer side over shorter side in subwords, above which a training pair is dropped; 0 is off.
    train_alignments: files of the training text's word alignment, as many as `train` has entries, one line of links for
        each pair: i-j, or ipj for a possible link; source word first, counted from 0, words being separated by spaces.
        Default: PREFIX.gold beside the text (which the built-in pair has), for one file its name with .gold. Read only
        with `train.guided_alignment_weight`, and where given with `augment.terms`.
    error_on_dropped: end with an error where a pair would be dropped.
    cache_dir: folder for prepared corpora and tokenizers.
    """

    format: str = "builtin"
    train: Any = None
    valid: Any = None
    test: Any = None
    extra_tests: list[str] = field(default_factory=list)
    source_lang: str = "en"
    target_lang: str = "de"
    max_pairs: int = 0
    corpora: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    stages: list[dict[str, Any]] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    zero_shot: list[str] = field(default_factory=list)
    tags: str = "source"
    hf_dataset: str | None = None
    hf_config: str | None = None
    streaming: bool = False
    shuffle_buffer: int = 100_000
    column: str = "translation"
    columns: list[int] = field(default_factory=lambda: [1, 2])
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    max_length: int = 256
    max_length_ratio: float = 0.0
    train_alignments: Any = None
    error_on_dropped: bool = False
    cache_dir: str = "cache"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        data_source(self)
        validate_corpora(self)
        by_direction = [join(direction) for direction in directions(self)]
        for option in (*SPLITS, "extra_tests", "train_alignments"):
            value = getattr(self, option)
            sets = value if isinstance(value, dict) and (option == "valid" or len(by_direction) > 1) else {}
            as_name_list(f"data.{option}", None if sets else value)
            for name, text in sets.items():
                if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name) and as_name_list("data.valid", text)):
                    raise ValueError(
                        f"data.{option}={{{name}: {text}}}: needs a name of letters and digits, and a text"
                    )
            if sets and len(by_direction) > 1 and {*sets} != {*by_direction}:
                needed = f"a text for each direction, {{{by_direction[0]}: PREFIX, …}}, or one PREFIX for all"
                raise ValueError(
                    f"data.{option}: has {', '.join(sets)}, and the model translates "
                    f"{', '.join(by_direction)}; it must be {needed}"
                )
        if self.extra_tests:
            extra_test_sets(self)
        for name in ("source_lang", "target_lang", "column", "cache_dir"):
            if not getattr(self, name):
                raise ValueError(f"data.{name}: must not be empty")
        if self.format == "hub" and not self.hf_dataset:
            raise ValueError("data.hf_dataset: not given; data.format=hub needs a dataset's name or a local folder")
        if self.streaming and self.format != "hub":
            text = "where data.hf_dataset=FOLDER may be a folder of such files"
            raise ValueError(f"data.streaming=true: needs data=hub, not {self.format}, {text}")
        others = [f"data.{name}" for name in ("corpora", "languages", "max_pairs") if getattr(self, name)]
        if self.streaming and others:
            raise ValueError(f"data.streaming=true: reads one text as it is; leave out {' and '.join(others)}")
        if self.target_lang == self.source_lang:
            raise ValueError(f"data.target_lang={self.target_lang}: must differ from data.source_lang")
        if not (len(self.columns) == len(set(self.columns)) == 2 and min(self.columns) >= 1):
            raise ValueError(f"data.columns={self.columns}: must be two different columns, counted from 1")
        check_range("data", self, ["max_length", "shuffle_buffer"], minimum=1)
        check_range("data", self, ["max_pairs"], minimum=0)
        if not (self.max_length_ratio == 0 or self.max_length_ratio >= 1):
            raise ValueError(f"data.max_length_ratio={self.max_length_ratio}: must be 0 (off) or at least 1")
        if self.format == "builtin":
            self.validate_builtin()
        for part in training_corpora(self):
            try:
                replace(part.config, valid=None, test=None, extra_tests=[]).validate()
            except ValueError as error:
                text = str(error).replace("data.train=", "data.path=").removeprefix("data.")
                raise ValueError(f"data.corpora.{part.entry}.{text}" if part.entry else str(error)) from None
        self.tokenizer.validate()
        self.augment.validate()
        if (rate := self.augment.terms) and (self.streaming or not self.tokenizer.joint):
            text = "a stream has no word alignments" if self.streaming else "the source holds target words"
            option = "data.streaming=false" if self.streaming else "data.tokenizer.joint=true"
            raise ValueError(f"data.augment.terms={rate:g}: {text}; set {option}, or data.augment.terms=0")

    def validate_builtin(self) -> None:
        self.synthetic.validate()
        languages = {self.source_lang, self.target_lang}
        if self.corpora or self.languages:
            option = "corpora" if self.corpora else "languages"
            raise ValueError(f"data.{option}: needs texts of your own: data=text, tsv, jsonl, parquet or hub")
        if not (self.train and self.valid and self.test) and languages != set(dataset.LANGUAGES):
            raise ValueError(
                f"data.source_lang={self.source_lang} and data.target_lang={self.target_lang}: the built-in pair is en "
                "and de, in either direction"
            )
