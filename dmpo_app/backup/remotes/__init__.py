"""Storages that a backup can be kept on, and `open_remote`, which picks one by its URL."""

from pathlib import Path

from dmpo_app.backup.remotes.remote import Remote


def open_remote(url: str) -> Remote:
    """Create the client of the storage at a URL or the path of a folder. Nothing is asked of it yet.

    Raises SetupError for a URL that no installed package understands.
    """
    if url.startswith("hf://"):
        from dmpo_app.backup.remotes.hub_remotes import BucketRemote, DatasetRemote

        if url.startswith("hf://datasets/"):
            return DatasetRemote(url.removeprefix("hf://datasets/"))
        if url.startswith("hf://buckets/"):
            return BucketRemote(url.removeprefix("hf://buckets/"))
    from dmpo_app.backup.remotes.folder_remote import FolderRemote, FsspecRemote

    if "://" not in url or url.startswith("file://"):
        return FolderRemote(Path(url.removeprefix("file://")).expanduser().absolute())
    return FsspecRemote(url)
