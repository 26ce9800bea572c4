"""Every path and link in the documentation exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "infra/README.md",
    ROOT / "anomaly/README.md",
]
_PATH = re.compile(r"`([\w./-]+/[\w./-]+\.(?:py|yaml|avsc|properties|toml)|[\w.-]+/[\w./-]+/)`")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")
_USERS = re.compile(r"^(schemas|events|alerts|failures|manual|state|sinks|quarantine)/")


def candidates(page: Path, name: str) -> list[Path]:
    """Return the places of a path in a page: relative to the root, to a package or to the page's folder."""
    places = (
        ROOT,
        ROOT / "stream_app",
        page.parent,
        ROOT / "stream_app/recovery",
        ROOT / "stream_app/pipeline",
    )
    return [place / name for place in places]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_and_links_of_a_page_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    named = [name for name in _PATH.findall(text) if not _USERS.match(name)]
    missing = [name for name in named if not any(path.exists() for path in candidates(page, name))]
    broken = [link for link in _LINK.findall(text) if not (page.parent / link).exists()]
    assert (missing, broken) == ([], [])
