"""A classifier on tables: will this flight be late?"""
