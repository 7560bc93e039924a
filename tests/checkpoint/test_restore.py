"""Loading: verified, guarded, and never a raw pickle or zip error."""

import collections
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asynchooks.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    capture,
    find_latest,
    list_checkpoints,
    read_pointer,
    restore,
    verify,
)
from asynchooks.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    UnsafePathError,
)


def state(step: int = 1) -> dict[str, Any]:
    return {"state_dict": {"w": torch.arange(4000.0) + step}, "meta": {"iter": step}}


def saved(folder: Path, step: int = 1, **options: Any) -> CheckpointInfo:
    return Checkpointer(folder).save_sync(capture(state(step)), name=f"iter_{step}.pth", step=step, **options)


def test_restore_gives_back_what_was_saved(tmp_path: Path) -> None:
    loaded = restore(saved(tmp_path).url)

    assert loaded["meta"] == {"iter": 1}
    assert torch.equal(loaded["state_dict"]["w"], state()["state_dict"]["w"])


def test_plain_torch_load_reads_the_file(tmp_path: Path) -> None:
    assert torch.load(saved(tmp_path).url, weights_only=True)["meta"] == {"iter": 1}


def test_a_plain_torch_save_loads_and_is_named_as_unverified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(state(7), tmp_path / "epoch_7.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_7.pth"))

    assert restore(tmp_path / "epoch_7.pth")["meta"] == {"iter": 7}
    assert "epoch_7.pth has no manifest: loaded unverified" in caplog.text
    assert list_checkpoints(tmp_path) == []
    assert find_latest(tmp_path) is None
    assert read_pointer(tmp_path) == str(tmp_path / "epoch_7.pth")


def test_a_flipped_bit_is_located(tmp_path: Path) -> None:
    path = Path(saved(tmp_path).url)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(CorruptCheckpointError, match=r"iter_1\.pth: chunk 1, bytes \d+ to \d+, differs"):
        restore(path)
    with pytest.raises(CorruptCheckpointError, match="chunk 1"):
        verify(path)


@pytest.mark.parametrize("nbytes", [0, 1, 100, 10_000])
def test_a_truncated_file_is_corrupt_and_no_checkpoint(tmp_path: Path, nbytes: int) -> None:
    path = Path(saved(tmp_path).url)
    path.write_bytes(path.read_bytes()[:nbytes])

    with pytest.raises(CorruptCheckpointError, match=f"has {nbytes} bytes, but its manifest describes"):
        restore(path)
    with pytest.raises(CheckpointNotFoundError, match="no committed checkpoint"):
        verify(path)
    assert list_checkpoints(tmp_path) == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_damage_to_any_file_gives_anything_but_a_checkpoint_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "foreign.pth"
    torch.save({"w": torch.ones(5), "meta": {"a": [1, "x"]}}, path)
    damaged = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    else:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)

    try:
        loaded = restore(path)
    except CheckpointError:
        return
    assert isinstance(loaded, dict)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02garbage", b"PK\x03\x04", b"\0" * 1000])
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)

    with pytest.raises((ForeignCheckpointError, CorruptCheckpointError), match=r"x\.pth"):
        restore(tmp_path / "x.pth")


def test_a_checkpoint_is_a_dict(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "x.pth")

    with pytest.raises(ForeignCheckpointError, match="holds a list"):
        restore(tmp_path / "x.pth")


def test_loading_runs_no_code_unless_told_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = {"deque": collections.deque([torch.ones(1)])}
    info = Checkpointer(tmp_path).save_sync(capture(held), name="a.pth", step=1)

    with pytest.raises(ForeignCheckpointError, match="weights_only=False"):
        restore(info.url)
    assert restore(info.url, weights_only=False)["deque"][0] == 1
    assert "may run any code" in caplog.text


def test_what_a_guarded_load_will_refuse_is_said_at_the_save(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Checkpointer(tmp_path).save_sync(capture({"path": tmp_path}), name="a.pth", step=3)

    assert "step 3" in caplog.text
    assert "state['path']: PosixPath" in caplog.text


def test_the_resume_falls_back_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 3):
        saved(tmp_path, step)
    (tmp_path / "iter_3.pth").write_bytes(b"x" * (tmp_path / "iter_3.pth").stat().st_size)
    (tmp_path / "iter_2.pth").write_bytes(b"short")

    latest = find_latest(tmp_path)

    assert latest is not None
    assert latest.step == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("iter_3.pth" in text and "differs" in text for text in warnings)
    assert any("iter_2.pth" in text and "5 bytes" in text for text in warnings)


def test_nothing_to_resume_from_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert find_latest(tmp_path / "none") is None

    assert "no committed checkpoint in" in caplog.text


def test_the_resume_prefers_what_was_not_saved_as_best_only(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2, pointer="best")

    latest = find_latest(tmp_path)

    assert latest is not None
    assert latest.step == 1
    assert [info.step for info in list_checkpoints(tmp_path)] == [1, 2]


def test_the_best_is_resumed_from_when_there_is_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path, 2, pointer="best")

    latest = find_latest(tmp_path)

    assert latest is not None
    assert latest.step == 2


@pytest.mark.parametrize("url", ["s3://bucket", "folder/.hidden", "last_checkpoint"])
def test_urls_that_name_no_file_in_a_folder_are_refused(url: str) -> None:
    with pytest.raises(UnsafePathError):
        restore(url)


def test_a_pointer_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("/elsewhere/../etc/passwd")

    assert read_pointer(tmp_path) == str(tmp_path / "passwd")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="a file in its folder"):
        restore(tmp_path)


def test_a_missing_checkpoint_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="missing"):
        restore(tmp_path / "missing.pth")


def test_a_broken_manifest_hides_only_its_own_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    (tmp_path / "iter_2.pth.manifest.json").write_text("{")

    assert [info.step for info in list_checkpoints(tmp_path)] == [1]
    assert "iter_2.pth.manifest.json" in caplog.text


@pytest.mark.parametrize("rows", [3, 5_000_000])
def test_a_file_in_torchs_old_format_loads_without_a_manifest(tmp_path: Path, rows: int) -> None:
    state = {"w": torch.arange(rows, dtype=torch.float32), "n": 3}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)

    loaded = restore(tmp_path / "old.pth")

    assert torch.equal(loaded["w"], state["w"])  # type: ignore[arg-type]
    assert loaded["n"] == 3
