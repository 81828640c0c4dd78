"""A question that a researcher has, put to a store of many runs with the keys that docs/console.md tells of."""

from __future__ import annotations

from console_runs import make_saved, make_studies
from tui.driving import make_app, run, settle, until

from engine.runs.store import RunStore
from lreg_tui.compare.compare_screen import CompareScreen

KEYS = (("slash", "gam smooth fmnist", "enter"), ("o", "valid", "enter"), ("c", "vanilla", "enter"))


def test_which_rho_won_and_how_its_sharpness_looks_beside_vanillas(tmp_path):
    """In under ten keys, a word counted as one."""
    runs = tmp_path / "runs"
    make_studies(runs)
    make_saved(runs, 100)

    async def go() -> None:
        app = make_app(RunStore(runs), tmp_path)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.feed.is_whole)
            dashboard = app.screen
            for keys in KEYS:
                for key in keys:
                    await pilot.press(*(key if " " in key or key in ("valid", "vanilla") else [key]))
                await settle(pilot)
            assert sum(map(len, KEYS)) < 10
            winner = dashboard.table.runs.cursor_line
            assert winner is dashboard.table.runs.lines[0] and len(winner.members) == 5
            assert winner.settings["penalty.gam.rho"] == 0.1
            line = dashboard.table.render_line(1).text
            assert "gam.rho" in dashboard.table.render_line(0).text and " 0.1 " in line
            screen = await until(pilot, lambda: app.screen if isinstance(app.screen, CompareScreen) else None)
            text = lambda: "\n".join(strip.text for strip in screen._compositor.render_strips())  # noqa: E731
            await until(pilot, lambda: "fmnist-vanilla" in text() and "fmnist-c-2" in text() and "harpness" in text())

    run(go())
