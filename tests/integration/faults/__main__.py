"""``python -m tests.integration.faults``."""

import sys
from pathlib import Path

# The harness of the integration tests is imported by its modules' own names, as pytest does.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.command import main

if __name__ == "__main__":
    sys.exit(main())
