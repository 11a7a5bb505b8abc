"""Code blocks of the documentation, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def snippet(page: str, name: str) -> str:
    """Return the code block of *page* (a path below `docs`) whose first line is a comment that begins with *name*."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.search(rf"^```\w+\n((?://|#|<!--) {re.escape(name)}\b.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {name} in docs/{page}"
    return found[1]
