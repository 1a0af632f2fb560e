#!/usr/bin/env bash
# Print the folder of PostgreSQL's programs for the tests of the store on it, installing them if there are none.
set -euo pipefail

find_programs() {
  local folder
  for folder in "${DMPO_POSTGRES_BIN:-}" "$(dirname "$(readlink -f "$(command -v initdb || echo /none)")")" \
    $(ls -d /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin 2>/dev/null | sort -rV); do
    if [ -n "$folder" ] && [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
      echo "$folder"
      return
    fi
  done
  return 1
}

find_programs && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's PostgreSQL for the tests of the store ..." >&2
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends postgresql; } >&2 || true
  find_programs && exit 0
fi
echo "No PostgreSQL server to test the store on. Install one (apt install postgresql, brew install postgresql), or name" \
  "its folder of programs: DMPO_POSTGRES_BIN=/path/to/bin" >&2
exit 1
