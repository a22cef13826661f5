from __future__ import annotations

from contextlib import closing

from dav2.ahead import begun_ahead


def test_pieces_come_in_order_few_are_begun_and_what_is_not_taken_is_cancelled() -> None:
    begun: list[int] = []
    cancelled: list[int] = []

    def begin(number: int) -> int:
        begun.append(number)
        return number

    with closing(begun_ahead(map(begin, range(10)), 3, cancelled.append)) as pieces:
        assert begun == []
        assert next(pieces) == 0 and begun == [0, 1, 2]
        assert next(pieces) == 1 and begun == [0, 1, 2, 3]
    assert cancelled == [2, 3]
    assert list(begun_ahead(iter(range(5)), 2, cancelled.append)) == [0, 1, 2, 3, 4]


def test_the_depth_may_change_on_the_way() -> None:
    begun: list[int] = []
    depth = 1
    pieces = begun_ahead((begun.append(number) or number for number in range(9)), lambda: depth, lambda piece: None)
    assert next(pieces) == 0 and len(begun) == 1
    depth = 4
    assert next(pieces) == 1 and len(begun) == 5
    depth = 1
    assert next(pieces) == 2 and len(begun) == 5
