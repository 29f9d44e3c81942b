"""storage: where things stay. Small interfaces, each with its backends, chosen by a URL.

`Table` keeps the offline rows in versions, `OnlineStore` the newest value of each entity, `Records` the small
documents that must never be lost (registry, runs, audit), `BlobStore` the model files. Data enters as Polars
frames, packed bytes or plain JSON documents, and leaves the same way; no other room knows a backend's name.
A `Workspace` is one project's stores, opened together. The event log has its place here and no code yet.
"""

from noria.storage.blobs import Blob, BlobStore, Stored
from noria.storage.file_blobs import FileBlobs
from noria.storage.online import OnlineStore, OnlineValue
from noria.storage.records import ABSENT, Put, Record, Records
from noria.storage.urls import open_blobs, open_online, open_records, open_table
from noria.storage.workspace import Runnable, Workspace

__all__ = [
    "ABSENT",
    "Blob",
    "BlobStore",
    "FileBlobs",
    "OnlineStore",
    "OnlineValue",
    "Put",
    "Record",
    "Records",
    "Runnable",
    "Stored",
    "Workspace",
    "open_blobs",
    "open_online",
    "open_records",
    "open_table",
]
