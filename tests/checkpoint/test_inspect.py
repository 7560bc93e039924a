"""What lies in a folder: each file has one name for what it is, and damage is told from work under way."""

from pathlib import Path
from typing import Any, cast

import torch

from asynchooks.checkpoint import (
    Checkpointer,
    CheckpointInfo,
    FolderContents,
    KeepLast,
    Store,
    capture,
    inspect_folder,
    open_store,
)


def saved(folder: Path, step: int, **options: Any) -> CheckpointInfo:
    state = {"w": torch.full((100,), float(step)), "step": step}
    return Checkpointer(folder, run_id="run").save_sync(
        capture(state), name=f"iter_{step}.pth", step=step, **options
    )


def kinds(contents: FolderContents) -> dict[str, str]:
    return {other.name: other.kind for other in contents.others}


def test_a_healthy_folder_holds_checkpoints_and_pointers_alone(tmp_path: Path) -> None:
    infos = (saved(tmp_path, 1, pointer="last"), saved(tmp_path, 2, pointer="best"))

    contents = inspect_folder(tmp_path)
    assert contents.checkpoints == infos
    assert contents.pointers == {"last": "iter_1.pth", "best": "iter_2.pth"}
    assert contents.others == ()
    assert contents.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    contents = inspect_folder(tmp_path / "nowhere")

    assert (contents.checkpoints, contents.others, contents.nbytes) == ((), (), 0)


def test_damage_is_named_with_what_was_expected(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        saved(tmp_path, step, pointer="last")
    with (tmp_path / "iter_1.pth").open("r+b") as file:
        file.truncate(100)
    (tmp_path / "iter_2.pth.manifest.json").write_text("{")
    (tmp_path / "iter_3.pth").unlink()
    (tmp_path / "last_checkpoint").write_text("/elsewhere/iter_3.pth")

    contents = inspect_folder(tmp_path)
    assert [info.name for info in contents.checkpoints] == ["iter_4.pth"]
    assert kinds(contents) == {
        "iter_1.pth": "damaged",
        "iter_1.pth.manifest.json": "damaged",
        "iter_2.pth": "damaged",
        "iter_2.pth.manifest.json": "damaged",
        "iter_3.pth.manifest.json": "damaged",
        "last_checkpoint": "damaged",
    }
    reasons = {other.name: other.reason for other in contents.others}
    assert "has 100 bytes where" in reasons["iter_1.pth"]
    assert "saved at step 1: truncated or overwritten" in reasons["iter_1.pth"]
    assert "the manifest is no JSON" in reasons["iter_2.pth"]
    assert "iter_3.pth, is not there" in reasons["iter_3.pth.manifest.json"]
    assert reasons["last_checkpoint"] == "a pointer to iter_3.pth, which is not there"


def test_what_others_put_there_is_foreign(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "epoch_7.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_7.pth"))
    (tmp_path / "newer.pth").write_bytes(b"data")
    (tmp_path / "newer.pth.manifest.json").write_text('{"format": "asynchooks.checkpoint", "version": 99}')

    contents = inspect_folder(tmp_path)
    assert kinds(contents) == {
        "epoch_7.pth": "foreign",
        "newer.pth": "foreign",
        "newer.pth.manifest.json": "foreign",
    }
    assert "Upgrade asynchooks" in contents.others[1].reason


def test_a_save_that_was_cut_short_is_unfinished(tmp_path: Path) -> None:
    info = saved(tmp_path, 1)
    manifest = tmp_path / "iter_1.pth.manifest.json"
    manifest.rename(tmp_path / "iter_1.pth.manifest.next.json")
    (tmp_path / f".asynchooks-{'0' * 32}.tmp").write_bytes(b"part")

    contents = inspect_folder(tmp_path)
    assert kinds(contents) == {
        f".asynchooks-{'0' * 32}.tmp": "unfinished",
        info.name: "unfinished",
        "iter_1.pth.manifest.next.json": "unfinished",
    }


def test_what_a_first_sharded_save_leaves_when_it_is_killed_is_seen(tmp_path: Path) -> None:
    (tmp_path / "iter_10").mkdir()
    (tmp_path / "iter_10" / f".asynchooks-{0:032x}.tmp").write_bytes(b"x" * 1000)

    contents = inspect_folder(tmp_path)

    assert (set(kinds(contents).values()), contents.nbytes) == ({"unfinished"}, 1000)


def test_no_damage_is_seen_in_a_folder_where_a_save_or_removal_is_under_way(tmp_path: Path) -> None:
    """Looks at the folder before each single call that a save, a replacement and a pruning make."""
    store = open_store(tmp_path)
    seen: list[str] = []

    class Watched:
        """Looks before each change."""

        def __getattr__(self, name: str) -> Any:
            method = getattr(store, name)
            if name in ("put", "delete"):
                seen.extend(kinds(inspect_folder(tmp_path)).values())
            return method

    saves = Checkpointer(cast("Store", Watched()), run_id="run")
    for step, name in enumerate(("a.pth", "b.pth", "b.pth", "c.pth")):
        state = {"w": torch.full((10,), float(step))}
        saves.save_sync(capture(state), name=name, step=step, pointer="last", keep=KeepLast(1))

    assert set(seen) == {"unfinished"}
