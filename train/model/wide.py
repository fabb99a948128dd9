"""The seed's LSTM beside a direct path from the mean frame to the answers.

What things are shows in the mean frame, and a few hundred clips suffice to read it off nearly
linearly; what happens shows in their order. The LSTM must not learn the first anew.
"""

from __future__ import annotations

from typing import Any

from framebank.train.model import lstm
from framebank.train.model.config import ModelConfig
from framebank.train.model.frames import Frames, projection

_UNITS = 512


def read_frames(frames: Frames, question: Any, config: ModelConfig) -> Any:
    """Return float[b, frame_units] as the seed's model does; it is blind to `question`."""
    return lstm.read_frames(frames, question, config)


def direct_path(frames: Frames, question: Any) -> Any:
    """Return float[b, u] of the mean frame and the question, what the answers see directly."""
    from keras import layers

    mean = layers.GlobalAveragePooling1D()(frames.scaled, mask=frames.mask)
    wide = projection(_UNITS, frames.scaled.shape[-1], name="wide")
    return layers.Concatenate()([wide(mean), question])
