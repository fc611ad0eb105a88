# The packages that Tessera needs, one table for all scripts. Source it, then:
#   install_packages build|test|bench   installs what is missing (apt, as root or with sudo; asks nothing)
# Debian 12 is what CI runs; Debian 13 is proven in a chroot by scripts/nightly.sh; Ubuntu 24.04 is untested.

tessera_packages() {  # LIST → package names for this distribution
  local list=$1 id=debian version=12
  if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release && echo "${ID:-debian}")
    version=$(. /etc/os-release && echo "${VERSION_ID:-12}")
  fi
  local boost=libboost1.81-dev clang_format=clang-format-14 clang_rt=libclang-rt-14-dev clang=clang-14
  case "$id-$version" in
    debian-13*) boost=libboost1.83-dev clang_format=clang-format-19 clang_rt=libclang-rt-19-dev clang=clang-19 ;;
    ubuntu-24*) boost=libboost1.83-dev clang_format=clang-format-18 clang_rt=libclang-rt-18-dev clang=clang-18 ;;
  esac
  case $list in
    build) echo "build-essential cmake ninja-build pkg-config ccache mold python3 python3-pip ca-certificates $boost
      libssl-dev libargon2-dev libsqlite3-dev libpq-dev libhiredis-dev libpcre2-dev libonig-dev nlohmann-json3-dev prometheus-cpp-dev libcli11-dev libtomlplusplus-dev
      libspdlog-dev libfmt-dev zlib1g-dev libgrpc++-dev protobuf-compiler-grpc protobuf-compiler libprotobuf-dev
      libgtest-dev libgmock-dev" ;;  # the tests are part of the build
    test) echo "gcovr curl python3-venv postgresql redis-server $clang_format $clang $clang_rt" ;;
    bench) echo "libbenchmark-dev libdnnl-dev ocl-icd-opencl-dev wrk linux-perf debootstrap" ;;
    *) echo "tessera_packages: no list '$list'" >&2; return 2 ;;
  esac
}

install_packages() {
  command -v dpkg-query >/dev/null || { echo "this script installs with apt: on another system see docs/building.md" >&2; return 1; }
  local missing=() package
  for package in $(tessera_packages "$1"); do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing: ${missing[*]}" >&2
  $sudo apt-get update -qq >&2 || true
  DEBIAN_FRONTEND=noninteractive $sudo ${sudo:+-E} apt-get install -y --no-install-recommends "${missing[@]}" >&2
}
