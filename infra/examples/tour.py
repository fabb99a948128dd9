"""Every function of Framebank's Python API, from clips to answers, on clips that it makes itself.

    python infra/examples/tour.py tour

Takes about two minutes on two cores, needs no network, and leaves all that it makes in the folder
`tour`. The weights are random ones, so the figures mean nothing: what comes out is a cache, exports
of it, a model, its answers, a report and a registry.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import framebank as fb
from framebank.train.demo.clips import plan_clips, write_clip, write_questions


def make_clips(folder: Path, *, count: int = 40) -> Path:
    """Write short films of things that move, and questions about them; return the questions."""
    plans = plan_clips(count)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for plan in plans:
        write_clip(plan, folder / "clips")
    write_questions(plans, folder / "questions.jsonl")
    return folder / "questions.jsonl"


def main(folder: Path) -> None:
    questions = make_clips(folder)
    clips, model = folder / "clips", folder / "model"
    how: dict[str, Any] = {"sample": "uniform=4", "backbone": "mobilenet_v2", "weights": "random:0"}

    # What will it take, and then do it. What is done already is never decoded again.
    plan = fb.plan(clips, cache=folder / "cache", no_measure=True, **how)
    print(f"{plan.inputs} clips to extract")
    summary = fb.extract(clips, cache=folder / "cache", **how)
    print(summary and f"{summary['done']} done, {summary['quarantined']} quarantined")

    # A cache is read without TensorFlow, and as other libraries read.
    cache = fb.open_cache(folder / "cache")
    print(cache)
    record = cache[cache.video_ids[0]]
    print(record.video_id, record.features.shape, record.pts_ms.tolist())
    print(cache.table(["video_id", "rows", "source_codec"]).slice(0, 3).to_pylist())
    print(cache.dataset(shuffle_seed=0).element_spec)
    print(len(cache.torch()), "videos for torch.utils.data.DataLoader")
    print("faults:", fb.verify(cache).faults)
    for to in ("npz", "parquet", "webdataset", "tfds", "yt8m"):
        print(to, fb.export(cache, folder / to, to=to)["files"], "files")

    # One clip, without a cache and without Beam.
    clip = sorted(clips.iterdir())[0]
    print(fb.extract_features(str(clip), **how).features.shape)

    # Questions: what is in the files, a model, how good it is, its answers.
    print(fb.questions(questions, cache=cache)["cache"]["train"])
    metrics = fb.train(
        cache=cache, questions=questions, model=model, model_kind="probe", no_baselines=True
    )
    print(f"accuracy {metrics['accuracy']:.1%} on {metrics['split']}")
    figures = fb.evaluate(
        model=model, cache=cache, questions=questions, out=folder / "report", no_baselines=True
    )
    print(f"judged on {figures['judged']} questions; see {folder / 'report'}/report.html")
    answers = fb.score(model=model, cache=cache, questions=questions, out=folder / "answers")
    print(answers and f"{answers['answered']} questions answered")
    asked = fb.ask(clip, "what is happening?", model=model, top=2)
    print([answer["answer"] for answer in asked["answers"]])

    # A schedule's command: a new model where there is something new, if it is better.
    config = folder / "retrain.toml"
    config.write_text(
        'registry = "registry"\ncache = "cache"\nquestions = ["questions.jsonl"]\n'
        "[held]\nleast = 1\n[model]\nkind = 'probe'\n"
    )
    print(fb.retrain(config=config).event, "and then", fb.retrain(config=config).event)

    # Words of one's own questions, and a network that knows more of one's own task.
    try:
        print(fb.words(questions, out=folder / "vectors.bin", size=16)["words"], "words")
    except fb.UsageError as error:  # gensim is an extra
        print(error.what)
    labels = folder / "labels.csv"
    rows = [f"{name},{name.split('-')[0]}" for name in cache.video_ids]
    labels.write_text("\n".join(["video_id,label", *rows]) + "\n")
    how |= {"sample": "uniform=1", "start": "Conv_1", "head_epochs": 2, "epochs": 1}
    tuned = fb.finetune(clips, labels=labels, out=folder / "tuned.weights.h5", **how)
    print(tuned["accuracy"])

    # Six ways to classify take some minutes; here it is only seen that they want labels.
    try:
        fb.ways(clips, cache_dir=folder / "ways", labels=questions)
    except fb.UsageError as error:
        print(error.what)

    # Whatever goes wrong is told by one kind of error.
    try:
        fb.train(cache=cache, questions=questions, model=model, epoch=3)  # type: ignore[call-arg]
    except fb.FramebankError as error:
        print(error)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "tour"))
