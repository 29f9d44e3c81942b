"""sql: rows of PostgreSQL, MySQL, MariaDB, SQLite and DuckDB, in blocks, exactly, without writing anything.

`reading` is the face: `read_sql` gives the blocks of a query. Each kind of database has a file of its own that knows
its driver, its types and its errors; `text` builds the queries around the user's, `url` keeps passwords out of sight.
"""
