"""The connection to Valkey: up or down, and never waited for longer than its budget.

While it is up, a call is one EVALSHA under the timeout. The first call that times out
or fails takes the link down: the connection is closed, every other call in flight fails
at once, and later ones fail without waiting, until a probe has succeeded. So a server
that accepts and never answers costs each process one timeout, not one per request. The
probe is the heartbeat, which writes: a server that is full or read-only is not up.

Why it cannot be used is a word for the metrics and a sentence for the log. coredis
wraps what goes wrong below it; the reason is somewhere in its chain of causes. No
sentence holds a password: hosts and ports only, and what the server itself said.
"""

from __future__ import annotations

import errno
import logging
import math
import random
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
import coredis
import trio
from coredis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    NoScriptError,
    ProtocolError,
    ReadOnlyError,
    ResponseError,
    UnknownCommandError,
    WrongTypeError,
)
from coredis.exceptions import ConnectionError as RedisConnectionError
from coredis.retry import NoRetryPolicy
from coredis.typing import RedisError
from loguru import logger

from trio_ai_stream.admission.gate import ClusterRefusedError
from trio_ai_stream.admission.shared.valkey_scripts import LuaScript
from trio_ai_stream.telemetry.families import GateFailure
from trio_ai_stream.telemetry.log_rendering import register_secret

_CLOSED = {
    *("EndOfStream", "ConnectionResetError", "BrokenPipeError"),
    *("BrokenResourceError", "ClosedResourceError"),
}

EXPIRED = 10
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED."""
WRONG_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


class Unavailable(Exception):  # noqa: N818 - a state, handled wherever it is raised
    """No answer from Valkey, and why."""

    def __init__(self, cause: GateFailure, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause: GateFailure = cause
        self.detail = detail


class TooBusy(Unavailable):
    """This process looked too late to judge the server, which may have answered."""


def link_lost() -> Unavailable:
    """Return why a call has no answer whose connection is no longer ours."""
    return Unavailable("unavailable", "the link was lost")


# Which line of which script it was: it makes two reasons of one, and helps nobody.
_WHERE = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.$")

_ACL = (
    "{said}; the user needs: ACL SETUSER <user> ~{{<REDIS_PREFIX>*"
    " &<REDIS_PREFIX>:bus:* +evalsha +eval +publish +subscribe +ping +hello, and what"
    " the scripts call: +@hash +@sortedset +@set +@string +pexpire +time"
    " (Redis 7 gives a new user no channels), and +select if REDIS_URL names another"
    " database than 0"
)
_FOREIGN = (
    "a key of ours holds what another program has put there; delete it, or set another"
    " REDIS_PREFIX"
)
FULL_OF_CLIENTS = "it has as many clients as its maxclients allows"


def explain(exc: BaseException, url: str, *, was_up: bool = False) -> Unavailable:
    """Say in our terms why Valkey did not answer, or why it did so no longer."""
    place = urlsplit(url)
    where = f"{place.hostname}:{place.port or 6379}"
    tls = place.scheme == "rediss"
    hint = (
        "a port without TLS needs redis://, not rediss://"
        if tls
        else "a port with TLS needs rediss://, not redis://"
    )
    chain = list(_chain(exc))
    for link in chain:
        found = _explain_one(link, where, hint if tls else "")
        if found is not None:
            return found
    names = [type(one).__name__ for one in chain]
    if _CLOSED & set(names):
        why = "" if was_up else f" ({hint}; or {FULL_OF_CLIENTS})"
        return Unavailable("unavailable", f"{where} closed the connection{why}")
    if "InvalidResponse" in names:
        return Unavailable("unavailable", f"what answers at {where} is no Redis")
    if "Cancelled" in names:  # by the time-out of a connection that stands
        return Unavailable("timeout", f"{where} accepts a connection and says nothing")
    return Unavailable("unavailable", names[0])


def _explain_one(exc: BaseException, where: str, hint: str) -> Unavailable | None:
    match exc:
        case Unavailable():
            return exc
        case ssl.SSLCertVerificationError():
            return Unavailable("tls", _certificate(exc, where))
        case ssl.SSLError():
            return Unavailable("tls", f"no TLS with {where}: {exc.reason} ({hint})")
        case socket.gaierror():
            return Unavailable("dns", f"no address for {where} ({exc.strerror})")
        case ConnectionRefusedError():
            return Unavailable("refused", f"nobody listens at {where}")
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return Unavailable(
                "descriptors", "this process has no file descriptor left"
            )
        case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH):
            return Unavailable("unavailable", f"no way to {where} ({exc.strerror})")
        case TimeoutError() | trio.TooSlowError():
            what = f"connecting to {where}" + (f" ({hint})" if hint else "")
            return Unavailable("timeout", what)
    return _explain_reply(exc)


def _explain_reply(exc: BaseException) -> Unavailable | None:
    """Explain what the server itself answered."""
    said = _WHERE.sub("", str(exc))[:160]
    match exc:
        case AskError() | ClusterCrossSlotError() | ClusterDownError():
            return Unavailable("cluster", str(ClusterRefusedError()))
        case RedisConnectionError() if "max number of clients" in said:
            return Unavailable("unavailable", FULL_OF_CLIENTS)
        case BusyLoadingError():
            return Unavailable("unavailable", "the server is loading its data")
        case ProtocolError() | UnknownCommandError():
            return Unavailable("unavailable", f"expected Redis 6 or newer: {said}")
        case ResponseError():
            return _explain_refusal(exc, said)
    return None


def _explain_refusal(exc: ResponseError, said: str) -> Unavailable:
    """Explain an error by its kind, or by its text if it is from inside a script."""
    if isinstance(exc, AuthorizationError) or re.search("(?i)noperm|permission", said):
        return Unavailable("acl", _ACL.format(said=said))
    wrong = re.search("invalid password|WRONGPASS", said)
    if wrong or isinstance(exc, AuthenticationError):
        return Unavailable("password", "refused; check the password in REDIS_URL")
    if isinstance(exc, ReadOnlyError) or "READONLY" in said:
        return Unavailable("unavailable", "a replica, which takes no writes")
    if isinstance(exc, WrongTypeError) or "WRONGTYPE" in said:
        return Unavailable("unavailable", _FOREIGN)
    return Unavailable("full" if said.startswith("OOM") else "unavailable", said)


def _one_of(keys: Sequence[str]) -> str:
    """Name the keys of a script; that of a rate has the name of a client."""
    shown = (re.sub(r":.*}:rate$", ":<client>}:rate", key) for key in keys)
    return "one of " + ", ".join(shown)


def _certificate(exc: ssl.SSLCertVerificationError, where: str) -> str:
    if exc.verify_code == EXPIRED:
        return f"the certificate of {where} has expired; renew it"
    if exc.verify_code in WRONG_NAME:
        return f"the certificate of {where} is for another name; check REDIS_URL's host"
    return (
        f"the certificate of {where} is not trusted ({exc.verify_message});"
        " set SSL_CERT_FILE to its authority"
    )


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it came from, the outermost first."""
    todo, seen = [exc], set()
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            todo += reversed(one.exceptions)
        else:
            yield one
        todo += [up for up in (one.__context__, one.__cause__) if up is not None]


Client = coredis.Redis[bytes]
T = TypeVar("T")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
"""Pauses between probes: doubled from the first to the longest, with jitter."""

STEADY_S = 10.0
"""A connection that was up for so long was no flapping: the next pause is short."""

_BACKGROUND_PATIENCE = 4
"""Timeouts that a heartbeat may take: a busy process must not think itself cut off."""

FIRST_ANSWER_S = 1.0
"""Until the first question of a connection has its answer."""

RETURN_S = LONGEST_PAUSE_S + 2 * FIRST_ANSWER_S
"""So much later than this process another one may be back after an outage."""

# coredis lets the errors of its queues through when a connection has just broken.
_LOST = (
    RedisError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
)


class Work(Protocol):
    """Background work on one connection, which is up once all have started.

    Starting is bounded in time: it raises `Unavailable` rather than wait.
    """

    def __call__(
        self, client: Client, /, *, task_status: trio.TaskStatus[None]
    ) -> Awaitable[None]:
        """Run until cancelled; an `Unavailable` takes the link down."""
        ...


class ValkeyLink:
    """One process's connection to Valkey.

    `on_change` is called in the Trio thread with None when the link comes up and with
    the reason when it goes down, also when the very first attempt fails; and while it
    is down, with the reason of each attempt that fails.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        on_change: Callable[[Unavailable | None], None],
    ) -> None:
        self._url = url
        self.timeout_s = timeout_s
        self._on_change = on_change
        self.open_client: Callable[[], Client] = self._open_client
        self._client: Client | None = None
        self._lost = trio.Event()
        self._tried = trio.Event()
        self._reason: Unavailable | None = None
        self._back_at = -math.inf
        self.up = False
        # Made once, for it reads all authorities from the disk; and by us, because
        # coredis' own default for rediss:// does not check the host's name.
        self._tls: dict[str, Any] = {}
        if urlsplit(url).scheme == "rediss":
            self._tls["ssl_context"] = ssl.create_default_context()
        secret = urlsplit(url).password
        if secret:
            register_secret(secret)
            register_secret(unquote(secret))
        # Every failed probe would be a record with a traceback; we report the changes.
        logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)

    @property
    def others_may_return(self) -> bool:
        """Whether what is missing may be that of a process which is not back yet."""
        return trio.current_time() < self._back_at + RETURN_S

    async def call(
        self, script: LuaScript, keys: list[str], args: Sequence[Any]
    ) -> Any:
        """Return the script's reply, decoded to `bytes`, `int` and lists of them.

        :raises Unavailable: at once if the link is down, else within the timeout.

        Cancellation: the script may have run; the caller undoes what it must.
        """
        if not self.up:
            raise Unavailable("unavailable", "the link is down")
        return await self._ask(script, keys, args, self.timeout_s)

    async def send(
        self, script: LuaScript, keys: list[str], args: Sequence[Any]
    ) -> Any:
        """Like `call`, for the work in the background.

        It may speak while the link is not up yet, and may take longer.
        """
        patience = self.timeout_s * _BACKGROUND_PATIENCE
        return await self._ask(script, keys, args, patience)

    async def _ask(
        self, script: LuaScript, keys: list[str], args: Sequence[Any], timeout_s: float
    ) -> Any:
        return await self._answer(
            lambda client: _evaluate(client, script, keys, args),
            script.name,
            timeout_s,
            keys,
        )

    async def _answer(
        self,
        ask: Callable[[Client], Awaitable[T]],
        what: str,
        timeout_s: float,
        keys: Sequence[str] = (),
    ) -> T:
        client = self._client
        if client is None:
            raise Unavailable("unavailable", "not connected")
        deadline = trio.current_time() + timeout_s
        with trio.move_on_at(deadline):
            try:
                return await ask(client)
            except _LOST as exc:
                raise self._failed(client, exc, keys) from exc
            except RuntimeError as exc:
                if self._client is client:
                    raise  # a bug; else it is the pool, which closed under the call
                raise link_lost() from exc
        if self._client is not client:
            raise link_lost()
        raise self.late(deadline, what, timeout_s)

    def late(
        self, deadline: float, what: str, timeout_s: float | None = None
    ) -> Unavailable:
        """Return that there was no answer by `deadline`; the link is lost by it.

        `TooBusy` if that is known too late to be the server's fault; then it stays.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        detail = f"{what} {timeout_s:g} s"
        if trio.current_time() - deadline > timeout_s / 2:
            return TooBusy("timeout", detail)
        return self._fail(Unavailable("timeout", detail))

    async def publish(self, channel: str, message: str) -> int:
        """Return how many processes the message went to; raises as `call`."""
        if not self.up:
            raise Unavailable("unavailable", "the link is down")
        return await self.reply(channel, message)

    async def reply(self, channel: str, message: str) -> int:
        """Like `publish`, for the work in the background.

        It may speak while the link is not up yet.
        """
        return await self._answer(
            lambda client: client.publish(channel, message), "publish", self.timeout_s
        )

    async def run(
        self,
        work: Sequence[Work],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Connect, work, and connect again, until cancelled; started after one try.

        :raises ClusterRefusedError: the first try met a cluster.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep, work)
            await self._tried.wait()
            if self._reason is not None and self._reason.cause == "cluster":
                raise ClusterRefusedError
            task_status.started()

    async def _keep(self, work: Sequence[Work]) -> None:
        pause = FIRST_PAUSE_S
        while True:
            began = trio.current_time()
            if await self._session(work) and trio.current_time() - began > STEADY_S:
                pause = FIRST_PAUSE_S
            await trio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _session(self, work: Sequence[Work]) -> bool:
        """Hold one connection until it is lost; return whether it ever was up."""
        self._lost, self._reason, came_up = trio.Event(), None, False
        try:
            async with self.open_client() as client:
                try:
                    async with trio.open_nursery() as nursery:
                        self._client = client
                        for part in work:  # each bounds its own start
                            await nursery.start(part, client)
                        came_up = True
                        self._changed(None)
                        await self._lost.wait()
                        nursery.cancel_scope.cancel(reason="the link was lost")
                finally:
                    self._client = None  # before its pool closes, which takes a while
        except* (Unavailable, trio.TooSlowError, *_LOST) as group:
            self._fail(explain(group, self._url, was_up=came_up))
        except* Exception as group:
            # Our bug, in the background work: limits fall back, streams go on.
            logger.opt(exception=group).error("the shared limits' work failed")
            self._fail(Unavailable("unavailable", "internal error"))
        self._changed(self._reason)
        return came_up

    def _changed(self, reason: Unavailable | None) -> None:
        self.up = reason is None
        first = not self._tried.is_set()
        if self.up and not first:
            self._back_at = trio.current_time()
        self._tried.set()
        if first and reason is not None and reason.cause == "cluster":
            return  # nothing falls back: `run` ends with it
        self._on_change(reason)

    def _fail(self, reason: Unavailable) -> Unavailable:
        """Take the link down; the first reason of a session is the one reported."""
        self._reason = self._reason or reason
        if self.up:
            self._changed(self._reason)
        self._lost.set()
        return reason

    def _failed(
        self, client: Client, exc: Exception, keys: Sequence[str] = ()
    ) -> Unavailable:
        """Explain a failure; it takes the link down if it is that of this session."""
        reason = explain(exc, self._url, was_up=self.up)
        if reason.detail == _FOREIGN:  # the server does not say which
            reason = Unavailable(reason.cause, f"{_FOREIGN}: {_one_of(keys)}")
        return self._fail(reason) if self._client is client else reason

    def _open_client(self) -> Client:
        return coredis.Redis.from_url(
            self._url,
            decode_responses=False,
            decode_components=True,
            retry_policy=NoRetryPolicy(),
            connect_timeout=self.timeout_s,
            verify_version=False,
            **self._tls,
        )


async def _evaluate(
    client: Client, script: LuaScript, keys: list[str], args: Sequence[Any]
) -> Any:
    try:
        return await client.evalsha(script.sha, keys=keys, args=args)
    except NoScriptError:
        return await client.eval(script.text, keys=keys, args=args)


async def refuse_cluster(
    client: Client, /, *, task_status: trio.TaskStatus[None]
) -> None:
    """Refuse a cluster of several nodes before a key of ours lies on one of them.

    A node may own the place of our keys today and lose it tomorrow; and what is
    published is counted on one node only. One node that owns all is as good as none.

    :raises Unavailable: it is such a cluster; or there was no answer in time.
    """
    with trio.fail_after(FIRST_ANSWER_S):
        try:
            info = await client.cluster_info()
        except ResponseError:  # no cluster, or nothing that this user may ask
            info = {}
    if int(info.get("cluster_size", 0)) > 1:
        raise Unavailable("cluster", str(ClusterRefusedError()))
    task_status.started()
