#!/usr/bin/env bash
# The ablation study of docs/ablation.md: seven scores, three seeds, equal parameters; then its comparison.
# usage: [BIN=.venv/bin] [SEEDS=1,2,3] scripts/ablation.sh rnn|transformer|multi30k [OPTION=VALUE ...]
set -euo pipefail
part=${1:?which part: rnn, transformer or multi30k}
shift
python=${BIN:+$BIN/}python
case $part in
  rnn) options=() ;;
  transformer) options=(model=transformer train.max_updates=1200 train.valid_every=400 train.save_every=400) ;;
  multi30k)
    options=(experiment=multi30k_rnn model.decoder=luong
      optim.warmup_updates=200 train.max_updates=1000 train.valid_every=500 train.save_every=500)
    ;;
  *)
    echo "error: $part: must be rnn, transformer or multi30k" >&2
    exit 1
    ;;
esac
runs=runs name=ablation_$part
for option in "$@"; do
  case $option in
    runs=*) runs=${option#runs=} ;;
    name=*) name=${option#name=} ;;
  esac
done
# A failed run is listed and does not stop the others; runs with a report are compared anyway.
failed=0
"$python" -m nmt.train -m name="$name" sweep=attention seed="${SEEDS:-1,2,3}" model.match=parameters num_threads=1 \
  launcher=processes jobs=2 "${options[@]}" "$@" || failed=$?
[ "$failed" -gt 1 ] && exit "$failed" # stopped by a signal
folder=$runs/$name
compare() {
  local file=$folder/$1
  shift
  "$python" -m nmt.compare "$folder" --baseline scaled --factors model.attention.score "$@" \
    --output "$file.html" --output "$file.md" --output "$file.csv"
}
compare compare
[ "$part" = multi30k ] || compare compare_long --test-set test_long
exit "$failed"
