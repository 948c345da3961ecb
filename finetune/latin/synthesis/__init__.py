"""Music of five Latin genres, and of others, made by rules: patterns of our own, and grooves of MMA where it has them.

    python -m finetune.latin.synthesis --out FOLDER --seed 1 --clips 1300

Top down: `plan` says which clips there will be and in which part each is, `arrange` plays the `patterns`, `grooves`
plays MMA's, `rendering` makes sound of notes, `augmentation` puts it into a room.
"""
