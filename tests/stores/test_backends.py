"""What each back-end offers: its options in the help, refused elsewhere; its abilities, which its stores have."""

from __future__ import annotations

import ast
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, cast

import pytest

import hsm_keys
from hsm_keys import stores
from hsm_keys.cli.policy import policy_group
from hsm_keys.cli.settings import Settings
from hsm_keys.cli.store_uri import check_options, store_uri, store_uris
from hsm_keys.errors import StoreNotFoundError, UsageError
from hsm_keys.onboarding.choosing_store import choose_store, name_a_store
from hsm_keys.running.containing.hiding import hidden_paths
from hsm_keys.running.variables import kept_from_programs
from hsm_keys.stores import backend_of, backends, open_store
from hsm_keys.stores.abilities import Ability, ImportsKeys, RenamesKeys, ReplicatesKeys
from hsm_keys.stores.access import Access
from hsm_keys.stores.backend import Backend, Option
from hsm_keys.stores.base import KeyStore
from hsm_keys.stores.candidates import Candidate
from hsm_keys.stores.policies import PURPOSES, PrintsPolicies
from tests.support.cli import failed_json, run_cli

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hsm_keys import KeyType, StoredKey
    from hsm_keys.person import Person
    from hsm_keys.values import Secret

URIS = {"pkcs11": "pkcs11:token=x", "awskms": "awskms:///?region=us-east-1", "vault": "vault:///transit"}
CLASSES = {
    "pkcs11": "hsm_keys.stores.pkcs11.store.Pkcs11Store",
    "awskms": "hsm_keys.stores.awskms.store.AwsKmsStore",
    "vault": "hsm_keys.stores.vault.store.VaultStore",
}
ABILITIES = Ability.__subclasses__()
VALUES = {str: "x", int: 0, bool: True}

ELSEWHERE = [
    (backend, other, option)
    for backend in backends()
    for other in backends()
    for option in (*other.options, *other.creation_options)
    if other is not backend and not option.names_store
]


def silent(_: str) -> None:
    pass


def given(option: Option) -> dict[str, object]:
    return {option.name: VALUES[option.kind]}


@pytest.mark.parametrize("shape", ['"{}"', "'{}'", " {}", "{}\n", "{}\r\n"])
def test_a_uri_with_something_round_it_is_told_so(shape: str) -> None:
    for uri in URIS.values():
        with pytest.raises(UsageError, match="has quotes or white space around it"):
            backend_of(shape.format(uri))


def test_every_scheme_leads_to_its_back_end() -> None:
    assert {backend.scheme for backend in backends()} == set(URIS)
    for backend in backends():
        assert backend_of(URIS[backend.scheme]) is backend
        assert backend_of(URIS[backend.scheme].replace(backend.scheme, backend.scheme.upper(), 1)) is backend


@pytest.mark.parametrize(
    ("backend", "other", "option"), ELSEWHERE, ids=lambda part: getattr(part, "flag", None) or part.scheme
)
def test_an_option_of_another_back_end_is_refused(
    backend: Backend, other: Backend, option: Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = "creation_options" if option in other.creation_options else "store_options"
    uri = URIS[backend.scheme]
    settings = Settings(stores=(uri,), **{kept: given(option)})  # type: ignore[arg-type]
    for call in (store_uri, store_uris):
        with pytest.raises(UsageError, match=option.flag) as caught:
            call(settings, silent)
        assert other.example in caught.value.hint
    monkeypatch.setenv("HSM_KEYS_STORE", uri)
    with pytest.raises(UsageError, match=option.flag):
        store_uri(Settings(**{kept: given(option)}), silent)  # type: ignore[arg-type]
    check_options(other, settings)


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--store", "vault:///transit", "--module", "/x.so"),
        ("list", "--store", "vault:///transit", "--pin-file", "/x"),
        ("show", "prod", "--kms", "--force-pin"),
        ("enroll", "x", "--store", "vault:///transit", "--multi-region"),
        ("enroll", "x", "--token", "x", "--offline", "--key-policy", "/x"),
        ("kms", "policy", "--for", "sign", "--store", "vault:///transit"),
        ("vault", "policy", "--for", "sign", "--region", "us-east-1"),
    ],
)
def test_the_program_ends_with_a_usage_error_then(arguments: tuple[str, ...]) -> None:
    assert failed_json(2, *arguments)["code"] == "usage"


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.scheme)
def test_the_help_has_what_the_back_end_offers(backend: Backend) -> None:
    shared, own = run_cli("enroll", "--help-store").stdout, run_cli("enroll", "--help").stdout
    for option in backend.options:
        assert f"  {option.flag} " in shared
        assert option.flag in own
        assert all(f"[{variable}]" in shared for variable in option.variables[:1])
    for option in backend.creation_options:
        assert f"  {option.flag} " in own
    if isinstance(backend, PrintsPolicies):
        (policy,) = policy_group(backend).commands.values()
        assert set(PURPOSES) == set(next(each for each in policy.params if each.name == "purpose").type.choices)  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", backends(), ids=lambda backend: backend.scheme)
def test_its_stores_have_the_abilities_that_it_says(backend: Backend) -> None:
    module, _, name = CLASSES[backend.scheme].rpartition(".")
    kind = getattr(import_module(module), name)
    assert {ability for ability in ABILITIES if issubclass(kind, ability)} == set(backend.abilities)


def test_an_isolated_store_has_none() -> None:
    from hsm_keys.stores.isolated.store import IsolatedStore

    assert not [ability for ability in ABILITIES if issubclass(IsolatedStore, ability)]
    members = {member for ability in ABILITIES for member in ability.__abstractmethods__}
    assert not members & set(dir(IsolatedStore))


class Bare(KeyStore):
    """A store of a further back-end that can do no more than it must."""

    uri = "bare:///"

    def describe(self) -> str:
        return "the bare store"

    def keys(self) -> list[StoredKey]:
        return []

    def key(self, name: str) -> StoredKey:
        raise NotImplementedError

    def generate(self, name: str, key_type: KeyType | None = None, environment: str | None = None) -> StoredKey:
        raise NotImplementedError

    def bind(self, key: StoredKey, api_key_id: str, environment: str) -> StoredKey:
        raise NotImplementedError

    def destroy(self, key: StoredKey) -> None:
        raise NotImplementedError

    def close(self) -> None:
        pass


class _Bare(Backend):
    scheme = "bare"
    title = "a bare store"
    example = "--bare"
    access = Access(variables=("BARE_",), path_variables=("BARE_FILE",), in_home=(".bare",))
    options = (Option("--bare", "The keys are bare.", bool, names_store=True), Option("--colour", "Which."))

    def candidates(
        self, options: Mapping[str, object], env: Mapping[str, str], report: Callable[[str], None]
    ) -> list[Candidate]:
        report("looking for bare stores")
        return [Candidate("bare:///", "the bare store")] if env.get("BARE") else []

    def open(
        self,
        uri: str | Secret,
        options: Mapping[str, object],
        ask: Callable[[str], str] | None,
        creation: Mapping[str, object],
    ) -> KeyStore:
        return Bare()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A fourth back-end: nothing else knows of it."""
    described = ModuleType("hsm_keys.stores.bare.backend")
    described.BACKEND = _Bare()  # type: ignore[attr-defined]
    monkeypatch.setattr(stores, "_BACKENDS", (*stores._BACKENDS, "bare"))
    monkeypatch.setitem(sys.modules, described.__name__, described)
    return backends()[-1]


def test_a_further_back_end_is_opened_named_and_refused_as_the_others(bare: Backend) -> None:
    assert isinstance(open_store("bare:///"), Bare)
    options = {"bare": True, "colour": "red"}
    assert store_uri(Settings(store_options=options), silent) == "bare:///"
    with pytest.raises(UsageError, match=r"--colour is for a bare store, and the keys are in AWS KMS"):
        store_uri(Settings(stores=(URIS["awskms"],), store_options={"colour": "red"}), silent)
    with pytest.raises(UsageError, match=r"--region is for AWS KMS, and the keys are in a bare store"):
        store_uri(Settings(store_options={**options, "region": "us-east-1"}), silent)


def test_what_opens_a_further_back_end_is_kept_from_programs(bare: Backend) -> None:
    assert "BARE_" in kept_from_programs()
    with TemporaryDirectory(dir="/tmp") as home:
        places = {Path(home) / ".bare", Path(home) / "named"}
        for place in places:
            place.mkdir()
        assert places <= set(hidden_paths({"HOME": home, "BARE_FILE": f"{home}/named"}, []))


class _Chooser:
    """Takes the last of what is proposed."""

    answers = True

    def __init__(self) -> None:
        self.proposed: list[str] = []

    def report(self, line: str) -> None:
        self.proposed.append(line)

    def choose(self, _question: str, choices: Sequence[str]) -> int:
        self.proposed += choices
        return len(choices) - 1


def test_a_further_back_end_is_offered_to_who_sets_up_a_first_key(
    bare: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hsm_keys.stores.pkcs11.candidates.modules_here", lambda _: [])
    person = _Chooser()
    chosen = choose_store({}, tmp_path, cast("Person", person), {"BARE": "1", "VAULT_ADDR": "http://vault.example"})
    assert (chosen.uri, chosen.new) == ("bare:///", None)
    assert person.proposed == ["looking for bare stores", "the Vault that VAULT_ADDR names", "the bare store"]
    assert name_a_store({"colour": "red"})
    assert not name_a_store({"token": "kalshi", "module": "/m.so"})
    with pytest.raises(StoreNotFoundError, match="a bare store"):
        choose_store({"token": "x"}, tmp_path, cast("Person", _Chooser()), {"BARE": "1"})


def test_what_a_store_cannot_do_is_refused_with_who_can() -> None:
    bare, nobody = Bare(), cast("StoredKey", None)
    with pytest.raises(UsageError, match="the bare store can't replicate keys; AWS KMS can"):
        ReplicatesKeys.of(bare)
    with pytest.raises(UsageError, match="can't rename keys"):
        RenamesKeys.of(bare)
    with pytest.raises(UsageError, match="can't take in keys"):
        ImportsKeys.of(bare)
    with pytest.raises(UsageError, match="can't rename keys"):
        RenamesKeys.of(bare).hand_over("prod", nobody, nobody, "+retired")


# What tells a kind of store from another: the schemes of URIs, at the beginning of a text.
SCHEMES = tuple(f"{scheme}{end}" for scheme in URIS for end in ("", ":", "://", ":///"))
_COMPARES = {"startswith", "endswith", "removeprefix", "partition", "split", "match", "fullmatch"}


def _compared(tree: ast.AST) -> list[ast.expr]:
    """Return what a module compares something with."""
    found: list[ast.expr] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            found += [node.left, *node.comparators]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _COMPARES:
            found += [node.func.value, *node.args]
        elif isinstance(node, ast.MatchValue):
            found.append(node.value)
    return found


def _schemes_in(source: str) -> list[str]:
    """Return the schemes that a module compares something with, also through a constant of its own."""
    tree = ast.parse(source)
    texts = [node for expression in _compared(tree) for node in ast.walk(expression)]
    names = {node.id for node in texts if isinstance(node, ast.Name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id in names for target in targets):
                texts += ast.walk(node.value)
    constants = [node.value for node in texts if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [text for text in constants if text.lower() in SCHEMES]


@pytest.mark.parametrize(
    "source",
    [
        "uri.startswith('awskms:')",
        "uri.lower().startswith(('pkcs11:', 'vault:'))",
        "scheme == 'vault'",
        "uri.partition(':')[0] in {'awskms', 'x'}",
        "K = 'awskms:'\nuri.startswith(K)",
        "match scheme:\n    case 'pkcs11': pass",
    ],
)
def test_a_comparison_with_a_scheme_is_found(source: str) -> None:
    assert _schemes_in(source)


def test_no_scheme_is_compared_outside_of_the_back_ends() -> None:
    root = Path(hsm_keys.__file__).parent
    found = {
        str(path.relative_to(root)): schemes
        for path in sorted(root.rglob("*.py"))
        if path.parent.name not in URIS
        and path.name != "uri.py"
        and (schemes := _schemes_in(path.read_text(encoding="utf-8")))
    }
    assert found == {}
