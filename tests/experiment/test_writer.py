"""Groups are written while the next batch is drawn: in order, whole, and errors come out."""

from __future__ import annotations

import threading
import time

import pytest
from PIL import Image

from eddy_bench.errors import StoreError
from eddy_bench.experiment.batches import GroupResult
from eddy_bench.experiment.draw import WAITING, GroupWriter
from eddy_bench.models.base import Cost
from tests.makers.groups import make_group, make_images


def result(k: int, failed: bool = False) -> GroupResult:
    group = make_group(prompt_id=str(k))
    return GroupResult(group, None if failed else tuple(make_images()), Cost(), 2)


def test_groups_are_written_in_order_as_png_and_failures_in_their_place() -> None:
    written: list[tuple[str, list[bytes] | None]] = []

    def write(done: GroupResult, images: list[bytes] | None) -> None:
        time.sleep(0.01 if done.group.prompt_id == "0" else 0)
        written.append((done.group.prompt_id, images))

    with GroupWriter(write) as writer:
        for k in range(4):
            writer.put(result(k, failed=k == 2))
    assert [name for name, _ in written] == ["0", "1", "2", "3"]
    assert [images is None for _, images in written] == [False, False, True, False]
    first = written[0][1]
    assert first is not None
    assert all(content.startswith(b"\x89PNG") for content in first)


def test_drawing_goes_on_while_a_group_is_written() -> None:
    written = threading.Event()
    with GroupWriter(lambda done, images: written.wait(5) and None) as writer:
        for k in range(3):
            writer.put(result(k))
        assert writer.waiting.qsize() >= 1, "the writer is still at the first group"
        written.set()


def test_drawing_waits_where_the_disk_is_slower() -> None:
    opened, counted = threading.Event(), []
    with GroupWriter(lambda done, images: opened.wait(5) and None) as writer:

        def draw() -> None:
            for k in range(WAITING + 4):
                writer.put(result(k))
                counted.append(k)

        thread = threading.Thread(target=draw)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert len(counted) <= WAITING + 1
        opened.set()
        thread.join(5)


def test_what_cannot_be_written_stops_the_drawing() -> None:
    def write(done: GroupResult, images: list[bytes] | None) -> None:
        raise StoreError("the disk is full")

    def draw() -> None:
        with GroupWriter(write) as writer:
            for k in range(50):
                writer.put(result(k))
                time.sleep(0.005)
            raise AssertionError("drew on after the error")

    with pytest.raises(StoreError, match="the disk is full"):
        draw()


def test_an_error_of_the_last_group_comes_out_at_the_end() -> None:
    def write(done: GroupResult, images: list[bytes] | None) -> None:
        raise StoreError("the disk is full")

    with pytest.raises(StoreError), GroupWriter(write) as writer:
        writer.put(result(0))


def test_what_was_drawn_before_ctrl_c_is_written() -> None:
    written: list[str] = []

    def write(done: GroupResult, images: list[bytes] | None) -> None:
        time.sleep(0.01)
        written.append(done.group.prompt_id)

    def draw() -> None:
        with GroupWriter(write) as writer:
            for k in range(5):
                writer.put(result(k))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw()
    assert written == ["0", "1", "2", "3", "4"]


def test_a_group_that_cannot_be_encoded_fails_and_the_others_go_on() -> None:
    written: list[tuple[str, bool]] = []
    broken = Image.new("F", (2, 2))  # no PNG of floats
    with GroupWriter(lambda done, images: written.append((done.reason, images is None))) as writer:
        writer.put(GroupResult(make_group(), (broken,), Cost(), 1))
        writer.put(result(1))
    assert written == [("OSError: cannot write mode F as PNG", True), ("", False)]
