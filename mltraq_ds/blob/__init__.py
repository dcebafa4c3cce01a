"""Members to one ZIP archive and back.  See docs/reference/blob-format.md."""

from mltraq_ds.blob.entry import StoredEntry
from mltraq_ds.blob.member import StoredMember
from mltraq_ds.blob.reader import Blob, open_blob
from mltraq_ds.blob.writer import Packed, pack, pack_many

__all__ = ["Blob", "Packed", "StoredEntry", "StoredMember", "open_blob", "pack", "pack_many"]
