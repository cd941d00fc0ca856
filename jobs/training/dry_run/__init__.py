"""`pneumonia train --dry-run`: what a training would do, need and take, from a few steps on a worker."""
