"""The corpora that `scripts/get_data.py` knows.

Digests and line counts are copied from a source that is named here; where none was found there is none, and what came
is written into the record:

* multi30k: commit of `multi30k/dataset`; the digests are of the decompressed files.
* iwslt14_de_en: the archive that fairseq's preparation script fetches; md5 as recorded by a project that uses it. The
  test set's 6,750 lines are those of that script, which joins the same five sets. Lines of train: not recorded.
* iwslt15_en_vi: Stanford's files; digests from `dataset_infos.json` of the `mt_eng_vietnamese` set in the `datasets`
  library's repository, lines from the same place less the empty row that it counts at the end of each file.
* iwslt17_de_en: digest and counts from `dataset_infos.json` of `iwslt2017` there, whose archive and splits these are.
* wmt*: counts of the training sets from the cards of `wmt/wmt14` and `wmt/wmt16`; test sets are sacreBLEU's, with the
  digests in its list.
"""

from corpora.fetch import Remote
from corpora.layout import Expected, Recipe
from corpora.sources import Files, Hub, Talks, TestSet

_TED = "CC BY-NC-ND 4.0 (TED talks), as the data set's card on the hub says"
_WMT = 'training text: "unknown" on the data set\'s card; its parts have terms of their own. Test sets: none stated'

_MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"
_MULTI30K_FILES = {
    "train": {
        "en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
        "de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
        "fr": "5925a3c18f1587b6b54b87743106e6e8ab93618edb6f65d19eac0621f853a10d",
        "cs": "2be68b38c8d586ff4f54eb13cc6e1baaaa053695b3f070d3038303a47f2268da",
    },
    "val": {
        "en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
        "de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
        "fr": "5304e444d842e962b2dda4d816b70b22a1765b15401642b7ca37a67477e708dc",
        "cs": "d53827e469b0a1ca8d57e9e26b2b64c4bc4b33f5479c7b03ae87ae5c882c3e33",
    },
    "test_2016_flickr": {
        "en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
        "de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
        "fr": "cb3160d69b002bb638e66cc7612fcd56cb0af82eadc9c142dedc438afb885ef6",
        "cs": "45adb85f688de8407fddcbe1b36dca15d12aab868149b337e2576f2d6d2ff8d8",
    },
}
_MULTI30K_LINES = {"train": 29_000, "val": 1_014, "test_2016_flickr": 1_000}

_STANFORD = "https://nlp.stanford.edu/projects/nmt/data/iwslt15.en-vi"
_STANFORD_FILES = {
    "train": {
        "en": "c26dfeed74b6bf3752f5ca552f2412456f0de153f7c804df8717931fb3a5c78a",
        "vi": "707206edf2dc0280273952c7b70544ea8a1363aa69aaeb9d70514b888dc3067d",
    },
    "tst2012": {
        "en": "b8fbcd0d4199d41276421d1f7228298df67dd9e2c5c134c2ee8cdf3ec27801e2",
        "vi": "01004078b3f36b0c46e81b65fc6851230b3c823405c76d1d82ef3b786b512ff0",
    },
    "tst2013": {
        "en": "3860ce60bc5b85d96cc2d3d580cf1bc9d62440e939c1b964676d3607c4e8f1df",
        "vi": "29af16842808da2812b8fd4d47fc05d082ba870e60ab7755090ad04b380994cd",
    },
}
_STANFORD_LINES = {"train": 133_317, "tst2012": 1_553, "tst2013": 1_268}

_IWSLT17 = "https://huggingface.co/datasets/IWSLT/iwslt2017/resolve/ebd7c60d9800c2a1be010a227e5f0a2363730f7a"
_YEARS = (2010, 2011, 2012, 2013, 2014, 2015)

_WMT14 = "b199e406369ec1b7634206d3ded5ba45de2fe696"


def _files(base: str, digests: dict[str, dict[str, str]], suffix: str) -> tuple[Files, ...]:
    """One source for each prefix; with a suffix, the digests are of what the files hold."""
    return tuple(
        Files(
            prefix,
            {
                language: Remote(
                    f"{base}/{prefix}.{language}{suffix}",
                    digest="" if suffix else f"sha256:{digest}",
                    content=f"sha256:{digest}" if suffix else "",
                )
                for language, digest in sides.items()
            },
        )
        for prefix, sides in digests.items()
    )


def _expected(digests: dict[str, dict[str, str]], lines: dict[str, int]) -> dict[str, Expected]:
    return {prefix: Expected(lines[prefix], sides) for prefix, sides in digests.items()}


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "multi30k",
            "Multi30k task 1, captions of pictures (Elliott et al. 2016, 2017; Barrault et al. 2018)",
            ("en", "de", "fr", "cs"),
            _files(_MULTI30K, _MULTI30K_FILES, ".gz"),
            _expected(_MULTI30K_FILES, _MULTI30K_LINES),
            "about 3 MB",
            "for researchers and educators, non-commercial; the captions are derived from Flickr30k",
        ),
        Recipe(
            "iwslt14_de_en",
            "IWSLT 2014, TED talks; the split of fairseq's preparation script, text left raw",
            ("de", "en"),
            (
                Talks(
                    Remote(
                        "https://dl.fbaipublicfiles.com/fairseq/data/iwslt14/de-en.tgz",
                        "md5:10936dfdf616504ddbd844e91b94ef4a",
                    ),
                    "de-en",
                    "train.tags.de-en",
                    {
                        "test": [
                            "IWSLT14.TED.dev2010.de-en",
                            "IWSLT14.TEDX.dev2012.de-en",
                            *(f"IWSLT14.TED.tst{year}.de-en" for year in (2010, 2011, 2012)),
                        ]
                    },
                    titles=True,
                    every=23,
                ),
            ),
            {"train": Expected(), "valid": Expected(), "test": Expected(6_750)},
            "about 20 MB",
            _TED,
            "The test set is that of published results. Train and valid are not: those are made from text that was "
            "tokenised, lower-cased and rid of long or unequal pairs first (160,239 and 7,283 pairs); here nothing is "
            "left out, and every 23rd pair goes to valid.",
        ),
        Recipe(
            "iwslt15_en_vi",
            "IWSLT 2015, TED talks, as prepared by Luong and Manning (2015): tokenised",
            ("en", "vi"),
            _files(_STANFORD, _STANFORD_FILES, ""),
            _expected(_STANFORD_FILES, _STANFORD_LINES),
            "32 MB",
            "none stated at its place; the text is of TED talks",
        ),
        Recipe(
            "iwslt17_de_en",
            "IWSLT 2017, TED talks; valid is dev2010, test the sets of 2010 to 2015 joined, tst2017 sacreBLEU's",
            ("de", "en"),
            (
                Talks(
                    Remote(
                        f"{_IWSLT17}/data/2017-01-trnted/texts/de/en/de-en.tgz",
                        "sha256:ebcd53c53c8df742437e3a0fb964772e78764c3f6d4e38df0b6a2f71abc3a8b4",
                    ),
                    "de-en",
                    "train.tags.de-en",
                    {
                        "valid": ["IWSLT17.TED.dev2010.de-en"],
                        "test": [f"IWSLT17.TED.tst{year}.de-en" for year in _YEARS],
                    },
                ),
                TestSet("tst2017", "iwslt17", "de-en"),
            ),
            {
                "train": Expected(206_112),
                "valid": Expected(888),
                "test": Expected(8_079),
                "tst2017": Expected(),
            },
            "17 MB",
            _TED,
        ),
        Recipe(
            "wmt14_en_de",
            "WMT 2014 news: Europarl 7, Common Crawl, News Commentary 9; valid newstest2013, test newstest2014 (3,003)",
            ("en", "de"),
            (
                TestSet("valid", "wmt13", "en-de"),
                TestSet("test", "wmt14/full", "en-de"),
                Hub("train", "wmt/wmt14", "de-en", revision=_WMT14),
            ),
            {"train": Expected(4_508_785), "valid": Expected(3_000), "test": Expected(3_003)},
            "0.8 GB (and 1.4 GB each for the library's cache and for the text)",
            _WMT,
        ),
        Recipe(
            "wmt14_en_fr",
            "WMT 2014 news; valid newstest2013, test newstest2014 (3,003)",
            ("en", "fr"),
            (
                TestSet("valid", "wmt13", "en-fr"),
                TestSet("test", "wmt14/full", "en-fr"),
                Hub("train", "wmt/wmt14", "fr-en", revision=_WMT14),
            ),
            {"train": Expected(40_836_715), "valid": Expected(3_000), "test": Expected(3_003)},
            "6.7 GB (and about 15 GB each for the library's cache and for the text)",
            _WMT,
        ),
        Recipe(
            "wmt16_ro_en",
            "WMT 2016 news: Europarl 8, SETIMES2; valid newsdev2016, test newstest2016",
            ("ro", "en"),
            (
                TestSet("valid", "wmt16/dev", "ro-en"),
                TestSet("test", "wmt16", "ro-en"),
                Hub("train", "wmt/wmt16", "ro-en"),
            ),
            {"train": Expected(610_320), "valid": Expected(1_999), "test": Expected(1_999)},
            "0.1 GB (and 0.2 GB each for the library's cache and for the text)",
            _WMT,
        ),
    )
}
