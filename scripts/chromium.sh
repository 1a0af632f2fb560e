#!/usr/bin/env bash
# Print the path of a Chromium for the browser tests, installing one if there is none.
set -euo pipefail
cd "$(dirname "$0")/.."

find_chromium() {
  local candidate
  for candidate in "${DMPO_CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
    if [ -n "$candidate" ] && command -v "$candidate"; then return; fi
  done
  local own='from playwright.sync_api import sync_playwright as p
with p() as play: print(play.chromium.executable_path)'
  local path
  path=$(.venv/bin/python -c "$own" 2>/dev/null) && [ -x "$path" ] && echo "$path"
}

find_chromium && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Debian's Chromium for the browser tests ..." >&2
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >&2 || true
  find_chromium && exit 0
fi
echo "Downloading Playwright's Chromium for the browser tests ..." >&2
.venv/bin/playwright install chromium >&2 || true
find_chromium && exit 0
echo "No Chromium for the browser tests. Install one (apt install chromium), or name it: DMPO_CHROMIUM=/path/to/chrome" >&2
exit 1
