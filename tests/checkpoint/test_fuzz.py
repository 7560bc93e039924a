"""Damaged and hostile files, through every reader: an error of the package or what was saved, and nothing else.

Never code, never a wrong tensor, never a path outside the folder, and never more time or memory than it is worth.
"""

import collections
import io
import json
import os
import pickle
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asynchooks.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    Content,
    capture,
    find_latest,
    inspect_folder,
    list_checkpoints,
    read_pointer,
    restore,
    restore_latest,
    sweep,
    verify,
)
from asynchooks.checkpoint._content import checksum
from asynchooks.checkpoint._manifest import Chunk, Manifest, manifest_name, next_manifest_name
from asynchooks.checkpoint._zip import Archive
from asynchooks.errors import AsyncHooksError, CorruptCheckpointError, ForeignCheckpointError
from asynchooks.runner import Runner

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MOST_SECONDS = 10.0
MOST_MIB = 200


# ---- what the readers may answer ----


def state(step: int) -> dict[str, Any]:
    weight = torch.arange(300.0) + step
    return {"state_dict": {"w": weight, "tied": weight[3:9]}, "meta": {"iter": step, "text": ["a", None]}}


def is_saved(loaded: Any) -> bool:
    """Whether this is exactly what one of the steps saved."""
    wanted = state(loaded["meta"]["iter"])
    return (
        loaded["meta"] == wanted["meta"]
        and loaded["state_dict"].keys() == wanted["state_dict"].keys()
        and all(
            torch.equal(tensor, wanted["state_dict"][name]) for name, tensor in loaded["state_dict"].items()
        )
    )


def readers(folder: Path) -> list[Callable[[], Any]]:
    """Every way to read a folder, and each file in it."""

    def latest() -> Any:
        found = restore_latest(folder)
        return None if found is None else found[1]

    def pointed() -> None:
        url = read_pointer(folder)
        assert url is None or Path(url).parent == folder

    ways: list[Callable[[], Any]] = [
        latest,
        pointed,
        partial(find_latest, folder),
        partial(list_checkpoints, folder),
        partial(inspect_folder, folder),
        partial(sweep, folder, older_than_s=-5),
    ]
    for path in (folder / "iter_1.pth", folder / "iter_2.pth"):
        ways += [
            partial(verify, path),
            partial(restore, path),
            partial(restore, path, into=state(0)),
            partial(restore, path, keys=["state_dict", "meta"]),
        ]
    return ways


def read_every_way(folder: Path) -> list[Any]:
    """What the readers answer; errors of the package are answers, anything else fails the test."""
    answers: list[Any] = []
    for reader in readers(folder):
        try:
            answer = reader()
        except AsyncHooksError as error:
            answers.append(str(error))
            continue
        assert not isinstance(answer, dict) or is_saved(answer)
        answers.append(answer)
    return answers


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    saves = Checkpointer(folder)
    for step in (1, 2):
        saves.save_sync(capture(state(step)), name=f"iter_{step}.pth", step=step, pointer="last")
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "outer" / "run"))


@pytest.fixture
def _bounded() -> Iterator[None]:
    """The test takes little time, and memory for what a small file is worth."""
    start_s, start_kib = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - start_s < MOST_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_kib < MOST_MIB * 1024


def test_the_undamaged_folder_is_read_every_way(folder: Path) -> None:
    assert len([answer for answer in read_every_way(folder) if isinstance(answer, dict)]) == 7


# ---- damage ----

FILES = ["iter_2.pth", "iter_2.pth.manifest.json", "last_checkpoint"]


@FUZZ
@given(file=st.sampled_from(FILES), kind=st.sampled_from(["cut", "flip", "zero", "insert"]), data=st.data())
def test_no_damage_to_a_file_gives_a_wrong_tensor(
    good: Path, tmp_path: Path, file: str, kind: str, data: st.DataObject
) -> None:
    folder = tmp_path / "run"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(good, folder)
    content = bytearray((folder / file).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[place:]
    elif kind == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "zero":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    else:
        content[place:place] = b"\xff" * data.draw(st.integers(1, 9))
    (folder / file).write_bytes(content)

    read_every_way(folder)
    newest = restore_latest(folder)

    assert newest is not None
    assert is_saved(newest[1])
    assert file != "iter_2.pth" or newest[0].step == 1


@FUZZ
@given(kind=st.sampled_from(["cut", "flip"]), data=st.data())
def test_no_damage_to_a_file_without_a_manifest_gives_a_wrong_tensor(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    """The checksums that torch wrote into it are compared."""
    path = tmp_path / "plain.pth"
    torch.save(state(3), path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[place:]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)

    try:
        loaded = restore(path)
    except AsyncHooksError:
        return
    assert is_saved(loaded)


def test_each_truncation_of_a_manifest_hides_that_checkpoint_alone(folder: Path) -> None:
    path = folder / "iter_2.pth.manifest.json"
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])

        assert [info.step for info in list_checkpoints(folder)] == [1]


@pytest.mark.parametrize("step", [1, 2])
def test_damage_beside_a_replacement_is_never_taken_for_either(folder: Path, step: int) -> None:
    """The next manifest describes this very data, which has lost a bit."""
    described = json.loads((folder / "iter_2.pth.manifest.json").read_bytes())
    (folder / next_manifest_name("iter_2.pth")).write_text(json.dumps({**described, "step": 7}))
    content = bytearray((folder / f"iter_{step}.pth").read_bytes())
    content[-300] ^= 1
    (folder / "iter_2.pth").write_bytes(content)

    read_every_way(folder)
    newest = restore_latest(folder)

    assert newest is not None
    assert newest[0].step == 1


# ---- manifests and pointers that were made to do harm ----


def manifest_of(name: str, content: bytes) -> Manifest:
    chunks = checksum(Content.of(content), [len(content)] if content else [])
    return Manifest(
        name=name,
        step=9,
        epoch=None,
        metrics={},
        chunks=chunks,
        tensors="",
        created_ns=2**62,
        run_id="r",
        save_id="s",
        group="last",
    )


WRONG_METRICS: list[Any] = [{"a": "x"}, {"a": None}, [], 3]
WRONG_FILES: list[Any] = [[], {}, [{}], [[]], None, [{"name": "../x", "size": 3, "chunks": []}]]
NUMBERS = [
    -1,
    2**31,
    2**63,
    2**64,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    True,
    "7",
    None,
    [],
    {},
]
TEXTS = [
    "../x",
    "/etc/passwd",
    "a/../../b",
    "..",
    ".",
    "",
    "\0",
    "a\x1b[2Jb",
    "\ud800",
    "x" * 5000,
    7,
    None,
    ["a"],
]


@pytest.mark.parametrize(
    "change",
    [
        *({key: value} for key in ("step", "epoch", "created_ns", "version") for value in NUMBERS),
        *({key: value} for key in ("name", "save_id", "run_id", "group", "saved_as") for value in TEXTS),
        *({"metrics": metrics} for metrics in WRONG_METRICS),
        *({"files": files} for files in WRONG_FILES),
    ],
    ids=repr,
)
def test_no_value_in_a_manifest_leads_astray(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "iter_2.pth.manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))

    answers = read_every_way(folder)

    assert all(answer.created for answer in answers if isinstance(answer, CheckpointInfo))


@pytest.mark.parametrize(
    "sizes",
    [[2**63], [-5, 10], [2**62, 2**62, 2**62], [0] * 1000, [1.5], ["3"], [True]],
    ids=lambda sizes: repr(sizes)[:20],
)
@pytest.mark.usefixtures("_bounded")
def test_no_size_in_a_manifest_is_believed(folder: Path, sizes: list[Any]) -> None:
    path = folder / "iter_2.pth.manifest.json"
    document = json.loads(path.read_bytes())
    for total in (
        sum(size for size in sizes if isinstance(size, int)),
        (folder / "iter_2.pth").stat().st_size,
    ):
        file = {**document["files"][0], "size": total, "chunks": [[size, "0" * 32] for size in sizes]}
        path.write_text(json.dumps({**document, "files": [file]}))

        read_every_way(folder)

        assert [info.step for info in list_checkpoints(folder)] == [1]


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"a":' * 100_000, "9" * 10_000, '{"format": "asynchooks.checkpoint"}', "null", "[]"],
    ids=len,
)
@pytest.mark.usefixtures("_bounded")
def test_no_json_breaks_the_reader(folder: Path, text: str) -> None:
    for name in ("iter_2.pth.manifest.json", next_manifest_name("iter_2.pth")):
        (folder / name).write_text(text)

        read_every_way(folder)


@pytest.mark.parametrize("name", ["iter_2.pth.manifest.json", "last_checkpoint"])
@pytest.mark.usefixtures("_bounded")
def test_what_is_much_too_long_is_not_read(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(10**12)  # it takes no room on the disk

    read_every_way(folder)

    assert read_pointer(folder) is None or name != "last_checkpoint"


@pytest.mark.parametrize(
    "text", ["../../etc/passwd", "/etc/passwd", "..", "", "\0", "s3://bucket/x/../..", "a\\..\\b", "\x1b[2J"]
)
def test_a_pointer_stays_in_its_folder(folder: Path, text: str) -> None:
    (folder / "last_checkpoint").write_text(text)

    read_every_way(folder)


def test_a_sweep_deletes_nothing_that_a_hostile_manifest_names(folder: Path) -> None:
    outside = folder.parent / "precious.pth"
    outside.write_bytes(b"precious")
    described = replace(manifest_of("iter_1.pth", b"precious"), name="../precious.pth")
    (folder / "x.pth.manifest.next.json").write_bytes(described.to_json())
    (folder / "x.pth").write_bytes(b"precious")

    sweep(folder, older_than_s=-5)

    assert outside.read_bytes() == b"precious"
    assert (folder / "iter_1.pth").exists()


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
