#!/usr/bin/env bash
# Make .venv with semgan and its tests' tools. Safe to run again; says little; the details are in .venv/setup.log.
# PYTHON=/path/to/python3 chooses the interpreter; TORCH=torch==X.Y another torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
log=$venv/setup.log
torch=${TORCH:-torch==2.13.0}
cpu_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

fail() {
    printf 'semgan set-up: %s\n' "$*" >&2
    exit 1
}

# The first interpreter that is new enough.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

python=$(find_python)
[ -n "$python" ] || fail "needs Python 3.11 or newer, found ${PYTHON:-$(python3 --version 2>/dev/null || echo none)}.
  Debian, Ubuntu: sudo apt install python3 python3-venv     Fedora: sudo dnf install python3
  or name one:    make PYTHON=/path/to/python3 ..."
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python has no venv module.
  Debian, Ubuntu: sudo apt install python3-venv     or name another Python: make PYTHON=/path/to/python3 ..."

# A .venv that was moved or whose Python is gone is made anew.
if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    rm -rf "$venv"
    "$python" -m venv "$venv" || fail "could not make $venv with $python."
fi
echo "Setting up $venv (once; a few minutes, mostly downloads) ..."
: >"$log"

pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input -q "$@" >>"$log" 2>&1
}

# Asked before pip is, because pip asks again for every package and waits long where a network swallows packets.
cpu_index_answers() {
    "$venv/bin/python" - "$cpu_index/" >>"$log" 2>&1 <<'PROBE'
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=5).read(1)
PROBE
}

# torch first: without an NVIDIA device its CPU build (a tenth of the size), where the index of CPU builds can be reached.
# Its version ends in +cpu and so sorts above the plain one: an extra index is enough.
if "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    echo "torch is there already" >>"$log"
elif ! { ! nvidia-smi >/dev/null 2>&1 && cpu_index_answers &&
    pip_install "$torch" --extra-index-url "$cpu_index" --timeout 20 --retries 1; }; then
    pip_install "$torch" || { tail -n 20 "$log" >&2; fail "could not install $torch; see $log."; }
fi
pip_install -e '.[test]' || { tail -n 20 "$log" >&2; fail "could not install semgan; see $log. Is there a network?"; }
"$venv/bin/python" -c 'import torch, semgan' >>"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "torch does not start; see $log."; }
touch "$venv/.ready"
echo "Ready: $("$venv/bin/python" -c 'import torch, platform; print("Python", platform.python_version() + ", torch", torch.__version__)')"
