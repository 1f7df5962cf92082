#!/usr/bin/env bash
# Installs a bundle (cmake/bundle.cmake) into a temporary folder, moves it and uses it: where it
# may, in a root folder that has nothing but the bundle, glibc and a shell, so that nothing of this
# machine can be used by mistake. usage: bundle_test.sh BUILD_FOLDER
set -euo pipefail

build=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
bundle=/opt/elsewhere/caravan # below $root

fail() {
  echo "bundle_test: $*" >&2
  exit 1
}

install_bundle() {
  cmake --install "$build" --component caravan --prefix "$scratch/caravan" \
    >"$scratch/install.log" 2>&1 || { cat "$scratch/install.log" >&2; fail "cannot install"; }
  mkdir -p "$root/opt/elsewhere"
  mv "$scratch/caravan" "$root$bundle" # what it was installed as must not matter
}

# What a program loads when it starts, with nothing set that points to the bundle.
check_libraries() {
  local program outside
  for program in "$root$bundle"/bin/* "$root$bundle"/tests/*_test; do
    [ "$(head -c 4 "$program")" = $'\x7fELF' ] || continue
    [ "${program##*/}" != orted ] || continue # started by mpirun, which sets LD_LIBRARY_PATH
    outside=$(env -i ldd "$program" | grep -v -e "$root$bundle/" -e linux-vdso \
      -e '/ld-linux-x86-64' -E -e '\blib(c|m|mvec|dl|rt|pthread|util|resolv|anl)\.so' || true)
    [ -z "$outside" ] || fail "$program needs, from outside the bundle: $outside"
  done
}

# glibc, which no bundle can have, and a shell for scripts. No CUDA, whatever the build was made with.
fill_root() {
  mkdir -p "$root"/{bin,lib64,lib/x86_64-linux-gnu,proc,sys,dev,tmp,home}
  cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64"
  cp -L /lib/x86_64-linux-gnu/lib{c,m,mvec,dl,rt,pthread,util,resolv,anl}.so.[0-9] \
    "$root/lib/x86_64-linux-gnu"
  cp -L /bin/sh "$root/bin/sh"
}

# in_root COMMAND...: with an empty environment, seeing $root only.
in_root() {
  # shellcheck disable=SC2016 # the shell inside expands it
  unshare --mount --map-root-user sh -ec '
    root=$1; shift
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    mount --rbind /sys "$root/sys"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/home \
      OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
      OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none \
      chroot "$root" "$@"' sh "$root" "$@"
}

# The same without the right to do that: libraries were checked above.
in_place() {
  local words=("${@//$bundle/$root$bundle}")
  env -i HOME="$scratch" "${words[@]}"
}

# use TITLE EXPECTED COMMAND...: succeeds and prints what is expected.
use() {
  local title=$1 expected=$2
  shift 2
  "$run" "$@" >"$scratch/output" 2>&1 || { cat "$scratch/output" >&2; fail "$* failed"; }
  grep -q -- "$expected" "$scratch/output" ||
    { cat "$scratch/output" >&2; fail "$* does not say '$expected'"; }
  echo "ok: $title"
}

install_bundle
check_libraries
fill_root
if unshare --mount --map-root-user true 2>/dev/null; then
  run=in_root text=/home
else
  echo "no right to change the root folder: the bundle runs where this machine's files are seen"
  run=in_place text=$root/home
fi
for i in 1 2 3 4 5 6 7 8 9; do
  mkdir -p "$root/home/text"
  seq -f "Load %.0f of llama $i crosses the pass." 40 >"$root/home/text/$i.txt"
done
data=$text/data
tiny=(model.hidden_size=32 model.intermediate_size=64 model.num_hidden_layers=2
  model.num_attention_heads=4 model.num_key_value_heads=2 model.head_dim=8 data.sequence_len=32
  model.max_position_embeddings=32 "data.train=$data" "data.validation=$data" train.max_steps=3
  train.micro_batch_size=2 train.global_batch_size=4 train.eval_steps=0 runtime.device=cpu)

use doctor Open.MPI "$bundle/bin/caravan" doctor
use plan arena "$bundle/bin/caravan" plan "$bundle/configs/llama4-tiny.yaml" --ranks 4 \
  model.vocab_size=4096 train.micro_batch_size=2
use "data build" written "$bundle/bin/caravan" data build "$text/text" --output "$data" \
  --vocab-size 300 --validation-fraction 0.2
use train 'validation loss' "$bundle/bin/caravan" train "$bundle/configs/quickstart.yaml" \
  "${tiny[@]}" "output_dir=$text/one"
use "mpirun train" 'dp 2' "$bundle/bin/mpirun" -n 2 "$bundle/bin/caravan" train \
  "$bundle/configs/quickstart.yaml" "${tiny[@]}" "output_dir=$text/two"
if [ -e "$root$bundle/tests/golden_losses_test" ]; then
  use "golden losses" PASSED /bin/sh -c "CARAVAN_TEST_FOLDER=$bundle \
    exec $bundle/tests/golden_losses_test --gtest_filter=-*Slow*"
fi
# NVIDIA's libraries are found; a device is not.
if [ -e "$root$bundle/tests/runtime_cuda_test" ]; then
  use "tests of a GPU" 'test suite ran' "$bundle/tests/runtime_cuda_test" --gtest_filter='CudaBackend*'
fi
size=$(tar -C "$root$bundle" -c . | gzip -1 | wc -c)
echo "compressed: $((size >> 20)) MiB"
[ "$size" -lt $((60 << 20)) ] || fail "the bundle is too large to copy about: $size bytes"
