"""Options of the search."""

import math
from dataclasses import dataclass

from nmt.config import check_choice, check_range
from nmt.runtime.device import PRECISIONS

EARLY_STOPPING = ("never", "lookahead", "beam")


@dataclass
class SearchConfig:
    """Options of the search for translations; the same everywhere (validation, evaluation, translation).

    method: beam = beam search; sample = n_best translations sampled from the model; mbr = of `mbr_samples` sampled
        ones those with the highest expected utility (minimum Bayes risk, Eikema & Aziz 2020).
    beam_size: hypotheses kept at every step; 1 is greedy search.
    batch_size: sentences decoded at a time; it does not change the result.
    precision: of the products with the weights: fp32; bf16, faster on processors that have it, with attention and all
        else in fp32 (of a few hundred translations some differ by a word); auto = bf16 where it is faster. Neither
        depends on how sentences are batched. On a GPU bf16 and fp16 are autocast, with the rest in TF32, and tf32 is
        TF32 in all products; on a CPU tf32 is refused and fp16 slow.
    batch_tokens: source tokens decoded at a time, padding counted; it does not change the result. 0: no limit.
    length_normalization, length_penalty: a finished hypothesis y with log p scores log p / |y|^length_penalty ("power")
        or log p / ((5 + |y|) / 6)^length_penalty ("gnmt": Wu et al. 2016, equation 14), end token counted. 0 = plain
        log p; power 1 = mean log p per token.
    coverage_penalty: β of Wu et al. 2016, equation 14: β Σ_i log min(Σ_j a_ij, 1) is added to the score of a finished
        hypothesis, a_ij the mean weight of all layers and heads that target token j gives to source token i (end tokens
        among them, and a sum below 1e-6 counting as that).
    min_length_ratio, min_length_offset: a translation has at least ratio · (source length) + offset tokens.
    max_length_ratio, max_length_offset: a translation has at most ratio · (source length) + offset tokens.
    early_stopping: when the search of a sentence ends: never = when no live hypothesis can become better than the
        n_best finished ones; lookahead = when none can by ending within `lookahead` more tokens, even if these were
        certain: nearly always the same translation for less work; beam = also when `beam_size` hypotheses have ended
        that were among the `beam_size` best continuations of their step, which is what other programs do. A group
        counts its own.
    lookahead: tokens after the next one, of early_stopping=lookahead.
    n_best: translations wanted of each sentence, sorted by score, no text twice: there may be fewer, mostly of samples.
        With groups the best of every group come before the second of any, of these the better ones: 1 gives the best
        of all, and fewer than there are groups the best of theirs.
    diverse_groups: groups of diverse beam search (Vijayakumar et al. 2018) into which the beam is divided, searched one
        after the other. Each continues until none of its live hypotheses can become better than `beam_size` finished
        ones, so that the result does not depend on n_best.
    diversity_penalty: λ there: subtracted from the score of a token in a group for each hypothesis of earlier groups
        that has it at this position.
    no_repeat_ngram_size: no n-gram of this size occurs twice in a hypothesis; 0: no such constraint.
    replace_unknown: what becomes of tokens that are not in a vocabulary of words or characters, or of subwords without
        byte fallback (with it nothing is unknown, and this has no effect). none = <unk>; copy = the source word, or
        with characters the source character, with the largest weight in the alignment source (Luong et al. 2015,
        section 4.1); forbid = they are not generated.
    seed: seed of the samples of sample and mbr. Those of a sentence depend only on it and the sentence, and the first
        not on how many follow.
    mbr_samples: translations sampled for mbr.
    temperature: log-probabilities are divided by it before sampling. For greedy search use method=beam, beam_size=1.
    top_k: sampling is limited to this many best tokens (Fan et al. 2018); 0: all.
    top_p: sampling is limited to the best tokens that together have this probability (Holtzman et al. 2020).
    mbr_utility: utility of mbr: chrf or bleu of sentences, as in sacreBLEU.
    """

    method: str = "beam"
    beam_size: int = 5
    batch_size: int = 64
    batch_tokens: int = 8192
    precision: str = "fp32"
    length_normalization: str = "power"
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    min_length_ratio: float = 0.0
    min_length_offset: int = 0
    max_length_ratio: float = 2.0
    max_length_offset: int = 10
    early_stopping: str = "lookahead"
    lookahead: int = 2
    n_best: int = 1
    diverse_groups: int = 1
    diversity_penalty: float = 0.5
    no_repeat_ngram_size: int = 0
    replace_unknown: str = "none"
    seed: int = 1
    mbr_samples: int = 32
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    mbr_utility: str = "chrf"

    def validate(self) -> None:
        """Raise ValueError naming the option, its value and what is allowed."""
        check_choice("search", self, "method", ("beam", "sample", "mbr"))
        check_choice("search", self, "precision", PRECISIONS)
        check_choice("search", self, "length_normalization", ("power", "gnmt"))
        check_choice("search", self, "mbr_utility", ("chrf", "bleu"))
        check_choice("search", self, "early_stopping", EARLY_STOPPING)
        check_choice("search", self, "replace_unknown", ("none", "copy", "forbid"))
        counts = ["beam_size", "batch_size", "n_best", "diverse_groups", "mbr_samples"]
        check_range("search", self, counts, minimum=1)
        limits = [
            "batch_tokens",
            "lookahead",
            "no_repeat_ngram_size",
            "top_k",
            "min_length_offset",
            "max_length_offset",
        ]
        check_range("search", self, ["seed", *limits], minimum=0)
        penalties = ["length_penalty", "coverage_penalty", "diversity_penalty"]
        check_range("search", self, [*penalties, "min_length_ratio", "max_length_ratio"], minimum=0, below=math.inf)
        check_range("search", self, ["temperature"], above=0, below=math.inf)
        check_range("search", self, ["top_p"], above=0, maximum=1)
        if self.n_best > self.num_hypotheses:
            limit = {"beam": "beam_size", "mbr": "mbr_samples"}[self.method]
            raise ValueError(f"search.n_best={self.n_best}: cannot be more than search.{limit}={self.num_hypotheses}")
        if self.beam_size % self.diverse_groups:
            raise ValueError(
                f"search.diverse_groups={self.diverse_groups}: search.beam_size={self.beam_size} is no multiple of it"
            )
        has_minimum = (self.min_length_ratio, self.min_length_offset) > (0.0, 0)
        too_long = self.min_length_ratio > self.max_length_ratio or self.min_length_offset > self.max_length_offset
        if has_minimum and too_long:
            raise ValueError(
                f"search.min_length_ratio={self.min_length_ratio}, search.min_length_offset={self.min_length_offset}: "
                f"cannot be more than search.max_length_ratio={self.max_length_ratio} and "
                f"search.max_length_offset={self.max_length_offset}"
            )

    @property
    def num_hypotheses(self) -> int:
        """Number of hypotheses of a sentence that are decoded side by side."""
        return {"beam": self.beam_size, "sample": self.n_best, "mbr": self.mbr_samples}[self.method]
