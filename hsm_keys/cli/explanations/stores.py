"""Error codes of the stores: tokens and their PINs, AWS KMS, OpenBao and Vault."""

from __future__ import annotations

from typing import Final

from hsm_keys.cli.explanations.explanation import Explanation

__all__ = ["EXPLANATIONS"]

EXPLANATIONS: Final = {
    "store": Explanation(
        "The module or token failed with an error that has no code of its own.",
        "Let `doctor` look at module, token and login.",
        "hsm-keys doctor",
        3,
    ),
    "store_not_found": Explanation(
        "No module, token, proxy or mount matches what was asked for.",
        "Name the module, and see which tokens it has; for a proxy, see which ones run.",
        "hsm-keys doctor --module /usr/lib/softhsm/libsofthsm2.so",
        3,
    ),
    "store_ambiguous": Explanation(
        "Several tokens or proxies match; the message lists them.",
        "Name the one that you mean, by label or serial rather than by slot.",
        "hsm-keys list --token kalshi",
        3,
    ),
    "store_unavailable": Explanation(
        "The store stopped answering: the token was pulled, its daemon ended, or a call doesn't return.",
        "Plug it in or start its daemon, then try again.",
        "hsm-keys doctor",
        3,
    ),
    "pin": Explanation(
        "There is a problem with the PIN that has no code of its own: expired, to be changed, or not to be entered.",
        "Change it with the vendor's tool, as the hint says.",
        "pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --change-pin",
        4,
    ),
    "pin_missing": Explanation(
        "The token wants a PIN, and no source gave one.",
        "Name a file or pipe with the PIN. There is no option that takes the PIN itself.",
        "hsm-keys list --pin-file /run/secrets/kalshi.pin",
        4,
    ),
    "pin_incorrect": Explanation(
        "The token refused the PIN. It is never tried again, because a few more tries would lock the token.",
        "Check the source of the PIN, and that it is this token's.",
        "hsm-keys doctor",
        4,
    ),
    "pin_locked": Explanation(
        "The PIN is locked, or one more wrong try would lock it. Nothing was tried.",
        "Locked: the security officer resets it. About to lock: make sure of the PIN, then give --force-pin once.",
        "hsm-keys list --force-pin",
        4,
    ),
    "cloud": Explanation(
        "A cloud's key service refused with an error that has no code of its own.",
        "Read the message: it names the call, the key and the service's reason.",
        "hsm-keys doctor",
        8,
    ),
    "aws": Explanation(
        "AWS or KMS refused with an error that has no code of its own.",
        "Read AWS's own code in the message; check endpoint, profile and Region.",
        "hsm-keys --kms doctor",
        8,
    ),
    "aws_access_denied": Explanation(
        "AWS knows the caller, and a policy doesn't allow the action.",
        "Allow it in the caller's IAM policy and in the key policy.",
        "hsm-keys kms policy --for sign --name prod --account 111122223333 --region us-east-1",
        8,
    ),
    "aws_credentials": Explanation(
        "There are no AWS credentials, or AWS refuses them: expired, unknown, or this machine's clock is wrong.",
        "Log in again, set AWS_PROFILE, or attach a role.",
        "aws sts get-caller-identity",
        8,
    ),
    "aws_region": Explanation(
        "No Region is named, or AWS doesn't know the Region.",
        "Name the Region where the keys are.",
        "hsm-keys --kms --region us-east-1 list",
        8,
    ),
    "aws_throttled": Explanation(
        "The account's quota of requests a second is used up; every key and program of the account shares it.",
        "Slow down, or have the quota raised in Service Quotas.",
        "aws service-quotas list-service-quotas --service-code kms",
        8,
    ),
    "aws_unavailable": Explanation(
        "KMS answered that it is unavailable now.",
        "Try again, or name a second Region to which the key is replicated.",
        "hsm-keys replicate prod --to us-west-2 --kms --region us-east-1",
        8,
    ),
    "kms_garbled_answer": Explanation(
        "The answer can't be read, lacks a part, or holds a signature that doesn't verify. It wasn't used.",
        "Check that the endpoint is KMS: AWS_ENDPOINT_URL_KMS, a proxy on the way.",
        'echo "$AWS_ENDPOINT_URL_KMS"',
        8,
    ),
    "kms_key_not_found": Explanation(
        "KMS has no such alias or key in this account and Region.",
        "Check account and Region, and list what is there.",
        "hsm-keys --kms --region us-east-1 list",
        8,
    ),
    "kms_key_state": Explanation(
        "The key is there and can't be used in its state: being made, replicated or updated, or without material.",
        "Look at its state; a new replica is ready after a minute.",
        "hsm-keys show prod --kms",
        8,
    ),
    "kms_key_disabled": Explanation(
        "Somebody disabled the key in KMS.",
        "Find out why; if it should sign again, enable it.",
        "aws kms enable-key --key-id ID",
        8,
    ),
    "kms_key_pending_deletion": Explanation(
        "The key's deletion is scheduled.",
        "Until that date the key can be kept: cancel the deletion, then enable the key.",
        "aws kms cancel-key-deletion --key-id ID",
        8,
    ),
    "kms_key_unsuitable": Explanation(
        "The key can't sign Kalshi's requests: symmetric, for encryption, of another curve, or for one Region only.",
        "Type and usage are fixed when a key is made: make another one.",
        "hsm-keys --kms enroll --name prod-2",
        8,
    ),
    "kms_key_not_pinned": Explanation(
        "The alias points to another key than the one that the store's URI pins.",
        "If the key was rotated, change the URI. If not, find out who changed the alias.",
        "hsm-keys show prod --kms",
        8,
    ),
    "vault": Explanation(
        "OpenBao or Vault refused with an error that has no code of its own.",
        "Check address, mounts and namespace in the store's URI.",
        "hsm-keys doctor --store vault:///transit",
        3,
    ),
    "vault_access_denied": Explanation(
        "The server knows the token, and the token's policies don't allow the call.",
        "Add the path and the capability that the message names to the token's policy.",
        "bao token capabilities transit/sign/prod",
        3,
    ),
    "vault_token": Explanation(
        "There is no token of Vault, or the server doesn't accept it any more.",
        "Log in again, or name a token: BAO_TOKEN, VAULT_TOKEN or a token file.",
        "bao login",
        3,
    ),
    "vault_garbled_answer": Explanation(
        "The answer can't be read, lacks a part, or holds a signature that doesn't verify. It wasn't used.",
        "Check that the address is the server's own, and that no proxy changes its answers.",
        "bao status",
        3,
    ),
    "vault_key_unsuitable": Explanation(
        "The Transit key can't sign Kalshi's requests: another type, or a version that was trimmed or archived.",
        "Enroll a new key.",
        "hsm-keys enroll --name prod-2 --store vault:///transit",
        3,
    ),
    "vault_down": Explanation(
        "The server can't answer now.",
        "Try again, or name further servers in address=, separated by commas.",
        "bao status",
        3,
    ),
    "vault_sealed": Explanation(
        "The server is sealed: it can't read its own storage.",
        "Have its operators unseal it, or name another server.",
        "bao operator unseal",
        3,
    ),
    "vault_standby": Explanation(
        "The server is a standby: it doesn't pass requests on to the active one, or lags behind it.",
        "Name the active server, or all of them, in address=.",
        "bao operator members",
        3,
    ),
    "vault_throttled": Explanation(
        "A rate limit quota of the server is used up.",
        "Slow down, or have the quota raised.",
        "bao list sys/quotas/rate-limit",
        3,
    ),
    "vault_key_not_found": Explanation(
        "There is no such key, or the Transit key that its entry names is gone.",
        "List what is there.",
        "hsm-keys list --store vault:///transit",
        5,
    ),
}
