"""Files that were made to do harm, with a manifest that fits: an error of the package, and nothing else."""

import collections
import io
import os
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from asynchooks.checkpoint import (
    Content,
    restore,
)
from asynchooks.checkpoint._content import checksum
from asynchooks.checkpoint._manifest import Chunk, manifest_name
from asynchooks.checkpoint._zip import Archive
from asynchooks.errors import AsyncHooksError, CorruptCheckpointError, ForeignCheckpointError
from asynchooks.runner import Runner

from .conftest import (  # noqa: F401 - fixtures
    FUZZ,
    MOST_MIB,
    MOST_SECONDS,
    is_saved,
    manifest_of,
    read_every_way,
    readers,
    state,
)

# ---- files that were made to do harm, with a manifest that fits ----


class Id:
    """Becomes a persistent id."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Call:
    """Becomes a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> Any:
        return self.parts


class Dumper(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.value if isinstance(value, Id) else None


def dump(value: Any) -> bytes:
    file = io.BytesIO()
    Dumper(file, 2).dump(value)
    return file.getvalue()


def archive(pickled: bytes, *storages: bytes, names: tuple[str, ...] = ()) -> bytes:
    made = Archive()
    made.add("data.pkl", pickled)
    for index, content in enumerate(storages):
        made.add(f"data/{index}", content, summed=False)
    for name in names:
        made.add(name, b"x")
    made.add("version", b"3\n")
    made.finish()
    return b"".join(made.buffers)


def storage(key: Any = "0", numel: Any = 10, location: Any = "cpu", kind: Any = torch.FloatStorage) -> Id:
    return Id(("storage", kind, key, location, numel))


def tensor(offset: int = 0, size: Any = (10,), stride: Any = (1,), over: Id | None = None) -> Call:
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, over or storage(), offset, size, stride, False, collections.OrderedDict())


class Nothing:
    """Code that leaves a trace: what `os.system` would run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


HOSTILE_STATES: dict[str, Any] = {
    "code": Nothing(),
    "code under a persistent id": Id(("storage", Nothing(), "0", "cpu", 10)),
    "code as a persistent id": Id(Nothing()),
    "another persistent id": Id(("module", "x", "0", "cpu", 10)),
    "a number as a persistent id": Id(3),
    "a short persistent id": Id(("storage", torch.FloatStorage)),
    "a path as a key": tensor(over=storage("../../../etc/passwd")),
    "an unknown key": tensor(over=storage("17")),
    "the pickle as a storage": tensor(over=storage("../data.pkl")),
    "more than the record": tensor(over=storage(numel=11)),
    "less than the record": tensor(over=storage(numel=4), size=(4,)),
    "huge": tensor(over=storage(numel=2**62)),
    "negative": tensor(over=storage(numel=-10)),
    "a number that is none": tensor(over=storage(numel="10")),
    "a place that is none": tensor(over=storage(location="nowhere")),
    "a place that is no text": tensor(over=storage(location=5)),
    "a device that is not here": tensor(over=storage(location="cuda:99")),
    "a tensor beyond its storage": tensor(size=(11,)),
    "an offset beyond its storage": tensor(offset=9, size=(2,)),
    "a stride beyond its storage": tensor(size=(2, 2), stride=(8, 2)),
    "a large tensor": tensor(size=(2**28,)),
    "a huge tensor": tensor(size=(2**61,)),
    "sizes that overflow": tensor(size=(2**62, 4), stride=(1, 1)),
    "strides that overflow": tensor(size=(5, 3), stride=(2**62, 1)),
    "a stride that overflows to nothing": tensor(size=(2**32 + 1, 2), stride=(2**32, 1)),
    "an offset that overflows": tensor(offset=2**62 - 1, size=(3,)),
    "an offset at the end of numbers": tensor(offset=2**63 - 3, size=(3,)),
    "a negative offset": tensor(offset=-1),
    "a negative stride": tensor(offset=9, stride=(-1,)),
    "a negative size": tensor(size=(-10,)),
    "sparse indices outside": Call(
        torch._utils._rebuild_sparse_tensor,
        torch.sparse_coo,
        (
            tensor(size=(1, 5), stride=(5, 1), over=storage(numel=5, kind=torch.LongStorage)),
            tensor(size=(5,)),
            torch.Size([3]),
            False,
        ),
    ),
    "a constructor": Call(torch.Tensor, 100_000, 1_000_000),
    "a parameter of text": Call(torch._utils._rebuild_parameter, "x", True, {}),
    "unhashable": Call(set, [[]]),
}  # fmt: skip

HOSTILE_PICKLES: dict[str, bytes] = {
    "deep lists": b"\x80\x02}X\x01\x00\x00\x00a" + b"]" * 20_000 + b"a" * 19_999 + b"s.",
    "deep tuples": b"\x80\x02}X\x01\x00\x00\x00aN" + b"\x85" * 20_000 + b"s.",
    "deep marks": b"\x80\x02" + b"(" * 20_000 + b"t" * 20_000 + b".",
    "a long text that is not there": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "nothing on the stack": b"\x80\x02R.",
    "no end": b"\x80\x02}",
    "nothing": b"",
    "a global": b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch pwned\x85R.",
    "an instance": b"\x80\x02(X\x0b\x00\x00\x00touch pwnedios\nsystem\n.",
    "a stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
    "an extension": b"\x80\x02\x82\x01.",
    "no dict": dump([1]),
    "numbers": bytes(range(256)) * 8,
}


def laughs() -> Any:
    value: Any = ["ha"] * 10
    for _ in range(60):
        value = [value for _ in range(10)]  # 10 to the 60 in all
    return value


def commit(folder: Path, content: bytes) -> Path:
    """Put the file into the folder as its newest checkpoint, with a manifest that fits."""
    (folder / "evil.pth").write_bytes(content)
    (folder / manifest_name("evil.pth")).write_bytes(manifest_of("evil.pth", content).to_json())
    return folder / "evil.pth"


WISHES: list[Callable[[], dict[str, Any]]] = [
    dict,
    lambda: {"keys": ["a"]},
    lambda: {"into": {"a": torch.zeros(10)}},
]


def check_refused(folder: Path, content: bytes, wishes: list[Callable[[], dict[str, Any]]] = WISHES) -> None:
    """Every way to load the file raises; with a manifest and without."""
    path = commit(folder, content)
    for _ in range(2):
        for wish in wishes:
            with pytest.raises((CorruptCheckpointError, ForeignCheckpointError), match=r"evil\.pth"):
                restore(path, **wish())
        read_every_way(folder)
        path.with_name("evil.pth.manifest.json").unlink(missing_ok=True)
    assert not Path("pwned").exists()


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", HOSTILE_STATES)
@pytest.mark.usefixtures("_bounded", "_here")
def test_a_hostile_state_is_refused(folder: Path, case: str) -> None:
    wishes = (
        WISHES[:2] if "place" in case or "device" in case else WISHES
    )  # existing tensors say where they are
    check_refused(
        folder, archive(dump({"a": HOSTILE_STATES[case]}), struct.pack("<5q", 0, 1, 2, 99, 4)), wishes
    )


@pytest.mark.parametrize("case", HOSTILE_PICKLES)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.usefixtures("_bounded", "_here")
def test_a_hostile_pickle_is_refused(folder: Path, case: str) -> None:
    content = archive(HOSTILE_PICKLES[case])
    path = commit(folder, content)
    if case in ("deep lists", "deep tuples"):
        restore(path)  # strange, and harmless

        with pytest.raises(AsyncHooksError):
            restore(path, keys=["a"])
        return
    check_refused(folder, content)


@pytest.mark.usefixtures("_bounded")
def test_shared_containers_are_walked_once(folder: Path) -> None:
    path = commit(folder, archive(dump({"a": laughs()})))

    assert len(restore(path)["a"]) == 10
    assert len(restore(path, keys=["a"])["a"]) == 10
    with pytest.raises(ForeignCheckpointError, match="does not fit"):
        restore(path, into={"a": torch.zeros(10)})


FINE = archive(dump({"a": tensor()}), bytes(40))


def entry_at(content: bytes, index: int) -> int:
    place = content.index(b"PK\1\2")
    for _ in range(index):
        place = content.index(b"PK\1\2", place + 1)
    return place


def patched(index: int, offset: int, form: str, *values: int) -> bytes:
    """The good archive with other values in one entry of its directory."""
    content = bytearray(FINE)
    struct.pack_into(form, content, entry_at(FINE, index) + offset, *values)
    return bytes(content)


HOSTILE_ARCHIVES: dict[str, bytes] = {
    "compressed": patched(1, 10, "<H", 8),
    "encrypted": patched(1, 8, "<H", 1),
    "a size that lies": patched(1, 20, "<LL", 41, 41),
    "a size that is huge": patched(1, 20, "<LL", 2**32 - 2, 2**32 - 2),
    "sizes that disagree": patched(1, 20, "<LL", 40, 4_000_000_000),
    "records at one place": patched(1, 42, "<L", 0),
    "a record inside another": patched(2, 42, "<L", 100),
    "a record outside": patched(1, 42, "<L", 2**31),
    "a long name": patched(1, 28, "<H", 60_000),
    "a comment": patched(1, 32, "<H", 9),
    "another disk": patched(1, 34, "<H", 1),
    "no directory": FINE[:-90] + b"x" * 90,
    "a comment at the end": FINE[:-2] + b"\x05\x00hello",
    "one more record than there is": FINE.replace(struct.pack("<QQ", 3, 3), struct.pack("<QQ", 4, 4)),
    "many more records": FINE.replace(struct.pack("<QQ", 3, 3), struct.pack("<QQ", 2**60, 2**60)),
    "the same name twice": archive(dump({"a": tensor()}), bytes(40), names=("data/0",)),
    "a pickle twice": archive(dump({"a": tensor()}), bytes(40), names=("data.pkl",)),
    "a name outside": FINE.replace(b"archive/data/0", b"/etc/../passwd"),
    "a name that climbs": FINE.replace(b"archive/data/0", b"../../x/data/0"),
    "a name of no letters": FINE.replace(b"archive/data/0", b"archive/data/\xff"),
    "no pickle": FINE.replace(b"data.pkl", b"data.pkx"),
    "a script": archive(dump({"a": tensor()}), bytes(40), names=("constants.pkl",)).replace(b"data.pkl", b"code.pkl"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE_ARCHIVES)
@pytest.mark.usefixtures("_bounded", "_here")
def test_a_hostile_archive_is_refused(folder: Path, case: str) -> None:
    assert HOSTILE_ARCHIVES[case] != FINE
    check_refused(folder, HOSTILE_ARCHIVES[case])


@pytest.mark.usefixtures("_here")
def test_the_archive_that_the_hostile_ones_were_made_from_is_fine(folder: Path) -> None:
    assert torch.equal(restore(commit(folder, FINE))["a"], torch.zeros(10))


@FUZZ
@given(data=st.data())
@pytest.mark.usefixtures("_here")
def test_no_change_of_a_small_archive_gives_more_than_an_error(
    good: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """With a manifest that fits the changed file, so that only its structure can tell."""
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    content = bytearray(FINE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 8))
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        content[place : place + width] = data.draw(st.binary(min_size=width, max_size=width))
    path = commit(folder, bytes(content))

    for wish in WISHES:
        with suppress(AsyncHooksError):
            restore(path, **wish())
    assert not (tmp_path / "pwned").exists()


OPCODES = [
    *(bytes([code]) for code in b"cR\x93\x81\x82bio(t.}]se\x85\x86NQP0212hqrK"),
    b"os\nsystem\n",
    b"X\x01\x00\x00\x00a",
    b"\x80\x02",
]


@FUZZ
@given(pickled=st.lists(st.sampled_from(OPCODES)).map(b"".join))
@example(pickled=b"\x80\x02}.")
@pytest.mark.usefixtures("_here")
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_no_pickle_of_random_opcodes_does_harm(tmp_path: Path, pickled: bytes) -> None:
    path = commit(tmp_path, archive(pickled))

    for wish in WISHES:
        with suppress(AsyncHooksError):
            restore(path, **wish())


# ---- a run that resumes ----


def run(folder: Path) -> Runner:
    return Runner(
        torch.nn.Linear(1, 1),
        folder,
        train_dataloader=[torch.ones(1, 1)],
        train_cfg={"max_epochs": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
        resume="auto",
        default_hooks={"logger": None, "checkpoint": None},
    )


@pytest.mark.parametrize("case", ["code", "a tensor beyond its storage", "sizes that overflow"])
@pytest.mark.usefixtures("_here")
def test_a_run_does_not_resume_from_a_hostile_file(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    commit(folder, archive(dump({"a": HOSTILE_STATES[case]}), bytes(40)))

    with suppress(AsyncHooksError):
        run(folder).train()
    assert not (tmp_path / "pwned").exists()


def test_chunks_of_no_bytes_are_chunks(folder: Path) -> None:
    content = (folder / "iter_1.pth").read_bytes()
    described = manifest_of("iter_1.pth", content)
    empty = Chunk(0, checksum(Content.of(), [0])[0].digest)
    fitting = replace(described, chunks=(empty, *described.chunks, empty))
    (folder / "iter_1.pth.manifest.json").write_bytes(fitting.to_json())

    assert is_saved(restore(folder / "iter_1.pth"))
