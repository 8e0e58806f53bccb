"""The provider's node: one process that serves the bundle, lets sites in, and runs the rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from fedser import bundle as bundles
from fedser import compute, console, files
from fedser.bundle import Bundle, format, keys
from fedser.errors import EnrolmentError, SignatureError, UsageError
from fedser.federation.flower import environment
from fedser.federation.layout import elements, unpack
from fedser.federation.withdrawal import MAX_BYTES as LEAVE_BYTES
from fedser.federation.withdrawal import PATH as LEAVE
from fedser_server import rounds as study_rounds
from fedser_server.attempts import Attempts
from fedser_server.checkpoint import Checkpoints, goes_with
from fedser_server.enrolment import PATH as ENROL
from fedser_server.guard import Guard, Way
from fedser_server.journal import Journal, status
from fedser_server.publish import BUNDLE, TRUST, routes
from fedser_server.serving import Serving
from fedser_server.settings import StudySettings
from fedser_server.state import State
from fedser_server.tls import LiveContext, own_certificates

_ENROL_BYTES = 8192
_CALLS = 1 << 12  # bytes of a fleet request that carries no object
_ENVELOPE = 1 << 21  # bytes of a message beside its tensor


@dataclass(frozen=True)
class NodeSettings:
    """How the node runs; nothing of it changes what the study computes.

    Attributes:
        bundle: the source bundle; the packaged one when None.
        signer: key that the bundle must be signed with; one that invitations name when None.
        host, port: where to listen.
        hold: seconds for which a site's poll without mail is held.
        intake: bytes of updates that may lie in memory at a time.
        wait: seconds to wait for the first round's sites; for ever when None.
        certificate, certificate_key, ca: the provider's own certificates; the folder's when None.
        folder_authority: go back from own certificates to the folder's.
    """

    bundle: Path | None = None
    signer: str | None = None
    host: str = "127.0.0.1"
    port: int = 9443
    hold: float = 15.0
    intake: int = 512 * 2**20
    wait: float | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    ca: Path | None = None
    folder_authority: bool = False


def start(folder: Path, study: StudySettings, settings: NodeSettings) -> dict[str, Any]:
    """Run a node until its study is done; with no rounds, until it is stopped.

    Returns:
        What the command prints.

    Raises:
        FedserError: the leaf that fits; the state takes up where it stopped.
    """
    compute.one_thread()
    environment.prepare(folder / "flower")
    state = State.open(folder)
    with state.lock():
        bundle, path = _bundle(state, settings)
        state.remember(bundle_key=bundle.header.signer)
        live = _certificates(state, settings)
        journal = Journal(state.folder)
        began = time.time()
        journal.tell(phase="starting", study=state.study, bundle=bundle.header.name, started=began)
        try:
            if study.rounds == 0:
                return _publish(state, bundle, path, live, journal, settings)
            return _federate(state, bundle, path, live, journal, study, settings)
        except BaseException as error:
            journal.tell(phase="stopped", why=str(error) or type(error).__name__)
            journal.record({"event": "stopped", "why": type(error).__name__})
            raise


def _publish(
    state: State, bundle: Bundle, path: Path, live: LiveContext, journal: Journal, settings: NodeSettings
) -> dict[str, Any]:
    """Serve the bundle, and nothing else, until somebody stops the node."""
    guard = Guard(_own_ways(state, path, bundle.header.signer, 0, journal), _nobody, _allowance(), journal.record)
    with Serving(guard, live, settings.host, settings.port) as serving:
        _say_where(settings, serving, "publishes the bundle")
        journal.tell(phase="publishing", port=serving.port)
        while serving.alive:
            time.sleep(0.5)
    raise UsageError("The web server ended.", "Look at the lines above, and start the node again.")


def _federate(
    state: State,
    bundle: Bundle,
    path: Path,
    live: LiveContext,
    journal: Journal,
    study: StudySettings,
    settings: NodeSettings,
) -> dict[str, Any]:
    """Serve and run the rounds."""
    from fedser.federation.flower.mailroom import Mailroom
    from fedser.federation.flower.routes import Routes

    plan = study_rounds.plan(state.study, study, bundle)
    largest = plan.width * elements(plan.layout)
    room = Mailroom(largest, deadline=study.deadline, patience=study.patience)
    fleet = Routes(room, hold=settings.hold, intake=settings.intake, record=journal.record)
    sites = _Sites(state, room.admit, room.expel)
    own = _own_ways(state, path, bundle.header.signer, study.rounds, journal)
    ways = own | _fleet_ways(fleet, largest)
    guard = Guard(ways, sites.authenticate, _allowance(), journal.record)
    settled = goes_with(study.science(), bundle.digest)
    checkpoints = Checkpoints(state.folder, state.study, settled)
    finished = status(state.folder)
    known = frozenset(finished.get("finished", ())) if finished.get("goes_with") == settled else frozenset[str]()
    journal.tell(goes_with=settled)
    runs = study_rounds.Rounds(
        plan,
        study,
        bundle,
        key=state.order_key,
        transport=room,
        enrolled=sites.enrolled,
        online=room.online,
        checkpoints=checkpoints,
        journal=journal,
    )
    with Serving(guard, live, settings.host, settings.port) as serving, _closing(room.close):
        _say_where(settings, serving, f"runs the study {state.study}")
        journal.tell(port=serving.port)
        last = runs.run(wait=settings.wait, finished=known)
    joint = state.folder / "joint.safetensors"
    _write_joint(joint, {name: tensor.clone() for name, tensor in unpack(last, plan.layout).items()})
    return {"study": state.study, "rounds": plan.rounds, "joint": str(joint), "values": elements(plan.layout)}


def _own_ways(state: State, bundle: Path, signer: str, rounds: int, journal: Journal) -> dict[str, Way]:
    """The project's own routes; there is nothing to enrol for where the bundle is only published."""
    app = Starlette(routes=list(routes(state, bundle, rounds, journal.record, signer)))
    ways = {BUNDLE: Way("GET", app), TRUST: Way("GET", app)}
    posted = {ENROL: Way("POST", app, _ENROL_BYTES), LEAVE: Way("POST", app, LEAVE_BYTES)}
    return ways | (posted if rounds else {})


def _fleet_ways(fleet: Any, largest: int) -> dict[str, Way]:  # noqa: ANN401 - flower is imported late
    """Flower's routes, each with the largest body that it can need."""
    from fedser.federation.flower import letter
    from fedser.federation.flower.routes import PREFIX, ROUTES

    sizes = {
        "push-object": max(letter.CHUNK, letter.HEAD_LIMIT) + _CALLS,
        "push-messages": _CALLS + 128 * letter.most_objects(largest),
    }
    return {PREFIX + name: Way("POST", fleet, sizes.get(name, _CALLS), signed=True) for name in ROUTES}


class _Sites:
    """The roster, as the routes and the rounds need it; looked at anew for each request."""

    def __init__(self, state: State, admit: Callable[[str, bytes], None], expel: Callable[[str], None]) -> None:
        from fedser.federation.flower.credentials import Credentials

        self._roster = state.roster
        self._admit, self._expel = admit, expel
        self._credentials = Credentials()
        self._known: dict[bytes, str] = {}
        self._entries: Mapping[str, Any] | None = None
        self._enrolled: Mapping[str, str] = {}

    def enrolled(self) -> Mapping[str, str]:
        """Reply keys of the sites that may take part, by name."""
        entries = self._roster.entries()
        if entries is not self._entries:  # asked for each request: the same object means the same file
            known = {e.node_key.encode(): name for name, e in entries.items() if e.status == "enrolled" and e.node_key}
            for site in set(self._known.values()) - set(known.values()):
                self._expel(site)
            for key, site in known.items():
                self._admit(site, key)
            self._known = known
            self._enrolled = {
                name: e.reply_key for name, e in entries.items() if e.status == "enrolled" and e.reply_key
            }
            self._entries = entries
        return self._enrolled

    def authenticate(self, headers: list[tuple[bytes, bytes]]) -> str:
        """The site that sent a request.

        Raises:
            EnrolmentError: no enrolled site did.
        """
        self.enrolled()
        return self._known[self._credentials.check(headers, self._known)]


def _nobody(headers: list[tuple[bytes, bytes]]) -> str:
    raise EnrolmentError("This node only publishes its bundle.", "Fetch it; there is nothing to enrol for.")


def _allowance() -> Callable[[str], bool]:
    return Attempts(each=600, together=6000).take


def _bundle(state: State, settings: NodeSettings) -> tuple[Bundle, Path]:
    """The verified bundle and its file.

    Raises:
        SignatureError: nobody whom the invitations name signed it.
        BundleError: it is none, or damaged.
    """
    path = settings.bundle or format.default_path()
    # It is the provider's own file: without a name, the key that it claims is checked, and kept to from then on.
    trusted = format.peek(path).signer if settings.signer is None else keys.signer(settings.signer)
    bundle = bundles.read(path, signer=trusted)
    invited = state.file.bundle_keys
    if invited and trusted not in invited and trusted != format.default_signer():
        raise SignatureError(
            "The invitations that were written name other keys than this bundle's signer.",
            f"Start with a bundle of theirs, or invite the sites anew with --signer {trusted}.",
        )
    return bundle, path


def _certificates(state: State, settings: NodeSettings) -> LiveContext:
    """What to serve: the provider's own certificates, or the folder's, which renew themselves.

    Raises:
        UsageError: only some of the three files were named.
        ConfigError: they do not belong together, or sites would refuse them.
    """
    given = (settings.certificate, settings.certificate_key, settings.ca)
    if settings.folder_authority:
        state.use_ca(None)
    if not any(given):
        if state.file.own_ca is not None:
            raise UsageError(
                "Sites were invited to trust your own root certificate.",
                "Give --certificate, --certificate-key and --ca, or go back with --folder-authority.",
            )
        return LiveContext(state.certificates(), renew=state.certificates)
    if settings.certificate is None or settings.certificate_key is None or settings.ca is None:
        raise UsageError(
            "Own certificates need all three files.", "Give --certificate, --certificate-key and --ca together."
        )
    found = own_certificates(settings.certificate, settings.certificate_key, settings.ca, state.file.hosts)
    state.use_ca(found.ca)
    return LiveContext(found)


def _write_joint(path: Path, tensors: Mapping[str, Any]) -> None:
    """The last joint tensors by name: what all sites start their last adaptation from."""
    files.write_tensors(path, tensors, None, 0o600)


def _say_where(settings: NodeSettings, serving: Serving, what: str) -> None:
    console.say(f"fedser-server {what} at https://{settings.host}:{serving.port}")


@contextmanager
def _closing(close: Callable[[], None]) -> Iterator[None]:
    """Close the mailroom before the server ends, so that held polls are answered."""
    try:
        yield
    finally:
        close()
