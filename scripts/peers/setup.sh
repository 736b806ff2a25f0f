#!/usr/bin/env bash
# Installs the other programs into DIR, in the versions of docs/benchmarks.md: two virtual environments, about 6 GB.
# usage: setup.sh DIR      (PYTHON: the interpreter, 3.11 when measured)
set -euo pipefail
dir=${1:?usage: setup.sh DIR}
python=${PYTHON:-python3}
mkdir -p "$dir"
[[ -d $dir/torch_peers ]] || "$python" -m venv "$dir/torch_peers"
"$dir/torch_peers/bin/pip" install -q torch==2.13.0
# JoeyNMT asks for torch versions that it does not need, and pymarian for tools that decoding does not need
"$dir/torch_peers/bin/pip" install -q --no-deps joeynmt==2.3.0 pymarian==1.12.42
"$dir/torch_peers/bin/pip" install -q ctranslate2==4.8.5 sacrebleu==2.6.0 sentencepiece==0.2.0 'setuptools<81' datasets \
  huggingface-hub importlib_metadata matplotlib packaging pandas pillow plotly portalocker pyyaml requests sacremoses \
  seaborn subword-nmt tensorboard tqdm
[[ -d $dir/eole_peer ]] || "$python" -m venv "$dir/eole_peer"
"$dir/eole_peer/bin/pip" install -q torch==2.13.0
"$dir/eole_peer/bin/pip" install -q eole==0.6.4 aiohttp  # which Eole imports without declaring it
