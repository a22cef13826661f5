#!/usr/bin/env bash
# A base image from a Debian mirror alone, for where no registry of images can be reached: infra/images/base.sh
# The mirror is the one that this machine's apt uses; debootstrap and buildah must be installed. Run as root.
set -euo pipefail
name=${1:-localhost/dav2-base:12}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
debootstrap --variant=minbase bookworm "$root" "$mirror"
cp /etc/apt/sources.list "$root/etc/apt/" 2>/dev/null || true
cp -r /etc/apt/sources.list.d "$root/etc/apt/" 2>/dev/null || true
container=$(buildah from scratch)
buildah add --quiet "$container" "$root" / >/dev/null
buildah config --cmd /bin/bash --label "dav2.base=debian-12" "$container"
buildah commit --quiet --rm "$container" "$name"
