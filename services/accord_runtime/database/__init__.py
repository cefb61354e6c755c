"""Databases of services: opening, transactions, migrations, and the differences between kinds of databases."""
