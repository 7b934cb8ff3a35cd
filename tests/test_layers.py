import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from higan.layers import check_layers, groups, parse_layers, placements


def test_groups_of_the_paper():
    assert groups(14) == {
        "bottom": (0, 1),
        "lower": (2, 3, 4, 5),
        "upper": (6, 7, 8, 9, 10, 11),
        "top": (12, 13),
    }


def test_groups_keep_resolutions_together():
    # 64 pixels: two layers for each of 4, 8, 16, 32, 64.
    assert groups(10) == {"bottom": (0, 1), "lower": (2, 3), "upper": (4, 5, 6, 7), "top": (8, 9)}


def test_groups_of_other_depths_are_cut_at_the_same_fractions():
    """By hand: of 9 resolutions 9/7, 27/7 and 54/7 are nearest to 1, 4 and 8; of 7 layers 1, 3 and 6 are exact."""
    assert [len(layers) for layers in groups(18).values()] == [2, 6, 8, 2]
    assert [len(layers) for layers in groups(8).values()] == [2, 2, 2, 2]
    assert [len(layers) for layers in groups(7).values()] == [1, 2, 3, 1]
    assert [len(layers) for layers in groups(6).values()] == [1, 2, 2, 1]


@settings(deadline=None)
@given(st.integers(1, 64))
def test_groups_cover_every_layer_once(num_layers):
    found = groups(num_layers)
    assert [layer for layers in found.values() for layer in layers] == list(range(num_layers))
    assert all(found.values())
    assert len(found) == min(num_layers, 4)


def test_placements_are_all_single_and_stages():
    names = [placement.name for placement in placements(6)]
    assert names == ["all", *(f"layer {k}" for k in range(6)), "bottom", "lower", "upper", "top"]
    assert placements(6)[0].layers == (0, 1, 2, 3, 4, 5)


@settings(deadline=None)
@given(st.sets(st.integers(0, 40), min_size=1), st.randoms(use_true_random=False))
def test_parse_reads_what_is_written(layers, random):
    """Write a set as single numbers and as ranges wherever there is a run, in any order: the same set comes back."""
    pieces = []
    rest = sorted(layers)
    while rest:
        stop = 1
        while stop < len(rest) and rest[stop] == rest[0] + stop and random.random() < 0.7:
            stop += 1
        pieces.append(f"{rest[0]}-{rest[stop - 1]}" if stop > 1 else f" {rest[0]}")
        rest = rest[stop:]
    random.shuffle(pieces)
    assert parse_layers(",".join(pieces), num_layers=41) == tuple(sorted(layers))


def test_parse_is_inclusive_and_knows_names():
    assert parse_layers("0,3-5") == (0, 3, 4, 5)
    assert parse_layers("bottom, 5", num_layers=6, names=groups(6)) == (0, 5)


@pytest.mark.parametrize("text", ["", ",", "a", "1,", "3-", "-1", "5-3", "1--2", "1.5", "²", "0-99999999999999"])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match="layers"):
        parse_layers(text)


def test_parse_refuses_layers_that_do_not_exist():
    with pytest.raises(ValueError, match="from 0 to 5; got '4-6'"):
        parse_layers("4-6", num_layers=6)
    with pytest.raises(ValueError, match="one of bottom"):
        parse_layers("botom", num_layers=6, names=groups(6))


@pytest.mark.parametrize(("layers", "words"), [((), "at least one layer"), ((6,), "got 6"), ((0, -1), "got -1")])
def test_check_refuses(layers, words):
    with pytest.raises(ValueError, match=words):
        check_layers(layers, 6)
