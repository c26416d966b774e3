#!/usr/bin/env python3
"""Trains models with the original libraries and writes them with their own predictions, for tests to compare with.

    agreement.py FOLDER

makes FOLDER/<case>/ with the assets (`model.json` or `model.txt`, `features.json`) and `rows.csv`: in each line the
features, the raw prediction and the prediction. Feature i is the last value of the i-th metric that `tree-ensemble`
reads, so that the same rows can be put as an observation.
"""

import pathlib
import sys

import lightgbm
import numpy as np
import xgboost
from sklearn.ensemble import IsolationForest

from export import export

METRICS = [
    "system.cpu.utilization",
    "system.cpu.logical.count",
    "system.cpu.load_average.1m",
    "system.memory.utilization",
    "system.linux.memory.available",
    "system.filesystem.utilization",
]


def table(random, count, missing):
    """Rows of differing kinds: shares, counts with many ties, heavy tails, zeros, large numbers."""
    rows = np.column_stack([
        random.random(count),
        random.integers(0, 8, count).astype(float),
        random.lognormal(0.0, 2.0, count),
        np.where(random.random(count) < 0.5, 0.0, random.normal(0.0, 1.0, count)),
        random.normal(1e9, 1e8, count),
        random.normal(0.0, 1e-3, count),
    ])
    rows[random.random(rows.shape) < missing] = np.nan
    return rows


def target(rows, random):
    known = np.nan_to_num(rows, nan=0.5)
    signal = 3 * known[:, 0] - known[:, 1] / 4 + np.log1p(known[:, 2]) / 2 + known[:, 3] + 400 * known[:, 5]
    return signal + random.normal(0.0, 0.3, len(rows))


def write(folder, name, model, rows, raw, prediction):
    case = folder / name
    features = [{"name": name, "metric": metric, "of": "last", "cells": 1} for name, metric in zip("abcdef", METRICS)]
    export(model, case, features=features)
    with open(case / "rows.csv", "w") as file:
        for row, one, other in zip(rows, raw, prediction):
            file.write(",".join(repr(float(value)) for value in [*row, one, other]) + "\n")


def main(folder):
    random = np.random.default_rng(20260101)
    train, rows = table(random, 3000, 0.08), table(random, 400, 0.15)
    # Rows that lie on thresholds: values which the model has seen.
    rows[:100] = train[:100]
    full = table(random, 3000, 0.0)
    y = target(train, random)
    label = (y > np.median(y)).astype(int)
    names = list("abcdef")

    for name, objective, depth, trees, extra in [
        ("xgboost-stump", "binary:logistic", 1, 1, {}),
        ("xgboost-binary", "binary:logistic", 6, 300, {}),
        ("xgboost-uneven", "binary:logistic", 4, 50, {"base_score": 0.1}),
        ("xgboost-deep", "binary:logistic", 12, 20, {"learning_rate": 1.0}),
        ("xgboost-regression", "reg:squarederror", 5, 200, {}),
        ("xgboost-parallel", "reg:logistic", 4, 10, {"num_parallel_tree": 5, "subsample": 0.7}),
    ]:
        parameters = {"objective": objective, "max_depth": depth, "seed": 1, "nthread": 1, **extra}
        goal = y if objective == "reg:squarederror" else label
        model = xgboost.train(parameters, xgboost.DMatrix(train, label=goal, feature_names=names), trees)
        asked = xgboost.DMatrix(rows, feature_names=names)
        write(folder, name, model, rows, model.predict(asked, output_margin=True), model.predict(asked))

    for name, objective, leaves, trees, extra in [
        ("lightgbm-binary", "binary", 31, 200, {}),
        ("lightgbm-steep", "binary", 7, 20, {"sigmoid": 2.5}),
        ("lightgbm-regression", "regression", 63, 150, {}),
        ("lightgbm-zero-is-missing", "binary", 15, 50, {"zero_as_missing": True}),
        ("lightgbm-no-missing", "binary", 15, 50, {"use_missing": False}),
        ("lightgbm-forest", "regression", 31, 40, {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}),
        ("lightgbm-constant", "regression", 31, 3, {"min_data_in_leaf": 5000}),
    ]:
        parameters = {"objective": objective, "num_leaves": leaves, "seed": 1, "num_threads": 1, "verbose": -1, **extra}
        goal = y if objective == "regression" else label
        model = lightgbm.train(parameters, lightgbm.Dataset(train, label=goal, feature_name=names), trees)
        write(folder, name, model, rows, model.predict(rows, raw_score=True), model.predict(rows))

    for name, data, extra in [
        ("forest-default", full, {}),
        ("forest-large", full, {"n_estimators": 300, "max_samples": 1000}),
        ("forest-few-features", full, {"n_estimators": 50, "max_features": 0.5}),
        ("forest-missing", train, {"n_estimators": 50}),
    ]:
        # A release that cannot train on missing values says so here; then this case is left out by name.
        try:
            model = IsolationForest(random_state=1, n_jobs=1, **extra).fit(data)
        except ValueError as error:
            if "NaN" not in str(error):
                raise
            print(f"left out {name}: this release of scikit-learn takes no missing values")
            continue
        asked = rows if data is train else np.nan_to_num(rows, nan=0.25)
        score = -model.score_samples(asked)
        write(folder, name, model, asked, score, score)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
