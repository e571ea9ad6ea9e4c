#!/usr/bin/env bash
# Builds the index with the address and undefined behaviour sanitizers and runs its tests under them, then a stress
# program under the thread sanitizer. Needs cmake, ninja and the packages of the tests on the PATH; arguments go to
# pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/sanitize
cmake -S core -B "$build" -G Ninja -DKATO_SANITIZE=ON -DCMAKE_BUILD_TYPE=Debug \
  -DPython_EXECUTABLE="$(command -v python)" >/dev/null
cmake --build "$build"

LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
KATO_TWIN_PAIRS="${KATO_TWIN_PAIRS:-5000}" \
  python - "$build"/_core.*.so tests/unit/core -q -p no:cacheprovider --timeout 1800 "$@" <<'PYTHON'
# The installed package, but with the sanitized module in place of its own.
import importlib.util
import sys

import pytest

import kato

spec = importlib.util.spec_from_file_location("kato._core", sys.argv[1])
sys.modules["kato._core"] = kato._core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kato._core)
print("testing", kato._core.__file__, flush=True)
sys.exit(pytest.main(sys.argv[2:]))
PYTHON

cmake -S core -B build/sanitize-thread -G Ninja -DKATO_SANITIZE_THREAD=ON -DCMAKE_BUILD_TYPE=Debug >/dev/null
cmake --build build/sanitize-thread
TSAN_OPTIONS=halt_on_error=1 build/sanitize-thread/kato_stress
