"""`python -m shared.hub …` is now `python -m shared.publishing …`; this name keeps working."""

import sys

from shared.publishing.__main__ import main

if __name__ == "__main__":
    print("python -m shared.hub is now called python -m shared.publishing", file=sys.stderr)
    sys.exit(main())
