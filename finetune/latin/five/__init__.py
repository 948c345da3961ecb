"""The head "Latin five": generated music → musicnn's features → a linear head, its figures, its card.

    python -m finetune.latin.five --out FOLDER

It is no run of transformers' Trainer: the base never learns, so each clip is heard once, and what is left is a logistic
regression of seconds. `recipe.yaml` decides everything; `features` → `fitting` → `measuring` → `card`, top down.
"""
