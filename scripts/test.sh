#!/usr/bin/env bash
# All tests, in phases. A phase that fails does not keep the later ones from running; which failed is said at the end.
# Arguments go to every pytest: `scripts/test.sh -x`.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=  # what is compiled is kept, also where the environment forbids it: Python starts a hundred times
trap 'echo "interrupted" >&2; exit 130' INT TERM

results=()
failed=0

phase() {  # phase NAME COMMAND...: run the command, note how it ended
  local name=$1 began=$SECONDS code=0
  shift
  echo "== $name"
  "$@" || { code=$?; failed=1; }
  results+=("$(printf '%-10s %s, %d s' "$( ((code)) && echo "FAILED ($code)" || echo passed)" "$name" $((SECONDS - began)))")
}

pytest=(.venv/bin/python -m pytest --durations=20 "$@")
phase "all tests" "${pytest[@]}" -n 2 tests
phase "the store on PostgreSQL" env DMPO_TEST_DATABASE=postgresql "${pytest[@]}" -n 2 tests/store tests/exchange/test_importing.py

printf '\n'
printf '%s\n' "${results[@]}"
exit $failed
