"""The score of the assignment: points for error rates on LibriSpeech's test-clean and test-other."""

# (at most this many percent, points), the best first
TEST_CLEAN_CER = ((20, 4.0), (30, 3.0), (50, 2.0))
TEST_CLEAN_WER = ((20, 7.0), (30, 6.0), (40, 5.0))
TEST_OTHER_WER = ((10, 10.0), (15, 9.5), (20, 9.0), (25, 8.5), (30, 8.0))
ATTENTION_BONUS = 3.0  # of a model that spells by attention (LAS), beside its points


def points(
    clean_wer: float | None = None,
    clean_cer: float | None = None,
    other_wer: float | None = None,
    attention: bool = False,
) -> float:
    """Points for what was measured, all in percent; the best of the three scales counts.

    Args:
        attention: the texts are those of a speller: decoder=attention or joint.
    """
    measured = (
        (clean_cer, TEST_CLEAN_CER),
        (clean_wer, TEST_CLEAN_WER),
        (other_wer, TEST_OTHER_WER),
    )
    found = [_on(scale, rate) for rate, scale in measured if rate is not None]
    best = max(found, default=0.0)
    return best + ATTENTION_BONUS if attention and best else best


def _on(scale: tuple[tuple[int, float], ...], rate: float) -> float:
    return next((worth for limit, worth in scale if rate <= limit), 0.0)
