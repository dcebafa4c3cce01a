"""The page that leads through the source names files that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_on_the_way_exists():
    """No step of the way points to a file that was moved."""
    page = (ROOT / "docs" / "explanation" / "way-of-a-value.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```text\n(.*?)```", page, re.DOTALL))
    names = set(re.findall(r"\b[a-z_/]+\.py\b|\b(?:codecs|storage)/", blocks))
    assert len(names) > 15
    assert [name for name in names if not (ROOT / "mltraq_ds" / name).exists()] == []
