#!/usr/bin/env bash
# Writes the digest that the image's base has today behind its tag in Containerfile. A digest is the
# SHA-256 of what the registry answers for the tag, a list of one image a machine; so it is computed
# here from that answer, and holds for x86-64 and ARM alike. Called by `make base`; needs skopeo and
# a registry within reach. Read the difference, run `make devices`, and commit it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
file=${1:-Containerfile}

tag=$(sed -n 's/^ARG BASE=\([^@]*\).*/\1/p' "$file")
listed=$(mktemp)
trap 'rm -f "$listed"' EXIT
skopeo inspect --raw "docker://$tag" >"$listed" || {
    echo "base: no registry answers for $tag; $file stays as it was" >&2
    exit 1
}
digest=sha256:$(sha256sum "$listed" | cut -d ' ' -f 1)
sed -i "s|^ARG BASE=.*|ARG BASE=$tag@$digest|" "$file"
echo "$tag is $digest"
