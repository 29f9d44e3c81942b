"""A recommender system: movie ratings in, recommended movies out."""
