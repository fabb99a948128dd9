"""Chinese, Japanese and Korean are cut by their libraries; without one a line says what to do."""

from __future__ import annotations

import functools
import sys

import pytest

from framebank.features.errors import UsageError
from framebank.features.questions import word_cutting as words
from framebank.features.questions.word_cutting import (
    LANGUAGES,
    check_language,
    cut_questions,
    cut_words,
    cutter_version,
)

CUT = {
    "zh": ("这个男人在做什么？", "这个 男人 在 做 什么"),
    "ja": ("男の人は何をしていますか？", "男 の 人 は 何 を し て い ます か"),
    "ko": ("남자가 무엇을 하고 있나요?", "남자 가 무엇 을 하 고 있 나요"),
}
MODULES = {"zh": "jieba", "ja": "janome", "ko": "kiwipiepy"}


def _need(language):
    pytest.importorskip(MODULES[language], reason="needs the extra languages")


@pytest.mark.parametrize("language", LANGUAGES)
def test_questions_are_cut_into_words(language):
    _need(language)
    text, words = CUT[language]
    assert cut_words(text, language) == words
    assert cut_questions([text.encode()], language) == [words.encode()]
    assert cutter_version(language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("text", ["", " \n", "？！。", "😀", "\ud800"])
def test_questions_without_words_have_none(language, text):
    _need(language)
    assert cut_words(text, language) == ""


def test_other_scripts_and_full_width_letters_inside_are_kept():
    _need("zh")
    assert cut_words("他用iPhone12拍ＶＩＤＥＯ吗", "zh") == "他用 iPhone12 拍 VIDEO 吗"


def test_without_a_language_questions_stay_as_they_are():
    assert cut_questions([b"\xff what?"], None) == [b"\xff what?"]


def test_an_unknown_language_and_a_missing_library_are_named(monkeypatch):
    check_language(None)
    with pytest.raises(UsageError, match=r"zh \| ja \| ko"):
        check_language("th")
    monkeypatch.setattr(words, "_cutter", functools.cache(words._cutter.__wrapped__))
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UsageError, match=r"jieba, which is not installed[^$]*framebank\[languages"):
        check_language("zh")


def test_a_library_that_is_broken_is_told_from_a_missing_one(monkeypatch, tmp_path):
    (tmp_path / "jieba.py").write_text("raise OSError('libfoo.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "jieba", raising=False)
    monkeypatch.setattr(words, "_cutter", functools.cache(words._cutter.__wrapped__))
    with pytest.raises(UsageError, match=r"cannot be used[\s\S]*libfoo[\s\S]*reinstall jieba"):
        cut_words("他在做什么", "zh")
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(UsageError, match="not installed"):
        cut_words("他在做什么", "zh")
