"""CSV → drop, encode, standardise → Parquet with pandas and scikit-learn, as most people write it."""

import sys

import pandas as pd
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

frame = pd.read_csv(sys.argv[1]).dropna()
texts = list(frame.select_dtypes(exclude="number").columns)
numbers = [name for name in frame.columns if name not in texts]
frame[texts] = OrdinalEncoder().fit_transform(frame[texts])
frame[numbers] = StandardScaler().fit_transform(frame[numbers])
frame.to_parquet(sys.argv[2])
