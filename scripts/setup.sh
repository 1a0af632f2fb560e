#!/usr/bin/env bash
# Make .venv and install the locked requirements: `setup.sh run` for the studio, `setup.sh dev` for the tests as well.
set -euo pipefail
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.12 python3.13 python3.11; do
    if "$candidate" -c "$supported" >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
  echo "DMPO Studio needs Python 3.11, 3.12 or 3.13; none was found. Name one: make run PYTHON=/path/to/python3.12" >&2
  return 1
}

make_venv() {
  .venv/bin/python -c "$supported" >/dev/null 2>&1 && return
  local python
  python=$(find_python)
  echo "Setting up .venv with $("$python" --version) ..."
  rm -rf .venv
  if ! "$python" -m venv .venv; then
    echo "$python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2
    return 1
  fi
}

install_uv() {
  .venv/bin/uv --version >/dev/null 2>&1 && return
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.8"
}

install_locked() {
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --require-hashes -r "$1"
}

# Python compiles a file when it first imports it, which is two fifths of the time until the page is up. This does it now
# for what the studio imports, and serves as well where the environment forbids later starts to write what they compiled.
compile_imports() {
  PYTHONDONTWRITEBYTECODE='' .venv/bin/python -c "
import dmpo_app.cli.main, dmpo_app.server.run, dmpo_app.ui
import dmpo_app.rendering.engine, dmpo_app.training.process.trainer_process, dmpo_app.training.rounds.scheduler
from dmpo_app.diffusion.families.registry import get_family
get_family('stable_diffusion')"
}

# What comes from the system's packages, which wait for their servers as much as Python's do, and for each other's lock.
# Chromium is among them where they will have one: Playwright's, which it may be else, needs Python's packages first.
install_system_packages() {
  scripts/postgres.sh && scripts/nginx.sh || return
  if [ "$(id -u)" = 0 ] && command -v apt-get && ! [ -d ~/.cache/ms-playwright ]; then scripts/chromium.sh; fi
}

make_venv
install_uv
case "${1:-run}" in
  run)
    echo "Installing the requirements (torch is the large one; TORCH_BACKEND=cpu takes a small build) ..."
    .venv/bin/uv pip install --quiet --python .venv/bin/python ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} \
      -r requirements/torch.txt
    install_locked requirements/runtime.txt
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
    compile_imports
    ;;
  dev)
    install_system_packages >/dev/null &
    system_packages=$!
    trap 'wait "$system_packages" || true' EXIT  # a failure of the others leaves no package half installed
    make --no-print-directory setup
    install_locked requirements/dev.txt
    wait "$system_packages"
    scripts/chromium.sh >/dev/null
    ;;
  *)
    echo "usage: scripts/setup.sh run|dev" >&2
    exit 2
    ;;
esac
