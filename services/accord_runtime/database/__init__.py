"""Databases of services: opening, transactions, migrations, what differs between kinds of databases."""
