from __future__ import annotations

import numpy as np
import pytest
from matplotlib.text import Text

from mmfusion.explanation import Explanation, draw


def test_words_say_what_their_colours_mean() -> None:
    probabilities = {"a": 0.8, "b": 0.2}
    told = Explanation(label="a", probability=0.8, probabilities=probabilities, explained="b", words=[("itches", -0.5)])
    texts = [text.get_text() for text in draw(told).findobj(Text)]
    assert "words: red for b, blue against it" in texts and "itches" in texts and "a (0.80), explained: b" in texts
    silent = Explanation(label="a", probability=0.8, probabilities=probabilities, explained="a")
    assert not [text for text in draw(silent).findobj(Text) if "red for" in text.get_text()]


@pytest.mark.parametrize(
    ("cells", "title"), [((2, 2), "no evidence for a (2 x 2 cells)"), ((4, 4), "no evidence for a")]
)
def test_a_heat_map_that_shows_no_place_says_so(cells: tuple[int, int], title: str) -> None:
    told = Explanation(
        label="a",
        probability=1.0,
        probabilities={"a": 1.0},
        explained="a",
        pictures={"image": np.zeros((8, 8, 3), np.uint8)},
        heat_maps={"image": np.zeros((8, 8), np.float32)},
        relevance={"image": np.full(cells, -1.0, np.float32)},
        boxes={"image": (0.0, 0.0, 8.0, 8.0)},
    )
    assert title in [text.get_text() for text in draw(told).findobj(Text)]
