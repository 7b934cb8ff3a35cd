"""Names of files: what Windows says of names, and what comes back."""

import itertools
import re

import pytest

from higan.filenames import file_name, named_by_file

ORDINARY = (
    "wood",
    "view_yaw",
    "50% grey",
    "natural light",
    "a.b",
    "conifer",
    "com10",
    "aux_light",
    "Größe (cm), é",
    "照明",
)
ODD = {
    "a:b": "a%3Ab",
    'is it "dark"?': "is it %22dark%22%3F",
    "<b>|*": "%3Cb%3E%7C%2A",
    "a\\b/c": "a%5Cb%2Fc",
    "wood.": "wood%2E",
    "wood ": "wood%20",
    "two\nlines": "two%0Alines",
    "con": "%63on",
    "NUL.tar": "%4EUL.tar",
    "LPT¹": "%4CPT¹",
    "..": ".%2E",
    "100%20": "100%2520",
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay(name):
    assert file_name(name) == named_by_file(name) == name


@pytest.mark.parametrize(("name", "file"), ODD.items())
def test_others_are_coded_and_known_again(name, file):
    assert file_name(name) == file
    assert named_by_file(file) == name


def test_every_name_is_legal_differs_from_others_and_comes_back():
    """All short names of what is awkward; legal as Microsoft's "Naming Files, Paths, and Namespaces" has it."""
    devices = {"CON", "PRN", "AUX", "NUL", *(f"{port}{k}" for port in ("COM", "LPT") for k in "0123456789¹²³")}
    pieces = ("a", "%", "3A", ":", ".", " ", "\t", "nul", "COM1")
    names = {"".join(parts) for num in range(1, 5) for parts in itertools.product(pieces, repeat=num)}
    files = {file_name(name): name for name in names}
    assert len(files) == len(names) > 5000
    for file, name in files.items():
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f]', file)
        assert file[-1] not in ". "
        assert file.partition(".")[0].rstrip().upper() not in devices
        assert named_by_file(file) == name


@pytest.mark.parametrize("file", ["100%20wood", "a%2fb", "%41", "50%E9"])
def test_percent_signs_of_others_mean_themselves(file):
    assert named_by_file(file) == file


def test_a_format_may_have_forbidden_characters_of_its_own():
    assert file_name("a, (b)]", also=",()]") == "a%2C %28b%29%5D"
    assert named_by_file("a%2C %28b%29%5D", also=",()]") == "a, (b)]"
    assert named_by_file("a%2C") == "a%2C"
