"""Names that changed since version 0.3: its configurations and results are read under today's names."""

from collections.abc import Collection
from typing import Any

_OPTIONS_BY_NODE = {
    "": "threads=num_threads",
    "data": "builtin_pairs=synthetic.train builtin_valid=synthetic.valid builtin_test=synthetic.test "
    "builtin_long=synthetic.long builtin_seed=synthetic.seed kind=format more_tests=extra_tests path=hf_dataset "
    "config=hf_config max_ratio=max_length_ratio alignment=train_alignments strict=error_on_dropped cache=cache_dir",
    "data.tokenizer": "kind=type sampling=subword_regularization max_pairs=max_training_pairs "
    "max_characters=max_training_characters",
    "search": "beam=beam_size num_best=n_best no_repeat=no_repeat_ngram_size groups=diverse_groups "
    "diversity=diversity_penalty stop=early_stopping min_ratio=min_length_ratio min_extra=min_length_offset "
    "max_ratio=max_length_ratio max_extra=max_length_offset length_norm=length_normalization samples=mbr_samples "
    "utility=mbr_utility",
    "metrics": "resamples=num_resamples paired=significance_test",
    "alignment": "links=decision null=allow_null choose_on=selection_pairs importance_on=head_importance_pairs",
    "optim": "warmup=warmup_updates final_ratio=min_lr_ratio decay=plateau_factor",
    "train": "coverage_loss=coverage_loss_weight guided_alignment=guided_alignment_weight r_drop=r_drop_alpha "
    "keep_last=keep_last_checkpoints keep_best=keep_best_checkpoints average=average_checkpoints guard=on_divergence "
    "guard_factor=max_grad_norm_ratio accumulate=gradient_accumulation ema=ema_decay "
    "stop_metric=early_stopping_metric valid_sentences=valid_bleu_sentences",
    "model": "width=d_model feed_forward=ffn_dim layer_drop=layerdrop tie=tie_embeddings embedding=embedding_dim "
    "hidden=hidden_size wiring=decoder encoder_self=encoder_self_attention decoder_self=decoder_self_attention",
}
_COMMAND_OPTIONS = (
    "outside=external_scores weights=save_weights longest=max_length names=allowed_hosts max_lines=max_sentences "
    "max_characters=max_sentence_chars max_waiting=queue_size max_seconds=timeout"
)
_ATTENTION_OPTIONS = (
    "project=project_qk positions=max_positions normaliser=normalizer top=top_k width=window_size layers=per_layer"
)
_KEYS = (
    "quantities=learned_scalars batches_split=oom_splits mean_of=averaged_updates reading=alignment_source "
    "read_from=alignment_source_text chosen_by=selected_by outside=external under=under_attended over=over_attended "
    "forward=monotonic jump=jump_length end=eos_weight"
)


def _table(text: str) -> dict[str, str]:
    return {old: new for old, _, new in (item.partition("=") for item in text.split())}


RENAMED_ATTENTION_OPTIONS = _table(_ATTENTION_OPTIONS)
"""Options of an attention, which also stand in the mappings of its `per_layer`."""

RENAMED_OPTIONS = {
    f"{node}.{old}".lstrip("."): f"{node}.{new}".lstrip(".")
    for node, text in _OPTIONS_BY_NODE.items()
    for old, new in _table(text).items()
}
"""Options and nodes by their old names: stored configurations are read with it, command lines are corrected."""

RENAMED_OPTIONS |= {
    f"model.{node}.{old}": f"{RENAMED_OPTIONS.get(f'model.{node}', f'model.{node}')}.{new}"
    for node in ("attention", "encoder_self", "decoder_self")
    for old, new in RENAMED_ATTENTION_OPTIONS.items()
}

RENAMED_COMMAND_OPTIONS = _table(_COMMAND_OPTIONS)
"""The same for options that are not stored."""

RENAMED_VALUES = {
    ("search.early_stopping", "bound"): "never",
    ("metrics.significance_test", "bs"): "bootstrap",
    ("metrics.significance_test", "ar"): "randomization",
    ("model.match_width", "encoder_self.dim"): "encoder_self_attention.dim",
    ("model.match_width", "decoder_self.dim"): "decoder_self_attention.dim",
    **{
        ("model.match_width", old): RENAMED_OPTIONS[f"model.{old}"].removeprefix("model.")
        for old in ("embedding", "hidden", "width", "feed_forward")
    },
}
"""Values by (today's option, old value)."""

RENAMED_KEYS = _table(_KEYS) | {
    f"mean_{name}": f"averaged_{name}" for name in ("loss", "perplexity", "bleu", "chrf", "chrf++", "ter", "aer")
}
"""Keys in the files of a run (metrics.jsonl, scores.json)."""


def renamed_option(path: str, known: Collection[str]) -> str | None:
    """Return today's name of an option of version 0.3, if it is one of `known`."""
    node, _, leaf = path.rpartition(".")
    new = RENAMED_OPTIONS.get(path) or RENAMED_COMMAND_OPTIONS.get(path)
    if new is None and node in RENAMED_OPTIONS:
        new = f"{RENAMED_OPTIONS[node]}.{leaf}"
    return new if new in known else None


def upgrade_keys(content: Any) -> Any:
    """Return what a JSON file of a run holds, under today's keys; the names of external scores are the user's."""
    if isinstance(content, dict):
        return {
            RENAMED_KEYS.get(key, key): value if key in ("outside", "external") else upgrade_keys(value)
            for key, value in content.items()
        }
    return [upgrade_keys(item) for item in content] if isinstance(content, list) else content
