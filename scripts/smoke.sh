#!/usr/bin/env bash
# Smoke test of about a minute: train, evaluate, translate and compare tiny models on the synthetic pair.
# usage: BIN=.venv/bin scripts/smoke.sh
set -euo pipefail
bin=$(cd "${BIN:?BIN must name the folder that holds python}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$(dirname "$0")/.."
tiny=(data.cache_dir="$work/cache" data.synthetic.train=2000 data.synthetic.valid=50 data.synthetic.test=50 data.synthetic.long=20
  data.tokenizer.vocab_size=1000 train.max_updates=60 train.valid_every=30 train.log_every=10 search.beam_size=2)
"$bin/python" -m nmt.train "${tiny[@]}" runs="$work/runs" name=smoke \
  model.embedding_dim=32 model.hidden_size=64 model.attention.dim=32
"$bin/python" -m nmt.evaluate checkpoint="$work/runs/smoke" output="$work/again"
cmp "$work/runs/smoke/report/hypotheses.txt" "$work/again/hypotheses.txt"
printf 'The old man sleeps.\n\nA dog\n' | "$bin/python" -m nmt.translate checkpoint="$work/runs/smoke" >"$work/out"
[ "$(wc -l <"$work/out")" -eq 3 ]
for file in hypotheses.txt scores.json alignments.npz alignments.pharaoh report.html heatmaps/0001.png; do
  [ -s "$work/runs/smoke/report/$file" ] || { echo "report/$file is missing" >&2; exit 1; }
done
"$bin/python" -m nmt.train "${tiny[@]}" runs="$work/runs" name=other model=transformer model.d_model=32 \
  model.attention.score=[additive,dot,scaled,hybrid] model.match=parameters
[ -s "$work/runs/other/report/report.html" ]
"$bin/python" -m nmt.compare --diff "$work/runs/smoke" "$work/runs/other" | grep -q '^FLOPs per target token'
echo "smoke run: complete"
