"""`python -m ppo_jax` is `ppo-jax`."""

from __future__ import annotations

import sys

from ppo_jax.cli.main import main

sys.exit(main())
