"""Plan -> local workers or Slurm jobs; reconciliation with what the store already holds."""
