"""LoRAs of rows: read before their steps or meanwhile, and computed beside the weights or in them
(SwiftDiffusion, arXiv 2407.02031 §4.2)."""
