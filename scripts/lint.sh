#!/usr/bin/env bash
# Every linter, all findings shown before failing.
set -uo pipefail
failed=()
run() {
    echo "==> $*"
    "$@" || failed+=("$1")
}
mapfile -t scripts < <(git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run | xargs -0 -r ls -d 2>/dev/null)
run ruff check --quiet .
run ruff format --check --quiet .
run mypy
run yamllint --strict .
run ansible-lint --offline -q
((${#scripts[@]} == 0)) || run shellcheck "${scripts[@]}"
if ((${#failed[@]})); then
    echo "lint failed: ${failed[*]}" >&2
    exit 1
fi
