#!/usr/bin/env bash
# Measures ours and the peers in turns, twice (ours, peers, ours, peers), and prints Markdown. Close everything else.
# usage: run.sh DIR decode RUN [search.NAME=VALUE …]    RUN as it is, with these options, and with them in bf16
#        run.sh DIR train [NAME=VALUE …]                both kinds of models, ours in fp32 and bf16, with these options
# NUM_THREADS (2) for all; PYTHON (python) is the one that has nmt; TEST=PREFIX another test set than that of RUN; PROGRAMS: those to train with.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage="usage: run.sh DIR decode RUN [search.NAME=VALUE …] | run.sh DIR train [NAME=VALUE …]"
dir=${1:?$usage} what=${2:?$usage} ours=${PYTHON:-python} peers=$1/torch_peers/bin/python threads=num_threads=${NUM_THREADS:-2}
shift 2
results=$dir/$what.jsonl
: >"$results" && : >"$dir/$what.log"
export OMP_NUM_THREADS=${NUM_THREADS:-2}
measure() { echo "$what ${*:2}" >&2; "$1" "$here/$what.py" "$2" "${@:3}" "$threads" 2>>"$dir/$what.log" >>"$results"; }
if [[ $what == decode ]]; then
  "$ours" "$here/convert.py" "${1:?$usage}" "$dir" "${TEST:-}" >&2
  for _ in 1 2; do
    measure "$ours" nmt "$dir"
    (($# < 2)) || measure "$ours" nmt "$dir" "${@:2}"
    measure "$ours" nmt "$dir" search.precision=bf16 "${@:2}"
    for program in marian ctranslate2 joeynmt; do measure "$peers" $program "$dir"; done
    measure "$peers" ctranslate2 "$dir" compute_type=int8
  done
  "$ours" "$here/table.py" "$results" marian
else
  for kind in transformer rnn; do
    for _ in 1 2; do
      for precision in fp32 bf16; do measure "$ours" nmt $kind "$dir" "train.precision=$precision" "$@"; done
      for program in ${PROGRAMS:-eole marian joeynmt}; do measure "$ours" $program $kind "$dir" "$@"; done
    done
  done
  "$ours" "$here/table.py" "$results" eole
fi
