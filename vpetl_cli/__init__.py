"""What a command does before torch and OpenMMLab are imported, which takes seconds: options, help, configs."""
