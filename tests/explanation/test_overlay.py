from __future__ import annotations

from matplotlib.text import Text

from mmfusion.explanation import Explanation, draw


def test_words_say_what_their_colours_mean() -> None:
    probabilities = {"a": 0.8, "b": 0.2}
    told = Explanation(label="a", probability=0.8, probabilities=probabilities, explained="b", words=[("itches", -0.5)])
    texts = [text.get_text() for text in draw(told).findobj(Text)]
    assert "words: red for b, blue against it" in texts and "itches" in texts and "a (0.80), explained: b" in texts
    silent = Explanation(label="a", probability=0.8, probabilities=probabilities, explained="a")
    assert not [text for text in draw(silent).findobj(Text) if "red for" in text.get_text()]
