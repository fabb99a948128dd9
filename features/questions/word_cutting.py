"""Cutting questions into words in languages that do not write spaces between them.

Chinese is cut by jieba, Japanese by Janome and Korean by Kiwi, each loaded when it is first needed:
what a model was trained with is what it is asked with (its vocabulary.json has the language).
"""

from __future__ import annotations

import functools
import importlib.metadata
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping

from framebank.features.errors import UsageError


def _make_chinese() -> Callable[[str], Iterable[str]]:
    import jieba

    cutter = jieba.Tokenizer()
    # As its `initialize`, but not from the copy in the shared temporary folder, which anybody may
    # have written.
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter.lcut  # type: ignore[no-any-return]


def _make_japanese() -> Callable[[str], Iterable[str]]:
    from janome.tokenizer import Tokenizer

    cutter = Tokenizer(wakati=True)
    return lambda text: [str(word) for word in cutter.tokenize(text)]


def _make_korean() -> Callable[[str], Iterable[str]]:
    from kiwipiepy import Kiwi

    cutter = Kiwi(num_workers=1)
    return lambda text: [token.form for token in cutter.tokenize(text)]


# Language → its name, the module that cuts it, the distribution that has the module, what makes it.
_LIBRARIES: Mapping[str, tuple[str, str, str, Callable[[], Callable[[str], Iterable[str]]]]] = {
    "zh": ("Chinese", "jieba", "jieba", _make_chinese),
    "ja": ("Japanese", "janome", "Janome", _make_japanese),
    "ko": ("Korean", "kiwipiepy", "kiwipiepy", _make_korean),
}
LANGUAGES = tuple(_LIBRARIES)


def check_language(language: str | None) -> None:
    """Load what cuts `language`; raises UsageError for none of LANGUAGES and a library that is
    missing or broken.
    """
    if language is not None:
        _cutter(language)


def cutter_version(language: str) -> str:
    """Return the name and version of what cuts `language`; raises UsageError without it."""
    _cutter(language)
    distribution = _LIBRARIES[language][2]
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:  # a module that pip did not install
        return f"{distribution} of a version that is not known"


def cut_words(text: str, language: str) -> str:
    """Return the words of `text` with a space between them; raises UsageError.

    Full-width letters and digits become the usual ones, punctuation of any script is dropped.
    """
    plain = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
    words = (word.strip() for word in _cutter(language)(plain))
    return " ".join(word for word in words if any(letter.isalnum() for letter in word))


def encode_texts(texts: Iterable[str]) -> list[bytes]:
    """Return texts in UTF-8; half of a surrogate pair, which a JSON file may hold, becomes "?"."""
    return [text.encode("utf-8", "replace") for text in texts]


def cut_questions(questions: Iterable[bytes], language: str | None) -> list[bytes]:
    """Return questions in UTF-8 with their words cut; as they are for a language of None."""
    if language is None:
        return list(questions)
    return [cut_words(text.decode("utf-8", "replace"), language).encode() for text in questions]


@functools.cache
def _cutter(language: str) -> Callable[[str], Iterable[str]]:
    if language not in _LIBRARIES:
        what, expected = "questions cannot be cut in this language", " | ".join(LANGUAGES)
        raise UsageError(what, got=language, expected=expected)
    name, module, distribution, make = _LIBRARIES[language]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jieba's, about its own source
            return make()
    except Exception as err:  # a broken installation can raise anything
        if isinstance(err, ModuleNotFoundError) and err.name == module:
            raise UsageError(
                f"questions in {name} are cut into words by {module}, which is not installed",
                todo="pip install 'framebank[languages]'",
            ) from err
        raise UsageError(
            f"{module}, which cuts questions in {name} into words, cannot be used",
            got=f"{type(err).__name__}: {err}"[:300],
            todo=f"pip install --force-reinstall {distribution}",
        ) from err
