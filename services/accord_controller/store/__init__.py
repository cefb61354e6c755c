"""What the controller remembers: runs, their events, their ledgers, and the models that came of them."""
