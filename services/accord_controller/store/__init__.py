"""The controller's database: runs, their events and ledgers, and the models that they produced."""
