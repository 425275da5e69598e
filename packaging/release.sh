#!/usr/bin/env bash
# Builds wheel and sdist into dist/, and checks what a stranger will rely on: both are built twice
# and are the same to the byte, their metadata is right, the wheel installs alone and works.
# Uploads nothing. Called by `make release`, with Python 3.11 or newer that has build and twine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:?usage: packaging/release.sh PYTHON}

if [ -n "$(git status --porcelain)" ]; then
    echo "release: commit or remove first what git does not know; nothing was built:" >&2
    git status --short >&2
    exit 1
fi
# Times inside the archives are those of the commit, so whoever builds it gets the same bytes.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH PIP_DISABLE_PIP_VERSION_CHECK=1

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for copy in one two; do
    git clone --quiet . "$scratch/$copy"
    "$python" -m build --outdir "$scratch/$copy.dist" "$scratch/$copy" >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        exit 1
    }
done
diff -r "$scratch/one.dist" "$scratch/two.dist" || {
    echo "release: two builds of one commit differ; nothing was kept" >&2
    exit 1
}
"$python" -m twine check --strict "$scratch"/one.dist/* >"$scratch/log" || {
    cat "$scratch/log" >&2
    exit 1
}

"$python" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install -qq "$scratch"/one.dist/*.whl
cd "$scratch" # away from the source: what works here works from the wheel
HOME=$scratch venv/bin/covey --dir "$scratch/device" init trial --node-name first >"$scratch/log" 2>&1 || {
    cat "$scratch/log" >&2
    exit 1
}
said=$(venv/bin/covey --version)
cd - >/dev/null

rm -rf dist
mv "$scratch/one.dist" dist
(cd dist && sha256sum -- * >SHA256SUMS)
echo "$said, commit $(git rev-parse --short HEAD), built twice with the same bytes, installed and tried:"
cat dist/SHA256SUMS
echo "Nothing was uploaded."
