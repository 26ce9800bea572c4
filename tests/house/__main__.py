"""`python -m tests.house`: print each bound of the source with what was counted; exit code 1 where one is missed."""

from __future__ import annotations

import sys

from tests.house.bounds import bounds, sources


def main() -> int:
    """Print the table."""
    found = bounds(sources())
    for bound in found:
        state = "kept" if bound.kept else "MISSED"
        sys.stdout.write(f"{state:7}{bound.what}: {bound.found:g} (at most {bound.most:g})\n")
        sys.stdout.writelines(f"         {place}\n" for place in ([] if bound.kept else bound.where))
    return 0 if all(bound.kept for bound in found) else 1


if __name__ == "__main__":
    sys.exit(main())
