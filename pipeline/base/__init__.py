"""What every other package stands on: strict configs, the stage contract, errors, the runtime."""
