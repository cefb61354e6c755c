"""Model code that the rollout, reward and trainer services share. Needs torch; import the submodules."""
