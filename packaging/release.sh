#!/usr/bin/env bash
# Builds wheel and sdist into dist/, and checks what a stranger will rely on: both are built twice
# and are the same to the byte, their metadata is right, the wheel works on what the lock names.
# Beside them lie that lock, for `pip install --require-hashes`, and a list of what is in it with
# licences (an SBOM, CycloneDX 1.6). Uploads nothing. Called by `make release`, with Python 3.11 or
# newer in whose environment packaging/locks/release.txt is installed. With `compiled` there is a second
# wheel, for this Python on this kind of machine, in which gossip/ is compiled (packaging/compiled): that
# takes gcc, packaging/locks/compiled.txt, and some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:?usage: packaging/release.sh PYTHON [compiled]}
case $python in # it is called from elsewhere, too
/*) ;;
*/*) python=$PWD/$python ;;
esac
compiled=${2:-}

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
quietly() { # WORD ...: what a command says is shown when it fails
    "$@" >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        exit 1
    }
}
for copy in one two; do
    git clone --quiet . "$scratch/$copy"
    quietly "$python" -m build --no-isolation --outdir "$scratch/$copy.dist" "$scratch/$copy"
    if [ -n "$compiled" ]; then
        HATCH_BUILD_HOOK_ENABLE_CUSTOM=true quietly \
            "$python" -m build --no-isolation --wheel --outdir "$scratch/$copy.dist" "$scratch/$copy"
    fi
done
diff -r "$scratch/one.dist" "$scratch/two.dist" || {
    echo "release: two builds of one commit differ; nothing was kept" >&2
    exit 1
}
quietly "$python" -m twine check --strict "$scratch"/one.dist/*

# Only what an installed agent has: neither pip nor setuptools, unless the lock names them.
"$python" -m venv --without-pip "$scratch/venv"
pip() { "$python" -m pip -qq --python "$scratch/venv/bin/python" "$@"; }
pip install --require-hashes --requirement packaging/locks/run.txt

version=$("$python" -c 'import runpy; print(runpy.run_path("agent/_version.py")["__version__"])')
sbom=$scratch/one.dist/covey-$version.cdx.json
# The list names the version, which the wheel's builder reads from agent/_version.py.
sed "s/^dynamic = .*/version = \"$version\"/" pyproject.toml >"$scratch/pyproject.toml"
"$python" -m cyclonedx_py environment --pyproject "$scratch/pyproject.toml" --output-reproducible \
    --spec-version 1.6 --output-format JSON --output-file "$sbom" "$scratch/venv/bin/python"
cp packaging/locks/run.txt "$scratch/one.dist/covey-$version.requirements.txt"

cd "$scratch" # away from the source: what works here works from the wheel
for wheel in one.dist/*.whl; do
    pip install --no-deps --no-index --force-reinstall "$wheel"
    pip check # what is locked is within the wheel's ranges
    HOME=$scratch quietly venv/bin/covey --dir "$scratch/device-${wheel##*-}" init trial --node-name first
    case $wheel in
    *-none-any.whl) kind=pure ;;
    *) kind=compiled ;;
    esac
    venv/bin/python - $kind <<'LOOK'
import sys
import gossip.node as node
kind = "pure" if node.__file__.endswith(".py") else "compiled"
sys.exit(f"release: the {sys.argv[1]} wheel is {kind}" if kind != sys.argv[1] else 0)
LOOK
done
said=$(venv/bin/covey --version)
cd - >/dev/null

rm -rf dist
mv "$scratch/one.dist" dist
(cd dist && sha256sum -- * >SHA256SUMS)
echo "$said, commit $(git rev-parse --short HEAD), built twice with the same bytes, installed and tried:"
cat dist/SHA256SUMS
echo "Nothing was uploaded."
