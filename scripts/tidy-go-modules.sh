#!/usr/bin/env bash
# `go mod tidy` in every tool module of the lab; versions themselves are changed by hand in go.mod.
set -euo pipefail
# Two modules are not in the checksum database; go.sum pins them all the same.
export GONOSUMDB=github.com/pulumi/pulumi-kubernetes,github.com/pulumi/cloud-ready-checks
for module in lab/tools/*/go.mod; do
    echo "==> ${module%/go.mod}"
    (cd "$(dirname "$module")" && go mod tidy)
done
