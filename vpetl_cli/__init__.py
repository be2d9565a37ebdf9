"""Options, help and configs: what a command does before it imports torch and OpenMMLab, which takes seconds."""
