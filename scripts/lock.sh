#!/usr/bin/env bash
# Resolve pyproject.toml into the requirement files. torch and what only torch needs stand apart, so that another build
# of torch can be chosen at installation; everything else carries hashes.
set -euo pipefail
cd "$(dirname "$0")/.."

torch_only=(torch triton cuda-bindings cuda-pathfinder cuda-toolkit
  $(.venv/bin/uv pip compile --universal --no-header --no-annotate -q requirements/torch.txt | grep -oE '^(nvidia|cuda)[a-z0-9-]*' | sort -u))
common=(--universal --python-version 3.11 --no-emit-index-url --no-header --quiet --constraint requirements/torch.txt
  --constraint requirements/constraints.txt)
for package in "${torch_only[@]}"; do common+=(--no-emit-package "$package"); done

.venv/bin/uv pip compile "${common[@]}" --generate-hashes --no-annotate -o requirements/runtime.txt pyproject.toml
.venv/bin/uv pip compile "${common[@]}" --generate-hashes --no-annotate --extra dev \
  --constraint requirements/runtime.txt -o requirements/dev.txt pyproject.toml
{
  echo "# What a Gradio Space installs. Made by \`make lock\`; torch is left to the Space's hardware."
  echo "torch"
  .venv/bin/uv pip compile "${common[@]}" --no-annotate --extra space --constraint requirements/runtime.txt pyproject.toml | grep -v '^#'
} > requirements.txt.new
mv requirements.txt.new requirements.txt
