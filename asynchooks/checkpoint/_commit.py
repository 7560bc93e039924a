"""Making a checkpoint exist, and making it cease to exist.

Decides the order of the small writes around the data, so that at every instant each name is a whole
checkpoint or none, and a replaced one is the old or the new. Every function is one step; the order between
them is the checkpointer's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynchooks.checkpoint._catalog import read_manifest, url_of, written_by
from asynchooks.checkpoint._content import Content
from asynchooks.checkpoint._manifest import Manifest, SavedAs, manifest_name, next_manifest_name, pointer_name
from asynchooks.errors import StorageFullError

if TYPE_CHECKING:
    from asynchooks.checkpoint._storage import Store

__all__ = ["announce", "point", "publish", "remove", "withdraw"]


def announce(store: Store, manifest: Manifest) -> None:
    """Before the data: write the next manifest.

    Data that replaces a committed checkpoint is described from the moment it appears, and data that a kill
    leaves without a manifest is provably a leftover.
    """
    store.put(next_manifest_name(manifest.name), Content.of(manifest.to_json()))


def withdraw(store: Store, manifest: Manifest) -> None:
    """After the data failed: remove the next manifest, unless only the answer was lost and the data is there."""
    if written_by(store, manifest.name) != manifest.save_id:
        store.delete(next_manifest_name(manifest.name))


def publish(store: Store, manifest: Manifest) -> None:
    """After the data is durable: write the manifest. From here on the checkpoint is committed."""
    store.put(manifest_name(manifest.name), Content.of(manifest.to_json()))
    store.delete(next_manifest_name(manifest.name))


def point(store: Store, pointer: SavedAs, name: str) -> None:
    """Replace a pointer file: one line, the checkpoint's absolute path or URL, as MMEngine's users know it."""
    store.put(pointer_name(pointer), Content.of(url_of(store, name).encode()))


def remove(store: Store, manifest: Manifest, *, beside_others: bool = False) -> bool:
    """Delete a committed checkpoint: its manifest before its data, so that a half-deleted one is none.

    The next manifest stands while the data goes, so that `sweep` can prove what a kill leaves. A full store takes
    one only when something else is gone: a kill in between then leaves data that is nobody's.

    Args:
        store: the folder.
        manifest: the checkpoint.
        beside_others: another process may save this name: look before each deletion whether the data is still
            this save's. No store can look and delete at once, so that an instant remains.

    Returns:
        Whether it is gone; False when another process replaced it meanwhile.
    """
    has_room = _announced(store, manifest)
    for name in (manifest_name(manifest.name), manifest.name):
        if beside_others and written_by(store, manifest.name) != manifest.save_id:
            _withdraw_removal(store, manifest)
            return False
        store.delete(name)
        if not has_room:
            has_room = _announced(store, manifest)
    store.delete(next_manifest_name(manifest.name))
    return True


def _announced(store: Store, manifest: Manifest) -> bool:
    try:
        announce(store, manifest)
    except StorageFullError:
        return False
    return True


def _withdraw_removal(store: Store, manifest: Manifest) -> None:
    """Remove the next manifest of a removal that is given up, unless another save's stands there by now."""
    name = next_manifest_name(manifest.name)
    found = read_manifest(store, name)
    if found is not None and found.save_id == manifest.save_id:
        store.delete(name)
