#!/usr/bin/env bash
# Makes what hsm-keys needs on a machine without an HSM, and runs a command inside it:
#
#   ./softhsm-setup.sh COMMAND...        SoftHSM, a .venv with the project, a throwaway token `kalshi`
#   eval "$(./softhsm-setup.sh)"         the same for the shell at hand
#
# Nothing is made twice. HSM_KEYS_PYTHON names the Python to use (3.11 to 3.13), HSM_KEYS_VENV another folder than
# .venv. The token lies in .softhsm, its PIN in .softhsm/pin, readable by you alone: for tests, not for money.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
venv=${HSM_KEYS_VENV:-$here/.venv}
case $venv in /*) ;; *) venv=$here/$venv ;; esac
state=$here/.softhsm
extras=kms,sandbox

say() { printf '%s\n' "softhsm-setup: $*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "this needs root, and there is no sudo: run as root: $*"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2 && return
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >&2
}

install_softhsm() {
    say "installing SoftHSM"
    if command -v apt-get >/dev/null; then apt_install softhsm2
    elif command -v dnf >/dev/null; then as_root dnf install -q -y softhsm >&2
    elif command -v apk >/dev/null; then as_root apk add --quiet softhsm >&2
    elif command -v brew >/dev/null; then brew install --quiet softhsm >&2
    else die "no apt, dnf, apk or brew here: install SoftHSM 2 by hand, then run this again"
    fi
}

find_module() {
    local folder
    for folder in /usr/lib/softhsm /usr/lib/*/softhsm /usr/lib64/pkcs11 /usr/lib64/softhsm /usr/lib64 \
        /usr/local/lib/softhsm /opt/homebrew/lib/softhsm /opt/homebrew/opt/softhsm/lib/softhsm; do
        if [ -f "$folder/libsofthsm2.so" ]; then printf '%s' "$folder/libsofthsm2.so"; return; fi
    done
}

# A name on PATH proves nothing: pyenv puts shims there for versions that it doesn't run.
usable_python() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${HSM_KEYS_PYTHON:-}" ]; then
        usable_python "$HSM_KEYS_PYTHON" || die "HSM_KEYS_PYTHON=$HSM_KEYS_PYTHON is no Python 3.11 to 3.13"
        printf '%s' "$HSM_KEYS_PYTHON"
        return
    fi
    for candidate in python3.13 python3.12 python3.11 python3 "$HOME"/.pyenv/versions/3.1[321].*/bin/python; do
        if usable_python "$candidate"; then printf '%s' "$candidate"; return; fi
    done
    die "no Python 3.11 to 3.13 found: install one, or name it in HSM_KEYS_PYTHON"
}

# What the virtual environment was made from; it is written last, so a run that was cut off is made good.
stamp() { printf '%s %s %s\n' "$(cksum <"$here/pyproject.toml")" "$here" "$extras"; }

make_venv() {
    local python
    python=$(find_python)
    say "making $venv with $("$python" --version)"
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --clear "$venv" >&2 || {
            command -v apt-get >/dev/null || die "$python can't make a virtual environment"
            apt_install python3-venv
            "$python" -m venv --clear "$venv" >&2
        }
    fi
    # --group needs pip 25.1
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip >&2
    "$venv/bin/python" -m pip install --quiet --editable "${here}[$extras]" --group "$here/pyproject.toml:dev" >&2
    stamp >"$venv/.hsm-keys-stamp"
}

random_pin() { od -An -N8 -tx1 /dev/urandom | tr -d ' \n'; }

# softhsm2-util takes PINs as arguments, which every process list shows, or from a terminal: so give it one.
init_token() {
    SOFTHSM2_CONF=$state/softhsm2.conf "$venv/bin/python" - "$state" <<'PYTHON'
import os, pathlib, pty, select, sys

state = pathlib.Path(sys.argv[1])
so_pin, pin = ((state / name).read_bytes().strip() for name in ("so-pin", "pin"))
child, terminal = pty.fork()
if child == 0:
    os.execvp("softhsm2-util", ["softhsm2-util", "--init-token", "--free", "--label", "kalshi"])
said, answers = b"", [so_pin, so_pin, pin, pin]
while select.select([terminal], [], [], 60)[0]:
    try:
        piece = os.read(terminal, 1024)
    except OSError:  # on Linux a terminal ends with an error when its program has gone
        piece = b""
    if not piece:
        break
    said += piece
    if answers and said.rstrip().endswith(b"PIN:"):
        os.write(terminal, answers.pop(0) + b"\n")
        said = b""
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if code or answers:
    sys.exit(f"softhsm-setup: softhsm2-util failed ({code}): {said.decode(errors='replace').strip()}")
PYTHON
}

make_token() {
    say "making the throwaway token kalshi in $state"
    rm -rf -- "$state" # it has no stamp: what is there was never finished
    (
        umask 077
        mkdir -p "$state/tokens"
        random_pin >"$state/so-pin"
        random_pin >"$state/pin"
        write_conf
        init_token
        printf 'ready\n' >"$state/ready"
    )
}

write_conf() {
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$state/tokens" \
        >"$state/softhsm2.conf"
}

venv_is_ready() { [ "$(cat "$venv/.hsm-keys-stamp" 2>/dev/null)" = "$(stamp)" ]; }
token_is_ready() { [ -f "$state/ready" ] && grep -qsxF "directories.tokendir = $state/tokens" "$state/softhsm2.conf"; }

make_all() {
    if command -v flock >/dev/null; then # two runs at once make one of everything
        exec 9>"$here/.softhsm-setup.lock"
        flock 9
    fi
    if ! command -v softhsm2-util >/dev/null || [ -z "$(find_module)" ]; then install_softhsm; fi
    venv_is_ready || make_venv
    if [ -f "$state/ready" ]; then write_conf; else make_token; fi # the folder may have moved
    if command -v flock >/dev/null; then exec 9>&-; fi
}

module=$(find_module)
if [ -z "$module" ] || ! command -v softhsm2-util >/dev/null || ! venv_is_ready || ! token_is_ready; then
    make_all
    module=$(find_module)
    [ -n "$module" ] || die "SoftHSM is installed, and libsofthsm2.so is in none of its usual places"
fi

export PATH="$venv/bin:$PATH"
export SOFTHSM2_CONF="$state/softhsm2.conf"
export HSM_KEYS_MODULE="$module"
export HSM_KEYS_STORE="pkcs11:token=kalshi?module-path=$module"
export HSM_KEYS_PIN_FILE="$state/pin"

if [ $# -gt 0 ]; then exec "$@"; fi
for name in PATH SOFTHSM2_CONF HSM_KEYS_MODULE HSM_KEYS_STORE HSM_KEYS_PIN_FILE; do
    printf 'export %s=%q\n' "$name" "${!name}"
done
