"""`python -m finetune RECIPE` trains a recipe; the other commands are listed by `python -m finetune --help`."""

from finetune.cli import main

if __name__ == "__main__":
    main()
