"""The card of a model says what is so."""

from semgan.config import Settings, override
from semgan.model_card import model_card


def test_labels_are_named_by_their_list_whatever_it_counts():
    """8 of a list may be volumes of hundreds of labelled slices."""
    card = model_card(override(Settings(), {"labels": 8, "split_seed": 2}))
    assert "The labels come from the list labelled_8_seed2 of the data set;" in card and "8 labelled images" not in card
    assert "The labels come from all labelled training images;" in model_card(Settings())


def test_preprocessing_is_told_in_words():
    rule = {"clip": (-200, 400), "equalise_histogram": True, "gamma": 0.5, "size_px": 32, "channels": 4}
    card = model_card(override(Settings(), {"preprocessing": rule}), scores={"steps_0": 0.5})
    assert "values clipped to -200 to 400, global histogram equalisation, gamma 0.5" in card
    assert "4-channel images" in card and "32 x 32 px" in card and "| steps_0 | 0.5000 |" in card
