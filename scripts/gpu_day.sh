#!/usr/bin/env bash
# What to run first on a machine with a GPU: correctness, then speed, in nine minutes at most; see docs/dev/gpu.md.
# usage: scripts/gpu_day.sh [DIR] [option of gpu_day.py ...]   PYTHON=python3 names the interpreter that has torch
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-gpu_day}
shift $(($# > 0))
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv >"$out/nvidia-smi.csv" 2>&1
timeout --kill-after=10 535 "${PYTHON:-python3}" scripts/gpu_day.py --out "$out" "$@" 2>&1 | tee "$out/gpu_day.log"
status=${PIPESTATUS[0]}
echo "exit status $status; the report is $out/gpu_day.md"
exit "$status"
