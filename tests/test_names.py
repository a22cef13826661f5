"""Names from outside: what passes is unchanged, everything else is refused with the reason."""

from __future__ import annotations

import pytest

from dav2.names import UnsafeName, safe_name, safe_relative


@pytest.mark.parametrize("name", ["hypersim", "vkitti2", "nyu-edges", "my_photos", "Kitchen", "a", "v2.1", "x" * 64])
def test_ordinary_names_pass_unchanged(name: str) -> None:
    assert safe_name(name, "key") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a\\b", "a..b", "a.", "-rf", ".hidden", "x; touch INJ", "$(id)", "`id`", "a b",
     "a\n", "a\0", "é", "x" * 65, "${key}", "a@b", "C:", "a\u202eb", "١"],
)  # fmt: skip
def test_a_name_that_could_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(UnsafeName, match=r"^key of sources: .* cannot be a name; use letters"):
        safe_name(name, "key of sources")


def test_a_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(UnsafeName):
        safe_name(7, "key")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["a.jpg", "a/b/c.png", "fotos de été/ö 1.jpg", "写真/一.png", "..a/b..", "a/" + "x" * 255]
)
def test_ordinary_relative_paths_pass_unchanged(path: str) -> None:
    assert str(safe_relative(path, "member")) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "//host/share", "..", "a/../b", "../b", "a//b", "a/", "./a", "a/./b", "a\nb", "a\0b",
     "a\x7f", "a\x85b", "\udcff", "C:/x", "c:x", "a\\..\\b", "\\\\host\\x", "x" * 256, "é" * 128, "a/" * 2100 + "b"],
)  # fmt: skip
def test_a_path_that_could_leave_its_folder_is_refused(path: str) -> None:
    with pytest.raises(UnsafeName, match=r"^member of x.zip: .* cannot be a path below a folder: it ") as caught:
        safe_relative(path, "member of x.zip")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
