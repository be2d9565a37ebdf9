"""LoRA to and from Hugging Face PEFT's folders."""
