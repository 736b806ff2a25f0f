#!/usr/bin/env bash
# The study of spans of docs/ablation.md: six scores, plain and guided, in a recurrent model and in a Transformer.
# usage: [BIN=.venv/bin] [SEEDS=1,2,3] [EFLOMAL=eflomal-align] scripts/ablation_spans.sh FOLDER LANGUAGE [OPTION=VALUE ...]
#        [BIN=.venv/bin] [SEEDS=1,2,3] scripts/ablation_spans.sh builtin [OPTION=VALUE ...]
# FOLDER has {train,valid,test_tagged}.{en,LANGUAGE}; links by eflomal are written to {train,valid}.gold there.
# builtin: the same models on the built-in pair, whose true links are known.
set -euo pipefail
data=${1:?folder of the text, or builtin}
python=${BIN:+$BIN/}python
here=$(dirname "$0")
if [ "$data" = builtin ]; then
  language=builtin
  shift
  text=(data=builtin)
else
  language=${2:?target language}
  shift 2
  text=(data=text data.train="$data/train" data.valid="$data/valid" data.test=null data.source_lang=en
    data.target_lang="$language" data.tokenizer.type=bpe)
  if [ ! -e "$data/train.gold" ] || [ ! -e "$data/valid.gold" ]; then
    "$python" "$here/align_with_eflomal.py" --eflomal "${EFLOMAL:-eflomal-align}" --languages en "$language" \
      --output "$data" "$data/train" "$data/valid"
    for split in train valid; do mv "$data/$split.pharaoh" "$data/$split.gold"; done
  fi
fi
runs=runs
for option in "$@"; do
  case $option in
    runs=*) runs=${option#runs=} ;;
  esac
done
failed=0
sweep() { # ARCHITECTURE UPDATES MODEL_OPTION ...; a failed run is listed and does not stop the others
  local name=spans_${language}_$1 updates=$2
  shift 2
  "$python" -m nmt.train -m name="$name" "${text[@]}" data.max_length=60 data.tokenizer.vocab_size=2000 \
    model.dropout=0 model.tie_embeddings=all model.match=parameters \
    train.max_updates="$updates" train.valid_every="$updates" train.save_every="$updates" train.valid_bleu_sentences=100 \
    optim.schedule=cosine optim.warmup_updates=100 alignment.head_importance_pairs=0 search.beam_size=2 \
    model.attention.score=scaled,additive,dot,general,cosine,hybrid train.guided_alignment_weight=0,0.5 \
    seed="${SEEDS:-1,2,3}" num_threads=1 launcher=processes jobs=2 "$@" || failed=$?
  [ "$failed" -le 1 ] || exit "$failed" # stopped by a signal
  [ "$language" != builtin ] || return 0 # its report needs no markup
  for run in "$runs/$name/" "$runs/$name"/*/; do # a sweep of one run has no folder for it
    [ ! -e "$run/checkpoints/best.pt" ] || [ -e "$run/report-spans/config.yaml" ] || echo "$run"
  done | xargs -r -P 2 -I{} \
    "$python" -m nmt.evaluate checkpoint={} num_threads=1 markup="$data/test_tagged" output={}/report-spans ||
    failed=1
}
sweep rnn 950 model=rnn model.decoder=luong model.hidden_size=256 model.embedding_dim=128 train.batch_tokens=768 \
  optim.learning_rate=1.6e-2 "$@"
sweep transformer 1200 model=transformer model.d_model=128 model.ffn_dim=256 model.encoder_layers=2 \
  model.decoder_layers=2 train.guided_layer=2 train.guided_head=1 train.batch_tokens=1024 optim.learning_rate=3e-3 "$@"
"$python" "$here/ablation_spans.py" "$runs/spans_${language}_rnn" "$runs/spans_${language}_transformer"
exit "$failed"
