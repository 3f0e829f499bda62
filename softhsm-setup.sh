#!/usr/bin/env bash
# Makes what hsm-keys needs on a machine without an HSM, and runs a command inside it:
#
#   ./softhsm-setup.sh COMMAND...        SoftHSM, a .venv with the project, a throwaway token `kalshi`
#   eval "$(./softhsm-setup.sh)"         the same for the shell at hand
#
# For hsm-keys and for a shell the .venv has the program; any other COMMAND brings what tests and checks need, too.
# Nothing is made twice, and what a killed run left half-made is made again. HSM_KEYS_PYTHON names the Python to use
# (3.11 to 3.14), HSM_KEYS_VENV another folder than .venv (a relative one lies in the project). The token lies in
# .softhsm, its PIN in .softhsm/pin, readable by you alone: for tests, not for money.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
venv=${HSM_KEYS_VENV:-.venv}
case $venv in /*) ;; *) venv=$here/$venv ;; esac
stamp_file=$venv/.hsm-keys-stamp
state=$here/.softhsm
extras=kms,proxy,sandbox
# The tools of a developer take longer to install than the program does.
case ${1:-hsm-keys} in hsm-keys) content=program ;; *) content=tools ;; esac

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
    if command -v brew >/dev/null; then # Homebrew in a place of its own; slow to ask, so asked last
        folder=$(brew --prefix)/lib/softhsm
        if [ -f "$folder/libsofthsm2.so" ]; then printf '%s' "$folder/libsofthsm2.so"; fi
    fi
}

# A name on PATH proves nothing: pyenv puts shims there for versions that it doesn't run. So each is run, and says
# where it really is: a venv's own python can't make that venv anew.
real_python() {
    "$1" -c 'import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 14): sys.exit(1)
print(sys._base_executable)' 2>/dev/null
}

find_python() {
    local candidate
    if [ -n "${HSM_KEYS_PYTHON:-}" ]; then
        real_python "$HSM_KEYS_PYTHON" || die "HSM_KEYS_PYTHON=$HSM_KEYS_PYTHON is no Python 3.11 to 3.14"
        return
    fi
    for candidate in python3.13 python3.14 python3.12 python3.11 python3 \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[3421].*/bin/python; do
        if real_python "$candidate"; then return; fi
    done
    die "no Python 3.11 to 3.14 found: install one, or name it in HSM_KEYS_PYTHON"
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# What the virtual environment is made from, and its content: program or tools. It is written into it when it is finished.
stamp() {
    printf '%s %s %s %s %s\n' "$(cat "$here/pyproject.toml" "$here/constraints.txt" | cksum)" "$here" "$extras" \
        "$(python_version "$venv/bin/python")" "$1"
}

venv_is_ready() {
    case $(cat "$stamp_file" 2>/dev/null) in
        "$(stamp tools)" | "$(stamp "$content")") venv_has_wanted_python ;; # who has the tools has the program
        *) return 1 ;;
    esac
}

venv_has_wanted_python() {
    [ -z "${HSM_KEYS_PYTHON:-}" ] || [ "$(python_version "$HSM_KEYS_PYTHON")" = "$(python_version "$venv/bin/python")" ]
}

create_venv() {
    "$1" -m venv "$venv" >&2 && return
    command -v apt-get >/dev/null || return 1
    apt_install "python$(python_version "$1")-venv" && "$1" -m venv "$venv" >&2 # Debian packages it by itself
}

# Nothing is compiled ahead: that takes as long as all the rest, and most modules are never imported.
pip_install() {
    local clock='' result=0
    if [ -t 2 ]; then
        show_time "$$" &
        clock=$!
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "$@" >&2 || result=$?
    if [ -n "$clock" ]; then
        kill "$clock" 2>/dev/null || true
        printf '\r\033[K' >&2
    fi
    [ "$result" = 0 ] || die "pip failed, it says above why: once that is mended, run this again"
}

show_time() { # PID: on a terminal, for how long pip has been at work, as long as that process lives
    local begun=$SECONDS
    while kill -0 "$1" 2>/dev/null; do
        printf '\rsofthsm-setup: pip installs: %d s' $((SECONDS - begun)) >&2
        sleep 1
    done
}

# An environment that works is brought up to date, also one that somebody made by hand: nothing in it is removed.
# One that moved with its project doesn't work: its programs name the Python of the old place.
venv_is_usable() {
    [ -f "$venv/pyvenv.cfg" ] && real_python "$venv/bin/python" >/dev/null && venv_has_wanted_python &&
        "$venv/bin/python" -m pip --version >/dev/null 2>&1 &&
        { [ ! -f "$stamp_file" ] || grep -qF -- " $here $extras " "$stamp_file"; }
}

make_venv() {
    local python=$1 wanted=(--editable "${here}[$extras]")
    if [ "$content" = tools ]; then wanted+=(--group "$here/pyproject.toml:dev"); fi
    if venv_is_usable; then
        say "bringing $venv up to date"
    else
        # Only what has our stamp is cleared: HSM_KEYS_VENV may name a folder with something else in it.
        if [ ! -f "$stamp_file" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
            die "$venv wasn't made by this script: move it away, or name another folder in HSM_KEYS_VENV"
        fi
        say "making $venv with $("$python" --version)"
        mkdir -p "$venv"
        printf 'unfinished\n' >"$stamp_file"
        find "$venv" -mindepth 1 -maxdepth 1 ! -name "${stamp_file##*/}" -exec rm -rf -- {} +
        create_venv "$python" || die "$python can't make a virtual environment, it says above why"
    fi
    pip_install --upgrade pip # --group needs 25.1
    pip_install --constraint "$here/constraints.txt" "${wanted[@]}"
    stamp "$content" >"$stamp_file"
}

random_pin() { od -An -N8 -tx1 /dev/urandom | tr -d ' \n'; }

# softhsm2-util takes PINs as arguments, which every process list shows, or from a terminal: so give it one.
init_token() {
    SOFTHSM2_CONF=$state/softhsm2.conf "$1" - "$state" <<'PYTHON'
import os, pathlib, pty, select, signal, sys

state = pathlib.Path(sys.argv[1])
so_pin, pin = ((state / name).read_bytes().strip() for name in ("so-pin", "pin"))
child, terminal = pty.fork()
if child == 0:
    os.execvp("softhsm2-util", ["softhsm2-util", "--init-token", "--free", "--label", "kalshi"])
said, answers = b"", [so_pin, so_pin, pin, pin]
while True:
    if not select.select([terminal], [], [], 60)[0]:
        os.kill(child, signal.SIGKILL)
        break
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
    for secret in (so_pin, pin):  # a terminal may have echoed it
        said = said.replace(secret, b"***")
    sys.exit(f"softhsm-setup: softhsm2-util failed ({code}): {said.decode(errors='replace').strip()}")
PYTHON
}

write_conf() {
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$state/tokens" \
        >"$state/softhsm2.conf"
}

make_token() {
    say "making the throwaway token kalshi in $state"
    rm -rf -- "$state" # it isn't whole: a run was cut off, or somebody took a part away
    (
        umask 077
        mkdir -p "$state/tokens"
        random_pin >"$state/so-pin"
        random_pin >"$state/pin"
        write_conf
        init_token "$1"
        printf 'ready\n' >"$state/ready"
    )
}

token_is_whole() {
    [ -f "$state/ready" ] && [ -s "$state/pin" ] && compgen -G "$state/tokens/*/token.object" >/dev/null
}

token_is_ready() { token_is_whole && grep -qsxF "directories.tokendir = $state/tokens" "$state/softhsm2.conf"; }

softhsm_is_there() { command -v softhsm2-util >/dev/null && [ -n "$(find_module)" ]; }

# Two runs at once make one of everything. The lock is the kernel's and ends with the run; macOS has no flock
# command, Python has the call.
lock() {
    exec 9>"$here/.softhsm-setup.lock"
    "$1" -c 'import fcntl, sys
try: fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("softhsm-setup: waiting for another run to finish", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)'
}

make_all() {
    local python
    python=$(find_python)
    lock "$python"
    softhsm_is_there || install_softhsm || die "SoftHSM couldn't be installed, it says above why: install it by hand"
    softhsm_is_there || die "SoftHSM is installed, and softhsm2-util or libsofthsm2.so is in none of its usual places"
    venv_is_ready || make_venv "$python"
    if token_is_whole; then write_conf; else make_token "$python"; fi # whole, but moved with its folder
    exec 9>&-
}

if ! softhsm_is_there || ! venv_is_ready || ! token_is_ready; then make_all; fi
module=$(find_module)

export PATH="$venv/bin:$PATH"
export SOFTHSM2_CONF="$state/softhsm2.conf"
export HSM_KEYS_MODULE="$module"
export HSM_KEYS_STORE="pkcs11:token=kalshi?module-path=$module"
export HSM_KEYS_PIN_FILE="$state/pin"

if [ $# -gt 0 ]; then exec "$@"; fi
for name in PATH SOFTHSM2_CONF HSM_KEYS_MODULE HSM_KEYS_STORE HSM_KEYS_PIN_FILE; do
    printf 'export %s=%q\n' "$name" "${!name}"
done
