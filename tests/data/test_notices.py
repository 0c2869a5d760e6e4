"""Notices of inputs unlike the training rows."""

from mmfusion.data.notices import EXAMPLES, InputNotices, NoticeKind


def test_rows_values_and_examples_are_counted() -> None:
    notices = InputNotices()
    assert notices.lines() == []
    notices.see(500)
    for row in range(12):
        notices.add(NoticeKind.UNKNOWN_WORD, "text", "acral", "lentiginous", f"word{row}")
    notices.add(NoticeKind.FAR_NUMBER, "age", 570)
    notices.add(NoticeKind.CUT_TEXT, "text")
    assert notices.lines() == [
        "text: 12 of 500 rows have words that the model's tokenizer does not know "
        "(36, e.g. 'acral', 'lentiginous', 'word0', 'word1', 'word2')",
        "age: 1 of 500 rows have a number far outside the range of the training rows (e.g. '570')",
        "text: 1 of 500 rows (0.2%) are longer than the model's token budget and were cut",
    ]


def test_notices_of_chunks_add_up() -> None:
    whole, sum_ = InputNotices(), InputNotices()
    for chunk in range(3):
        part = InputNotices()
        for notices in (whole, part):
            notices.see(10)
            notices.add(NoticeKind.UNSEEN_CATEGORY, "site", f"a{chunk}", f"b{chunk}")
        sum_.update(part)
    assert sum_.lines() == whole.lines()
    assert len(sum_._examples["site", NoticeKind.UNSEEN_CATEGORY]) == EXAMPLES
