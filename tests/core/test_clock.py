import pytest

from trm_interp.core.clock import Tick, schedule


def test_one_step_by_hand():
    assert schedule(n_sup=1, h_cycles=2, l_cycles=1) == [
        Tick(0, 0, 0, "z_L"),
        Tick(0, 0, 1, "z_H", ends_cycle=True),
        Tick(0, 1, 0, "z_L"),
        Tick(0, 1, 1, "z_H", ends_cycle=True),
    ]


@pytest.mark.parametrize(("n_sup", "h", "l"), [(16, 3, 6), (1, 1, 1), (2, 3, 4)])
def test_counts_order_and_names(n_sup: int, h: int, l: int):
    ticks = schedule(n_sup, h, l)
    assert len(ticks) == n_sup * h * (l + 1)
    assert sum(tick.writes == "z_H" for tick in ticks) == n_sup * h
    assert ticks == sorted(ticks, key=lambda tick: tick[:3])
    assert len({tick.hook for tick in ticks}) == len(ticks)
    for i, tick in enumerate(ticks):  # a tick's number from its indices
        assert i == (tick.step * h + tick.h_cycle) * (l + 1) + tick.l_cycle
        assert (tick.writes == "z_H") == (tick.l_cycle == l)
