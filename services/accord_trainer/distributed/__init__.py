"""One training on several ranks: process group, sharding, the executor that runs a command on every rank."""
