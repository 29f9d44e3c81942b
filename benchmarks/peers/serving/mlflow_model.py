"""Save a fitted estimator as MLflow saves it: `MODEL FOLDER`."""

import sys

import joblib
import mlflow

mlflow.sklearn.save_model(joblib.load(sys.argv[1]), sys.argv[2])
