#!/usr/bin/env bash
# All tests, in phases. A phase that fails does not keep the later ones from running; which failed is said at the end.
# Arguments go to every pytest: `scripts/test.sh -x`.
set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONDONTWRITEBYTECODE=  # what is compiled is kept, also where the environment forbids it: Python starts a hundred times
trap 'echo "interrupted" >&2; exit 130' INT TERM

# Two tests at a time.
together=(
  tests/{backup,diffusion,exchange,hosting,labeling,objective,pocket,rendering,scoring,store,training,ui,web}
  tests/test_{docs,domain_limits,every_setting,io,patience,settings,shared_options,slow_tests,unused_names}.py
)

# Whole servers, browsers and trainings in several processes: two files at a time, each as one. A file goes to whichever
# process is free, so those that take longest come first.
longest=(
  tests/training/test_distributed.py tests/test_package.py tests/test_train_command.py tests/browser/test_whole_loop.py
  tests/training/test_trainer_process.py tests/training/test_dataset_training_in_two_processes.py tests/test_kills.py
  tests/browser/test_labeling_page.py tests/test_serving.py tests/test_adapters_command.py tests/test_python_api.py
  tests/backup/test_wiped_disk.py tests/backup/test_running_backup.py
)
others=("${longest[@]}")
shopt -s globstar nullglob
for path in tests/**/test_*.py; do
  for known in "${together[@]}" "${others[@]}"; do
    [[ $path == "$known" || $path == "$known"/* ]] && continue 2
  done
  others+=("$path")
done

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
phase "parts" "${pytest[@]}" -n 2 "${together[@]}" "${longest[@]/#/--ignore=}"
phase "the store on PostgreSQL" env DMPO_TEST_DATABASE=postgresql "${pytest[@]}" -n 2 tests/store tests/exchange/test_importing.py
phase "whole studios and several processes" "${pytest[@]}" -n 2 --dist loadfile --no-loadscope-reorder "${others[@]}"

printf '\n'
printf '%s\n' "${results[@]}"
exit $failed
