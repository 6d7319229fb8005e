"""Choose settings of a recipe with Optuna, by its validation split. 用 Optuna 在验证集上选超参数。

    pip install optuna
    python -m examples.sweep hub_configs/g2p-en/recipe.yaml runs/sweep 20 --training.max_minutes 5

trains 20 times with settings from `SPACE` (change it to what you look for), each in a folder of its own, and prints
the best. The study is a file, runs/sweep/study.db: the same command goes on where it was stopped, also within a
training, and a larger number adds to it. The test split is not looked at: train with the best settings to be scored.
"""

import dataclasses
import shlex
import sys
from pathlib import Path

try:
    import optuna
except ImportError as error:
    raise SystemExit(f"{error}: pip install optuna") from error

from fun_transformer.training import RunArguments, SplitArguments, parse_arguments, train
from fun_transformer.training.tables import METRICS

SPACE = {
    "training.learning_rate": optuna.distributions.FloatDistribution(3e-4, 5e-3, log=True),
    "model.dropout": optuna.distributions.FloatDistribution(0.0, 0.4, step=0.1),
    "model.label_smoothing": optuna.distributions.CategoricalDistribution([0.0, 0.1]),
}


def score(arguments: RunArguments) -> float:
    """The score of a recipe's model on the validation split; a training that was stopped goes on."""
    data = dataclasses.replace(arguments.data, test=SplitArguments())
    scores = train(dataclasses.replace(arguments, data=data, resume="auto")).scores
    if not scores:  # it was finished, but stopped before the study heard of it
        scores = train(dataclasses.replace(arguments, data=data, overwrite=True)).scores
    return scores["validation"][arguments.training.metric_for_best_model]


def main() -> None:
    if len(sys.argv) < 4 or not sys.argv[3].isdigit():
        raise SystemExit("usage: python -m examples.sweep RECIPE.yaml FOLDER TRAININGS [--section.name VALUE ...]")
    (recipe, folder, count), options = sys.argv[1:4], sys.argv[4:]
    metric = parse_arguments([recipe, *options]).training.metric_for_best_model
    direction = "minimize" if METRICS[metric].lower_is_better else "maximize"
    Path(folder).mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{folder}/study.db"
    study = optuna.create_study(storage=storage, study_name="sweep", direction=direction, load_if_exists=True)
    while sum(trial.state.is_finished() for trial in study.trials) < int(count):
        stopped = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
        trial = stopped[0] if stopped else study.ask(SPACE)
        words = [f"--{name}={value}" for name, value in trial.params.items()]
        arguments = parse_arguments([recipe, *options, *words, f"--output_dir={folder}/{trial.number}"])
        study.tell(trial.number, score(arguments))
    best = shlex.join([recipe, *options, *(f"--{name}={value}" for name, value in study.best_params.items())])
    print(f"Best of {count}: {metric} {study.best_value:.4g} on validation. fun-transformer train {best}")


if __name__ == "__main__":
    main()
