"""What must be so at every moment of a life, and when a command says that it is done. Written from the documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hsm_keys.lifecycle.ending import LATE_S
from tests.simulation.script import NAME, OTHER_NAME
from tests.simulation.world import Violated

if TYPE_CHECKING:
    from hsm_keys.inspecting.findings import Finding
    from tests.simulation.commands import Told
    from tests.simulation.effects import Process
    from tests.simulation.kalshi import Kalshi, Registered
    from tests.simulation.life import Ended, Store
    from tests.simulation.script import Script, Step


_MOMENT_S = 1.0
"""Within what `adopt` is done after it has proved an API key."""

_KMS_REFUSED: Final = 8
"""The exit code of what AWS or KMS refused."""


class Judge:
    """Watches a life.

    Args:
        script: The life.
        store: Its store.
        kalshis: Kalshi's environments.
    """

    def __init__(self, script: Script, store: Store, kalshis: dict[str, Kalshi]) -> None:
        self._script = script
        self._store = store
        self._kalshis = kalshis
        self._theirs: set[str] = set()
        self._their_half: bytes | None = None
        self._released: set[str] = set()
        self._ending: dict[str, float] = {}
        """The API keys of which a revoke didn't come to its end, and until when Kalshi carries out what it was asked
        for."""
        self._named: set[str] = set()
        """Others' API keys that somebody revokes by the name that only Kalshi has for them."""
        self.proved: dict[str, Kalshi] = {}
        """The names that were told to be done, with their environment."""
        self.by_hand: set[str] = set()
        """The API keys that a person has registered by hand, until adopt has been told of them."""
        self._by_hand_s: dict[str, float] = {}
        """When a person registered each of them, until an adopt has told of it."""
        self.ended_by_hand: set[str] = set()
        """The API keys that a person has deleted on Kalshi's account page."""
        self.moved = False
        """Whether the store came back with what it held before: what was destroyed since, is there again, and the
        other way round."""
        self._overtaken: dict[str, Process] = {}
        """The API keys of pairs that another run registered and revoked meanwhile, with the run that made each; until
        that has told its user of them."""
        self._repeated: set[str] = set()
        """The API keys that a request made which the network carried out again."""
        self._unseen: set[str] = set()
        """Those of them that Kalshi hadn't listed yet to the run that destroyed their pair."""
        self._told_of: set[str] = set()
        """The API keys that a run had to leave, as it told its user."""
        store.on_destroyed.append(self._on_destroyed)
        for kalshi in kalshis.values():
            kalshi.on_created.append(self._on_created)
            kalshi.on_deleted.append(self._on_deleted)

    def leave_alone(self, api_key_ids: set[str], half: bytes | None) -> None:
        """Remember what belongs to others."""
        self._theirs, self._their_half = api_key_ids, half

    def registered_by_hand(self, api_key_id: str, now: float) -> None:
        """A person registered a pair on Kalshi's account page."""
        self.by_hand.add(api_key_id)
        self._by_hand_s[api_key_id] = now

    def released(self, word: str, kalshi: Kalshi) -> None:
        """Somebody began to revoke what a word means: the store's key, else the API key that Kalshi calls so."""
        name = word.partition("+")[0]
        self.proved.pop(name, None)
        self._released.add(name)
        if all(label.partition("+")[0] != name for label in self._store.labels()):
            self._named |= {key.api_key_id for key in kalshi.living() if key.listing.name == word}

    def not_revoked(self, word: str, kalshi: Kalshi) -> None:
        """A revoke has ended, and not with the word that it is done."""
        name, until = word.partition("+")[0], kalshi.world.clock.now + LATE_S
        self._ending.update({key.api_key_id: until for key in kalshi.living() if called(key, name)})

    def is_unknown(self, api_key_id: str) -> bool:
        """Tell whether an API key is of a pair that was destroyed while it was made.

        The run that made it was killed then, or got no answer, or said that it couldn't delete it; or the network
        carried its request out again.
        """
        maker = self._overtaken.get(api_key_id)
        if maker is not None and (maker.dead or api_key_id not in maker.made):
            return True
        return api_key_id in self._unseen | self._told_of

    def _note_overtaken(self, kalshi: Kalshi, key: Registered) -> None:
        others = len({step.operator for step in self._script.steps}) > 1
        before = [each for each in kalshi.keys.values() if each.public == key.public and each is not key]
        over = key.public not in self._store.publics() or not any(each.alive for each in before)
        process = kalshi.world.process
        if process is not None and others and before and over:
            self._overtaken[key.api_key_id] = process

    def _on_created(self, kalshi: Kalshi, key: Registered) -> None:
        """Check that no API key may do more, or something else, than what was asked for."""
        self._note_overtaken(kalshi, key)
        if kalshi.world.repeating:
            self._repeated.add(key.api_key_id)
        wanted = frozenset(self._script.scopes or ("read", "write"))
        listing = key.listing
        if frozenset(listing.scopes) != wanted or listing.subaccount != self._script.subaccount:
            raise Violated(
                f"API key {short(listing.api_key_id)} has {sorted(listing.scopes)} on {listing.subaccount}, and "
                f"{sorted(wanted)} on {self._script.subaccount} were asked for"
            )
        for other in self._kalshis.values():
            lives = {
                each.api_key_id for each in other.living(key.public)
            } - self.by_hand  # of those only a person knows
            if other is not kalshi and not self.moved and lives:
                raise Violated(f"the pair of API key {short(listing.api_key_id)} lives in {other.environment}, too")

    def _on_deleted(self, kalshi: Kalshi, key: Registered) -> None:
        if key.listing.api_key_id in self._theirs - self._named:
            raise Violated(f"somebody else's API key {short(key.listing.api_key_id)} was deleted")
        self._check_names_work()

    def _on_destroyed(self, public: bytes) -> None:
        """Check that a private half is destroyed only after its API keys are dead, in all environments."""
        if public == self._their_half:
            raise Violated("another program's private half was destroyed")
        if self.moved or public in self._store.publics():
            return  # another object of the same key is still there
        for kalshi in self._kalshis.values():
            for key in kalshi.living(public):
                process = kalshi.world.process
                if process and process.environment != kalshi.environment and key.api_key_id in self.by_hand:
                    continue  # registered in another environment, and only the person knows
                if process and process.listed_s < self._by_hand_s.get(key.api_key_id, 0.0):
                    continue  # registered right before it was destroyed, when only the person knew
                if process and key.api_key_id in self._repeated - process.listed:
                    self._unseen.add(key.api_key_id)
                    continue
                if self._overtaken.get(key.api_key_id) not in {None, process}:
                    continue  # its maker was killed, or is about to delete it
                raise Violated(
                    f"the private half of API key {short(key.listing.api_key_id)} was destroyed, and that lives in "
                    f"{kalshi.environment}"
                )
        self._check_names_work()

    def _check_names_work(self) -> None:
        """Check that a name that was proved has an API key that lives, and whose private half is there."""
        if self.moved:
            return
        publics = self._store.publics()
        for name, kalshi in self.proved.items():
            if not any(key.public in publics for key in kalshi.living() if called(key, name)):
                raise Violated(f"{name!r} was proved, and no API key of it works any more")

    def told(self, told: Told, name: str, kalshi: Kalshi, *, alone: bool) -> None:
        """Check that what a command said is so. With others at work, only what nobody can undo is looked at."""
        labels = self._store.labels()
        self._by_hand_s.pop(str(told.api_key_id), None)
        self._overtaken.pop(str(told.api_key_id), None)
        if alone:
            self.by_hand.discard(str(told.api_key_id))
        if told.stage in {"enrolled", "adopted", "grace", "done", "aborted"}:
            self._check_living(told, name, kalshi, labels, alone=alone)
        if told.stage in {"done", "aborted"} and told.retired and told.retired != told.api_key_id:
            self._check_dead(told.retired, destroyed=told.destroyed)
        if told.stage == "revoked" and told.api_key_id:
            self._check_dead(told.api_key_id, destroyed=told.destroyed)
        for finding in told.fixed if alone else ():
            self._check_fixed(finding, kalshi)

    def refused(self, ended: Ended, step: Step, kalshi: Kalshi, made: list[str], *, alone: bool) -> None:
        """Check that what a command gave as its reason is so, and that it leaves nothing behind in silence.

        Args:
            ended: How it ended.
            step: The command.
            kalshi: Where it was pointed at.
            made: The API keys of which Kalshi told it that they were made.
            alone: Whether nobody else is at work.
        """
        if self.moved:
            return
        for api_key_id in made:
            key = kalshi.keys[api_key_id]
            if api_key_id not in ended.message:
                self._overtaken.pop(api_key_id, None)
            if f"API key {api_key_id} may still be there" in ended.message:
                self._told_of.add(api_key_id)
            if key.alive and key.public not in self._store.publics() and api_key_id not in ended.message:
                raise Violated(
                    f"{step.command} leaves API key {short(api_key_id)}, which nobody can sign for, and doesn't say "
                    f"so: {ended.message}"
                )
            if key.alive and f"({api_key_id}) is gone" in ended.message:
                raise Violated(f"{step.command} says that API key {short(api_key_id)} is gone, and it lives")
        if not alone:
            return
        self._check_own_reason(ended, step)
        if ended.code == "key_busy" and not self._script.repeats():  # else its own request may have come late
            raise Violated(f"{step.command} says that somebody else is at work, and nobody is: {ended.message}")
        public = self._store.labels().get(step.name)
        if "never registered at Kalshi" in ended.message and public is not None and kalshi.living(public):
            raise Violated(f"{step.command} says that {step.name!r} was never registered, and it was")

    def _check_own_reason(self, ended: Ended, step: Step) -> None:
        """Check that the state of a key isn't the reason why a command for another name is refused."""
        others = {NAME, OTHER_NAME} - {step.name.partition("+")[0]}
        if ended.status == _KMS_REFUSED and any(f"{other!r}" in ended.message for other in others):
            raise Violated(f"{step.command} {step.name} is stopped by another key: {ended.message}")

    def _check_fixed(self, finding: Finding, kalshi: Kalshi) -> None:
        assert finding.repair is not None
        api_key_id = finding.repair.api_key_id
        if kalshi.keys[api_key_id].public not in self._store.publics():
            raise Violated(f"reconcile bound API key {short(api_key_id)} to another pair")
        if self._store.open().key(finding.name).api_key_id != api_key_id:
            raise Violated(f"reconcile said that it bound {finding.name!r} to {short(api_key_id)}, and it didn't")

    def _check_living(self, told: Told, name: str, kalshi: Kalshi, labels: dict[str, bytes], *, alone: bool) -> None:
        key = kalshi.keys.get(str(told.api_key_id))
        if key is None:
            raise Violated(f"{told.stage}: Kalshi never had API key {told.api_key_id}")
        if self.moved:
            return
        ending = kalshi.world.clock.now < self._ending.get(key.api_key_id, 0.0)
        if key.alive and labels.get(name) == key.public and (alone or name not in self._released) and not ending:
            self.proved[name] = kalshi
        if not alone:
            return
        if told.stage != "done" and key.alive and not kalshi.knows(key.api_key_id):
            raise Violated(f"{told.stage}: Kalshi doesn't take API key {short(key.api_key_id)} yet: it isn't proved")
        alive = key.alive or (told.stage == "adopted" and ending and kalshi.world.clock.now < key.until + _MOMENT_S)
        if not alive or labels.get(name) != key.public:
            raise Violated(f"{told.stage}: {name!r} was said to be API key {short(str(told.api_key_id))}, and isn't")
        others = [each for each in kalshi.living() if called(each, name) and each is not key]
        others = [each for each in others if each.listing.api_key_id not in self._theirs]
        others = [each for each in others if not self.is_unknown(each.api_key_id)]  # reconcile shows it
        if self._script.repeats():
            others = [each for each in others if each.public != key.public]  # registered twice: reconcile shows it
        if self._script.repeats("generate"):  # Kalshi made a pair that nobody asked for: reconcile shows it
            others = [each for each in others if each.public in self._store.publics()]
        left = [each for each in others if not (told.stage == "grace" and each.listing.api_key_id == told.retired)]
        left = [each for each in left if not any(each.api_key_id in note for note in told.notes)]
        if left and told.stage != "adopted":
            raise Violated(
                f"{told.stage}: {name!r} has a further API key {short(left[0].listing.api_key_id)} that lives"
            )

    def _check_dead(self, api_key_id: str, *, destroyed: bool) -> None:
        """Check that an API key is dead, in whichever environment it lived; Kalshi may never have had it."""
        key = next((kalshi.keys[api_key_id] for kalshi in self._kalshis.values() if api_key_id in kalshi.keys), None)
        if key is None:
            return
        if key.alive:
            raise Violated(f"API key {short(api_key_id)} was said to be dead, and lives")
        if destroyed and key.public in self._store.publics() and not self.moved:
            raise Violated(f"the private half of {short(api_key_id)} was said to be destroyed, and is there")


def called(key: Registered, name: str) -> bool:
    """Tell whether an API key was made for that name: a successor may be called NAME-2."""
    return key.listing.name.partition("-")[0] == name


def short(api_key_id: str) -> str:
    """Return what the story calls an API key."""
    return f"...{api_key_id[-4:]}"
