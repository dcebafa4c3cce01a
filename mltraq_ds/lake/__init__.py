"""Data lakes: blobs on content-addressed remotes, the store as a folder of small text files.

One verb each, on an ordinary store.  A blob that lives on remotes is read as any other: whoever opens it follows its
pointer, and believes nothing that a remote sends before it is verified.

``add`` uploads and leaves pointers, ``upload`` uploads and keeps the bytes, ``drop`` and ``pull`` decide which bytes
are here, ``remove`` forgets a remote, ``status`` and ``verify`` look, ``clone`` makes a second store, ``sweep`` removes
from a remote what no store refers to.
"""

from __future__ import annotations

from mltraq_ds.lake.adding import add, upload, upload_step
from mltraq_ds.lake.cloning import clone
from mltraq_ds.lake.keeping import drop, pull, remove
from mltraq_ds.lake.looking import status, verify
from mltraq_ds.lake.modes import Mode
from mltraq_ds.lake.report import BlobRow, LakeReport
from mltraq_ds.lake.sweeping import sweep

__all__ = [
    "BlobRow",
    "LakeReport",
    "Mode",
    "add",
    "clone",
    "drop",
    "pull",
    "remove",
    "status",
    "sweep",
    "upload",
    "upload_step",
    "verify",
]
