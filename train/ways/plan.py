"""The six ways, what each reads, and the commands that make it.

They are those of the talks and posts that Framebank grew from: (1) each frame by itself and a vote;
(2) a CNN and an LSTM, trained together; (3) a 3-D CNN, from pixels too; (4) cached features and a
recurrent network; (5) cached features and dense layers; (6) cached features of a 3-D CNN over clips
of 16 frames, then either. Beside them stands the closed formula on the features of (4).
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from framebank.features.spec import SpecChoice

FRAMES, PIXELS, CLIPS = "frames", "pixels", "clips"  # the caches
OPTIONS = (  # that must stay the same through the life of a folder
    *("labels", "sample", "clip_sample", "backbone", "weights", "clip_weights", "pixels"),
    *("precision", "epochs", "patience", "batch_size", "seed", "group_by"),
)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way: its `number` in the list of six, what it is called, and what it is."""

    name: str
    number: str
    title: str
    about: str
    cache: str
    kind: str  # of model

    @property
    def label(self) -> str:
        return f"{self.number}. {self.title}" if self.number else self.title


WAYS = (
    Way("vote", "1", "frames that vote", "each frame's features by themselves, then the mean of "
        "what they say", FRAMES, "vote"),
    Way("cnn_lstm", "2", "CNN + LSTM", "one network from pixels, trained together", PIXELS,
        "cnn_lstm"),
    Way("cnn3d", "3", "3-D CNN", "a small one, from pixels", PIXELS, "cnn3d"),
    Way("features_rnn", "4", "features, RNN", "cached features of frames, then an LSTM", FRAMES,
        "lstm"),
    Way("features_mlp", "5", "features, MLP", "cached features of frames, then dense layers on "
        "their moments", FRAMES, "mlp"),
    Way("clips_rnn", "6a", "clips, RNN", "cached C3D features of clips of 16 frames, then an LSTM",
        CLIPS, "lstm"),
    Way("clips_mlp", "6b", "clips, MLP", "the same, then dense layers on their moments", CLIPS,
        "mlp"),
    Way("probe", "", "closed formula", "for comparison: ridge regression on the moments of the "
        "features of way 4", FRAMES, "probe"),
)  # fmt: skip


def cache_choices(args: argparse.Namespace) -> dict[str, SpecChoice]:
    """Return what each cache is made with."""
    frames = SpecChoice(
        sample=args.sample,
        backbone=args.backbone,
        weights=args.weights,
        precision=args.precision,
    )
    return {
        FRAMES: frames,
        PIXELS: SpecChoice(sample=args.sample, backbone=f"pixels:{args.pixels}"),
        CLIPS: dataclasses.replace(
            frames, sample=args.clip_sample, backbone="c3d", weights=args.clip_weights
        ),
    }


def cache_commands(
    args: argparse.Namespace, folder: Path, beam_args: Sequence[str]
) -> dict[str, list[str]]:
    """Return the words after `framebank` that make each cache."""
    made = {}
    for name, choice in cache_choices(args).items():
        words = ["extract", *args.inputs, "--cache", str(folder / "caches" / name)]
        for one in dataclasses.fields(choice):
            if (value := getattr(choice, one.name)) != one.default:
                words += [f"--{one.name}", str(value)]
        made[name] = [*words, *beam_args, "--json"]
    return made


def train_command(way: Way, args: argparse.Namespace, folder: Path) -> list[str]:
    """Return the words after `framebank` that train a way."""
    budget: Mapping[str, object] = {
        "epochs": args.epochs,
        "patience": args.patience,
        "batch-size": args.batch_size,
        "seed": args.seed,
    }
    words = ["train", "--cache", str(folder / "caches" / way.cache), "--labels", *args.labels]
    words += ["--model", str(folder / "models" / way.name), "--model-kind", way.kind]
    for name, value in budget.items():
        words += [f"--{name}", str(value)]
    if args.group_by is not None:
        words += ["--group-by", args.group_by]
    return [*words, "--no-baselines", "--json"]
