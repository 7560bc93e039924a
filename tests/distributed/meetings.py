"""What ranks do in the tests of the rendezvous."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import TCPStore

from asynchooks.distributed import Rendezvous, open_rendezvous
from asynchooks.errors import DistributedError, RankFailedError

DEADLINE_S = 1.2


def opened(**options: Any) -> Rendezvous:
    return open_rendezvous("tests", **{"deadline_s": DEADLINE_S, **options})


def told(error: BaseException) -> str:
    return f"{type(error).__name__}({getattr(error, 'rank', None)}): {error}"


def meet(rank: int, fan_in: int) -> tuple[list[bytes] | None, bytes]:
    with opened(fan_in=fan_in).round("a meeting") as round_:
        payloads = round_.arrive(bytes([rank]) * (rank + 1))
        if payloads is not None:
            round_.decide(b"all are here")
        return payloads, round_.decision()


def stop_at(rank: int, victim: int, state: str, number: int, fan_in: int) -> tuple[str, float]:
    """Take part; the victim signals itself when it is in the state. Returns how it ended, and after how long."""
    meeting = opened(fan_in=fan_in)
    start_s = time.monotonic()

    def at(here: str) -> None:
        if rank == victim and here == state:
            os.kill(os.getpid(), number)

    try:
        with meeting.round("a meeting") as round_:
            at("working")
            payloads = round_.arrive(b"")
            at("arrived")
            if payloads is not None:
                round_.decide(b"done")
                at("decided")
            decision = round_.decision()
            at("departing")
        return decision.decode(), time.monotonic() - start_s
    except DistributedError as error:
        return told(error), time.monotonic() - start_s
    finally:
        meeting.close()


def fail_on(rank: int, victim: int, where: str) -> str:
    meeting = opened(deadline_s=60.0)
    try:
        with meeting.round("a meeting") as round_:
            if rank == victim and where == "working":
                raise ValueError("the disk is full")
            payloads = round_.arrive(b"")
            if payloads is not None:
                if where == "deciding":
                    raise ValueError("the disk is full")
                round_.decide(b"done")
            return round_.decision().decode()
    except (ValueError, DistributedError) as error:
        return told(error)
    finally:
        meeting.close()


def works_on(rank: int) -> str:
    """Rank 1 fails; rank 0 works on, beating, until it hears."""
    meeting = opened()
    try:
        with meeting.round("a meeting") as round_:
            if rank == 1:
                raise ValueError("the disk is full")
            while True:
                round_.beat()
    except (ValueError, DistributedError) as error:
        return told(error)
    finally:
        meeting.close()


def works_long(rank: int) -> bytes:
    with opened(deadline_s=0.8).round("a meeting") as round_:
        if rank == 1:
            time.sleep(1.7)  # more than two deadlines of work
        if round_.arrive(b"") is not None:
            round_.decide(b"all are here")
        return round_.decision()


def never_comes(rank: int, folder: str) -> str:
    """Rank 1 lives, and does not take part."""
    meeting = opened(absent_s=0.5)
    if rank == 1:
        while not Path(folder, "over").exists():
            time.sleep(0.01)  # another process
        return ""
    try:
        with meeting.round("a meeting") as round_:
            round_.arrive(b"")
        return "nothing"
    except DistributedError as error:
        return told(error)
    finally:
        Path(folder, "over").touch()


def many_rounds(rank: int, rounds: int) -> int:
    """Meet again and again; how many keys are in the store then."""
    import torch.distributed as dist

    meeting = opened(fan_in=1)
    for number in range(rounds):
        with meeting.round("a meeting") as round_:
            payloads = round_.arrive(str(number).encode())
            if payloads is not None:
                assert payloads == [str(number).encode()] * 3
                round_.decide(str(number).encode())
            assert round_.decision() == str(number).encode()
    store = dist.distributed_c10d._get_default_store()
    before = store.num_keys()
    meeting.close()
    return int(before)


def two_at_once(rank: int) -> list[bytes]:
    one, other = opened(), open_rendezvous("others", deadline_s=DEADLINE_S)
    answers: dict[str, bytes] = {}

    def meet_in(meeting: Rendezvous, name: str) -> None:
        for number in range(20):
            with meeting.round(name) as round_:
                if round_.arrive(b"") is not None:
                    round_.decide(f"{name} {number}".encode())
                answers[name] = round_.decision()

    threads = [
        threading.Thread(target=meet_in, args=(meeting, name))
        for meeting, name in (((one, "one"), (other, "other")) if rank else ((other, "other"), (one, "one")))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    other.close()
    return [answers["one"], answers["other"]]


def brings_much(rank: int, nbytes: int) -> int:
    """All bring much, and hear much; how much."""
    meeting = opened()
    with meeting.round("a meeting") as round_:
        payloads = round_.arrive(bytes([rank]) * nbytes)
        if payloads is not None:
            assert payloads == [bytes([number]) * nbytes for number in range(3)]
            round_.decide(b"x" * nbytes)
        decision = round_.decision()
    meeting.close()
    return len(decision)


def ending(meeting: Rendezvous, what: str = "a meeting", number: int | None = None) -> str:
    """Take part to the end of one round; what came of it."""
    try:
        with meeting.round(what, number=number) as round_:
            if round_.arrive(b"") is not None:
                round_.decide(b"done")
            return round_.decision().decode()
    except DistributedError as error:
        return told(error)


def leaves_one_out(rank: int) -> str:
    """Rank 1 comes to the second round only."""
    meeting = opened(deadline_s=60.0)
    try:
        return ending(meeting, "step 2" if rank == 1 else "step 1")
    finally:
        meeting.close()


def skips_one(rank: int) -> list[str]:
    """Rank 1 gives up one of two saves before it enters, and skips it from another thread; then all meet."""
    meeting = opened(deadline_s=60.0)
    ended = []
    numbers = [meeting.reserve(), meeting.reserve()]
    for what, number in zip(("step 1", "step 2"), numbers, strict=True):
        try:
            if rank == 1 and what == "step 1":
                raise ValueError("no memory to stage it")
            with meeting.round(what, number=number) as round_:
                if round_.arrive(b"") is not None:
                    round_.decide(b"done")
                ended.append(round_.decision().decode())
        except (ValueError, DistributedError) as error:
            thread = threading.Thread(target=meeting.skip, args=(what, error), kwargs={"number": number})
            thread.start()
            thread.join()
            ended.append(told(error))
    meeting.close()
    return ended


def forgets_one(rank: int, folder: str) -> str:
    """Rank 1 reserves two rounds, and enters the second alone; it lives on."""
    meeting, over = opened(), Path(folder, "over")
    numbers = [meeting.reserve(), meeting.reserve()]
    try:
        with meeting.round(f"round {rank}", number=numbers[rank]) as round_:
            if rank == 1:
                until(over)
                return ""
            round_.arrive(b"")
        return "nothing"
    except DistributedError as error:
        return told(error)
    finally:
        over.touch()
        meeting.close()


def gives_up_late(rank: int, folder: str) -> str:
    """Rank 1 is stopped when it has arrived and the first has decided; it lives on until the first has departed."""
    meeting = opened(deadline_s=60.0)
    decided, departed = Path(folder, "decided"), Path(folder, "departed")
    try:
        with meeting.round("a meeting") as round_:
            if round_.arrive(b"") is not None:
                round_.decide(b"done")
                decided.touch()
            else:
                until(decided)
                raise StoppedError("cancelled")
        departed.touch()
        return "departed"
    except StoppedError as error:
        until(departed)
        return told(error)
    finally:
        meeting.close()


def closes_without_coming(rank: int, folder: str) -> str:
    """Rank 1 lives, and has closed its part."""
    meeting, over = opened(), Path(folder, "over")
    if rank == 1:
        meeting.close()
        until(over)
        return ""
    try:
        return ending(meeting)
    finally:
        over.touch()
        meeting.close()


def keys_after_failures(rank: int, rounds: int) -> int:
    """Fail again and again; how many keys are in the store when all have left."""
    import torch.distributed as dist

    meeting = opened(deadline_s=60.0)
    for number in range(rounds):
        with suppress(ValueError, DistributedError), meeting.round(f"step {number}") as round_:
            if rank == number % 3:
                raise ValueError("the disk is full")
            round_.arrive(bytes(5 << 20))
            round_.decision()
    dist.barrier()
    keys = dist.distributed_c10d._get_default_store().num_keys()
    dist.barrier()
    meeting.close()
    return int(keys)


def meets_in_a_store_of_the_first(rank: int, folder: str, number: int) -> tuple[str, float]:
    """The store lives in rank 0, which signals itself at work."""
    port = Path(folder, "port")
    if rank == 0:
        store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        port.with_suffix(".new").write_text(str(store.port))
        port.with_suffix(".new").replace(port)
    else:
        until(port)
        store = TCPStore("127.0.0.1", int(port.read_text()), None, is_master=False, wait_for_workers=False)
    meeting = Rendezvous(store, rank=rank, world_size=3, name="a store", deadline_s=DEADLINE_S)
    meeting.start()
    started = Path(folder, f"started.{rank}")
    started.touch()
    for other in range(3):
        until(Path(folder, f"started.{other}"))
    start_s = time.monotonic()
    try:
        with meeting.round("a meeting") as round_:
            if rank == 0:
                os.kill(os.getpid(), number)
            round_.arrive(b"")
            return round_.decision().decode(), 0.0
    except DistributedError as error:
        return told(error), time.monotonic() - start_s


def until(path: Path) -> None:
    """Wait for a file of another process."""
    while not path.exists():
        time.sleep(0.005)


def names_of_two(rank: int) -> list[str]:
    names = []
    for _ in range(2):
        meeting = opened()
        names.append(meeting.name)
        meeting.close()
    return names


class StoppedError(Exception):
    is_cancelled = True


def stopped(rank: int) -> tuple[str, bool]:
    """Rank 0 is cancelled while it waits for rank 1, which hears of it."""
    looks = 0

    def progress(nbytes: int) -> None:
        nonlocal looks
        looks += 1
        if rank == 0 and looks > 3:
            raise StoppedError("cancelled")

    meeting = opened(deadline_s=60.0)
    try:
        with meeting.round("a meeting") as round_:
            if rank == 1:
                round_.decision(progress=progress)
            round_.arrive(b"", progress=progress)
        return "nothing", False
    except (StoppedError, RankFailedError) as error:
        return told(error), error.is_cancelled
    finally:
        meeting.close()


SIGKILL, SIGSTOP = int(signal.SIGKILL), int(signal.SIGSTOP)
