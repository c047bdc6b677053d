"""The table of metrics names what the trainer returns, and the documents repeat it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from ppo_jax.config.config import OBJECTIVES, Config, Hyper
from ppo_jax.rl import metrics
from ppo_jax.rl.metrics import METRICS, OF_POINTS, reduction_of
from ppo_jax.training import trainer

DOCS = Path(__file__).parents[2] / "docs"
HEADER = "| name | meaning | unit | over iterations |"


def measured(objective: str, **asked: bool) -> set[str]:
    """Names that one iteration returns; nothing is compiled."""
    drift: Callable | None = (
        (lambda ratio, advantage: (ratio - 1.0) ** 2) if objective == "drift" else None
    )
    config = Config(
        env="probe:action-choice",
        objective=objective,
        drift=drift,
        num_envs=2,
        rollout_length=4,
        num_minibatches=2,
        hidden_sizes=(4,),
        **asked,
    )

    def one(key: jax.Array) -> dict[str, jax.Array]:
        state = trainer.init(config, Hyper(), key)
        return trainer.iterate(config, Hyper(), state)[1]

    return set(jax.eval_shape(one, jax.random.key(0)))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_table_names_exactly_what_an_iteration_returns(objective: str) -> None:
    of_iterations = set(METRICS) - set(OF_POINTS)
    of_epochs = {name for name in of_iterations if name.endswith("_epoch")}
    of_drops = {"dropped_fraction"}
    assert measured(objective) == of_iterations - of_epochs - of_drops
    if objective == "clip":
        asked = {"measure_gradient_cosine": True, "drop_bad_transitions": True}
        assert measured(objective, **asked) == of_iterations


def test_every_row_is_complete() -> None:
    reductions = {metrics.MEAN, metrics.SUM, metrics.MAX, metrics.LAST}
    places = {metrics.SCREEN, metrics.REPORT, metrics.CHANGE, metrics.FILE}
    for name, metric in METRICS.items():
        assert metric.title, name
        assert metric.meaning, name
        assert metric.reduction in reductions, name
        assert metric.shown in places, name
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


def test_largest_values_are_reduced_by_the_largest() -> None:
    assert reduction_of("ratio_max") == reduction_of("log_ratio_abs_first") == "max"
    assert reduction_of("learning_rate") == reduction_of("alive") == "last"
    assert reduction_of("num_episodes") == "sum"
    assert reduction_of("kl_old_new") == reduction_of("no such metric") == "mean"


def documented() -> list[str]:
    """The table in the form of the documents."""
    return [
        HEADER,
        "|---|---|---|---|",
        *(
            f"| `{name}` | {metric.meaning.replace('|', chr(92) + '|')} | {metric.unit} "
            f"| {metric.reduction} |".replace("|  |", "| |")
            for name, metric in METRICS.items()
        ),
    ]


def test_the_documents_hold_the_table() -> None:
    texts = [path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))]
    assert any(HEADER in text for text in texts)
    wanted = "\n".join(documented())
    assert any(wanted in text for text in texts), f"write this into the document:\n{wanted}"


def test_the_table_loads_no_jax() -> None:
    code = "import sys, ppo_jax.rl.metrics; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
