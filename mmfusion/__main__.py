"""``python -m mmfusion`` is ``mmfusion``."""

from __future__ import annotations

import sys

from mmfusion.cli.main import main

sys.exit(main())
