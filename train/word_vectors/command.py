"""`framebank words`: word vectors from question files, for `framebank train --embeddings`.

    framebank words train_qa.json val_qa.json --out vectors.bin
    framebank train --questions train_qa.json --embeddings vectors.bin ...

word2vec (skip-gram with negative sampling, Mikolov et al. 2013, arXiv:1310.4546) by gensim, on the
questions and their candidates, never on answers; words are cut as the model cuts them. The same
files and seed give the same vectors. 43,000 questions take about a minute.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import time
from typing import Any

from framebank.features import terminal
from framebank.features.bounds import MOST_INT, MOST_SEED, check_number
from framebank.features.errors import UsageError, needing
from framebank.features.progress import Bar
from framebank.features.questions.command import add_format_arguments
from framebank.features.questions.files import QuestionFiles
from framebank.features.questions.reading import read_questions
from framebank.features.questions.word_cutting import LANGUAGES, check_language
from framebank.features.stores import disk, storage
from framebank.features.tensorflow_import import import_tensorflow

_FORMS = {".bin": True, ".txt": False, ".vec": False}  # whether binary
_NEAR = 5  # words whose neighbours are shown
_say = functools.partial(terminal.say, who="words")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("questions", nargs="+", metavar="QUESTIONS", help="question files, as `train` takes them")
    add_format_arguments(parser)
    add("--out", required=True, metavar="FILE", help=f"the vectors: {' | '.join(_FORMS)}")
    add("--language", choices=LANGUAGES, help="cut questions of this language into words")
    add("--size", type=int, default=300, metavar="D", help="numbers of a vector")
    add("--window", type=int, default=5, metavar="N", help="words to either side that count")
    add("--min-count", type=int, default=2, metavar="N", help="how often a word must occur")
    add("--epochs", type=int, default=10, metavar="N", help="passes over the questions")
    add("--seed", type=int, default=0, help="seed of the first vectors and of what is drawn")
    add("--json", action="store_true", help="print what was made as JSON")


def run(args: argparse.Namespace, beam_args: list[str]) -> int:
    """Train the vectors, say what came of it and return the exit status."""
    made = execute(args, beam_args)
    if args.json:
        print(json.dumps(made, ensure_ascii=False))
        return 0
    print(f"{made['words']} words of {made['size']} numbers, from {made['texts']} texts")
    for word, near in made["near"].items():
        print(f"  {terminal.printable(word)}: {terminal.printable(', '.join(near))}")
    return 0


def next_command(args: argparse.Namespace) -> str:
    words = ["framebank", "train", "--cache", "CACHE", "--questions", *args.questions]
    return shlex.join([*words, "--embeddings", args.out, "--model", "model"])


def execute(args: argparse.Namespace, beam_args: list[str]) -> dict[str, Any]:
    """Train the vectors and write them; return what was made. Raises FramebankError."""
    for option, low, high in (("size", 1, 2**14), ("window", 1, 1000), ("min_count", 1, MOST_INT)):
        check_number("--" + option.replace("_", "-"), getattr(args, option), low, high)
    check_number("--epochs", args.epochs, 1, MOST_INT)
    check_number("--seed", args.seed, 0, MOST_SEED)
    check_language(args.language)
    out = storage.on_this_machine(args.out, "vectors are written to a local file", todo="copy it")
    if out.suffix not in _FORMS or out.is_dir():
        raise UsageError("--out is no file of vectors", got=args.out, expected=" | ".join(_FORMS))
    with needing("framebank words", extra="words"):
        import gensim.models  # noqa: F401 - before the work
    texts = _texts(args)
    _say(f"training on {len(texts)} texts")
    started = time.monotonic()
    vectors = _train(texts, args)
    long = [word for word in vectors.index_to_key if len(word) > 3] or vectors.index_to_key
    try:
        with storage.replacing(out) as part:
            vectors.save_word2vec_format(str(part), binary=_FORMS[out.suffix])
    except OSError as err:
        raise storage.storage_error(str(out), err, "write") from err
    _say(f"the vectors are in {out}: framebank train ... --embeddings {out}")
    return {
        "words": len(vectors),
        "size": vectors.vector_size,
        "texts": len(texts),
        "seconds": round(time.monotonic() - started, 1),
        "sha256": disk.file_hash(out),
        "near": {
            str(word): [str(other) for other, _ in vectors.most_similar(word, topn=3)]
            for word in long[:_NEAR]
            if len(vectors) > 1
        },
    }


def _texts(args: argparse.Namespace) -> list[list[str]]:
    """Return the words of each question and candidate, as the text layer of a model has them."""
    import_tensorflow()
    from framebank.features.questions.word_cutting import cut_questions, encode_texts
    from framebank.train.model.text import text_layer

    files = QuestionFiles(args.questions, args.format, args.mapping)
    asked = [question for question in read_questions(files) if question.question]
    said = [question.question for question in asked]
    choices = [choice for question in asked for choice in question.choices]
    if not said:
        raise UsageError("the files hold no questions", got="labels", expected="questions in words")
    # Choices are of one word often, which does not make a language without spaces.
    layer = text_layer(said, choices=choices, max_words=MOST_INT - 2, language=args.language)
    said += choices
    words, texts = layer.get_vocabulary(), []
    for start in range(0, len(said), 10_000):
        cut = cut_questions(encode_texts(said[start : start + 10_000]), args.language)
        texts += [[words[n] for n in row if n] for row in layer(cut).numpy().tolist()]
    return texts


def _train(texts: list[list[str]], args: argparse.Namespace) -> Any:
    """Return gensim's KeyedVectors; raises UsageError where no word is common enough."""
    from gensim.models import Word2Vec
    from gensim.models.callbacks import CallbackAny2Vec

    class Shown(CallbackAny2Vec):  # type: ignore[misc]
        done = 0

        def on_epoch_end(self, model: Any) -> None:
            self.done += 1
            bar.update(self.done, f"epoch {self.done}/{args.epochs}")

    # Of several threads the order, and with it every number, would be chance.
    model = Word2Vec(
        vector_size=args.size, window=args.window, min_count=args.min_count, sg=1, workers=1,
        seed=args.seed + 1, epochs=args.epochs,
    )  # fmt: skip
    model.build_vocab(texts)
    if not len(model.wv):
        raise UsageError(
            "no word is common enough to learn a vector for",
            got=f"{len(texts)} texts",
            expected=f"a word that occurs {args.min_count} times",
            todo="give more questions, or --min-count 1",
        )
    with Bar("words", total=args.epochs) as bar:
        model.train(texts, total_examples=len(texts), epochs=args.epochs, callbacks=[Shown()])
    return model.wv
