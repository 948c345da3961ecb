"""The model card beside the head: how it was made, what it is worth, what it must not be taken for."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.latin.five.fitting import Trial
from finetune.latin.five.measuring import Figure, as_table
from finetune.latin.five.recipe import HeadRecipe
from finetune.latin.synthesis.grooves import LATIN_FILES
from finetune.latin.synthesis.rendering import SOUNDFONTS
from shared.engines.audio.musicnn_head import Head

CARD = """---
license: {licence}
base_model: musicnn
tags: [audio-classification, music, synthetic-data]
---

# Latin five

Bachata, Cumbia, Merengue, Salsa, Vallenato, or none of these: a linear head of {size:,} numbers on frozen musicnn
features ({layer}, {width} of each window of 3 s). **It learned from synthetic music only and has never heard a
recording of any of the five.** It is a demonstration of a recipe, not a judge of music.

## How it was made

    python -m finetune.latin.five --clips FOLDER --out shared/engines/audio/heads/latin-five

{clips} clips of 6 s (`finetune/latin/synthesis`, seeds {seeds}): patterns of our own (percussion, bass, comping,
melody) for all five and for a dozen other kinds, and grooves of MMA for salsa, merengue and other kinds, with random
key, tempo, progression, instruments, room, EQ, saturation and noise. No soundfont and no groove file is in two parts:

| part | soundfonts | MMA files of the five |
| --- | --- | --- |
{parts}

The features' first {components} principal components and the regularisation (C = {strength:g}) were chosen from
{trials} trials by the mean of two figures: the share of validation clips that is right, over genres and sources
({score:.2f}), and the share of MMA's salsa of training and validation that a head gets right which saw no groove of the
five ({transfer_score:.2f}; chance is 0.20). The temperature was fitted on validation, and the bias of "none of these"
raised until of no source of calibration music more than {false_positives:.0%} got the name of a genre: {calibration}.
No weight was fitted and no setting compared on the clips of this table. But the rule of the threshold (of each source,
after 5 % of their mean) and the use of components were settled when an earlier table of half these clips had been seen,
and who wrote our patterns had read MMA's file of merengue before, though copied no rhythm of it.


{table}

Intervals resample clips; of other kinds, whole groove files or tracks. *Right*: "none of these" counts as an answer,
wrong for the five and right for other kinds. *Among the five*: the best of the five, whatever "none of these" has;
chance is 0.20. MMA has one file of merengue and it was left out, so the head never met a merengue that others wrote.
Three left-out files are few: their interval is about other clips of the same grooves, not about other grooves.

## Limits

- It knows stereotypes: what our patterns call cumbia is what it calls cumbia. Singing, live percussion and studio
  production it has never met with these labels.
- {transfer}
- Genres near to these (cha-cha-cha, bolero, rumba, reggaeton) it may call by one of the five names.

## Licence

{licence}. Our patterns and this head are part of this project. MMA is under the GPL and its grooves were played to
train and to measure; none of them, of the soundfonts or of the recordings is in this folder.
"""


def card(
    head: Head, recipe: HeadRecipe, clips: int, trials: Sequence[Trial], figures: Sequence[Figure], calibration: str
) -> str:
    best = max(trials, key=lambda trial: trial.worth)
    parts = [
        f"| {part} | {', '.join(n for n, (_, of) in SOUNDFONTS.items() if of == part)} | "
        f"{', '.join(f'{name} ({genre})' for name, (genre, of, _) in LATIN_FILES.items() if of == part)} |"
        for part in ("train", "validation", "test")
    ]
    return CARD.format(
        licence=recipe.licence,
        size=head.weight.size + head.bias.size,
        layer=head.layer,
        width=head.weight.shape[1],
        seeds=" and ".join(map(str, recipe.seeds)),
        clips=f"{clips:,}",
        parts="\n".join(parts),
        strength=best.strength,
        trials=len(trials),
        score=best.score,
        transfer_score=best.transfer,
        components=best.components,
        false_positives=recipe.false_positives,
        calibration=calibration,
        table=as_table(figures),
        transfer=transfer(figures),
    )


def transfer(figures: Sequence[Figure]) -> str:
    """What the left-out grooves say, in a sentence."""
    row = next((row for row in figures if row.music.startswith("MMA grooves")), None)
    if row is None:
        return "How it does on music of the five that others wrote was not measured."
    low, high = row.interval
    return (
        f"On salsa and merengue that others wrote as grooves it is right for {row.right:.0%} of clips "
        f"({low:.0%} to {high:.0%}) and calls {row.none:.0%} none of these; on real recordings expect less."
    )
