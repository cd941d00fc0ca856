"""Where the repository is, and the real X-rays beside it."""

from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
SHARED_DATA: Final = REPOSITORY.parent / "shared" / "data"
