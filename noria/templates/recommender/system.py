"""Recommend movies from ratings."""

import noria as nr

ratings = nr.Source(
    "ratings",
    "data/ratings.csv",
    schema={"user_id": "int64", "item_id": "int64", "rating": "float32", "timestamp": nr.Timestamp("s")},
    checks=[nr.between("rating", 0.5, 5.0)],
)
movies = nr.Source(
    "movies",
    "data/movies.csv",
    schema={"item_id": "int64", "title": "str?", "genres": "str?"},
    key="item_id",
)

taste = nr.FeatureGroup("taste", entity="user_id", source=ratings, features={
    "ratings_30d": nr.count(window="30d"),
    "mean_rating": nr.mean("rating"),
    "last_items": nr.last("item_id", n=50),
})
popularity = nr.FeatureGroup("popularity", entity="item_id", source=ratings, features={
    "ratings_7d": nr.count(window="7d"),
    "mean_rating": nr.mean("rating", window="365d"),
})

movies_for_you = nr.RecommenderSystem(
    "movies-for-you",
    events=ratings,
    items=movies,
    positive=nr.col("rating") >= 4,
    retrieve=[nr.ALS(factors=64), nr.ItemKNN(), nr.Popular()],
)

system = nr.System("movies", [ratings, movies, taste, popularity, movies_for_you])
