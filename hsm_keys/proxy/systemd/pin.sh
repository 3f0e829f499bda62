if [ ! -e "$etc/hsm-keys/$name.pin" ]; then
    printf 'PIN of the token: ' >&2
    if [ -t 0 ]; then
        trap 'stty echo' EXIT
        trap 'exit 130' HUP INT TERM # dash runs the trap for EXIT at an exit alone
        stty -echo
    fi
    IFS= read -r pin
    printf '\n' >&2
    printf %s "$pin" | write "$etc/hsm-keys/$name.pin" 600
fi
