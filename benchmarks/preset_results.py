"""Write the results of `ppo-jax reproduce` into the presets that have the same setting.

    python benchmarks/preset_results.py

A preset names its cell, `cell = "SUITE/TASK/VARIANT"` in its `[OBJECTIVE.result]`. The score,
interval, seeds, steps and date are read from the newest stored result of that cell. A budget other
than the preset's is shown by its steps, and refused if a schedule would end elsewhere.
"""

from __future__ import annotations

import json
from typing import Any

from learning import store
from stored import cells, newest

from ppo_jax.config import presets
from ppo_jax.config.config import Hyper, Schedule
from ppo_jax.storage.files import to_json


def main() -> None:
    for preset in presets.all_presets():
        if preset.score is not None and "cell" in preset.score:
            found = result_of(preset, preset.score["cell"])
            store(preset, found)
            print(f"{preset.name:<44}{found['returns'][found['policy_mode']]['iqm']:g}")


def result_of(preset: presets.Preset, cell: str) -> dict[str, Any]:
    """The record that `learning.store` takes, of a stored cell.

    Raises:
        SystemExit: the cell has no stored result, or another setting.
    """
    suite, _, name = cell.partition("/")
    folder = newest(f"{suite}_cpu_*[0-9]")
    rows = [] if folder is None else cells(folder)
    row = next((each for each in rows if each["cell"] == name), None)
    if folder is None or row is None:
        raise SystemExit(f"{preset.name}: no result of {cell} is stored.")
    task, _, variant = name.rpartition("/")
    content = json.loads((folder / f"{task.replace('/', '-')}__{variant}.json").read_text("utf-8"))
    if differing := unequal(preset, content["setting"]):
        raise SystemExit(f"{preset.name}: {cell} was run with another {', '.join(differing)}.")
    mode = content["setting"]["protocol"]
    machine = content["batches"][-1]["fingerprint"]
    digits = [float(f"{value:.6g}") for value in (row["iqm"], *row["ci95"])]
    return {
        "returns": {mode: {"iqm": digits[0], "ci95": digits[1:]}},
        "policy_mode": mode,
        "num_seeds": row["num_seeds"],
        "env_steps": row["env_steps"],
        "date": max(batch["date"] for batch in content["batches"]),
        "hardware": {name: machine[name] for name in ("processor", "cores")} | {"devices": []},
        "train_seconds": None,
        "cell": cell,
    }


def unequal(preset: presets.Preset, setting: dict[str, Any]) -> list[str]:
    """Names of settings in which a preset differs from a stored result.

    A parameter of the environment that the result states and the preset leaves at its default is
    no difference. Nor is the budget, unless the preset has a schedule.
    """
    config, hyper = presets.apply(preset)
    wanted = to_json({**vars(config), **vars(hyper)})
    stored = {**setting["config"], **setting["hyper"]}
    free = {"env"} if _has_schedule(hyper) else {"env", "total_env_steps"}
    compared = {name: value for name, value in wanted.items() if name not in free}
    found = [name for name, value in compared.items() if stored.get(name, value) != value]
    of_task = hyper.env.items() - setting["hyper"]["env"].items()
    if preset.env != setting["config"]["env"] or of_task:
        found.append("env")
    return found


def _has_schedule(hyper: Hyper) -> bool:
    return any(isinstance(value, Schedule) for value in vars(hyper).values())


if __name__ == "__main__":
    main()
