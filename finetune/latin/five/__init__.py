"""The head "Latin five": generated music → musicnn's features → a linear head, its figures, its card.

    python -m finetune.latin.five --out FOLDER

It is no run of transformers' Trainer: the base is frozen, so each clip's features are computed once, and what remains
is a logistic regression of seconds. `recipe.yaml` decides everything; `features` → `fitting` → `measuring` → `card`,
top down.
"""
