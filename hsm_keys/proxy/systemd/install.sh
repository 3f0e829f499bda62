# Sets a signing proxy for the key @NAME@ up, on a machine with systemd. Run it as root, as often as you like: files that are there stay.
set -eu
name='@NAME@' etc=${DESTDIR:-}/etc
id -u hsm-keys >/dev/null 2>&1 || useradd --system --user-group --shell /usr/sbin/nologin hsm-keys
install -d -m 755 "$etc/hsm-keys" "$etc/systemd/system"
write() { # FILE MODE, the content from stdin
    [ -e "$1" ] || install -m "$2" /dev/stdin "$1"
}
@SECRET@
write "$etc/hsm-keys/$name.env" 644 <<'FILE'
@ENV@
FILE
write "$etc/hsm-keys/$name.toml" 644 <<'FILE'
@POLICY@
FILE
write "$etc/systemd/system/hsm-keys-proxy@.socket" 644 <<'FILE'
@SOCKET@
FILE
write "$etc/systemd/system/hsm-keys-proxy@.service" 644 <<'FILE'
@SERVICE@
FILE
[ -z "${DESTDIR:-}" ] || exit 0
systemctl daemon-reload
systemctl enable --now "hsm-keys-proxy@$name.socket"
printf '%s\n' "look at $etc/hsm-keys/$name.env and $name.toml, then: systemctl start hsm-keys-proxy@$name" >&2
