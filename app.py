"""Serves the suite: `python app.py`, or one Space of it: `python app.py --spaces translation`."""

from shared.cli import main

if __name__ == "__main__":
    main()
