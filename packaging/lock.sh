#!/usr/bin/env bash
# Writes packaging/locks: for each set of packages that something here installs, every version and
# the SHA-256 of every file of it that the index has. One resolution serves all Pythons from 3.11 on
# and all machines, with markers where they differ. Called by `make lock`, with uv as the first word.
#
# What is pinned stays pinned unless pyproject.toml forbids it; more words are for uv, such as
# `--upgrade`, or `--upgrade-package click`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
uv=${1:?usage: packaging/lock.sh UV [OPTION ...]}
shift

compile() { # SET WORD ...: what uv resolves into packaging/locks/SET.txt
    local set=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --annotation-style line --custom-compile-command "make lock" \
        --output-file "packaging/locks/$set.txt" "$@"
}

# The widest first: the others take its versions, so all sets go into one environment.
widest=packaging/locks/bench.txt
compile bench pyproject.toml --extra demo --extra fast \
    --group build --group test --group lint --group bench "$@"
compile test pyproject.toml --extra demo --extra fast \
    --group build --group test --group lint --constraints $widest "$@"
compile demo pyproject.toml --extra demo --group build --constraints $widest "$@"
compile run pyproject.toml --constraints $widest "$@"
compile build --group build --constraints $widest "$@"
compile compiled --group build --group compiled --constraints $widest "$@"
compile release --group build --group release --constraints $widest "$@"
compile lock --group lock --constraints $widest "$@"
