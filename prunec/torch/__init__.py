"""prunec for torch: the pruned model as a module that trains on. Needs the [torch] extra."""
