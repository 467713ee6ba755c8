"""What the targets for other machines than this one share: the C compiler, whole models only, inputs and outputs."""
