"""How a process is asked to end, in real processes where signals are concerned."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

import pytest

from tandem.runtime import Shutdown
from tandem.runtime.testing.loop import virtual
from tests.unit.runtime.children import fork, hold_the_interpreter

Say = Callable[[object], None]


def controller(say: Say, after: Callable[[], object] | None = None) -> int:
    """Waits to be asked, then does `after`; status 0 says that it ended in order."""

    async def main() -> None:
        async with Shutdown() as shutdown:
            say("ready")
            say(await shutdown.wait())
            if after is not None:
                after()
            say("drained")

    asyncio.run(main())
    return 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks(signum: signal.Signals) -> None:
    child = fork(controller)
    assert child.line() == "ready"
    child.send(signum)
    assert child.line() == signum.name
    assert child.line() == "drained"
    assert child.wait() == 0


def test_under_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    def work(say: Say) -> int:
        async def main() -> None:
            async with Shutdown() as shutdown:
                say("ready")
                say(await shutdown.wait())
                time.sleep(60)  # noqa: ASYNC251 - a blocked loop is the point

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return 0

    child = fork(work)
    assert child.line() == "ready"
    child.send(signal.SIGTERM)
    assert child.line() == "SIGTERM"
    child.send(signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "busy",
    [
        pytest.param(lambda: time.sleep(60), id="a blocked event loop"),
        pytest.param(lambda: hold_the_interpreter(60), id="a call that holds the interpreter"),
    ],
)
def test_the_second_signal_ends_the_process_at_once(second: signal.Signals, busy: Callable[[], object]) -> None:
    child = fork(lambda say: controller(say, busy))
    assert child.line() == "ready"
    child.send(signal.SIGTERM)
    assert child.line() == "SIGTERM"
    time.sleep(0.2)
    child.send(second)
    assert child.wait(20) == -second
    assert child.rest() == ""


def test_a_busy_loop_hears_of_the_first_signal_later_and_of_the_second_at_once() -> None:
    def work(say: Say) -> None:
        async def main() -> None:
            async with Shutdown():
                say("ready")
                while True:  # Python code that never awaits
                    pass

        asyncio.run(main())

    child = fork(work)
    assert child.line() == "ready"
    child.send(signal.SIGTERM)
    time.sleep(0.3)
    child.send(signal.SIGTERM)
    assert child.wait(20) == -signal.SIGTERM


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> None:
        async with Shutdown():
            assert signal.getsignal(signal.SIGTERM) is not before

    asyncio.run(main())
    assert signal.getsignal(signal.SIGTERM) is before


@virtual
async def test_any_awaitable_can_ask() -> None:
    async with Shutdown(signals=(), trigger=asyncio.sleep(7), drain_seconds=20) as shutdown:
        assert not shutdown.requested
        assert await shutdown.wait() == "trigger"
        loop = asyncio.get_running_loop()
        assert loop.time() == pytest.approx(7, abs=0.01)
        assert shutdown.drain_deadline == pytest.approx(27, abs=0.01)


@virtual
async def test_a_trigger_that_fails_asks_too() -> None:
    async def fails() -> None:
        raise OSError("no such file")

    async with Shutdown(signals=(), trigger=fails()) as shutdown:
        assert "no such file" in await shutdown.wait()


@virtual
async def test_only_the_first_reason_counts() -> None:
    async with Shutdown(signals=()) as shutdown:
        shutdown.request("one")
        first = shutdown.drain_deadline
        await asyncio.sleep(5)
        shutdown.request("two")
        assert (shutdown.reason, shutdown.drain_deadline) == ("one", first)


def test_a_negative_drain_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Shutdown(drain_seconds=-1)
