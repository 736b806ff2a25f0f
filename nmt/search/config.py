"""How a translation is found."""

import math
from dataclasses import dataclass

METHODS = ("beam", "sample", "mbr")
LENGTH_NORMALIZATIONS = ("power", "gnmt")
UTILITIES = ("chrf", "bleu")
EARLY_STOPPING = ("never", "beam")


@dataclass
class SearchConfig:
    """How a translation is found; the same everywhere (validation, evaluation, translation).

    method: beam, sample or mbr. sample = n_best translations drawn from the model; mbr = of `mbr_samples` drawn ones
        those with the highest expected utility (minimum Bayes risk, Eikema & Aziz 2020).
    beam_size: hypotheses kept at every step; 1 is greedy search.
    batch_size: sentences decoded at a time; it does not change what is found.
    batch_tokens: source tokens decoded at a time, padding counted: long sentences come in smaller batches. 0: no limit.
        It does not change what is found either.
    length_normalization, length_penalty: a finished hypothesis y with log p scores log p / |y|^length_penalty ("power")
        or log p / ((5 + |y|) / 6)^length_penalty ("gnmt": Wu et al. 2016, equation 14), end token counted. 0 = plain
        log p; power 1 = mean log p per token.
    coverage_penalty: β of Wu et al. 2016, equation 14: β Σ_i log min(Σ_j a_ij, 1) is added to the score of a finished
        hypothesis, a_ij the mean weight of all layers and heads that target token j gives to source token i (end tokens
        among them, and a sum below 1e-6 counting as that).
    min_length_ratio, min_length_offset: a hypothesis has at least min_length_ratio · (source length) +
        min_length_offset tokens before its end token.
    max_length_ratio, max_length_offset: and at most max_length_ratio · (source length) + max_length_offset.
    early_stopping: when a sentence is done: "never" = when no live hypothesis can become better than the n_best
        finished ones; "beam" = also when `beam_size` hypotheses have ended that were among the `beam_size` best
        continuations of
        their step,
        which is what other programs do: fewer steps, now and then a worse translation; a group counts its own.
    n_best: translations wanted of each sentence. With groups the best of every group come before the second of
        any, of these the better ones, and what two groups found comes once: 1 gives the best of all, and fewer than
        there are groups the best of theirs. The list is sorted by score.
    diverse_groups: diverse beam search (Vijayakumar et al. 2018): the beam in so many groups, one chosen after the
        other. Each goes on until none of its live hypotheses can become better than `beam_size` finished ones, so that
        what is
        found does not depend on n_best.
    diversity_penalty: λ there: what a token costs in a group for each earlier group's hypothesis that has it at this
        place.
    no_repeat_ngram_size: no sequence of so many tokens comes twice in a hypothesis; 0: anything may.
    seed: of samples. A sentence's draws depend on it and the sentence alone, and the first ones not on how many follow.
    mbr_samples: of mbr: how many are drawn.
    temperature: of samples: log-probabilities are divided by it.
    top_k: of samples: only the best so many tokens are drawn from (Fan et al. 2018); 0: all.
    top_p: of samples: only the best tokens that have this probability together (Holtzman et al. 2020).
    mbr_utility: of mbr: chrf or bleu of sentences, of sacreBLEU.
    """

    method: str = "beam"
    beam_size: int = 5
    batch_size: int = 64
    batch_tokens: int = 8192
    length_normalization: str = "power"
    length_penalty: float = 1.0
    coverage_penalty: float = 0.0
    min_length_ratio: float = 0.0
    min_length_offset: int = 0
    max_length_ratio: float = 2.0
    max_length_offset: int = 10
    early_stopping: str = "never"
    n_best: int = 1
    diverse_groups: int = 1
    diversity_penalty: float = 0.5
    no_repeat_ngram_size: int = 0
    seed: int = 1
    mbr_samples: int = 32
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    mbr_utility: str = "chrf"

    def validate(self) -> None:
        """Raises ValueError naming the option, its value and what is allowed."""
        choices = (
            ("method", METHODS),
            ("length_normalization", LENGTH_NORMALIZATIONS),
            ("mbr_utility", UTILITIES),
            ("early_stopping", EARLY_STOPPING),
        )
        for option, allowed in choices:
            if getattr(self, option) not in allowed:
                raise ValueError(f"search.{option}={getattr(self, option)}: must be one of {', '.join(allowed)}")
        for option in ("beam_size", "batch_size", "n_best", "diverse_groups", "mbr_samples"):
            if getattr(self, option) < 1:
                raise ValueError(f"search.{option}={getattr(self, option)}: must be at least 1")
        for option in ("batch_tokens", "no_repeat_ngram_size", "seed", "top_k", "min_length_offset"):
            if getattr(self, option) < 0:
                raise ValueError(f"search.{option}={getattr(self, option)}: must be 0 or more")
        for option in (
            *("length_penalty", "coverage_penalty", "diversity_penalty"),
            *("min_length_ratio", "max_length_ratio", "max_length_offset"),
        ):
            if not 0 <= getattr(self, option) < math.inf:
                raise ValueError(f"search.{option}={getattr(self, option)}: must be a number of at least 0")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"search.temperature={self.temperature}: must be above 0; search.beam_size=1 takes the best"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"search.top_p={self.top_p}: must be above 0 and at most 1")
        if self.method == "beam" and self.n_best > self.beam_size:
            raise ValueError(f"search.n_best={self.n_best}: cannot be more than search.beam_size={self.beam_size}")
        if self.method == "mbr" and self.n_best > self.mbr_samples:
            raise ValueError(f"search.n_best={self.n_best}: cannot be more than search.mbr_samples={self.mbr_samples}")
        if self.beam_size % self.diverse_groups:
            raise ValueError(
                f"search.diverse_groups={self.diverse_groups}: search.beam_size={self.beam_size} is no multiple of it"
            )
        if (self.min_length_ratio, self.min_length_offset) > (0.0, 0) and (
            self.min_length_ratio > self.max_length_ratio or self.min_length_offset > self.max_length_offset
        ):
            raise ValueError(
                f"search.min_length_ratio={self.min_length_ratio}, search.min_length_offset={self.min_length_offset}: "
                "cannot be more than "
                f"search.max_length_ratio={self.max_length_ratio} and search.max_length_offset={self.max_length_offset}"
            )

    @property
    def num_hypotheses(self) -> int:
        """Hypotheses of a sentence that are decoded side by side."""
        return {"beam": self.beam_size, "sample": self.n_best, "mbr": self.mbr_samples}[self.method]
