"""The log-mel spectrogram of a recording as a small picture, whatever its length."""

from __future__ import annotations

import base64
import io

import numpy as np

from shared.media.mel import BANDS, RATE, log_mel
from shared.media.recordings import Resampler, Window
from shared.page.render import CIVIDIS

MOST_COLUMNS = 1024
"""Whenever there are more, neighbours are averaged in pairs."""
FRAMES_A_COLUMN = 4
LOUDEST, QUIETEST = 5.0, 0.3
"""Log-mel power drawn lightest and darkest: a full-scale tone comes to some 6, and silence is 0."""
ROWS_A_BAND = 2


class Picture:
    """Grows by a window at a time and keeps at most `MOST_COLUMNS` columns."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resample = Resampler(rate, RATE) if rate != RATE else None
        self._drawn = 0.0
        """Seconds."""
        self._frames = FRAMES_A_COLUMN
        self._rest = np.zeros((0, BANDS), dtype=np.float32)
        self.columns: list[np.ndarray] = []
        """Each of shape (96,)."""

    def add(self, window: Window) -> None:
        """Draws what of the window comes after what was drawn."""
        new = window.samples[round(max(0.0, self._drawn - window.start) * self._rate) :]
        new = new[: round((window.end - max(self._drawn, window.start)) * self._rate)]
        self._drawn = max(self._drawn, window.end)
        if self._resample:
            new = self._resample(new)
        if not len(new):
            return
        frames = np.concatenate([self._rest, log_mel(new)[: max(1, len(new) // 256)]])
        whole = len(frames) // self._frames
        self.columns += list(frames[: whole * self._frames].reshape(whole, self._frames, BANDS).mean(axis=1))
        self._rest = frames[whole * self._frames :]
        while len(self.columns) > MOST_COLUMNS:
            even = self.columns if len(self.columns) % 2 == 0 else [*self.columns, self.columns[-1]]
            self.columns = list(np.reshape(even, (-1, 2, BANDS)).mean(axis=1))
            self._frames *= 2

    def png(self) -> bytes:
        """Time to the right, pitch upwards; dark is quiet, light is loud."""
        from PIL import Image

        levels = np.stack(self.columns or [np.zeros(BANDS)], axis=1)[::-1]
        shares = np.clip((levels - QUIETEST) / (LOUDEST - QUIETEST), 0, 1)
        picture = Image.fromarray(np.repeat((255 * shares).astype(np.uint8), ROWS_A_BAND, axis=0), mode="L")
        picture = picture.convert("P")
        picture.putpalette(palette())
        out = io.BytesIO()
        picture.save(out, "PNG", optimize=True)
        return out.getvalue()

    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png()).decode("ascii")


def palette() -> list[int]:
    """Cividis in 256 steps, red, green and blue by turns."""
    anchors = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in CIVIDIS])
    places = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(places, range(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(int).ravel().tolist()
