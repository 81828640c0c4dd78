"""`python -m lreg_tui.app` is `lreg-tui`."""

from lreg_tui.app import main

raise SystemExit(main())
