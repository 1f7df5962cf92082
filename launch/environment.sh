# shellcheck shell=bash
# Shell code that the scripts share; sourced, never run. Sets variables of MPI only where the user
# has not.

fail() {
  echo "${0##*/}: error: $*" >&2
  exit 1
}

announce() { echo "== $*"; }

processors() { nproc; } # what this process may use, cut by its affinity

# Lets mpirun start more processes than the machine has processors, in containers, as root.
allow_local_mpi() {
  if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  fi
  export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
  # A process that waits for a message lets the others compute.
  export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
  # By default each process is bound to one core, which its compute threads and its communication
  # thread would then share, however many cores there are. Unbound, the kernel places them.
  export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
  # On one machine messages go through shared memory. Looking for fast networks first takes a
  # quarter of the time that a start takes.
  export OMPI_MCA_pml="${OMPI_MCA_pml:-ob1}"
  # An error is the one line that caravan prints, without mpirun's paragraphs about it.
  export OMPI_MCA_orte_execute_quiet="${OMPI_MCA_orte_execute_quiet:-1}"
}

# Installs those of the named Debian packages that are missing.
install_packages() {
  local package missing=() as_root=()
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    fail "this is not Debian: install what these packages of Debian 12 hold, then go on: $*"
  fi
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
      missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null ||
      fail "not root, and there is no sudo; as root: apt-get install ${missing[*]}"
    as_root=(sudo)
  fi
  announce "installing ${missing[*]}"
  local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q
    --no-install-recommends "${missing[@]}")
  # The lists of packages may be old or absent: then once more, with new ones.
  "${install[@]}" >/dev/null 2>&1 && return 0
  "${as_root[@]}" apt-get update -q ||
    fail "cannot reach Debian's package servers; install by hand: ${missing[*]}"
  "${install[@]}" || fail "cannot install, see above; the packages are: ${missing[*]}"
}
