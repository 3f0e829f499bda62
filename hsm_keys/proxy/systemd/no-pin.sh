install -d -m 755 "$etc/systemd/system/hsm-keys-proxy@$name.service.d"
write "$etc/systemd/system/hsm-keys-proxy@$name.service.d/no-pin.conf" 644 <<'FILE'
# This store has no PIN, or its URI names the place of it.
[Service]
LoadCredential=
UnsetEnvironment=HSM_KEYS_PIN_FILE
FILE
