"""``init``."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from hsm_keys.cli.asking import TerminalPerson
from hsm_keys.cli.commands import command
from hsm_keys.cli.confirming import require_consent, yes_option
from hsm_keys.cli.enroll import KEY_TYPES, key_object
from hsm_keys.cli.options import api_key_id_option, key_name, new_key_options, settings_options
from hsm_keys.cli.output import print_json, print_line
from hsm_keys.cli.profile import add_profile_of
from hsm_keys.cli.session import bootstrap_signer, connector, management_signer, opened_store, reporting
from hsm_keys.errors import UsageError
from hsm_keys.signing.environments import ENVIRONMENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hsm_keys.cli.session import Connector
    from hsm_keys.cli.settings import Settings
    from hsm_keys.lifecycle.enroll import Enrollment
    from hsm_keys.onboarding.first_key import WantedKey
    from hsm_keys.onboarding.profile_of_key import PlannedProfile
    from hsm_keys.person import Person
    from hsm_keys.stores.base import KeyStore, StoredKey
    from hsm_keys.stores.new_store import NewStore

__all__ = ["fields_of_key", "init"]


@command(uses_profile=False, epilog="Example: hsm-keys init prod --env demo")
@key_name("What to call the key; by default as the profile; else prod, demo, or kalshi.", required=False)
@click.option(
    "--key-type", type=click.Choice(KEY_TYPES), help="The key's type; if left out, init chooses one and says why."
)
@new_key_options
@api_key_id_option
@yes_option
@settings_options
@click.pass_obj
def init(
    settings: Settings,
    *,
    name: str | None,
    key_type: str | None,
    scopes: tuple[str, ...],
    subaccount: int | None,
    auth: str | None,
    api_key_id: str | None,
    yes: bool,
) -> None:
    """Set up a first key: find or make a token, make and register the key, write a profile, send a request.

    Before it changes anything, init says what it will do, and asks. If it is killed or refused half way, the same
    command continues from there. Where Kalshi doesn't register keys by API, register the key by hand, and give its API
    key id as --api-key-id or as the answer to the question.
    """
    from hsm_keys.onboarding.first_key import WantedKey, check_kalshi, choose_key_type, find_key, send_first_request
    from hsm_keys.onboarding.profile_of_key import plan_profile
    from hsm_keys.signing.algorithms import KeyType
    from hsm_keys.signing.api_key_ids import check_api_key_id

    require_consent(yes=yes)
    if settings.as_json and not yes:
        raise UsageError("--output json prints no questions", hint="give --yes with it")
    profile = add_profile_of(settings, name)
    connect = connector(settings)
    name = name or profile or (connect.environment if connect.environment in ENVIRONMENTS else "kalshi")
    wanted = WantedKey(name, KeyType(key_type) if key_type else None, list(scopes) or None, subaccount)
    if api_key_id is not None:
        api_key_id = check_api_key_id(api_key_id, "--api-key-id")
    with reporting(settings) as report:
        person = TerminalPerson(report, yes=yes)
        bootstrap = bootstrap_signer(settings.exchange) if auth is None else None
        check_kalshi(connect.base_url, bootstrap, connect, report, exchange=settings.exchange)
        new_store = _choose_store(settings, person)
        with _opened(settings, new_store, report) as store:
            plan = plan_profile(profile or name, fields_of_key(settings, store, connect))
            there = find_key(store, name)
            if there is None:
                kind, why = choose_key_type(wanted.key_type, bootstrap)
                report(f"the key will be {kind}: {why}")
                wanted = replace(wanted, key_type=kind)
            if there is None or there.api_key_id is None or not plan.is_there:
                person.agree(_question(name, store, connect, plan, there))
            enrollment = _enroll(store, wanted, connect, person, auth=auth, api_key_id=api_key_id)
            plan = plan.write(enrollment, report)
            send_first_request(connect, enrollment, report)
        if new_store is not None:
            new_store.finish()
        _print(settings, enrollment, plan, report)


def _choose_store(settings: Settings, person: Person) -> NewStore | None:
    """Put the store into the settings, unless options, variables or a profile name it; return one that was made."""
    from hsm_keys.onboarding.choosing_store import choose_store, name_a_store
    from hsm_keys.profiles.file import config_path

    options = settings.store_options
    if settings.stores or os.environ.get("HSM_KEYS_STORE") or name_a_store(options):
        return None
    chosen = choose_store(options, config_path().parent, person)
    settings.stores = (chosen.uri,)
    settings.store_options = dict(chosen.options)
    return chosen.new


@contextmanager
def _opened(settings: Settings, new_store: NewStore | None, report: Callable[[str], None]) -> Iterator[KeyStore]:
    """Open the store; the PIN of one that was made with a PIN that was typed isn't asked for again."""
    if new_store is None or new_store.pin is None:
        with opened_store(settings, report) as store:
            yield store
        return
    from hsm_keys import open_store

    with open_store(
        settings.stores[0], ask_pin=lambda _prompt: new_store.pin.reveal() if new_store.pin else ""
    ) as store:
        yield store


def fields_of_key(settings: Settings, store: KeyStore, connect: Connector) -> dict[str, str]:
    """Return the fields of a profile that lead to a store and to an environment of Kalshi."""
    from hsm_keys.onboarding.bot_lines import environment_fields
    from hsm_keys.onboarding.profile_of_key import pin_file_to_keep
    from hsm_keys.stores import backend_of

    ws_url = settings.ws_url or os.environ.get("KALSHI_WS_URL")
    named = next(iter(settings.stores), os.environ.get("HSM_KEYS_STORE", ""))
    backend = backend_of(store.uri)
    fields = {"store": backend.uri_to_keep(store.uri, named)}
    pin_file = pin_file_to_keep(settings.store_options.get("pin_file"))
    if pin_file and backend.wants_secret(fields["store"]):
        fields["pin-file"] = pin_file
    return fields | environment_fields(connect.base_url, connect.exchange, ws_url)


def _question(name: str, store: KeyStore, connect: Connector, plan: PlannedProfile, there: StoredKey | None) -> str:
    """Return what is going to change, as a question."""
    steps = []
    if there is None:
        steps.append(f"make the key {name!r} in {store.describe()}")
    if there is None or there.api_key_id is None:
        steps.append(f"register {name!r} at Kalshi ({connect.base_url})")
    if not plan.is_there:
        steps.append(f"write the profile {plan.name} to {plan.path}")
    return f"Next: {', then '.join(steps)}. Go on?"


def _enroll(
    store: KeyStore,
    wanted: WantedKey,
    connect: Connector,
    person: Person,
    *,
    auth: str | None,
    api_key_id: str | None,
) -> Enrollment:
    from hsm_keys.onboarding.first_key import find_key, first_key

    there = find_key(store, wanted.name)
    signer = None
    if api_key_id is None and (there is None or there.api_key_id is None):
        signer = management_signer(connect, [store], auth, person.report)
    with connect(signer) if signer else nullcontext() as management:
        return first_key(
            store,
            wanted,
            environment=connect.environment,
            connect=connect,
            management=management,
            api_key_id=api_key_id,
            person=person,
        )


def _print(settings: Settings, enrollment: Enrollment, plan: PlannedProfile, report: Callable[[str], None]) -> None:
    from hsm_keys.onboarding.bot_lines import python_lines, request_line

    lines = python_lines(enrollment.key.name, plan.fields)
    if settings.as_json:
        profile = {"profile": plan.name, "config": str(plan.path), "python": lines}
        print_json(key_object(enrollment.key, enrollment.custody, enrollment.api_key_id) | profile)
        return
    report("for your bot, in Python:")
    for line in lines:
        print_line(line)
    report(f"from a shell: {request_line(enrollment.key.name, plan.name, settings.exchange)}")
