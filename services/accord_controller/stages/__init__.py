"""The stages of the loop. Each may be entered again at any time: what is recorded is read back, what is not is done."""
